//! A container that an attacker has a shell in.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lazaret_tests::command::{LIMIT, Outcome, Running};
use lazaret_tests::incident::Incident;
use lazaret_tests::malware::EFFECT;
use lazaret_tests::node::Node;
use lazaret_tests::run::Run;
use lazaret_tests::wait;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::arena::IMAGE;
use crate::program::INSIDE;

/// Where attacker and test meet: a folder of the host.
pub(crate) const SIGNALS: &str = "/signals";

pub(crate) const SOON: Duration = Duration::from_secs(30);

pub(crate) struct Foothold<'a> {
    node: &'a Node,
    id: String,
    signals: PathBuf,
}

impl<'a> Foothold<'a> {
    /// What every attack needs has run once when this returns: what is sealed from now on is new.
    pub(crate) fn gain(node: &'a Node, what: &str) -> Result<Self> {
        let id = node.id(what);
        let signals = node.scratch().places().disk().join(format!("signals-{id}"));
        fs::create_dir(&signals)?;
        let run = Run::new(&id, IMAGE).tmpfs("/tmp").bind(&signals, SIGNALS);
        node.detach(&run.args(&["/bin/sleep", "600"]))?;
        let foothold = Self { node, id, signals };
        for _ in 0..2 {
            foothold.shell(&format!("{INSIDE} attack put /opt/first"))?.ok()?;
        }
        Ok(foothold)
    }

    pub(crate) fn exec(&self, args: &[&str]) -> Result<Outcome> {
        self.node.exec(&self.id, args)
    }

    pub(crate) fn shell(&self, script: &str) -> Result<Outcome> {
        self.exec(&["/bin/sh", "-c", script])
    }

    /// Lets the helper attack to its end.
    pub(crate) fn attack(&self, words: &[&str]) -> Result<Outcome> {
        self.exec(&[&[INSIDE, "attack"], words].concat())
    }

    /// The same, beside this.
    pub(crate) fn begin(&self, words: &[&str]) -> Result<Running> {
        let exec_id = self.node.id("attack");
        let words = [&[INSIDE, "attack"], words].concat();
        Running::start(&mut self.node.exec_command(&exec_id, &self.id, &words))
    }

    /// Waits until an attack has everything ready.
    pub(crate) fn wait_ready(&self) -> Result<()> {
        let ready = self.signals.join("ready");
        wait::until_true("the attack to be ready", SOON, || ready.exists())?;
        Ok(fs::remove_file(ready)?)
    }

    /// Lets the attack that is ready go on to its end.
    pub(crate) fn go(&self, attack: Running) -> Result<Outcome> {
        let go = self.signals.join("go");
        File::create(&go)?;
        let outcome = attack.wait(LIMIT)?;
        fs::remove_file(go)?;
        Ok(outcome)
    }

    /// How many of its files may be opened unasked.
    pub(crate) fn sealed(&self) -> Result<u64> {
        let own = self.status()?;
        let sealed = own.get("sealed").and_then(Value::as_u64);
        sealed.with_context(|| format!("nothing of seals in {own}"))
    }

    /// What lazaretd says of this container.
    fn status(&self) -> Result<Value> {
        let status = self.node.daemon()?.status()?;
        let containers = status.get("containers").and_then(Value::as_array);
        let mut containers = containers.context("no containers")?.iter();
        let own = containers.find(|container| container.get("id").and_then(Value::as_str) == Some(&self.id));
        own.cloned()
            .with_context(|| format!("{} is not in {status}", self.id))
    }

    /// Waits until more is sealed than `before`: what just ran may from now on run unasked.
    pub(crate) fn wait_sealed(&self, before: u64) -> Result<()> {
        wait::until_true("a seal", SOON, || {
            self.sealed().is_ok_and(|sealed| sealed > before)
        })
    }

    /// The first incident that tells of a denial of this file.
    pub(crate) fn denial(&self, path: &str) -> Result<Incident> {
        self.denial_by(|incident| incident.text("/file/path") == path)
            .with_context(|| format!("no denial of {path}"))
    }

    pub(crate) fn denial_by(&self, is_it: impl Fn(&Incident) -> bool) -> Result<Incident> {
        wait::until("an incident with a denial", SOON, || {
            let mut incidents = self.node.incidents_of(&self.id).ok()?.into_iter();
            incidents.find(|incident| incident.denied() && is_it(incident))
        })
    }

    /// Whatever happened: what is clean runs, and soon.
    pub(crate) fn is_served(&self) -> Result<()> {
        const FRESH: &str = "cp /bin/busybox /opt/sh && echo $$ >> /opt/sh && /opt/sh -c 'echo fine'";
        let outcome = self.shell(FRESH)?;
        ensure!(outcome.out() == "fine", "{outcome:?}");
        ensure!(outcome.took < SOON, "it took {:?}", outcome.took);
        Ok(())
    }

    /// Waits until lazaretd judges again.
    pub(crate) fn wait_guarded(&self) -> Result<()> {
        wait::until_true("the container to be guarded again", SOON, || {
            self.status()
                .is_ok_and(|own| own.get("state").and_then(Value::as_str) == Some("guarded"))
        })
    }

    /// Lets go of the node, whose daemon is to be killed.
    pub(crate) fn step_back(self) -> Away {
        Away {
            id: self.id,
            signals: self.signals,
        }
    }

    pub(crate) fn leave(self) -> Result<()> {
        self.node.remove(&self.id)
    }
}

/// The same container, and nobody who keeps its node.
pub(crate) struct Away {
    id: String,
    signals: PathBuf,
}

impl Away {
    pub(crate) fn come_back(self, node: &Node) -> Foothold<'_> {
        Foothold {
            node,
            id: self.id,
            signals: self.signals,
        }
    }
}

/// What the helper says in its last line.
pub(crate) fn told<T: DeserializeOwned>(outcome: &Outcome) -> Result<T> {
    let said = outcome.ok()?;
    serde_json::from_str(&said).with_context(|| said)
}

/// Whoever tried was told `EPERM`, and there was no effect.
pub(crate) fn was_denied(outcome: &Outcome) -> Result<()> {
    let said = format!("{}{}", outcome.out(), outcome.err());
    ensure!(!said.contains(EFFECT), "what is evil ran: {outcome:?}");
    let denied = said.to_lowercase().contains("operation not permitted");
    ensure!(denied, "not denied as it should be: {outcome:?}");
    Ok(())
}
