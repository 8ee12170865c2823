//! Attacks from within a container, by somebody who knows how we work. Each ends in a denial
//! before any effect, and in an incident; or it is one of the known limits, and then it asserts
//! that limit, so that whoever closes it is told to take it off the list.
//!
//! Real containerd, real runc, real fanotify, the newest containerd that we support:
//! `cargo xtask test attacks [-- PART-OF-A-NAME]`.

mod arena;
mod case;
mod daemon_loss;
mod endless;
mod foothold;
mod leases;
mod libraries;
mod limits;
mod overwrite;
mod paths;
mod program;
mod race;
mod reach;
mod signatures;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use lazaret_tests::binaries::{BIN_DIR, Binaries};
use lazaret_tests::{interrupt, machine, scratch};
use libtest_mimic::Arguments;

use arena::Arena;
use case::Case;

/// Starts of containers load a machine more than the number of its cores tells.
const THREADS: usize = 4;

fn main() -> Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(THREADS));
    let arena = if arguments.list || not_called() {
        None
    } else {
        Some(prepare()?)
    };
    let trials = cases().map(|case| case.trial(arena.as_ref())).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    interrupt::yield_to_cleanup();
    // Not by `exit`: the node is to be taken down first.
    arena.iter().for_each(|arena| arena.close());
    Ok(conclusion.exit_code())
}

/// Whether this is a bare `cargo test`: it must not install packages and take minutes.
fn not_called() -> bool {
    std::env::var_os(BIN_DIR).is_none()
}

fn prepare() -> Result<Arc<Arena>> {
    interrupt::install()?;
    scratch::sweep_dead();
    machine::ensure()?;
    Ok(Arc::new(Arena::new(Binaries::build()?)))
}

fn cases() -> impl Iterator<Item = Case> {
    let topics = [
        overwrite::CASES,
        race::CASES,
        reach::CASES,
        libraries::CASES,
        leases::CASES,
        endless::CASES,
        paths::CASES,
        signatures::CASES,
        daemon_loss::CASES,
        limits::CASES,
    ];
    topics.into_iter().flatten().copied()
}
