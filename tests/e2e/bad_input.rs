//! What nobody should send, and what comes of it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lazaret_tests::malware::sha256;
use lazaret_tests::node::Node;
use lazaret_tests::run::Run;
use lazaret_tests::{containerd, packages, wait};
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr};
use serde_json::Value;

use crate::by_hand::refusal;
use crate::case::Case;
use crate::check::{denial, drop_file, effect, was_denied};
use crate::world::{EVIL_IMAGE, IMAGE, INSIDE, World, dropped};

pub(crate) const CASES: &[Case] = &[
    Case::shared("bad_input::broken_config_json", broken_config),
    Case::shared("bad_input::missing_config_json", missing_config),
    Case::shared("bad_input::missing_rootfs", missing_rootfs),
    Case::shared("bad_input::init_that_vanishes_before_the_guard", vanished_init),
    Case::shared("bad_input::dead_socket_closed", dead_socket_closed),
    Case::shared("bad_input::dead_socket_open", dead_socket_open),
    Case::shared("bad_input::corrupted_hand_over", corrupted_message),
    Case::shared("bad_input::file_name_not_utf8", not_utf8),
    Case::shared("bad_input::sparse_file_of_4_gib", sparse_file),
    Case::alone("bad_input::ten_thousand_files_at_once", ten_thousand_files),
];

const BURST: usize = 10_000;
const SOON: Duration = Duration::from_secs(10);

fn broken_config(world: &World) -> Result<()> {
    let node = world.node()?;
    for broken in ["", "{", "[]", "{\"ociVersion\": 7}"] {
        let id = node.id("broken");
        let error = refusal(world, &node, &id, Some(broken))?;
        // The shim reads its part of it, and runc the rest: either one says what is wrong.
        ensure!(error.contains("json"), "{broken:?} gave: {error}");
        wait::until_true("the shim to end", SOON, || !node.has_shim(&id))?;
    }
    Ok(())
}

fn missing_config(world: &World) -> Result<()> {
    let node = world.node()?;
    let id = node.id("missing");
    let error = refusal(world, &node, &id, None)?;
    ensure!(error.contains("config.json"), "{error}");
    wait::until_true("the shim to end", SOON, || !node.has_shim(&id))
}

fn missing_rootfs(world: &World) -> Result<()> {
    let node = world.node()?;
    let id = node.id("rootless");
    let outcome = node.ctr(&[
        "run",
        "--rm",
        "--runtime",
        lazaret_tests::run::LAZARET,
        "--rootfs",
        "/var/empty/missing",
        &id,
        "/bin/true",
    ])?;
    ensure!(
        outcome.code != 0 && outcome.err().contains("rootfs"),
        "{outcome:?}"
    );
    nothing_left_of(&node, &id)
}

fn vanished_init(world: &World) -> Result<()> {
    let node = &world.own_node("")?;
    let runc = containerd::override_dir(node.scratch().places()).join("runc");
    fs::write(&runc, killing_runc()?)?;
    fs::set_permissions(&runc, fs::Permissions::from_mode(0o755))?;
    let id = node.id("vanished");
    let outcome = node.run(&Run::new(&id, IMAGE).args(&["/bin/true"]))?;
    ensure!(
        outcome.code != 0,
        "a container without an init was started: {outcome:?}"
    );
    ensure!(!outcome.err().is_empty(), "no word about why: {outcome:?}");
    nothing_left_of(node, &id)
}

/// A runc whose containers lose their init right after `create`.
fn killing_runc() -> Result<String> {
    let runc = packages::runc_bin()?.join("runc");
    Ok(format!(
        "#!/bin/sh\n{runc} \"$@\" || exit\nexport previous=\n\
         for word; do\n\
         [ \"$previous\" = --pid-file ] && kill -9 \"$(cat \"$word\")\"\n\
         previous=$word\ndone\nexit 0\n",
        runc = runc.display()
    ))
}

fn dead_socket_closed(world: &World) -> Result<()> {
    let mut node = world.own_node("[guard]\non_daemon_loss = \"closed\"")?;
    node.daemon_mut()?.kill()?;
    let id = node.id("closed");
    let outcome = node.run(&Run::new(&id, IMAGE).args(&["/bin/echo", "started"]))?;
    ensure!(
        outcome.code != 0 && outcome.out().is_empty(),
        "it ran unguarded: {outcome:?}"
    );
    ensure!(
        outcome.err().contains("lazaretd"),
        "the message names no culprit: {}",
        outcome.err()
    );
    nothing_left_of(&node, &id)
}

fn dead_socket_open(world: &World) -> Result<()> {
    let mut node = world.own_node("[guard]\non_daemon_loss = \"open\"")?;
    node.daemon_mut()?.kill()?;
    let id = node.id("open");
    node.detach(&Run::new(&id, IMAGE).args(&["/bin/sleep", "600"]))?;
    node.daemon_mut()?.resume()?;
    let container = wait::until("the container to be guarded", Duration::from_secs(20), || {
        let found = container(&node, &id).ok()?;
        (found.get("state")?.as_str()? == "guarded").then_some(found)
    })?;
    ensure!(
        container.get("gap").is_some_and(|gap| !gap.is_null()),
        "no gap in {container}"
    );
    node.remove(&id)
}

