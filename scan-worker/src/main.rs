//! lazaret-scan-worker: judges file contents for lazaretd.
//!
//! Everything that parses what a container wrote is in this program. It is started
//! once as the *zygote*: reads the rules, gives up every privilege, and forks a
//! worker whenever lazaretd asks for one. The rules are shared by all workers, and
//! a worker that a file has taken over can neither open, connect, run nor signal
//! anything. `scan.proto` is the protocol.

#![forbid(unsafe_code)]

mod engine;
mod sandbox;
mod wire;
mod worker;
mod zygote;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use lazaret_scan_worker::{judge, rules, similar::Similar};

/// Judges file contents for lazaretd. Not meant to be started by hand, but for --list
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// A folder of YARA rules (*.yar, *.yara); may be given several times
    #[arg(long = "rules", value_name = "FOLDER")]
    folders: Vec<PathBuf>,
    /// A folder of TLSH lists (*.tlsh)
    #[arg(long, value_name = "FOLDER")]
    lists: Option<PathBuf>,
    /// Where compiled rules are kept
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
    /// The user and group that workers run as, when started by root
    #[arg(long, value_name = "UID", default_value_t = 65_534)]
    uid: u32,
    /// Memory that a worker may use, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 30)]
    memory: u64,
    /// Judge by this program instead of rules
    #[arg(long, value_name = "PROGRAM", conflicts_with_all = ["folders", "lists", "cache"])]
    engine: Option<PathBuf>,
    /// What the program may read and run; may be given several times
    #[arg(long = "path", value_name = "PATH", requires = "engine")]
    paths: Vec<PathBuf>,
    /// Only print the rules, and what is wrong with them, as JSON lines
    #[arg(long)]
    list: bool,
    /// Arguments of the program
    #[arg(last = true, requires = "engine")]
    args: Vec<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = if args.list {
        list(&args)
    } else {
        zygote::run(&args).map(|()| ExitCode::SUCCESS)
    };
    done.unwrap_or_else(|error| {
        eprintln!("lazaret-scan-worker: {error:#}");
        ExitCode::FAILURE
    })
}

/// Prints what would judge, for `lazaret rules`.
fn list(args: &Args) -> anyhow::Result<ExitCode> {
    let loaded = rules::load(&args.folders, None)?;
    let mut out = std::io::stdout().lock();
    let similar = load_lists(args)?;
    for problem in loaded.problems.iter().chain(&similar.problems) {
        let kind = if problem.warning { "warning" } else { "error" };
        let line = serde_json::json!({
            "kind": kind, "file": problem.file, "line": problem.line, "column": problem.column,
            "message": problem.message,
        });
        writeln!(out, "{line}")?;
    }
    for rule in loaded.rules.iter() {
        let [severity, description, attack] = judge::META.map(|name| judge::meta(&rule, name));
        let line = serde_json::json!({
            "kind": "rule", "rule": rule.identifier(), "file": rule.namespace(),
            "severity": severity, "description": description, "attack": attack,
        });
        writeln!(out, "{line}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The TLSH lists, if there is a folder of them.
fn load_lists(args: &Args) -> anyhow::Result<Similar> {
    args.lists
        .as_deref()
        .map_or_else(|| Ok(Similar::default()), Similar::load)
}
