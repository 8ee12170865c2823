//! What is bad is found before anybody opens it: in a folder, a container, an image.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lazaret_tests::command::{self, Outcome, Running};
use lazaret_tests::incident::Incident;
use lazaret_tests::node::Node;
use lazaret_tests::run::Run;
use lazaret_tests::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::case::Case;
use crate::check::drop_file;
use crate::world::{EVIL, EVIL_DYNAMIC, IMAGE, World, dropped, evil};

pub(crate) const CASES: &[Case] = &[
    Case::shared("scan::folder", folder),
    Case::shared("scan::container_and_its_tmpfs", container),
    Case::shared("scan::all_containers", all),
    Case::shared("scan::image_before_any_container", image),
    Case::shared("scan::killed_daemon_goes_on", killed_daemon),
    Case::shared("scan::killed_daemon_leaves_no_view", killed_in_image),
    Case::shared("scan::interrupt_cancels_unless_detached", interrupt),
];

const CLEAN: i32 = 0;
const FOUND: i32 = 3;
const SOON: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(60);

/// Slow enough to be killed on the way: a file each 8 ms.
const SLOW: &str = "[scan]\nrate = '500KB'";

fn folder(world: &World) -> Result<()> {
    let node = world.node()?;
    let tree = tree(&node, "folder", 3)?;
    ensure!(
        scan(&node, &[&text(&tree)])?.code == CLEAN,
        "nothing bad is in it"
    );

    let bad = tree.join("in/evil");
    fs::create_dir(tree.join("in"))?;
    fs::write(&bad, evil()?.content)?;
    // What would stop a scanner that opens everything, or lead it away.
    command::check(std::process::Command::new("mkfifo").arg(tree.join("fifo")))?;
    std::os::unix::fs::symlink("/", tree.join("in/root"))?;
    let outcome = scan(&node, &[&text(&tree), "--json"])?;
    ensure!(outcome.code == FOUND, "{outcome:?}");
    let lines = Incident::parse_all(&outcome.out())?;
    let finding = event(&lines, "finding")?;
    ensure!(finding.text("/path") == text(&bad), "{finding:?}");
    ensure!(finding.text("/sha256") == evil()?.sha256, "{finding:?}");
    ensure!(event(&lines, "ended")?.number("/files") == Some(4), "{outcome:?}");

    let told = node.daemon()?.incidents()?;
    let told = told
        .iter()
        .find(|incident| incident.text("/file/path") == text(&bad));
    let told = told.context("no incident")?;
    ensure!(
        told.text("/action") == "alert" && told.text("/tags/2") == "scan",
        "{told:?}"
    );
    Ok(())
}

fn container(world: &World) -> Result<()> {
    let node = world.node()?;
    let id = node.id("scanned");
    let script = format!("mkdir /tmp/new && {} && exec sleep 600", drop_file("/tmp/new/sh"));
    node.detach(&Run::new(&id, IMAGE).tmpfs("/tmp").sh(&script))?;
    let found = wait::until("the dropped file to be found", SOON, || {
        let outcome = scan(&node, &["--container", &id, "--json"]).ok()?;
        let found = found(&outcome).ok()?;
        found.contains(&"/tmp/new/sh".to_owned()).then_some(found)
    })?;
    for path in [EVIL, EVIL_DYNAMIC] {
        ensure!(found.contains(&path.to_owned()), "{path} is not in {found:?}");
    }
    let told = node.incidents_of(&id)?;
    let dropped = dropped()?.sha256;
    ensure!(
        told.iter()
            .any(|incident| incident.text("/file/sha256") == dropped),
        "{told:?}"
    );
    node.remove(&id)
}

fn all(world: &World) -> Result<()> {
    let node = world.own_node("")?;
    let ids = [node.id("one"), node.id("two")];
    for id in &ids {
        node.detach(&Run::new(id, IMAGE).args(&["/bin/sleep", "600"]))?;
    }
    let outcome = scan(&node, &["--all", "--json"])?;
    ensure!(outcome.code == FOUND, "{outcome:?}");
    let lines = Incident::parse_all(&outcome.out())?;
    for id in &ids {
        let ended = lines.iter().filter(|line| line.text("/event") == "ended");
        let ended = ended.filter(|line| line.text("/target").ends_with(id)).count();
        ensure!(ended == 1, "{id} ended {ended} times: {outcome:?}");
        node.remove(id)?;
    }
    Ok(())
}

