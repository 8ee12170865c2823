//! The life of a container and its shim, and what is left after it.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lazaret_tests::command::Running;
use lazaret_tests::daemon::Daemon;
use lazaret_tests::node::Node;
use lazaret_tests::run::{LAZARET, Run, STOCK};
use lazaret_tests::{mounts, sweep, wait};

use crate::by_hand::bundle::Spec;
use crate::by_hand::{Shim, Start, Stdio, expect};
use crate::case::Case;
use crate::terminal::Session;
use crate::world::{EVIL_IMAGE, IMAGE, World};

pub(crate) const CASES: &[Case] = &[
    Case::shared("lifecycle::state_pids_exec_kill_wait_delete", whole_life),
    Case::shared("lifecycle::pause_and_resume", pause),
    Case::shared("lifecycle::pod_shares_one_shim", pod),
    Case::shared("lifecycle::exec_exit_codes_and_streams", execs),
    Case::shared("lifecycle::runtime_options_of_cri", options),
    Case::shared("lifecycle::bootstrap_message_of_containerd_2_3", bootstrap),
    Case::alone("lifecycle::nothing_is_left", nothing_left),
];

const SOON: Duration = Duration::from_secs(15);

fn status_is(node: &Node, id: &str, wanted: &str) -> Result<()> {
    wait::until_true(&format!("{id} to be {wanted}"), SOON, || {
        node.task_status(id)
            .is_ok_and(|status| status.as_deref() == Some(wanted))
    })
}

fn whole_life(world: &World) -> Result<()> {
    let node = world.node()?;
    let id = node.id("life");
    node.ctr(&[
        "container",
        "create",
        "--runtime",
        LAZARET,
        IMAGE,
        &id,
        "/bin/sleep",
        "600",
    ])?
    .ok()?;
    node.ctr(&["task", "start", "--detach", "--null-io", &id])?.ok()?;
    node.wait_executed(&id)?;
    ensure!(pids(&node, &id)? == 1, "one process runs");
    let exec = Running::start(&mut node.exec_command("second", &id, &["/bin/sleep", "600"]))?;
    wait::until_true("the exec to show", SOON, || {
        pids(&node, &id).is_ok_and(|count| count == 2)
    })?;
    // It shows before its start has returned, and until then it cannot be killed.
    let kill = ["task", "kill", "--exec-id", "second", "--signal", "SIGKILL", &id];
    wait::until_true("the exec to be killed", SOON, || {
        node.ctr(&kill).is_ok_and(|outcome| outcome.code == 0)
    })?;
    ensure!(exec.wait(SOON)?.code == 137, "an exec's exit code is its own");
    status_is(&node, &id, "RUNNING")?;
    let refused = node.ctr(&["task", "delete", &id])?;
    ensure!(refused.code != 0, "a running task was deleted");
    node.ctr(&["task", "kill", "--signal", "SIGTERM", &id])?.ok()?;
    // The first process of a pid namespace gets no signal that it has no handler for.
    std::thread::sleep(Duration::from_millis(300));
    status_is(&node, &id, "RUNNING")?;
    node.ctr(&["task", "kill", "--signal", "SIGKILL", &id])?.ok()?;
    status_is(&node, &id, "STOPPED")?;
    let deleted = node.ctr(&["task", "delete", &id])?;
    ensure!(
        deleted.err().contains("137"),
        "delete tells the exit code: {deleted:?}"
    );
    node.ctr(&["container", "delete", &id])?.ok()?;
    wait::until_true("the shim to end", SOON, || !node.has_shim(&id))
}

fn pids(node: &Node, id: &str) -> Result<usize> {
    // One line is the heading.
    Ok(node
        .ctr(&["task", "ps", id])?
        .ok()?
        .lines()
        .count()
        .saturating_sub(1))
}

