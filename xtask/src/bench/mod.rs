//! `cargo xtask bench NAME`: one file a bench, one report for all.

mod files;
mod report;
mod scale;
mod scan;
mod shim;
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
    /// What the shim costs, guards attached, beside the stock one: time, memory, wake-ups, size
    Shim(shim::Args),
    /// Two rows of these: the time of a start, and the weight of one shim
    Start(shim::Start),
    /// What opening and running files costs in a guarded container
    Files(files::Args),
    /// How fast files are scanned, beside YARA-X's own command line, ClamAV and YARA
    Scan(scan::Args),
    /// What a thousand containers at once cost, and that each of them is guarded
    Scale(scale::Args),
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    match &args.bench {
        Bench::Shim(args) => shim::run(args),
        Bench::Start(args) => shim::run_start(args),
        Bench::Files(args) => files::run(args),
        Bench::Scan(args) => scan::run(args),
        Bench::Scale(args) => scale::run(args),
    }
}
