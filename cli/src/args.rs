//! What can be asked for.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use lazaret_types::Sha256;

/// Shows what lazaretd guards and reports, and tells it what is bad
#[derive(Debug, Parser)]
#[command(
    name = "lazaret",
    version,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage"
)]
pub(crate) struct Args {
    /// The configuration [default: $LAZARET_CONFIG, else /etc/lazaret/lazaret.toml]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Which containers are guarded, and how it goes
    Status {
        /// One JSON object, for programs
        #[arg(long)]
        json: bool,
    },
    /// What happened: the incidents, oldest first
    Events(Events),
    /// The lists of contents that are known bad
    #[command(subcommand)]
    Signatures(SignaturesCommand),
    /// Prints the code that completes commands in a shell
    Completions {
        /// For which one
        shell: Shell,
    },
    /// The versions of this command and of the daemon
    Version,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Events {
    /// Waits for more, over restarts of the daemon too
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// The incidents as they are on disk, one JSON object a line, for programs
    #[arg(long)]
    pub(crate) json: bool,
    /// Only this container's
    #[arg(long, value_name = "ID")]
    pub(crate) container: Option<String>,
    /// Only those after this sequence number
    #[arg(long, value_name = "SEQ")]
    pub(crate) since: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SignaturesCommand {
    /// Adds one; it judges when this command has ended
    Add(NewSignature),
    /// Prints all
    List {
        /// One JSON object a line, for programs
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct NewSignature {
    #[command(flatten)]
    pub(crate) content: Content,
    /// What incidents call it [default: the name of the file]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// How bad it is
    #[arg(long, value_enum, default_value_t = Severity::Critical)]
    pub(crate) severity: Severity,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Content {
    /// The SHA-256 of the bad content: 64 hexadecimal digits
    pub(crate) sha256: Option<Sha256>,
    /// A file with the bad content
    #[arg(long, value_name = "PATH")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Severity {
    Notice,
    Warning,
    Error,
    Critical,
}