fn image(world: &World) -> Result<()> {
    let node = world.own_node("")?;
    let before = traces(&node)?;
    let outcome = scan_image(&node, &[])?;
    ensure!(outcome.code == FOUND, "{outcome:?}");
    ensure!(found(&outcome)?.contains(&EVIL.to_owned()), "{outcome:?}");
    let first = event(&Incident::parse_all(&outcome.out())?, "ended")?;
    ensure!(!from_record(&first), "{first:?}");
    ensure!(first.text("/image_digest").starts_with("sha256:"), "{first:?}");

    let outcome = scan_image(&node, &[])?;
    let second = event(&Incident::parse_all(&outcome.out())?, "ended")?;
    ensure!(from_record(&second) && outcome.code == FOUND, "{outcome:?}");
    ensure!(
        second.text("/id") == first.text("/id"),
        "another record: {second:?}"
    );

    // Other signatures, and whoever insists, are answered by a scan.
    let again = |node: &Node, flags: &[&str]| -> Result<bool> {
        let lines = Incident::parse_all(&scan_image(node, flags)?.out())?;
        Ok(!from_record(&event(&lines, "ended")?))
    };
    ensure!(
        again(&node, &["--force"])?,
        "--force was answered from the record"
    );
    node.daemon()?.add_signature(&"0".repeat(64), "another")?;
    ensure!(
        again(&node, &[])?,
        "other signatures were answered from the record"
    );
    ensure!(traces(&node)? == before, "something is left in containerd");

    let unknown = scan_named(&node, "lazaret.test/none:1", &[])?;
    ensure!(
        unknown.code == 1 && unknown.err().contains("no image"),
        "{unknown:?}"
    );
    Ok(())
}

fn killed_daemon(world: &World) -> Result<()> {
    let mut node = world.own_node(SLOW)?;
    let tree = tree(&node, "slow", 1500)?;
    fs::write(tree.join("zz-evil"), evil()?.content)?;
    let running = start(&node, &[&text(&tree), "--json"])?;
    wait_for_files(&node, 60)?;
    // Long enough for the record to have been saved.
    std::thread::sleep(Duration::from_millis(3_500));
    let daemon = node.daemon_mut()?;
    daemon.kill()?;
    daemon.resume()?;
    let outcome = running.wait(LONG)?;
    ensure!(outcome.code == FOUND, "{outcome:?}");
    let lines = Incident::parse_all(&outcome.out())?;
    let ended = event(&lines, "ended")?;
    ensure!(ended.number("/files") == Some(1501), "{ended:?}");
    ensure!(ended.number("/resumed") == Some(1), "{ended:?}");
    // It did not begin anew: what was told after the restart is far from 0.
    let progress = lines.iter().filter(|line| line.text("/event") == "progress");
    let files: Vec<_> = progress.filter_map(|line| line.number("/files")).collect();
    let begun = files.iter().filter(|files| **files < 60).count();
    let first = files.iter().take_while(|files| **files < 60).count();
    ensure!(begun == first, "it began anew: {files:?}");
    Ok(())
}

fn killed_in_image(world: &World) -> Result<()> {
    let mut node = world.own_node(SLOW)?;
    let before = traces(&node)?;
    let running = start_image(&node)?;
    wait_for_files(&node, 1)?;
    ensure!(traces(&node)? != before, "nothing holds the image");
    let daemon = node.daemon_mut()?;
    daemon.kill()?;
    daemon.resume()?;
    let outcome = running.wait(LONG)?;
    ensure!(outcome.code == FOUND, "{outcome:?}");
    ensure!(traces(&node)? == before, "something is left in containerd");
    Ok(())
}

