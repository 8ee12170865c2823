//! Clean files are asked about once, until they change.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lazaret_tests::malware::tail;
use lazaret_tests::node::Node;
use lazaret_tests::run::Run;
use lazaret_tests::wait;
use serde_json::Value;

use crate::bad_input::container;
use crate::case::Case;
use crate::check::{effect, was_denied};
use crate::world::{DROPPED, DYNAMIC, EVIL_TAIL, IMAGE, World};

pub(crate) const CASES: &[Case] = &[
    Case::shared("seals::asked_once", asked_once),
    Case::shared("seals::image_files_by_all_containers", many_containers),
    Case::shared("seals::a_writer_goes_on_and_is_noticed", writer),
    Case::shared("seals::copied_up_files_too", copied_up),
    Case::shared("seals::new_signature_counts_at_once", new_signature),
    Case::shared("seals::deleted_file_is_let_go", deleted),
    Case::shared("seals::off_asks_each_time", off),
];

const SOON: Duration = Duration::from_secs(10);

/// Makes malware of a clean file, in place: the inode stays the same.
fn spoil(path: &str, marker: &str) -> String {
    format!("printf '%s' '{}' >> {path}", tail(marker))
}

struct Asleep<'a> {
    node: &'a Node,
    id: String,
}

impl<'a> Asleep<'a> {
    /// A container that does nothing of its own accord.
    fn start(node: &'a Node, what: &str) -> Result<Self> {
        let id = node.id(what);
        let run = Run::new(&id, IMAGE).tmpfs("/tmp");
        node.detach(&run.args(&["/bin/sleep", "600"]))?;
        let asleep = Self { node, id };
        // What runc and the shell open the first time is none of ours.
        asleep.shell("cat /dev/null")?;
        Ok(asleep)
    }

    fn shell(&self, script: &str) -> Result<String> {
        let outcome = self.node.exec(&self.id, &["/bin/sh", "-c", script])?;
        outcome.ok()
    }

    fn number(&self, key: &str) -> Result<u64> {
        let container = container(self.node, &self.id)?;
        let number = container.get(key).and_then(Value::as_u64);
        number.with_context(|| format!("no {key} in {container}"))
    }

    /// How many openers were asked about while a script ran.
    fn asked(&self, script: &str) -> Result<u64> {
        let before = self.number("events")?;
        self.shell(script)?;
        Ok(self.number("events")? - before)
    }
}

fn asked_once(world: &World) -> Result<()> {
    let node = world.node()?;
    let asleep = Asleep::start(&node, "seals-once")?;
    asleep.shell("cp /bin/busybox /opt/sh; cp /bin/busybox /tmp/sh")?;
    let files = [(DYNAMIC, "image"), ("/opt/sh", "layer"), ("/tmp/sh", "tmpfs")];
    for (file, place) in files {
        let script = format!("i=0; while [ $i -lt 100 ]; do {file} -c true; i=$((i + 1)); done");
        let asked = asleep.asked(&script)?;
        // Two for each of a few files, instead of hundreds.
        ensure!((1..50).contains(&asked), "{place}: asked {asked} times");
    }
    ensure!(asleep.number("sealed")? > 3, "nothing is sealed");
    node.remove(&asleep.id)
}

fn many_containers(world: &World) -> Result<()> {
    let node = world.node()?;
    let first = Asleep::start(&node, "seals-first")?;
    let second = Asleep::start(&node, "seals-second")?;
    for asleep in [&first, &second] {
        asleep.shell(&format!("{DYNAMIC} -c true"))?;
    }
    // What one of them changes is changed for itself alone.
    first.shell(&spoil(DYNAMIC, EVIL_TAIL))?;
    let outcome = node.exec(&first.id, &["/bin/sh", "-c", &effect(DYNAMIC)])?;
    was_denied(&outcome)?;
    ensure!(second.shell(&format!("{DYNAMIC} -c 'echo fine'"))? == "fine");
    node.remove(&first.id)?;
    node.remove(&second.id)
}

fn writer(world: &World) -> Result<()> {
    let node = world.node()?;
    let asleep = Asleep::start(&node, "seals-writer")?;
    for file in ["/opt/sh", "/tmp/sh"] {
        asleep.shell(&format!("cp /bin/busybox {file}; {file} -c true; {file} -c true"))?;
        let sealed = asleep.number("sealed")?;
        // In place: the same inode gets another content.
        asleep.shell(&spoil(file, DROPPED))?;
        ensure!(
            asleep.number("sealed")? < sealed + 2,
            "a changed file stays sealed"
        );
        was_denied(&node.exec(&asleep.id, &["/bin/sh", "-c", &effect(file)])?)?;
    }
    node.remove(&asleep.id)
}

fn copied_up(world: &World) -> Result<()> {
    let node = world.node()?;
    let asleep = Asleep::start(&node, "seals-copied")?;
    let run = format!("{DYNAMIC} -c true");
    asleep.shell(&format!("touch {DYNAMIC}; {run}"))?;
    let asked = asleep.asked(&format!("{run}; {run}; {run}; {run}; {run}"))?;
    ensure!(asked < 8, "asked {asked} times");
    asleep.shell(&spoil(DYNAMIC, EVIL_TAIL))?;
    was_denied(&node.exec(&asleep.id, &["/bin/sh", "-c", &effect(DYNAMIC)])?)?;
    node.remove(&asleep.id)
}

fn new_signature(world: &World) -> Result<()> {
    let node = world.own_node("")?;
    let asleep = Asleep::start(&node, "seals-signature")?;
    let bring = "cp /bin/busybox /opt/sh; echo signature-to-come >> /opt/sh";
    asleep.shell(&format!("{bring}; /opt/sh -c true; /opt/sh -c true"))?;
    let digest = asleep.shell("sha256sum /opt/sh | cut -d ' ' -f 1")?;
    node.daemon()?.add_signature(&digest, "Test.ToCome")?;
    was_denied(&node.exec(&asleep.id, &["/bin/sh", "-c", &effect("/opt/sh")])?)?;
    node.remove(&asleep.id)
}

/// A sealed file that was deleted gives its space back.
fn deleted(world: &World) -> Result<()> {
    let node = world.node()?;
    let asleep = Asleep::start(&node, "seals-deleted")?;
    let sealed = asleep.number("sealed")?;
    asleep.shell("head -c 1000000 /dev/zero > /opt/zero; cat /opt/zero > /dev/null; rm /opt/zero")?;
    wait::until("a deleted file to be let go", 6 * SOON, || {
        (asleep.number("sealed").ok()? <= sealed + 2).then_some(())
    })?;
    node.remove(&asleep.id)
}

fn off(world: &World) -> Result<()> {
    let node = world.own_node("[guard]\nseals = false")?;
    let asleep = Asleep::start(&node, "seals-off")?;
    let script = format!("i=0; while [ $i -lt 50 ]; do {DYNAMIC} -c true; i=$((i + 1)); done");
    let asked = asleep.asked(&script)?;
    ensure!(asked >= 100, "asked {asked} times");
    ensure!(asleep.number("sealed")? == 0, "something is sealed");
    node.remove(&asleep.id)
}
