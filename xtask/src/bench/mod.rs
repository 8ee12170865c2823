//! `cargo xtask bench NAME`: one file a bench, one report for all.

mod report;
mod start;
mod stats;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// A container's start under lazaret and under the stock shim, and the memory of each shim
    Start(start::Args),
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    match &args.bench {
        Bench::Start(args) => start::run(args),
    }
}
