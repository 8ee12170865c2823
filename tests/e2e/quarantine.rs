//! What was denied is moved away, shown, exported, and given back when it is allowed.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lazaret_tests::daemon::Daemon;
use lazaret_tests::image::{Image, Traits};
use lazaret_tests::incident::Incident;
use lazaret_tests::malware::{self, EFFECT};
use lazaret_tests::node::Node;
use lazaret_tests::run::Run;
use lazaret_tests::{command, wait};
use nix::mount::{MsFlags, mount};
use serde_json::Value;

use crate::case::Case;
use crate::check::{denial, did_not_run, drop_file, effect, was_denied};
use crate::world::{EVIL, IMAGE, World, dropped, evil};

pub(crate) const CASES: &[Case] = &[
    Case::shared("quarantine::dropped_file_goes_and_comes_back", dropped_file),
    Case::shared("quarantine::image_file_goes", image_file),
    Case::shared("quarantine::off_denies_in_place", off),
    Case::shared("quarantine::full_denies_in_place", full),
    Case::shared("quarantine::full_disk_loses_nothing", full_disk),
    Case::shared("quarantine::image_version_comes_back", image_version),
    Case::shared("quarantine::image_version_is_refused", image_version_refused),
    Case::shared("quarantine::image_version_stays_inside", image_version_race),
];

const PATH: &str = "/opt/new/sh";
const SOON: Duration = Duration::from_secs(10);

fn dropped_file(world: &World) -> Result<()> {
    let node = world.own_node("[scan]\non_write = false\n[quarantine]\nmode = 'critical'")?;
    let id = node.id("moved");
    node.detach(&Run::new(&id, IMAGE).args(&["/bin/sleep", "600"]))?;
    shell(
        &node,
        &id,
        &format!("mkdir /opt/new && {} && chmod 4755 {PATH}", drop_file(PATH)),
    )?
    .ok()?;
    was_denied(&shell(&node, &id, &effect(PATH))?)?;
    denial(&node, &id, &dropped()?.sha256)?;
    let item = moved(&node, &id)?;
    ensure!(is_gone(&node, &id, PATH)?, "the file is still there");

    let listed = find(&node, &item)?;
    for (pointer, value) in [
        ("/state", "moved"),
        ("/path", PATH),
        ("/sha256", &dropped()?.sha256),
        ("/container/id", &id),
        ("/image", IMAGE),
        ("/severity", "critical"),
        ("/mode", "4755"),
    ] {
        ensure!(
            listed.text(pointer) == value,
            "{pointer} is not {value}: {listed:?}"
        );
    }
    exported(&node, &item)?;
    came_back(&node, &id, &item)?;
    node.remove(&id)
}

fn exported(node: &Node, item: &str) -> Result<()> {
    let file = node.scratch().places().disk().join("exported");
    let path = file.display().to_string();
    lazaret(node, &["quarantine", "export", item, &path, "--plain"])?;
    ensure!(fs::read(&file)? == dropped()?.content, "another content");
    let again = command::run(&mut node.daemon()?.cli(&["quarantine", "export", item, &path]))?;
    ensure!(again.code == 1, "an export must not overwrite: {again:?}");
    fs::remove_file(&file)?;
    lazaret(node, &["quarantine", "export", item, &path])?;
    let masked = fs::read(&file)?;
    ensure!(masked.starts_with(b"\x9bLZRTQ"), "not masked");
    ensure!(
        !masked.windows(4).any(|bytes| bytes == b"\x7fELF"),
        "a program shows"
    );
    Ok(())
}

fn came_back(node: &Node, id: &str, item: &str) -> Result<()> {
    lazaret(node, &["quarantine", "restore", item])?;
    let outcome = shell(node, id, &effect(PATH))?;
    ensure!(outcome.ok()? == EFFECT, "what is allowed must run: {outcome:?}");
    let mode = shell(node, id, &format!("stat -c %a {PATH}"))?.ok()?;
    ensure!(mode == "4755", "mode {mode}");
    ensure!(items(node)?.is_empty(), "a restored item must not stay");
    let allowed = Incident::parse_all(&lazaret(node, &["allow", "list", "--json"])?)?;
    let sha256 = dropped()?.sha256;
    ensure!(
        allowed.iter().any(|entry| entry.text("/sha256") == sha256),
        "{allowed:?}"
    );
    lazaret(node, &["allow", "rm", &sha256])?;
    was_denied(&shell(node, id, &effect(PATH))?)
}

