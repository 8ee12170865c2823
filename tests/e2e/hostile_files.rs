//! Files made to hang, crash or fool whoever judges them. Each ends with a verdict or as
//! `on_unjudged` says, and the next file is judged as ever.

use std::os::unix::net::UnixListener;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lazaret_tests::command::{Outcome, Running};
use lazaret_tests::incident::Incident;
use lazaret_tests::malware::sha256;
use lazaret_tests::node::Node;
use lazaret_tests::run::Run;
use lazaret_tests::wait;
use nix::unistd::Pid;

use crate::case::Case;
use crate::check::{denial, drop_file, effect, was_denied};
use crate::world::{DYNAMIC, IMAGE, INSIDE, World, dropped};

pub(crate) const CASES: &[Case] = &[
    Case::shared("hostile_files::renamed_while_it_is_run", renamed),
    Case::shared("hostile_files::written_while_it_is_run", written),
    Case::shared("hostile_files::cut_while_it_is_judged", cut),
    Case::shared("hostile_files::zip_of_ten_thousand_levels", nested_zip),
    Case::shared("hostile_files::path_as_long_as_can_be_told", longest_path),
    Case::shared("hostile_files::path_longer_than_can_be_told", longer_path),
    Case::shared("hostile_files::special_files", special_files),
];

const SOON: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(90);
/// The exit code of a scan that found something.
const FOUND: i32 = 3;

/// What is bad is moved by who runs it, not by who wrote it: either may be the first.
const MOVED_WHEN_RUN: &str = "[scan]\non_write = false\n[quarantine]\nmode = 'all'";

/// A running container with hostile files in it.
struct Victim<'a> {
    node: &'a Node,
    id: String,
    daemon: Pid,
}

impl<'a> Victim<'a> {
    fn start(node: &'a Node, what: &str) -> Result<Self> {
        let id = node.id(what);
        let run = Run::new(&id, IMAGE).tmpfs("/tmp");
        node.detach(&run.args(&["/bin/sleep", "600"]))?;
        let daemon = node.daemon()?.pid().context("lazaretd runs")?;
        Ok(Self { node, id, daemon })
    }

    fn exec(&self, args: &[&str]) -> Result<Outcome> {
        self.node.exec(&self.id, args)
    }

    fn shell(&self, script: &str) -> Result<Outcome> {
        self.exec(&["/bin/sh", "-c", script])
    }

    /// What the helper inside says.
    fn inside<T: serde::de::DeserializeOwned>(&self, args: &[&str]) -> Result<T> {
        let said = self.exec(&[&[INSIDE], args].concat())?.ok()?;
        serde_json::from_str(&said).with_context(|| said)
    }

    /// The paths of what `lazaret scan` finds in it.
    fn scan(&self) -> Result<Vec<String>> {
        let daemon = self.node.daemon()?;
        let mut scan = daemon.cli(&["scan", "--container", &self.id, "--json"]);
        let outcome = Running::start(&mut scan)?.wait(LONG)?;
        ensure!(outcome.code == FOUND, "{outcome:?}");
        let lines = Incident::parse_all(&outcome.out())?;
        let findings = lines.iter().filter(|line| line.text("/event") == "finding");
        Ok(findings.map(|line| line.text("/path").to_owned()).collect())
    }

    fn told(&self, what: &str, is_it: impl Fn(&Incident) -> bool) -> Result<Incident> {
        wait::until(&format!("{what} to be told"), SOON, || {
            let told = self.node.incidents_of(&self.id).ok()?;
            told.into_iter().find(|incident| is_it(incident))
        })
    }

    /// The daemon is the same as before, and says yes and no as before.
    fn goes_on(self) -> Result<()> {
        let now = self.node.daemon()?.pid();
        ensure!(now == Some(self.daemon), "another daemon");
        let fresh = self.shell("cp /bin/busybox /opt/sh; echo $$ >> /opt/sh; /opt/sh -c 'echo fine'")?;
        ensure!(fresh.ok()? == "fine", "{fresh:?}");
        was_denied(&self.shell(&format!("{} && {}", drop_file("/tmp/sh"), effect("/tmp/sh")))?)?;
        self.node.remove(&self.id)
    }
}

fn renamed(world: &World) -> Result<()> {
    flipped(world, "rename")
}

