//! Developer tasks, one module each: `cargo xtask --help` lists them.

mod bench;
mod ci;
mod demo;
mod elevate;
mod setup;
mod soak;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use lazaret_tests::{interrupt, ui};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer tasks of lazaret")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install, download and build everything, so that later runs start at once
    Setup,
    /// Show a clean container, malware that is denied, and its incident
    Demo(demo::Args),
    /// Run the test suites
    Test(test::Args),
    /// Measure lazaret against its peers
    Bench(bench::Args),
    /// Everything a change must pass: formatting, lints, dependencies, tests
    Ci,
    /// Many container lifecycles, watching for leaks; takes long
    Soak(soak::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = interrupt::install().and_then(|()| run(cli.task));
    // Past a signal every error is its echo; the thread that cleans up ends the process.
    interrupt::yield_to_cleanup();
    result.unwrap_or_else(|error| {
        anstream::eprintln!("{bad}error:{bad:#} {error:#}", bad = ui::BAD);
        ExitCode::FAILURE
    })
}

fn run(task: Task) -> Result<ExitCode> {
    match task {
        Task::Setup => setup::run(),
        Task::Demo(args) => demo::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Ci => ci::run(),
        Task::Soak(args) => soak::run(&args),
    }
}
