//! lazaretd: judges the files of the containers that the shims of this node guard.

#![forbid(unsafe_code)]

mod allow;
mod budget;
mod catch_up;
mod changes;
mod clamd;
mod containerd;
mod content;
mod control;
mod counters;
mod daemon;
mod digests;
mod drift;
mod durable;
mod engine;
mod evidence;
mod external;
mod graces;
mod handover;
mod incidents;
mod judge;
mod liveness;
mod lock;
mod node_id;
mod offer;
mod origin;
mod others;
mod policy;
mod pool;
mod quarantine;
mod queue;
mod rate;
mod reader;
mod registry;
mod runs;
mod scan;
mod seals;
mod session;
mod set;
mod shared;
mod signatures;
mod verdicts;
mod waker;
mod watchdog;
mod workers;
mod writes;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use lazaret_config::Config;
use tracing_subscriber::EnvFilter;

/// The analysis daemon of lazaret: one per node
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The configuration [default: $LAZARET_CONFIG, else /etc/lazaret/lazaret.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Watches over a lazaretd that started it
    #[command(hide = true)]
    Watchdog {
        /// Whom
        pid: i32,
        /// How long it may be silent
        deadline_ms: u64,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let stderr = std::io::stderr;
    let filter = EnvFilter::try_from_env("LAZARET_LOG").unwrap_or_else(|_unset| EnvFilter::new("info"));
    let colour = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colour)
        .with_writer(stderr)
        .init();

    let done = match args.role {
        Some(Role::Watchdog { pid, deadline_ms }) => {
            watchdog::watch(pid, Duration::from_millis(deadline_ms)).map_err(anyhow::Error::from)
        }
        None => Config::load(args.config.as_deref())
            .map_err(anyhow::Error::from)
            .and_then(|config| daemon::run(&config)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("lazaretd cannot go on: {error:#}");
            ExitCode::FAILURE
        }
    }
}
