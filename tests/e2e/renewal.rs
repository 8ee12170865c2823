//! Running containers are scanned again when the signatures have changed.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lazaret_tests::command;
use lazaret_tests::incident::Incident;
use lazaret_tests::malware::sha256;
use lazaret_tests::node::Node;
use lazaret_tests::run::Run;
use lazaret_tests::wait;

use crate::case::Case;
use crate::world::{IMAGE, World};

pub(crate) const CASES: &[Case] = &[
    Case::shared("renewal::finds_what_nobody_opens", unopened),
    Case::shared("renewal::a_newer_change_supersedes", superseded),
    Case::shared("renewal::quarantine_by_policy", quarantined),
    Case::shared("renewal::a_killed_daemon_goes_on", killed),
];

const ON: &str = "[scan]\non_new_signatures = true";

/// A file each 8 ms.
const SLOW: &str = "[scan]\non_new_signatures = true\nrate = '500KB'";

/// Files of a container that make its scan long: some 8 s.
const MANY: u64 = 1_000;

/// Changes settle for 2 s, and a restarted lazaretd gives containers 15 s to come back.
const SOON: Duration = Duration::from_secs(60);

/// Longer than changes settle.
const SETTLED: Duration = Duration::from_secs(4);

/// What `echo` writes.
const HELD: &str = "held and inert\n";

fn unopened(world: &World) -> Result<()> {
    let node = quiet_node(world, ON)?;
    let ids = [node.id("first"), node.id("second")];
    for id in &ids {
        // Opened before, when nothing was known of it.
        let script = "echo held and inert > /held && cat /held > /dev/null && exec sleep 600";
        node.detach(&Run::new(id, IMAGE).sh(script))?;
    }
    let held = sha256(HELD.as_bytes());
    wait::until_true("the containers to have their files", SOON, || {
        ids.iter()
            .all(|id| node.exec(id, &["/bin/ls", "/held"]).is_ok_and(|ls| ls.code == 0))
    })?;
    ensure!(renewals(&node)?.is_empty(), "nothing has changed yet");

    node.daemon()?.add_signature(&held, "held")?;
    for id in &ids {
        let incident = wait_for_incident(&node, id, &held)?;
        ensure!(incident.text("/file/path") == "/held", "{incident:?}");
        ensure!(incident.text("/action") == "alert", "{incident:?}");
        ensure!(
            incident.text("/output").contains("by new signatures"),
            "{incident:?}"
        );
    }
    let done = wait_for_done(&node, ids.len())?;
    // What both have of the image was judged once.
    let judged = |scan: &Incident| Some((scan.number("/files")?, scan.number("/current")?));
    let counts: Vec<_> = done.iter().filter_map(judged).collect();
    let (files, current) = counts
        .iter()
        .fold((0, 0), |(files, current), (f, c)| (files + f, current + c));
    ensure!(files > 0 && current >= files / ids.len() as u64, "{counts:?}");

    // What is known already changes nothing, and so nothing is scanned again.
    node.daemon()?.add_signature(&held, "held")?;
    std::thread::sleep(SETTLED);
    ensure!(renewals(&node)? == done, "scanned again: {:?}", renewals(&node)?);
    ids.iter().try_for_each(|id| node.remove(id))
}

fn quarantined(world: &World) -> Result<()> {
    let node = quiet_node(
        world,
        "[scan]\non_new_signatures = true\n[quarantine]\nmode = 'all'",
    )?;
    let id = node.id("moved");
    node.detach(&Run::new(&id, IMAGE).sh("echo held and inert > /held && exec sleep 600"))?;
    let is_there = || node.exec(&id, &["/bin/ls", "/held"]).is_ok_and(|ls| ls.code == 0);
    wait::until_true("the file to be there", SOON, is_there)?;
    let held = sha256(HELD.as_bytes());
    node.daemon()?.add_signature(&held, "held")?;
    wait_for_incident(&node, &id, &held)?;
    wait::until_true("the file to be moved away", SOON, || !is_there())?;
    let list = command::check(&mut node.daemon()?.cli(&["quarantine", "list", "--json"]))?;
    ensure!(list.contains(&held), "{list}");
    node.remove(&id)
}