fn image_file(world: &World) -> Result<()> {
    let node = world.own_node("[scan]\non_write = false\n[quarantine]\nmode = 'all'")?;
    let id = node.id("image");
    node.detach(&Run::new(&id, IMAGE).args(&["/bin/sleep", "600"]))?;
    did_not_run(&node.exec(&id, &[EVIL, "-c", &format!("echo {EFFECT}")])?)?;
    let item = moved(&node, &id)?;
    ensure!(is_gone(&node, &id, EVIL)?, "the file is still there");
    ensure!(
        find(&node, &item)?.text("/sha256") == evil()?.sha256,
        "another file"
    );
    lazaret(&node, &["quarantine", "rm", &item])?;
    ensure!(items(&node)?.is_empty(), "it is still there");
    node.remove(&id)
}

fn off(world: &World) -> Result<()> {
    let node = world.node()?;
    let id = node.id("in-place");
    let outcome = node.run(&Run::new(&id, IMAGE).sh(&format!("{EVIL} -c true; ls {EVIL}")))?;
    was_denied(&outcome)?;
    ensure!(outcome.out().contains(EVIL), "it was removed: {outcome:?}");
    denial(&node, &id, &evil()?.sha256)?;
    ensure!(items(&node)?.is_empty(), "the default moves nothing");
    Ok(())
}

fn full(world: &World) -> Result<()> {
    let node = world.own_node("[scan]\non_write = false\n[quarantine]\nmode = 'all'\nmax_size = '1KiB'")?;
    let id = node.id("full");
    node.detach(&Run::new(&id, IMAGE).args(&["/bin/sleep", "600"]))?;
    did_not_run(&node.exec(&id, &[EVIL, "-c", &format!("echo {EFFECT}")])?)?;
    let told = incident(&node, &id, |incident| incident.text("/rule") == "Not quarantined")?;
    ensure!(told.text("/output").contains("quarantine is full"), "{told:?}");
    ensure!(!is_gone(&node, &id, EVIL)?, "it was removed without a copy");
    did_not_run(&node.exec(&id, &[EVIL, "-c", &format!("echo {EFFECT}")])?)?;
    node.remove(&id)
}

fn full_disk(world: &World) -> Result<()> {
    let mut node = world.own_node("[scan]\non_write = false\n[quarantine]\nmode = 'all'")?;
    let disk = SmallDisk::beneath(&mut node)?;
    let id = node.id("full-disk");
    node.detach(&Run::new(&id, IMAGE).args(&["/bin/sleep", "600"]))?;
    shell(&node, &id, &format!("mkdir /opt/new && {}", drop_file(PATH)))?.ok()?;

    disk.fill()?;
    // Nor does the next daemon need room to begin.
    let daemon = node.daemon_mut()?;
    daemon.kill()?;
    daemon.resume()?;
    did_not_run(&shell(&node, &id, &flood())?)?;
    is_told(&node, &id)?;
    let denied = denials(&node, &id)?;
    ensure!(denied >= FLOOD, "{denied} denials of {FLOOD}");
    ensure!(!is_gone(&node, &id, PATH)?, "it was removed without a copy");

    disk.clear()?;
    adds_up(&node, &id)?;
    wait::until_true("the file to be moved", SOON, || {
        let denied = shell(&node, &id, &effect(PATH)).is_ok_and(|outcome| did_not_run(&outcome).is_ok());
        denied && items(&node).is_ok_and(|items| items.len() == 1)
    })?;
    ensure!(is_gone(&node, &id, PATH)?, "the file is still there");
    node.remove(&id)
}

/// More than one container may report in a moment.
const FLOOD: u64 = 300;

fn flood() -> String {
    format!(
        "i=0; while [ $i -lt {FLOOD} ]; do {}; i=$((i + 1)); done",
        effect(PATH)
    )
}

fn number(status: &Value, pointer: &str) -> Result<u64> {
    let number = status.pointer(pointer).and_then(Value::as_u64);
    number.with_context(|| format!("no {pointer} in {status}"))
}

fn denials(node: &Node, id: &str) -> Result<u64> {
    number(&crate::bad_input::container(node, id)?, "/denied")
}

