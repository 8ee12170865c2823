//! clamd as an engine: real, with a database of ours, and stopped, killed and reloaded.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lazaret_tests::clamav::{self, Clamd};
use lazaret_tests::command::{self, Outcome};
use lazaret_tests::incident::Incident;
use lazaret_tests::malware::EFFECT;
use lazaret_tests::node::Node;
use lazaret_tests::run::Run;
use lazaret_tests::scratch::Scratch;
use lazaret_tests::wait;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::case::Case;
use crate::check::was_denied;
use crate::world::{IMAGE, World};

pub(crate) const CASES: &[Case] = &[
    Case::shared("clamd::what_only_it_knows_is_denied", found),
    Case::shared("clamd::its_own_limits_are_no_malware", limited),
    Case::shared("clamd::a_slow_file_is_no_key", slow),
    Case::alone("clamd::stopped_holds_nobody_up", stopped),
    Case::shared("clamd::away_may_mean_unjudged", unjudged),
    Case::shared("clamd::killed_and_back_again", killed),
    Case::shared("clamd::a_new_database_is_asked_about_all", reloaded),
    Case::shared("clamd::a_new_database_has_containers_scanned", renewed),
    Case::shared("clamd::what_it_says_is_about_the_digest", written),
    Case::shared("clamd::large_and_small_are_handed_to_it", sizes),
];

/// What its first database knows, under the name `Lazaret.Known`.
const MARKER: &str = "lazaret-inert-marker-of-clamd";
/// What only its second one knows.
const LATER: &str = "lazaret-inert-marker-to-come";

const TIMEOUT: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_secs(15);

/// Changes settle for 2 s, and then all of a container is scanned.
const RENEWAL: Duration = Duration::from_secs(60);

/// clamd, a node that asks it, and a container.
struct Bench {
    node: Node,
    id: String,
    clamd: Clamd,
    // Last: clamd ends before its places are swept.
    scratch: Scratch,
}

impl Bench {
    /// `extra` goes into `[clamd]`.
    fn start(world: &World, extra: &str) -> Result<Self> {
        Self::patient(world, "[scan]\ntimeout = '2s'", extra, "MaxFileSize 4M")
    }

    /// As [`Bench::start`]; `scan` ends in `[scan]`, `settings` are clamd's.
    fn patient(world: &World, scan: &str, extra: &str, settings: &str) -> Result<Self> {
        let scratch = Scratch::new()?;
        clamav::write_database(scratch.places(), 1, &[("Lazaret.Known", MARKER)])?;
        let clamd = Clamd::start(scratch.places(), &format!("AlertExceedsMax yes\n{settings}\n"))?;
        let socket = clamav::socket(scratch.places());
        let node = world.own_node(&format!(
            "{scan}\non_write = false\n[clamd]\nenabled = true\nsocket = '{}'\n\
             retry = '1s'\npoll = '1s'\nfailures = 2\n{extra}",
            socket.display()
        ))?;
        let id = node.id("clamd");
        node.detach(&Run::new(&id, IMAGE).tmpfs("/tmp").args(&["/bin/sleep", "600"]))?;
        let bench = Self {
            node,
            id,
            clamd,
            scratch,
        };
        // What the first shell opens is none of ours.
        bench.shell("cat /dev/null")?.ok()?;
        Ok(bench)
    }

    fn shell(&self, script: &str) -> Result<Outcome> {
        self.node.exec(&self.id, &["/bin/sh", "-c", script])
    }

    /// What `lazaret status` says of clamd.
    fn status(&self) -> Result<Value> {
        let status = self.node.daemon()?.status()?;
        let engine = status.pointer("/engines/0").cloned();
        engine.with_context(|| format!("no engine in {status}"))
    }

    fn wait_for(&self, state: &str) -> Result<()> {
        let what = format!("clamd to be {state}");
        wait::until_true(&what, SOON, || {
            self.status()
                .is_ok_and(|status| status.get("state").and_then(Value::as_str) == Some(state))
        })
    }

    fn count(&self, key: &str) -> Result<u64> {
        let status = self.status()?;
        let count = status.get(key).and_then(Value::as_u64);
        count.with_context(|| format!("no {key} in {status}"))
    }

    fn told(&self, rule: &str) -> Result<usize> {
        let incidents = self.node.daemon()?.incidents()?;
        Ok(incidents
            .iter()
            .filter(|incident| incident.text("/rule") == rule)
            .count())
    }

    fn denial(&self) -> Result<Incident> {
        let incidents = self.node.incidents_of(&self.id)?;
        let found = incidents.iter().find(|incident| incident.denied());
        found
            .cloned()
            .with_context(|| format!("no denial in {incidents:?}"))
    }

    fn end(self) -> Result<()> {
        self.node.remove(&self.id)?;
        drop((self.node, self.clamd, self.scratch));
        Ok(())
    }
}

/// Makes a shell that nobody has seen yet, busybox with something behind it, and runs it.
fn fresh(what: &str) -> String {
    let folder = format!("/tmp/{}", what.len());
    format!(
        "mkdir -p {folder} && cp /bin/busybox {folder}/sh && printf '%s' '{what}' >> {folder}/sh && \
         {folder}/sh -c 'echo {EFFECT}'"
    )
}