/// A container as `lazaret status` tells of it.
pub(crate) fn container(node: &Node, id: &str) -> Result<Value> {
    let status = node.daemon()?.status()?;
    let containers = status
        .get("containers")
        .and_then(Value::as_array)
        .context("no containers")?;
    let found = containers
        .iter()
        .find(|container| container.get("id").and_then(Value::as_str) == Some(id));
    found.cloned().with_context(|| format!("{id} is not in {status}"))
}

fn corrupted_message(world: &World) -> Result<()> {
    let mut node = world.own_node("")?;
    let socket = node.daemon()?.run_dir().join("guard.sock");
    for message in [
        b"".to_vec(),
        vec![0xff; 64],
        vec![0; 60_000],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ] {
        send(&socket, &message)?;
    }
    let outcome = node.run(&Run::new(&node.id("after"), EVIL_IMAGE))?;
    ensure!(
        outcome.code != 0 && outcome.out().is_empty(),
        "the guard is gone: {outcome:?}"
    );
    ensure!(node.daemon_mut()?.alive(), "the daemon is gone");
    let log = node.daemon()?.log();
    ensure!(
        log.contains("WARN") || log.contains("ERROR"),
        "not a word of it in the log:\n{log}"
    );
    Ok(())
}

fn send(socket: &PathBuf, message: &[u8]) -> Result<()> {
    use std::os::fd::AsRawFd as _;
    let flags = SockFlag::SOCK_CLOEXEC;
    let client = socket::socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    socket::connect(client.as_raw_fd(), &UnixAddr::new(socket)?)?;
    socket::send(client.as_raw_fd(), message, MsgFlags::MSG_NOSIGNAL)?;
    Ok(())
}

fn not_utf8(world: &World) -> Result<()> {
    let node = world.node()?;
    let id = node.id("bytes");
    let script = format!(
        "d=/opt/$(printf '\\377\\376'); mkdir \"$d\" && {} && {}",
        drop_file("\"$d/sh\""),
        effect("\"$d/sh\"")
    );
    let outcome = node.run(&Run::new(&id, IMAGE).sh(&script))?;
    was_denied(&outcome)?;
    let incident = denial(&node, &id, &dropped()?.sha256)?;
    ensure!(incident.text("/file/path").contains("/opt/"), "{incident:?}");
    Ok(())
}

fn sparse_file(world: &World) -> Result<()> {
    let node = world.node()?;
    let id = node.id("sparse");
    let script = "truncate -s 4G /big && chmod +x /big && head -c 1 /big | wc -c && /big";
    let outcome = node.run(&Run::new(&id, IMAGE).sh(script))?;
    ensure!(outcome.out() == "1", "the open was not allowed: {outcome:?}");
    was_denied(&outcome)?;
    ensure!(
        outcome.took < Duration::from_secs(20),
        "it took {:?}",
        outcome.took
    );
    let incidents = node.incidents_of(&id)?;
    let alerted = |action| {
        incidents
            .iter()
            .any(|incident| incident.text("/action") == action && incident.text("/file/path") == "/big")
    };
    ensure!(alerted("alert") && alerted("deny"), "{incidents:?}");
    Ok(())
}

fn ten_thousand_files(world: &World) -> Result<()> {
    let node = world.node()?;
    let id = node.id("burst");
    let listed = [0, 17, 4_242, BURST - 1];
    for number in listed {
        let content = format!("lazaret file {number}\n");
        node.daemon()?
            .add_signature(&sha256(content.as_bytes()), "one of very many")?;
    }
    let script = format!("{INSIDE} fill /data {BURST} >/dev/null && {INSIDE} burst /data {BURST}");
    let outcome = node.run(&Run::new(&id, IMAGE).sh(&script))?;
    let mut tally: Tally = serde_json::from_str(&outcome.ok()?)?;
    tally.denied.sort_unstable();
    ensure!(tally.denied == listed, "{tally:?}");
    ensure!(tally.opened == BURST - listed.len(), "{tally:?}");
    ensure!(tally.failed.is_empty(), "{tally:?}");
    Ok(())
}

/// As the helper prints it.
#[derive(Debug, serde::Deserialize)]
struct Tally {
    opened: usize,
    denied: Vec<usize>,
    failed: Vec<String>,
}

/// No task, no shim, no cgroup, no mount of it.
fn nothing_left_of(node: &Node, id: &str) -> Result<()> {
    ensure!(node.task_status(id)?.is_none(), "a task of {id} is left");
    wait::until_true(&format!("everything of {id} to go"), SOON, || {
        let cgroups = node.cgroups().iter().any(|dir| dir.ends_with(id));
        let mounts = !lazaret_tests::mounts::below(&node.containerd().bundle(id)).is_empty();
        !cgroups && !mounts && !node.has_shim(id)
    })
}