/// Whoever asks hears that the disk is full, and a change that it does not take is refused.
fn is_told(node: &Node, id: &str) -> Result<()> {
    const WHY: &str = "No space left on device";
    wait::until_true("the trouble to be told", SOON, || {
        let status = lazaret(node, &["status"]).unwrap_or_default();
        let line = status.lines().find(|line| line.contains("cannot be written now"));
        line.is_some_and(|line| line.contains(WHY))
    })?;
    let allow = command::run(&mut node.daemon()?.cli(&["allow", "add", &dropped()?.sha256]))?;
    ensure!(allow.code == 1 && allow.err().contains(WHY), "{allow:?}");
    was_denied(&shell(node, id, &effect(PATH))?)
}

/// Each denial makes two incidents, its own and that of the quarantine: they are recorded, or
/// `lazaret status` counts them.
fn adds_up(node: &Node, id: &str) -> Result<()> {
    let expected = 2 * denials(node, id)?;
    wait::until_true("every incident to be recorded or counted", SOON, || {
        let told = node.incidents_of(id).unwrap_or_default();
        let told = told.iter().filter(|incident| incident.denied()).count() as u64;
        let Ok(status) = node.daemon().and_then(Daemon::status) else {
            return false;
        };
        let counted = ["/incidents/lost", "/counters/incidents_suppressed"];
        let counted = counted
            .iter()
            .filter_map(|pointer| number(&status, pointer).ok())
            .sum::<u64>();
        told + counted == expected
    })
}

/// A disk of a few MiB that holds a node's state. The sweep takes it down.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Puts it under a running daemon, which forgets its signatures by that.
    fn beneath(node: &mut Node) -> Result<Self> {
        let state = node.scratch().places().disk().join("lazaret");
        node.daemon_mut()?.stop()?;
        let options = Some("size=32m,mode=700");
        mount(Some("tmpfs"), &state, Some("tmpfs"), MsFlags::empty(), options)?;
        node.daemon_mut()?.resume()?;
        node.daemon()?
            .add_signature(&dropped()?.sha256, "test dropped binary")?;
        Ok(Self(state.join("filler")))
    }

    fn fill(&self) -> Result<()> {
        let mut filler = File::create(&self.0)?;
        loop {
            match filler.write_all(&[0; 4096]) {
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                written => written?,
            }
        }
    }

    fn clear(&self) -> Result<()> {
        Ok(fs::remove_file(&self.0)?)
    }
}

const TOOL_IMAGE: &str = "lazaret.test/tool:1";
/// A clean script of that image, which containers put malware in the place of.
const TOOL: &str = "/opt/dir/tool";

/// A node that moves what it denies, and an image whose [`TOOL`] has all that a file can have.
fn tool_node(world: &World) -> Result<Node> {
    // CAP_NET_BIND_SERVICE, permitted and effective (linux/capability.h, version 2).
    let capability = [0x0200_0001_u32, 1 << 10, 0, 0, 0].map(u32::to_le_bytes).concat();
    let traits = Traits {
        owner: (1000, 1001),
        modified: 1_234_567_890,
        xattrs: vec![
            ("security.capability", capability),
            ("user.note", b"\0kept\xff".to_vec()),
        ],
    };
    let node = world.own_node("[scan]\non_write = false\n[quarantine]\nmode = 'critical'")?;
    let content = format!("#!/bin/sh\necho {CLEAN}\n");
    node.import(&Image::busybox(TOOL_IMAGE)?.file_with(
        TOOL.trim_start_matches('/'),
        0o4755,
        traits,
        content,
    ))?;
    Ok(node)
}

const CLEAN: &str = "AS-IN-THE-IMAGE";

/// Starts a container that changes [`TOOL`] into malware and runs it; the item that it becomes.
fn change_tool(node: &Node, id: &str) -> Result<String> {
    let run = Run::new(id, TOOL_IMAGE).option("--annotation", "lazaret.io/drift=deny");
    node.detach(&run.args(&["/bin/sleep", "600"]))?;
    ensure!(shell(node, id, TOOL)?.ok()? == CLEAN);
    shell(node, id, &drop_file(TOOL))?.ok()?;
    was_denied(&shell(node, id, &effect(TOOL))?)?;
    moved(node, id)
}

fn restore_original(node: &Node, item: &str, more: &[&str]) -> Result<command::Outcome> {
    let args = [&["quarantine", "restore", "--original", item], more].concat();
    command::run(&mut node.daemon()?.cli(&args))
}