fn written(world: &World) -> Result<()> {
    flipped(world, "write")
}

/// As the helper prints it.
#[derive(Debug, serde::Deserialize)]
struct Runs {
    good: u32,
    evil: u32,
    denied: u32,
    failed: Vec<String>,
}

/// A program becomes bad and good again while it is run: by what runs it says itself what it is.
/// It is the container's own file, on tmpfs, and one of the image.
fn flipped(world: &World, how: &str) -> Result<()> {
    const SECONDS: &str = "15";
    let node = world.node()?;
    let evil = evil_inside(world)?;
    node.daemon()?.add_signature(&evil, "test binary that changes")?;
    for file in ["/opt/flips", "/tmp/flips", DYNAMIC] {
        let victim = Victim::start(&node, how)?;
        let runs: Runs = victim.inside(&["flip", how, file, SECONDS])?;
        ensure!(runs.evil == 0, "it was bad and ran, {file}: {runs:?}");
        ensure!(runs.good > 0 && runs.denied > 0, "no race, {file}: {runs:?}");
        ensure!(runs.failed.is_empty(), "{file}: {runs:?}");
        denial(&node, &victim.id, &evil)?;
        victim.goes_on()?;
    }
    Ok(())
}

/// The hash of the helper with the other flavour.
fn evil_inside(world: &World) -> Result<String> {
    const GOOD: &[u8] = b"lazaret-flavour:good";
    const EVIL: &[u8] = b"lazaret-flavour:evil";
    let mut program = world.binaries()?.inside()?;
    let places: Vec<_> = (0..program.len())
        .filter(|at| program.get(*at..).is_some_and(|rest| rest.starts_with(GOOD)))
        .collect();
    let [at] = places.as_slice() else {
        bail!("the helper has its flavour in {} places", places.len());
    };
    program.splice(*at..*at + GOOD.len(), EVIL.iter().copied());
    Ok(sha256(&program))
}

/// A mapping of a file that is cut short kills whoever reads it.
fn cut(world: &World) -> Result<()> {
    const MIB: &str = "64";
    const SECONDS: &str = "10";
    /// As the helper prints it.
    #[derive(Debug, serde::Deserialize)]
    struct Opens {
        rounds: u32,
        allowed: u32,
        failed: Vec<String>,
    }
    let node = world.own_node("")?;
    let victim = Victim::start(&node, "cut")?;
    for file in ["/opt/cut", "/tmp/cut"] {
        let opens: Opens = victim.inside(&["shrink", file, MIB, SECONDS])?;
        ensure!(
            opens.rounds > 1 && opens.allowed > 0,
            "no race, {file}: {opens:?}"
        );
        ensure!(opens.failed.is_empty(), "{file}: {opens:?}");
    }
    let log = node.daemon()?.log();
    ensure!(!log.contains("the scan worker died"), "{log}");
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", victim.daemon))?.count();
    ensure!(descriptors < 200, "{descriptors} descriptors are left open");
    victim.goes_on()
}

/// Not unpacked: what is in it is judged when somebody has unpacked and opens it.
fn nested_zip(world: &World) -> Result<()> {
    const LEVELS: &str = "10000";
    let node = world.node()?;
    let victim = Victim::start(&node, "zip")?;
    victim.exec(&[INSIDE, "zip", "/tmp/outer.zip", LEVELS])?.ok()?;
    // It is what it claims to be, as far as anybody cares to look.
    let unpacked =
        victim.shell("cd /tmp && unzip -q outer.zip && unzip -l z && sh ./outer.zip; echo over")?;
    ensure!(
        unpacked.out().ends_with("over") && unpacked.out().contains("1 file"),
        "{unpacked:?}"
    );
    ensure!(unpacked.took < SOON, "it took {:?}", unpacked.took);
    let found = victim.scan()?;
    ensure!(!found.iter().any(|path| path.starts_with("/tmp")), "{found:?}");
    victim.goes_on()
}