fn found(world: &World) -> Result<()> {
    let read = format!("printf 'x{MARKER}x' > /tmp/text; cat /tmp/text");
    // Nobody else finds anything in it.
    let without = world
        .node()?
        .run(&Run::new(&world.node()?.id("clamd"), IMAGE).sh(&read))?;
    ensure!(without.ok()?.contains(MARKER));

    let bench = Bench::start(world, "")?;
    ensure!(bench.told("Engine lost")? == 0, "it was there from the beginning");
    was_denied(&bench.shell(&read)?)?;
    let incident = bench.denial()?;
    ensure!(
        (incident.text("/rule"), incident.text("/engine")) == ("Lazaret.Known.UNOFFICIAL", "clamd"),
        "{incident:?}"
    );
    ensure!(incident.text("/priority") == "Critical", "{incident:?}");
    was_denied(&bench.shell(&fresh(MARKER))?)?;
    ensure!(bench.shell(&fresh("something else"))?.ok()? == EFFECT);
    ensure!(bench.count("found")? == 2, "{}", bench.status()?);
    bench.end()
}

fn limited(world: &World) -> Result<()> {
    let bench = Bench::start(world, "")?;
    let large = "head -c 5000000 /dev/urandom > /tmp/large; chmod +x /tmp/large; /tmp/large";
    was_denied(&bench.shell(large)?)?;
    let incident = bench.denial()?;
    ensure!(
        incident.text("/rule") == "Unjudged file" && incident.text("/output").contains("clamd's own"),
        "{incident:?}"
    );
    // It denies what runs only: by scan.on_unjudged an open is told, not denied.
    ensure!(bench.shell("wc -c < /tmp/large")?.ok()? == "5000000");
    ensure!(bench.count("found")? == 0, "{}", bench.status()?);
    bench.end()
}

/// clamd is there, it just needs longer than it may.
fn slow(world: &World) -> Result<()> {
    const PATIENT: &str = "[watchdog]\ndeadline = '40s'\n[scan]\ntimeout = '20s'";
    const SETTINGS: &str = "MaxFileSize 512M\nMaxScanSize 512M";
    let bench = Bench::patient(world, PATIENT, "timeout = '300ms'", SETTINGS)?;
    let large = "truncate -s 240M /tmp/large; chmod +x /tmp/large; /tmp/large";
    for _ in 0..3 {
        was_denied(&bench.shell(large)?)?;
    }
    ensure!(bench.denial()?.text("/rule") == "Unjudged file");
    ensure!(bench.count("failed")? >= 3, "{}", bench.status()?);
    ensure!(bench.count("lost")? == 0, "slow files took it away");
    bench.end()
}

fn stopped(world: &World) -> Result<()> {
    let mut bench = Bench::start(world, "")?;
    bench.clamd.signal(Signal::SIGSTOP)?;
    let runs = |number: usize| -> Result<()> {
        let ran = bench.shell(&fresh(&"x".repeat(number + 1)))?;
        ensure!(ran.ok()? == EFFECT, "the others' word counts");
        Ok(())
    };
    // The first one waits, and not for longer than it may.
    let begun = Instant::now();
    runs(0)?;
    let first = begun.elapsed();
    ensure!((TIMEOUT..3 * TIMEOUT).contains(&first), "it took {first:?}");
    runs(1)?;
    bench.wait_for("away")?;
    // Later ones do not.
    let begun = Instant::now();
    (2..12).try_for_each(runs)?;
    let later = begun.elapsed();
    ensure!(later < 5 * TIMEOUT, "ten files took {later:?}");
    ensure!(bench.count("left_out")? >= 10, "{}", bench.status()?);
    ensure!(
        bench.told("Engine lost")? == 1,
        "one incident, however many files"
    );

    bench.clamd.signal(Signal::SIGCONT)?;
    bench.wait_for("answering")?;
    ensure!(bench.told("Engine back")? == 1);
    was_denied(&bench.shell(&fresh(MARKER))?)?;
    bench.end()
}

fn unjudged(world: &World) -> Result<()> {
    let mut bench = Bench::start(world, "on_unavailable = 'unjudged'")?;
    let known = fresh("known");
    bench.shell(&known)?.ok()?;
    bench.clamd.kill()?;
    bench.wait_for("away")?;
    was_denied(&bench.shell(&fresh("unknown"))?)?;
    let incident = bench.denial()?;
    ensure!(incident.text("/rule") == "Unjudged file", "{incident:?}");
    // What clamd has judged before is known.
    ensure!(bench.shell(&known)?.ok()? == EFFECT);
    bench.clamd.resume()?;
    bench.wait_for("answering")?;
    ensure!(bench.shell(&fresh("unknown"))?.ok()? == EFFECT);
    bench.end()
}