fn image_version(world: &World) -> Result<()> {
    let node = tool_node(world)?;
    let (untouched, id) = (node.id("untouched"), node.id("changed"));
    node.detach(&Run::new(&untouched, TOOL_IMAGE).args(&["/bin/sleep", "600"]))?;
    let wanted = Seen::of(&node, &untouched, TOOL)?;
    let item = change_tool(&node, &id)?;
    ensure!(is_gone(&node, &id, TOOL)?, "the file is still there");

    let told = restore_original(&node, &item, &["--json"])?;
    let told: Value = serde_json::from_str(&told.ok()?)?;
    let sha256 = told.pointer("/original_sha256").and_then(Value::as_str);
    ensure!(
        told.pointer("/id").and_then(Value::as_str) == Some(&item),
        "{told}"
    );
    let found = Seen::of(&node, &id, TOOL)?;
    ensure!(found == wanted, "{found:?} is not {wanted:?}");
    ensure!(
        sha256 == Some(&malware::sha256(&found.content)),
        "{told} is not of what is there"
    );
    // Where nothing may run that the image does not have.
    ensure!(shell(&node, &id, TOOL)?.ok()? == CLEAN, "it does not run");

    let incident = incident(&node, &id, |it| it.text("/rule") == "Original restored")?;
    for (pointer, value) in [
        ("/action", "allow"),
        ("/priority", "Notice"),
        ("/file/path", TOOL),
        ("/quarantine_item", &item),
        ("/file/sha256", sha256.unwrap_or_default()),
    ] {
        ensure!(
            incident.text(pointer) == value,
            "{pointer} is not {value}: {incident:?}"
        );
    }
    // What was there is kept, and allowed by nobody.
    ensure!(find(&node, &item)?.text("/state") == "moved");
    ensure!(lazaret(&node, &["allow", "list", "--json"])?.is_empty());
    let again = restore_original(&node, &item, &[])?;
    ensure!(again.code == 1 && again.err().contains("--force"), "{again:?}");
    shell(&node, &id, &drop_file(TOOL))?.ok()?;
    restore_original(&node, &item, &["--force"])?.ok()?;
    ensure!(Seen::of(&node, &id, TOOL)? == wanted, "not replaced");
    node.remove(&untouched)?;
    node.remove(&id)
}

/// What there is to see of a file, as the host sees it in a container.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    content: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
    times: [(i64, i64); 2],
    xattrs: Vec<(String, Vec<u8>)>,
}

impl Seen {
    fn of(node: &Node, id: &str, path: &str) -> Result<Self> {
        let pid = node.task_pid(id)?.context("it does not run")?;
        let path = format!("/proc/{pid}/root{path}");
        // In this order: to read it may change when it was read last.
        let stat = fs::symlink_metadata(&path)?;
        let mut names = vec![0; 4096];
        let length = rustix::fs::listxattr(&path, &mut *names)?;
        let names = String::from_utf8(names.get(..length).unwrap_or_default().to_owned())?;
        let value = |name: &str| -> Result<_> {
            let mut value = vec![0; 4096];
            let length = rustix::fs::getxattr(&path, name, &mut *value)?;
            value.truncate(length);
            Ok((name.to_owned(), value))
        };
        let names = names.split('\0').filter(|name| !name.is_empty());
        let mut xattrs = names.map(value).collect::<Result<Vec<_>>>()?;
        xattrs.sort();
        ensure!(xattrs.len() == 2, "the image has not what it should: {xattrs:?}");
        Ok(Self {
            mode: stat.mode(),
            owner: (stat.uid(), stat.gid()),
            times: [
                (stat.atime(), stat.atime_nsec()),
                (stat.mtime(), stat.mtime_nsec()),
            ],
            xattrs,
            content: fs::read(&path)?,
        })
    }
}