/// Moved away like any other file.
fn longest_path(world: &World) -> Result<()> {
    // With the byte that ends it, what a system call takes and the kernel tells.
    const LENGTH: usize = 4095;
    let node = world.own_node(MOVED_WHEN_RUN)?;
    let victim = Victim::start(&node, "longest")?;
    run_deep(&victim, LENGTH)?;
    let denied = denial(&node, &victim.id, &dropped()?.sha256)?;
    let path = denied.text("/file/path");
    ensure!(path.len() == LENGTH && path.ends_with("/sh"), "{denied:?}");
    let moved = victim.told("an item", |incident| incident.text("/action") == "quarantine")?;
    ensure!(moved.text("/file/path") == path, "{moved:?}");
    ensure!(
        !victim.scan()?.iter().any(|found| found == path),
        "it is still there"
    );
    victim.goes_on()
}

/// Denied in place and told without a path. A scan has one: it comes by every folder.
fn longer_path(world: &World) -> Result<()> {
    let node = world.own_node(MOVED_WHEN_RUN)?;
    for length in [4096, 6000] {
        let victim = Victim::start(&node, "longer")?;
        run_deep(&victim, length)?;
        let denied = denial(&node, &victim.id, &dropped()?.sha256)?;
        let path = denied.text("/file/path");
        ensure!(path == "(a path longer than 4095 bytes)", "{denied:?}");
        let stays = victim.told("a refusal", |incident| {
            incident.text("/rule") == "Not quarantined"
        })?;
        ensure!(stays.text("/output").contains("File name too long"), "{stays:?}");
        let found = victim.scan()?;
        let deep = found.iter().find(|path| path.ends_with("d/sh"));
        ensure!(deep.is_some_and(|path| path.len() <= 4096), "{found:?}");
        victim.goes_on()?;
    }
    Ok(())
}

/// Drops a bad file whose path has `length` bytes, and runs it from its folder.
fn run_deep(victim: &Victim<'_>, length: usize) -> Result<()> {
    let folder = (length - "/sh".len()).to_string();
    let script = format!("{} && {}", drop_file("./sh"), effect("./sh"));
    was_denied(&victim.exec(&[INSIDE, "deep", &folder, &script])?)
}

/// Whoever opens a FIFO waits for the other side, and whoever reads `zero` never comes to an end.
fn special_files(world: &World) -> Result<()> {
    let node = world.node()?;
    let victim = Victim::start(&node, "special")?;
    let root = node.task_pid(&victim.id)?.context("it runs")?;
    for folder in ["/opt/special", "/tmp/special"] {
        let make = format!(
            "mkdir {folder} && cd {folder} && {} && mkfifo fifo reader writer && \
            mknod null c 1 3 && mknod zero c 1 5",
            drop_file("sh")
        );
        victim.shell(&make)?.ok()?;
        let _socket = UnixListener::bind(format!("/proc/{root}/root{folder}/socket"))?;
        are_as_ever(&victim, folder)?;
        stay_asleep(&victim, folder)?;
    }
    victim.goes_on()
}

fn are_as_ever(victim: &Victim<'_>, folder: &str) -> Result<()> {
    let used = victim.shell(&format!(
        "cd {folder}; for file in fifo null zero socket; do chmod +x $file; ./$file; done; \
        head -c 4 zero | wc -c; echo gone > null; cat socket; echo word > fifo & cat fifo"
    ))?;
    ensure!(used.out() == "4\nword", "{used:?}");
    let refused = |why| used.err().matches(why).count();
    ensure!(refused("Permission denied") == 4, "{used:?}");
    ensure!(refused("No such device or address") == 1, "{used:?}");
    Ok(())
}

/// Neither a verdict nor a scan waits for the other side of a FIFO, or is taken for it.
fn stay_asleep(victim: &Victim<'_>, folder: &str) -> Result<()> {
    let asleep = format!(
        "cd {folder}; exec < /dev/null > /dev/null 2>&1; \
        (cat reader; echo > woken) & (echo late > writer; echo > woken) &"
    );
    victim.shell(&asleep)?.ok()?;
    was_denied(&victim.shell(&effect(&format!("{folder}/sh")))?)?;
    let found = victim.scan()?;
    ensure!(found.contains(&format!("{folder}/sh")), "{found:?}");
    let woken = victim.shell(&format!("cd {folder}; ls woken"))?;
    ensure!(woken.code != 0, "the scan opened a FIFO");
    let wake = format!("cd {folder}; echo word > reader; cat writer");
    ensure!(victim.shell(&wake)?.ok()? == "late", "nobody waited");
    Ok(())
}