fn pause(world: &World) -> Result<()> {
    let node = world.node()?;
    for runtime in [LAZARET, STOCK] {
        let id = node.id("pause");
        let run = Run::new(&id, IMAGE).runtime(runtime);
        node.detach(&run.args(&["/bin/sleep", "600"]))?;
        node.ctr(&["task", "pause", &id])?.ok()?;
        status_is(&node, &id, "PAUSED")?;
        let refused = node.exec(&id, &["/bin/true"])?;
        ensure!(
            refused.code != 0 && refused.err().contains("paused"),
            "{runtime}: an exec into a paused container: {refused:?}"
        );
        node.ctr(&["task", "resume", &id])?.ok()?;
        status_is(&node, &id, "RUNNING")?;
        ensure!(
            node.exec(&id, &["/bin/echo", "awake"])?.ok()? == "awake",
            "it must go on as before"
        );
        node.remove(&id)?;
    }
    Ok(())
}

fn pod(world: &World) -> Result<()> {
    let node = world.node()?;
    for runtime in [LAZARET, STOCK] {
        let sandbox = node.id("sandbox");
        let member = node.id("member");
        for (id, kind) in [(&sandbox, "sandbox"), (&member, "container")] {
            let run = Run::new(id, IMAGE).runtime(runtime).args(&["/bin/sleep", "600"]);
            let run = run.option("--annotation", &format!("io.kubernetes.cri.sandbox-id={sandbox}"));
            node.detach(&run.option(
                "--annotation",
                &format!("io.kubernetes.cri.container-type={kind}"),
            ))?;
        }
        ensure!(
            node.has_shim(&sandbox) && !node.has_shim(&member),
            "{runtime}: not one shim for both"
        );
        let outcome = node.exec(&member, &[crate::world::EVIL, "-c", "echo THE-MALWARE-RAN"])?;
        ensure!(
            runtime == STOCK || outcome.code != 0,
            "the second container of a pod is unguarded"
        );
        node.remove(&member)?;
        ensure!(
            node.exec(&sandbox, &["/bin/echo", "alive"])?.ok()? == "alive",
            "the sandbox went with its member"
        );
        node.remove(&sandbox)?;
        wait::until_true("the pod's shim to end", SOON, || !node.has_shim(&sandbox))?;
    }
    Ok(())
}

fn execs(world: &World) -> Result<()> {
    let node = world.node()?;
    let mut outcomes = Vec::new();
    for runtime in [LAZARET, STOCK] {
        let id = node.id("execs");
        node.detach(&Run::new(&id, IMAGE).runtime(runtime).args(&["/bin/sleep", "600"]))?;
        let exec = node.exec(
            &id,
            &["/bin/sh", "-c", "echo out; echo err >&2; seq 1 30000; exit 9"],
        )?;
        let missing = node.exec(&id, &["/bin/nothing-there"])?;
        outcomes.push((exec.code, exec.stdout, exec.stderr, missing.code));
        node.remove(&id)?;
    }
    let (ours, stock) = (
        outcomes.first().context("ours")?,
        outcomes.last().context("stock")?,
    );
    ensure!(
        ours == stock && ours.0 == 9,
        "{:?} {:?}",
        (ours.0, ours.3),
        (stock.0, stock.3)
    );
    Ok(())
}

/// The message by which CRI hands over a runtime's table of options; `ctr` can only name a file
/// in it, which we refuse.
fn options(world: &World) -> Result<()> {
    let node = world.node()?;
    let run = Run::new(&node.id("options"), IMAGE).args(&["/bin/true"]);
    let refused = node.run(&run.option("--runtime-config-path", "/etc/lazaret/runtime.toml"))?;
    ensure!(
        refused.code != 0 && refused.err().contains("instead of a ConfigPath"),
        "{refused:?}"
    );
    Ok(())
}

