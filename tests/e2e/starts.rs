//! Very many starts in a row: not one container is unguarded at any moment.

use std::collections::BTreeSet;
use std::env;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, ensure};
use lazaret_tests::node::Node;
use lazaret_tests::run::Run;

use crate::case::Case;
use crate::check::did_not_run;
use crate::world::{EVIL, EVIL_IMAGE, IMAGE, World};

pub(crate) const CASES: &[Case] = &[Case::alone("starts::one_thousand_none_unguarded", starts)];

/// How many, for quick runs at home.
const COUNT: &str = "LAZARET_STARTS";
const CLIENTS: usize = 4;

fn starts(world: &World) -> Result<()> {
    let count = env::var(COUNT)
        .map_or(Ok(1_000), |count| count.parse())
        .context(COUNT)?;
    let node = world.own_node("")?;
    let next = AtomicU32::new(0);
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < count {
                    if let Err(error) = start(&node)
                        && let Ok(mut failures) = failures.lock()
                    {
                        failures.push(error);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    ensure!(
        failures.is_empty(),
        "{} of {count}: {:?}",
        failures.len(),
        failures.first()
    );
    all_on_record(&node, count)
}

/// One container that would show by its output if it ran unguarded: its first instruction is
/// the malware, or the one after a clean step.
fn start(node: &Node) -> Result<()> {
    let id = node.id("start");
    let clean_step = format!("echo clean; {EVIL} -c 'echo THE-MALWARE-RAN'");
    let odd = id.ends_with(['1', '3', '5', '7', '9']);
    let run = if odd {
        Run::new(&id, EVIL_IMAGE)
    } else {
        Run::new(&id, IMAGE).sh(&clean_step)
    };
    let outcome = node.run(&run)?;
    did_not_run(&outcome).context(id)?;
    ensure!(outcome.code != 0, "{outcome:?}");
    ensure!(
        odd || outcome.out() == "clean",
        "the clean step must work: {outcome:?}"
    );
    Ok(())
}

/// Every one of them was denied by lazaret, and not by some other mishap.
fn all_on_record(node: &Node, count: u32) -> Result<()> {
    let incidents = node.daemon()?.incidents()?;
    let denied = incidents.iter().filter(|incident| incident.denied());
    let ids: BTreeSet<_> = denied.map(|incident| incident.text("/container/id")).collect();
    let started = ids.iter().filter(|id| id.starts_with("start-")).count();
    ensure!(started == count as usize, "{started} of {count} have an incident");
    Ok(())
}
