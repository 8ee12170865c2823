//! lazaretd is killed while files are sealed: nobody would hear of a store through a mapping.

use anyhow::{Context, Result, ensure};
use lazaret_tests::command::Outcome;
use lazaret_tests::node::Node;

use crate::arena::Arena;
use crate::case::Case;
use crate::foothold::{Away, Foothold, SIGNALS, told, was_denied};
use crate::program::Runs;

pub(crate) const CASES: &[Case] = &[
    Case::new("daemon::killed_and_stored_to_closed", closed),
    Case::new("daemon::killed_and_stored_to_open", open),
];

const FILES: [&str; 2] = ["/opt/file", "/tmp/file"];

/// Nobody gets a descriptor to store through.
fn closed(arena: &Arena) -> Result<()> {
    for file in FILES {
        let (_node, outcome) = stored_to(arena, "closed", file)?;
        was_denied(&outcome)?;
    }
    Ok(())
}

/// What runs while nobody judges is what the node's owner has chosen. Afterwards it is judged:
/// nothing is left of the seal.
fn open(arena: &Arena) -> Result<()> {
    for file in FILES {
        let ((mut node, away), outcome) = stored_to(arena, "open", file)?;
        let runs: Runs = told(&outcome)?;
        runs.before.was_good().context("before")?;
        ensure!(runs.after.evil > 0, "it was not stored to: {runs:?}");
        node.daemon_mut()?.resume()?;
        let foothold = away.come_back(&node);
        foothold.wait_guarded()?;
        was_denied(&foothold.shell(&format!("{file} attack ran"))?)?;
        foothold.denial(file)?;
    }
    Ok(())
}

/// Kills the daemon of a node while a file is sealed, and lets it be stored to.
fn stored_to(arena: &Arena, policy: &str, file: &str) -> Result<((Node, Away), Outcome)> {
    let mut node = arena.own_node(&format!("[guard]\non_daemon_loss = '{policy}'"))?;
    let foothold = Foothold::gain(&node, "orphan")?;
    let sealed = foothold.sealed()?;
    let attack = foothold.begin(&["overwrite", "mmap", file, SIGNALS])?;
    foothold.wait_ready()?;
    foothold.wait_sealed(sealed)?;
    let away = foothold.step_back();
    node.daemon_mut()?.kill()?;
    let foothold = away.come_back(&node);
    let outcome = foothold.go(attack)?;
    let away = foothold.step_back();
    Ok(((node, away), outcome))
}
