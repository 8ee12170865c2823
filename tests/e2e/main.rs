//! End to end: real containerd, real runc, real fanotify. Every case runs on every containerd
//! release that we support. `cargo xtask test e2e [-- PART-OF-A-NAME]`.

mod bad_input;
mod by_hand;
mod case;
mod check;
mod clamd;
mod conformance;
mod daemon_loss;
mod drift;
mod engines;
mod hostile_files;
mod lifecycle;
mod like_stock;
mod malware;
mod quarantine;
mod renewal;
mod resources;
mod scale;
mod scan;
mod seals;
mod shared;
mod starts;
mod terminal;
mod workers;
mod world;
mod writes;

use std::process::ExitCode;

use anyhow::Result;
use lazaret_tests::binaries::{BIN_DIR, Binaries};
use lazaret_tests::packages::RELEASES;
use lazaret_tests::{clamav, interrupt, machine, scratch};
use libtest_mimic::Arguments;

use case::Case;
use world::World;

/// Starts of containers load a machine more than the number of its cores tells.
const THREADS: usize = 4;

fn main() -> Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(THREADS));
    let worlds = if arguments.list || not_called() {
        World::listed()
    } else {
        prepare()?
    };
    let trials = worlds
        .iter()
        .flat_map(|world| cases().map(|case| case.trial(world)))
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    interrupt::yield_to_cleanup();
    conformance::publish()?;
    // Not by `exit`: the nodes are to be taken down first.
    worlds.iter().for_each(|world| world.close());
    Ok(conclusion.exit_code())
}

/// Whether this is a bare `cargo test`: it must not install packages and take minutes.
fn not_called() -> bool {
    std::env::var_os(BIN_DIR).is_none()
}

fn prepare() -> Result<Vec<std::sync::Arc<World>>> {
    interrupt::install()?;
    scratch::sweep_dead();
    machine::ensure()?;
    clamav::install()?;
    let binaries = Binaries::build()?;
    RELEASES
        .iter()
        .map(|release| Ok(World::new(*release, binaries.clone())))
        .collect()
}

fn cases() -> impl Iterator<Item = Case> {
    let topics = [
        like_stock::CASES,
        malware::CASES,
        drift::CASES,
        seals::CASES,
        writes::CASES,
        shared::CASES,
        quarantine::CASES,
        scale::CASES,
        renewal::CASES,
        scan::CASES,
        workers::CASES,
        clamd::CASES,
        engines::CASES,
        lifecycle::CASES,
        terminal::CASES,
        resources::CASES,
        bad_input::CASES,
        hostile_files::CASES,
        daemon_loss::CASES,
        starts::CASES,
    ];
    topics.into_iter().flatten().copied().chain(conformance::cases())
}
