//! What was denied is moved away, shown, exported, and given back when it is allowed.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lazaret_tests::incident::Incident;
use lazaret_tests::malware::EFFECT;
use lazaret_tests::node::Node;
use lazaret_tests::run::Run;
use lazaret_tests::{command, wait};
use serde_json::Value;

use crate::case::Case;
use crate::check::{denial, did_not_run, drop_file, effect, was_denied};
use crate::world::{EVIL, IMAGE, World, dropped, evil};

pub(crate) const CASES: &[Case] = &[
    Case::shared("quarantine::dropped_file_goes_and_comes_back", dropped_file),
    Case::shared("quarantine::image_file_goes", image_file),
    Case::shared("quarantine::off_denies_in_place", off),
    Case::shared("quarantine::full_denies_in_place", full),
];

const PATH: &str = "/opt/new/sh";
const SOON: Duration = Duration::from_secs(10);

fn dropped_file(world: &World) -> Result<()> {
    let node = world.own_node("[quarantine]\nmode = 'critical'")?;
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
    let node = world.own_node("[quarantine]\nmode = 'all'")?;
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
    let node = world.own_node("[quarantine]\nmode = 'all'\nmax_size = '1KiB'")?;
    let id = node.id("full");
    node.detach(&Run::new(&id, IMAGE).args(&["/bin/sleep", "600"]))?;
    did_not_run(&node.exec(&id, &[EVIL, "-c", &format!("echo {EFFECT}")])?)?;
    let told = incident(&node, &id, |incident| incident.text("/rule") == "Not quarantined")?;
    ensure!(told.text("/output").contains("quarantine is full"), "{told:?}");
    ensure!(!is_gone(&node, &id, EVIL)?, "it was removed without a copy");
    did_not_run(&node.exec(&id, &[EVIL, "-c", &format!("echo {EFFECT}")])?)?;
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