fn superseded(world: &World) -> Result<()> {
    let node = quiet_node(world, SLOW)?;
    let id = node.id("many");
    node.detach(&many(&id))?;
    wait_for_files(&node, &id)?;
    // At the walk's beginning, and at its end.
    let (early, late) = (sha256(b"early\n"), sha256(b"late\n"));
    node.daemon()?.add_signature(&late, "late")?;
    wait_for_progress(&node, 100)?;
    // The first is behind the scan by now.
    node.daemon()?.add_signature(&early, "early")?;
    let [done] = wait_for_done(&node, 1)?
        .try_into()
        .map_err(|all| anyhow::anyhow!("{all:?}"))?;
    for sha256 in [&early, &late] {
        wait_for_incident(&node, &id, sha256)?;
    }
    ensure!(done.number("/findings") >= Some(2), "{done:?}");
    ensure!(done.number("/files") >= Some(MANY + 2), "{done:?}");
    let status = Incident(node.daemon()?.status()?);
    let set = status.text("/signatures/version");
    let by = done.text("/signature_set");
    ensure!(!set.is_empty() && by.starts_with(set), "{by} is not {set}");
    std::thread::sleep(SETTLED);
    ensure!(
        renewals(&node)? == [done],
        "a scan was piled on another: {:?}",
        renewals(&node)?
    );
    node.remove(&id)
}

fn killed(world: &World) -> Result<()> {
    let mut node = quiet_node(world, SLOW)?;
    let id = node.id("many");
    node.detach(&many(&id))?;
    wait_for_files(&node, &id)?;
    let late = sha256(b"late\n");
    node.daemon()?.add_signature(&late, "late")?;
    wait_for_progress(&node, 500)?;
    let daemon = node.daemon_mut()?;
    daemon.kill()?;
    daemon.resume()?;
    wait_for_incident(&node, &id, &late)?;
    let [done] = wait_for_done(&node, 1)?
        .try_into()
        .map_err(|all| anyhow::anyhow!("{all:?}"))?;
    ensure!(done.number("/resumed") == Some(1), "{done:?}");
    ensure!(done.number("/files") >= Some(MANY + 2), "{done:?}");
    node.remove(&id)
}

/// A node whose own signatures are no change any more.
fn quiet_node(world: &World, config: &str) -> Result<Node> {
    let node = world.own_node(config)?;
    std::thread::sleep(SETTLED);
    Ok(node)
}

/// A container with many files in the middle of its walk.
fn many(id: &str) -> Run {
    Run::new(id, IMAGE).sh(&format!(
        "echo early > /0early && mkdir /m && n=0 && while [ $n -lt {MANY} ]; do echo $n > /m/$n; n=$((n+1)); done; \
         echo late > /zlate && exec sleep 600"
    ))
}

fn wait_for_files(node: &Node, id: &str) -> Result<()> {
    wait::until_true("the container to have its files", SOON, || {
        node.exec(id, &["/bin/ls", "/zlate"]).is_ok_and(|ls| ls.code == 0)
    })
}

/// The incident of a scan.
fn wait_for_incident(node: &Node, id: &str, sha256: &str) -> Result<Incident> {
    wait::until("an incident though nobody opens it", SOON, || {
        let told = node.incidents_of(id).ok()?;
        told.into_iter()
            .find(|incident| incident.text("/file/sha256") == sha256 && incident.text("/tags/2") == "scan")
    })
}

/// The scans that nobody asked for.
fn renewals(node: &Node) -> Result<Vec<Incident>> {
    let scans = Incident::parse_all(&command::check(&mut node.daemon()?.cli(&["scans", "--json"]))?)?;
    Ok(scans
        .into_iter()
        .filter(|scan| scan.text("/cause") == "new-signatures")
        .collect())
}

fn wait_for_progress(node: &Node, files: u64) -> Result<()> {
    wait::until_true("the scan to come along", SOON, || {
        let last = renewals(node)
            .ok()
            .and_then(|scans| scans.last()?.number("/files"));
        last.is_some_and(|seen| seen >= files)
    })
}

/// So many, and all done.
fn wait_for_done(node: &Node, count: usize) -> Result<Vec<Incident>> {
    let done = wait::until("the containers to be scanned again", SOON, || {
        let scans = renewals(node).ok()?;
        let done = scans.iter().all(|scan| scan.text("/state") == "done");
        (done && scans.len() == count).then_some(scans)
    });
    done.with_context(|| format!("{:?}", renewals(node)))
}
