//! `lazaret`: shows what lazaretd guards and reports, and tells it what is bad.
//!
//! Everything goes through the control API; see `control.proto`.

#![forbid(unsafe_code)]

mod allow;
mod args;
mod client;
mod events;
mod failure;
mod print;
mod quarantine;
mod rules;
mod scan;
mod signatures;
mod status;
mod text;
mod version;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use lazaret_config::Config;

use crate::args::{Args, Command, RulesCommand, SignaturesCommand};
use crate::client::Client;
use crate::failure::Failure;
use crate::print::Printer;

fn main() -> ExitCode {
    // A mistake in the arguments ends here, with code 2.
    let args = Args::parse();
    match run(&args) {
        // Whoever read our output has what they wanted.
        Ok(()) | Err(Failure::NobodyReads) => ExitCode::SUCCESS,
        // What was found was shown.
        Err(Failure::Found) => ExitCode::from(3),
        Err(Failure::Incomplete) => ExitCode::from(4),
        Err(failure) => {
            print::complain(&failure);
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    let mut printer = Printer::new();
    if let Command::Man { folder } = &args.command {
        let pages = clap_mangen::generate_to(Args::command(), folder);
        return pages.map_err(|source| Failure::Export {
            path: folder.clone(),
            source,
        });
    }
    if let Command::Completions { shell } = args.command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Args::command(), env!("CARGO_BIN_NAME"), &mut script);
        return printer.raw(&script);
    }
    let config = Config::load(args.config.as_deref())?;
    let socket = config.node.control_socket();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    runtime.block_on(async {
        let client = Client::new(socket);
        match &args.command {
            Command::Status { json } => status::show(&client, *json, &mut printer).await,
            Command::Events(wanted) => events::show(&client, wanted, &mut printer).await,
            Command::Signatures(SignaturesCommand::Add(new)) => {
                signatures::add(&client, new, &mut printer).await
            }
            Command::Signatures(SignaturesCommand::List { json }) => {
                signatures::list(&client, *json, &mut printer).await
            }
            Command::Scan(wanted) => scan::run(&client, wanted, &mut printer).await,
            Command::Scans { json } => scan::list(&client, *json, &mut printer).await,
            Command::Quarantine(command) => quarantine::run(&client, command, &mut printer).await,
            Command::Allow(command) => allow::run(&client, command, &mut printer).await,
            Command::Rules(RulesCommand::Check { folders, json }) => {
                rules::check(&config, folders, *json, &mut printer)
            }
            Command::Rules(RulesCommand::List { json }) => rules::list(&config, *json, &mut printer),
            Command::Rules(RulesCommand::Reload) => rules::reload(&client, &mut printer).await,
            Command::Version => version::show(&client, &mut printer).await,
            Command::Completions { .. } | Command::Man { .. } => Ok(()),
        }
    })
}