fn image_version_refused(world: &World) -> Result<()> {
    let node = world.own_node("[scan]\non_write = false\n[quarantine]\nmode = 'all'")?;
    let id = node.id("refused");
    node.detach(&Run::new(&id, IMAGE).tmpfs("/tmp").args(&["/bin/sleep", "600"]))?;
    let refused = |item: &str, why: &str| -> Result<()> {
        let told = restore_original(&node, item, &["--force"])?;
        ensure!(
            told.code == 1 && told.err().contains(why),
            "not {why:?}: {told:?}"
        );
        ensure!(find(&node, item)?.text("/state") == "moved", "it changed");
        Ok(())
    };
    let denied = |path: &str| -> Result<String> {
        did_not_run(&shell(&node, &id, &effect(path))?)?;
        let told = incident(&node, &id, |incident| {
            incident.text("/action") == "quarantine" && incident.text("/file/path") == path
        })?;
        Ok(told.text("/quarantine_item").to_owned())
    };
    for path in [PATH, "/tmp/sh"] {
        shell(&node, &id, &format!("mkdir -p /opt/new; {}", drop_file(path)))?.ok()?;
        refused(
            &denied(path)?,
            &format!("the image of the container has no file {path}"),
        )?;
        ensure!(is_gone(&node, &id, path)?, "something came");
    }
    let item = denied(EVIL)?;
    refused(&item, "own version of it is known bad (test binary)")?;
    ensure!(is_gone(&node, &id, EVIL)?, "malware came back");
    node.remove(&id)?;
    refused(&item, "does not run under lazaret on this node")
}

/// The container moves the folder away while the file comes, and puts links there: out of the
/// container as the host sees it, and to a folder of the container as the container sees it.
fn image_version_race(world: &World) -> Result<()> {
    let node = tool_node(world)?;
    let outside = node.scratch().places().disk().join("outside");
    fs::create_dir(&outside)?;
    let id = node.id("race");
    let item = change_tool(&node, &id)?;
    let inside = outside.display();
    let to_link = format!("mkdir -p {inside} && mv /opt/dir /opt/was && ln -s {inside} /opt/dir");
    shell(&node, &id, &to_link)?.ok()?;
    let refused = restore_original(&node, &item, &[])?;
    ensure!(
        refused.code == 1 && refused.err().contains("symbolic links"),
        "{refused:?}"
    );
    let swap = "rm /opt/dir; mv /opt/was /opt/dir; mv /opt/dir /opt/was; ln -s";
    let swapping = format!(
        "while ! [ -e /opt/end ]; do {swap} {inside} /opt/dir; done; rm /opt/dir; mv /opt/was /opt/dir"
    );
    let mut swapper = node.exec_command(&node.id("swap"), &id, &["/bin/sh", "-c", &swapping]);
    let mut swapper = swapper.spawn().context("the swapper")?;
    let mut came = 0;
    for _ in 0..60 {
        came += u32::from(restore_original(&node, &item, &["--force"])?.code == 0);
    }
    shell(&node, &id, ": > /opt/end")?.ok()?;
    ensure!(swapper.wait()?.success(), "the swapper failed");
    let list = shell(&node, &id, &format!("ls -A {inside}; ls -A /opt/dir"))?.ok()?;
    ensure!(
        list.is_empty() || list == "tool",
        "it went astray ({came} times it came): {list}"
    );
    ensure!(fs::read_dir(&outside)?.next().is_none(), "it left the container");
    let last = restore_original(&node, &item, &["--force"])?;
    ensure!(last.code == 0, "{last:?}");
    ensure!(shell(&node, &id, TOOL)?.ok()? == CLEAN);
    node.remove(&id)
}

fn shell(node: &Node, id: &str, script: &str) -> Result<command::Outcome> {
    node.exec(id, &["/bin/sh", "-c", script])
}

fn lazaret(node: &Node, args: &[&str]) -> Result<String> {
    command::check(&mut node.daemon()?.cli(args))
}

fn items(node: &Node) -> Result<Vec<Incident>> {
    Incident::parse_all(&lazaret(node, &["quarantine", "list", "--json"])?)
}

fn find(node: &Node, item: &str) -> Result<Incident> {
    let mut items = items(node)?.into_iter();
    items
        .find(|found| found.text("/id") == item)
        .context("not listed")
}

fn incident(node: &Node, id: &str, is_it: impl Fn(&Incident) -> bool) -> Result<Incident> {
    wait::until("an incident of the quarantine", SOON, || {
        node.incidents_of(id)
            .ok()?
            .into_iter()
            .find(|incident| is_it(incident))
    })
}

/// Waits for the incident of a file that was moved; the id of its item.
fn moved(node: &Node, id: &str) -> Result<String> {
    let told = incident(node, id, |incident| incident.text("/action") == "quarantine")?;
    let item = told.0.pointer("/quarantine_item").and_then(Value::as_str);
    item.map(str::to_owned)
        .with_context(|| format!("no item: {told:?}"))
}

fn is_gone(node: &Node, id: &str, path: &str) -> Result<bool> {
    Ok(shell(node, id, &format!("ls {path}"))?.code != 0)
}
