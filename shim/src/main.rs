//! `containerd-shim-lazaret-v1`: a containerd shim that guards every container.
//!
//! containerd calls this binary to start a shim (`start`), to clean up after a dead
//! one (`delete`), and to learn about the runtime (`-info`). Called without an
//! action it *is* the shim, one for each pod: `serve` answers the task service of
//! containerd, versions 2 and 3, and lets an OCI runtime do the rest. Between that
//! runtime's `create` and `start` every container is guarded (see `guard`).

#![forbid(unsafe_code)]

mod address;
mod bundle;
mod cgroup;
mod container;
mod delete;
mod error;
mod events;
mod guard;
mod info;
mod log;
mod mounts;
mod options;
mod process;
mod reaper;
mod runtime;
mod serve;
mod start;
mod stdio;
mod sync;
mod task;

use std::process::ExitCode;

use anyhow::{Context, bail, ensure};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("containerd-shim-lazaret-v1: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let flags = containerd_shim::parse(&arguments).context("cannot read the command line")?;
    if flags.version {
        println!("containerd-shim-lazaret-v1 {}", env!("CARGO_PKG_VERSION"));
        return Ok(());
    }
    if flags.info {
        return info::run();
    }
    ensure!(
        !flags.namespace.is_empty(),
        "-namespace is missing; this program is called by containerd"
    );
    // Both become parts of paths.
    lazaret_types::ContainerId::new(&flags.id).context("-id")?;
    lazaret_types::ContainerId::new(&flags.namespace).context("-namespace")?;
    match flags.action.as_str() {
        "start" => start::run(&flags),
        "delete" => delete::run(&flags),
        "" => serve::run(&flags),
        other => bail!("there is no action {other:?}; containerd knows start and delete"),
    }
}