fn killed(world: &World) -> Result<()> {
    let mut bench = Bench::start(world, "")?;
    let (known, unknown) = (fresh(MARKER), fresh(&format!("{MARKER}, again")));
    was_denied(&bench.shell(&known)?)?;
    bench.clamd.kill()?;
    bench.wait_for("away")?;
    was_denied(&bench.shell(&known)?)?;
    ensure!(bench.shell(&unknown)?.ok()? == EFFECT, "the others' word counts");
    ensure!(bench.shell(&unknown)?.ok()? == EFFECT);

    bench.clamd.resume()?;
    bench.wait_for("answering")?;
    let run = unknown.rsplit("&& ").next().context("a command")?;
    was_denied(&bench.shell(run)?)?;
    ensure!(bench.told("Engine lost")? == 1 && bench.told("Engine back")? == 1);
    bench.end()
}

fn reloaded(world: &World) -> Result<()> {
    let bench = Bench::start(world, "")?;
    let read = "cat /tmp/text /tmp/text";
    let wrote = bench.shell(&format!("printf '{LATER}' > /tmp/text; {read}"))?;
    ensure!(wrote.ok()?.contains(LATER));
    let asked = bench.count("asked")?;
    bench.shell(read)?.ok()?;
    ensure!(bench.count("asked")? == asked, "what is known was asked about");

    let known = [("Lazaret.Known", MARKER), ("Lazaret.Later", LATER)];
    clamav::write_database(bench.scratch.places(), 2, &known)?;
    bench.clamd.reload()?;
    wait::until_true("the new version to be noticed", SOON, || {
        let status = bench.status().unwrap_or_default();
        let version = status.get("version").and_then(Value::as_str);
        version.is_some_and(|version| version.contains("/2/"))
    })?;
    was_denied(&bench.shell(read)?)?;
    ensure!(bench.denial()?.text("/rule") == "Lazaret.Later.UNOFFICIAL");
    // clamd tells no version of its other databases: somebody has to.
    let asked = bench.count("asked")?;
    bench.shell("cat /dev/null")?.ok()?;
    ensure!(bench.count("asked")? == asked, "what is known was asked about");
    command::check(&mut bench.node.daemon()?.cli(&["rules", "reload"]))?;
    bench.shell("cat /dev/null")?.ok()?;
    ensure!(bench.count("asked")? > asked);
    bench.end()
}

/// A container that nobody opens anything in is scanned by the new database all the same.
fn renewed(world: &World) -> Result<()> {
    let bench = Bench::patient(world, "[scan]\ntimeout = '2s'\non_new_signatures = true", "", "")?;
    let wrote = bench.shell(&format!("printf '{LATER}' > /held; cat /held"))?;
    ensure!(wrote.ok()?.contains(LATER));
    clamav::write_database(bench.scratch.places(), 2, &[("Lazaret.Later", LATER)])?;
    bench.clamd.reload()?;
    let incident = wait::until("an incident though nobody opens it", RENEWAL, || {
        let told = bench.node.incidents_of(&bench.id).ok()?;
        told.into_iter()
            .find(|incident| incident.text("/rule") == "Lazaret.Later.UNOFFICIAL")
    })?;
    ensure!(
        (incident.text("/file/path"), incident.text("/tags/2")) == ("/held", "scan"),
        "{incident:?}"
    );
    bench.end()
}

/// clamd judges the bytes that were digested, so that its word is remembered even of a file that
/// somebody can write to.
fn written(world: &World) -> Result<()> {
    let bench = Bench::start(world, "")?;
    let script = "printf held > /tmp/held; exec 3>> /tmp/held; cat /tmp/held > /dev/null";
    let twice = format!("{script}; cat /tmp/held > /dev/null");
    let before = bench.count("asked")?;
    bench.shell(&twice)?.ok()?;
    let asked = bench.count("asked")?;
    ensure!(asked > before, "{}", bench.status()?);
    bench.shell(&twice)?.ok()?;
    bench.shell("printf held > /tmp/other; cat /tmp/other")?.ok()?;
    ensure!(bench.count("asked")? == asked, "{}", bench.status()?);
    // What is written to it is another content.
    let write = format!("{script}; printf {MARKER} >&3; cat /tmp/held");
    was_denied(&bench.shell(&write)?)?;
    ensure!(bench.denial()?.text("/rule") == "Lazaret.Known.UNOFFICIAL");
    bench.end()
}

/// A small content reaches the workers in a message, a larger one in memory: clamd gets memory of
/// both, and all of it.
fn sizes(world: &World) -> Result<()> {
    let bench = Bench::start(world, "")?;
    for size in [0, 1_000, 1_000_000] {
        let text = format!("head -c {size} /dev/urandom > /tmp/{size}");
        let clean = bench.shell(&format!("{text}; wc -c < /tmp/{size}"))?;
        ensure!(clean.ok()? == size.to_string(), "{clean:?}");
        was_denied(&bench.shell(&format!(
            "{text}; printf {MARKER} >> /tmp/{size}; wc -c < /tmp/{size}"
        ))?)?;
    }
    ensure!(bench.count("found")? == 3, "{}", bench.status()?);
    bench.end()
}