fn interrupt(world: &World) -> Result<()> {
    let node = world.own_node(SLOW)?;
    let tree = tree(&node, "interrupted", 400)?;
    let running = start(&node, &[&text(&tree)])?;
    wait_for_files(&node, 5)?;
    kill(Pid::from_raw(running.pid().cast_signed()), Signal::SIGINT)?;
    running.wait(LONG)?;
    wait_for_state(&node, "cancelled")?;

    let detached = scan(&node, &[&text(&tree), "--detach"])?;
    ensure!(detached.code == 0, "{detached:?}");
    wait_for_state(&node, "done")?;
    Ok(())
}

/// A folder with `count` clean files.
fn tree(node: &Node, name: &str, count: u32) -> Result<PathBuf> {
    let tree = node.scratch().places().disk().join(node.id(name));
    fs::create_dir(&tree)?;
    for n in 0..count {
        fs::write(tree.join(format!("{n:04}")), format!("clean {n}"))?;
    }
    Ok(tree)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn start(node: &Node, args: &[&str]) -> Result<Running> {
    let mut command = node.daemon()?.cli(&["scan"]);
    Running::start(command.args(args))
}

fn scan(node: &Node, args: &[&str]) -> Result<Outcome> {
    start(node, args)?.wait(LONG)
}

fn start_image(node: &Node) -> Result<Running> {
    start(
        node,
        &image_args(node, IMAGE)
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>(),
    )
}

fn scan_image(node: &Node, flags: &[&str]) -> Result<Outcome> {
    scan_named(node, IMAGE, flags)
}

fn scan_named(node: &Node, reference: &str, flags: &[&str]) -> Result<Outcome> {
    let args = image_args(node, reference);
    let args: Vec<_> = args
        .iter()
        .map(String::as_str)
        .chain(flags.iter().copied())
        .collect();
    scan(node, &args)
}

fn image_args(node: &Node, reference: &str) -> Vec<String> {
    let places = node.scratch().places();
    let socket = text(&places.run().join("containerd.sock"));
    [
        "--image",
        reference,
        "--containerd",
        &socket,
        "--namespace",
        places.name(),
        "--json",
    ]
    .map(str::to_owned)
    .into()
}

/// The paths of the findings that a scan told.
fn found(outcome: &Outcome) -> Result<Vec<String>> {
    let lines = Incident::parse_all(&outcome.out())?;
    let findings = lines.iter().filter(|line| line.text("/event") == "finding");
    Ok(findings.map(|line| line.text("/path").to_owned()).collect())
}

/// Whether the end of a scan repeats an earlier one.
fn from_record(ended: &Incident) -> bool {
    ended.0.pointer("/from_record") == Some(&true.into())
}

/// The first event of this kind.
fn event(lines: &[Incident], kind: &str) -> Result<Incident> {
    let found = lines.iter().find(|line| line.text("/event") == kind);
    found
        .cloned()
        .with_context(|| format!("no event {kind:?} in {lines:?}"))
}

/// What a scan could leave in containerd: snapshots and leases of its own.
fn traces(node: &Node) -> Result<(String, String)> {
    let snapshots = node.ctr(&["snapshots", "ls"])?.ok()?;
    let leases = node.ctr(&["leases", "ls"])?.ok()?;
    let ours = |text: &str| {
        let lines = text.lines().filter(|line| line.contains("lazaret-scan"));
        lines.collect::<Vec<_>>().join("\n")
    };
    Ok((ours(&snapshots), ours(&leases)))
}

fn scans(node: &Node) -> Result<Vec<Incident>> {
    Incident::parse_all(&command::check(&mut node.daemon()?.cli(&["scans", "--json"]))?)
}

fn wait_for_files(node: &Node, files: u64) -> Result<()> {
    wait::until_true("the scan to come along", SOON, || {
        let scans = scans(node).unwrap_or_default();
        let last = scans.last().and_then(|scan| scan.number("/files"));
        last.is_some_and(|seen| seen >= files)
    })
}

fn wait_for_state(node: &Node, state: &str) -> Result<()> {
    wait::until_true(&format!("the scan to be {state}"), LONG, || {
        let scans = scans(node).unwrap_or_default();
        scans.last().is_some_and(|scan| scan.text("/state") == state)
    })
}