/// No daemon of 2.3 is at hand: the exchange is, and a life with version 3 of the task service.
fn bootstrap(world: &World) -> Result<()> {
    const SOCKETS: &str = "/run/lazaret-test-sockets";
    let node = world.node()?;
    let how = Start {
        bootstrap: Some(|params| params.socket_dir = Some(SOCKETS.to_owned())),
        ..Start::default()
    };
    let spec = Spec::sh(&node.id("bootstrap"), "exit 7");
    let shim = Shim::start_as(world, &node, LAZARET, &spec, &how)?;
    ensure!(shim.version == 3, "version {}", shim.version);
    ensure!(
        shim.address.starts_with(&format!("unix://{SOCKETS}/")),
        "{}",
        shim.address
    );
    expect(shim.create(&spec, &Stdio::null())?)?;
    expect(shim.start_process(spec.id(), "")?)?;
    let exit = expect(shim.wait(spec.id(), "")?)?.exit_status;
    expect(shim.delete(spec.id(), "")?)?;
    shim.events.wait_for("delete", 1)?;
    let story = shim.events.story(spec.id())?;
    ensure!(
        exit == 7 && story == "create, start, exit 7, delete",
        "{exit}: {story}"
    );
    let socket = std::path::PathBuf::from(shim.address.trim_start_matches("unix://"));
    drop(shim);
    wait::until_true("the socket to go", SOON, || !socket.exists())?;
    // Another release's case may have its own in there.
    drop(fs::remove_dir(SOCKETS));
    Ok(())
}

/// Whatever is there after many containers and was not before them, was leaked.
fn nothing_left(world: &World) -> Result<()> {
    let node = world.own_node("")?;
    node.run(&Run::new(&node.id("warm"), IMAGE).args(&["/bin/true"]))?;
    let before = traces(&node);
    let mut sockets = Vec::new();
    for _ in 0..5 {
        node.run(&Run::new(&node.id("clean"), IMAGE).tmpfs("/tmp").sh("exit 3"))?;
        node.run(&Run::new(&node.id("evil"), EVIL_IMAGE))?;
        node.run(&Run::new(&node.id("broken"), IMAGE).args(&["/bin/nothing-there"]))?;
        let terminal = Run::new(&node.id("terminal"), IMAGE).args(&["/bin/true"]);
        Session::start(&mut node.run_command(&terminal, &["--rm", "--tty"]))?.end()?;
        let id = node.id("killed");
        node.detach(&Run::new(&id, IMAGE).args(&["/bin/sleep", "600"]))?;
        sockets.push(sweep::shim_socket(&node.containerd().bundle(&id)).context("no socket")?);
        node.remove(&id)?;
    }
    wait::until_true("the shims to end", SOON, || node.shims().is_empty())?;
    let left: Vec<_> = traces(&node).difference(&before).cloned().collect();
    ensure!(left.is_empty(), "left behind: {left:#?}");
    sockets.retain(|socket| socket.exists());
    ensure!(
        sockets.is_empty(),
        "sockets of shims are left behind: {sockets:#?}"
    );
    Ok(())
}

/// Mounts, cgroups, fifos, bundles, and what the daemon holds.
fn traces(node: &Node) -> BTreeSet<String> {
    let places = node.scratch().places();
    let mounts = [mounts::below(&places.run()), mounts::below(&places.disk())].concat();
    let bundles = node.containerd().bundle("");
    let sockets_of_terminals = places.disk().join("tmp");
    let files =
        [bundles, places.fifos(), sockets_of_terminals].map(|dir| fs::read_dir(dir).into_iter().flatten());
    let files = files.into_iter().flatten().flatten().map(|entry| entry.path());
    let paths = mounts.into_iter().chain(node.cgroups()).chain(files);
    let paths = paths.map(|path| path.display().to_string());
    paths.chain(groups(node)).collect()
}

/// The daemon's fanotify groups, one entry each: a group that outlives its container adds one.
fn groups(node: &Node) -> Vec<String> {
    let fds = node
        .daemon()
        .ok()
        .and_then(Daemon::pid)
        .map(|pid| format!("/proc/{pid}/fd"));
    let links = fds
        .into_iter()
        .flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten());
    let targets = links.filter_map(|link| fs::read_link(link.path()).ok());
    let groups = targets
        .filter(|target| target.ends_with("anon_inode:[fanotify]"))
        .count();
    (0..groups)
        .map(|number| format!("fanotify group {number} of lazaretd"))
        .collect()
}
