//! What can be asked for.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use lazaret_types::Sha256;
use ulid::Ulid;

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
    /// The YARA rules
    #[command(subcommand)]
    Rules(RulesCommand),
    /// Judges files before anybody opens them
    Scan(Scan),
    /// The scans under way and done, oldest first
    Scans {
        /// One JSON object a line, for programs
        #[arg(long)]
        json: bool,
    },
    /// Files that were moved out of their containers
    #[command(subcommand)]
    Quarantine(QuarantineCommand),
    /// Contents that are clean by your decision, whatever engines say
    #[command(subcommand)]
    Allow(AllowCommand),
    /// Prints the code that completes commands in a shell
    Completions {
        /// For which one
        shell: Shell,
    },
    /// Writes manual pages, one for each command
    Man {
        /// Where to
        folder: PathBuf,
    },
    /// The versions of this command and of the daemon
    Version,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 clean, 1 failed or cancelled, 2 wrong usage, 3 found something bad, \
                        4 found nothing but could not judge everything"
)]
pub(crate) struct Scan {
    #[command(flatten)]
    pub(crate) target: ScanTarget,
    /// containerd's namespace of the container or image [default: where it is]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["path", "all", "join"])]
    pub(crate) namespace: Option<String>,
    /// The socket of the containerd that has the image [default: scan.containerd]
    #[arg(long, value_name = "SOCKET", conflicts_with_all = ["path", "container", "all", "join"])]
    pub(crate) containerd: Option<String>,
    /// Who unpacked the image [default: overlayfs]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["path", "container", "all", "join"])]
    pub(crate) snapshotter: Option<String>,
    /// Scans an image again that the same signatures have judged already
    #[arg(long, conflicts_with_all = ["path", "container", "all", "join"])]
    pub(crate) force: bool,
    /// Leaves the scan to lazaretd: `lazaret scans` tells what became of it
    #[arg(long)]
    pub(crate) detach: bool,
    /// One JSON object a line, for programs
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ScanTarget {
    /// A folder or a file of this machine, without other mounts in it
    pub(crate) path: Option<PathBuf>,
    /// The file systems that are a guarded container's own
    #[arg(long, value_name = "ID")]
    pub(crate) container: Option<String>,
    /// An image that containerd has unpacked
    #[arg(long, value_name = "REF")]
    pub(crate) image: Option<String>,
    /// All guarded containers
    #[arg(long)]
    pub(crate) all: bool,
    /// A scan that was begun already, by its id
    #[arg(long, value_name = "ID")]
    pub(crate) join: Option<String>,
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

#[derive(Debug, Subcommand)]
pub(crate) enum RulesCommand {
    /// Says what is wrong with rule files: file, line and column
    Check {
        /// Folders of rules [default: those of the configuration]
        folders: Vec<PathBuf>,
        /// One JSON object a line, for programs
        #[arg(long)]
        json: bool,
    },
    /// Prints all rules of the configuration
    List {
        /// One JSON object a line, for programs
        #[arg(long)]
        json: bool,
    },
    /// Makes lazaretd read its rules again
    Reload,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QuarantineCommand {
    /// Prints all items, oldest first
    List {
        /// One JSON object a line, for programs
        #[arg(long)]
        json: bool,
    },
    /// Prints all that is known of one item
    Show {
        /// The item
        id: Ulid,
        /// One JSON object, for programs
        #[arg(long)]
        json: bool,
    },
    /// Writes an item's content to a new file, masked so that nothing runs or finds it
    Export {
        /// The item
        id: Ulid,
        /// The file, which must not exist
        file: PathBuf,
        /// The content itself: malware, as it was
        #[arg(long)]
        plain: bool,
        /// One JSON object, for programs
        #[arg(long)]
        json: bool,
    },
    /// Puts a file back into its container, and allows its content from then on
    Restore {
        /// The item
        id: Ulid,
        /// Puts the file there as the container's image has it, if that is clean; the item stays
        #[arg(long)]
        original: bool,
        /// Replaces what is at its path now
        #[arg(long)]
        force: bool,
        /// One JSON object, for programs
        #[arg(long)]
        json: bool,
    },
    /// Destroys items
    Rm {
        /// The items
        #[arg(required = true)]
        ids: Vec<Ulid>,
        /// One JSON object a line, for programs
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AllowCommand {
    /// Allows a content; it is clean when this command has ended
    Add {
        #[command(flatten)]
        content: Content,
        /// Why, for whoever reads the list
        #[arg(long, default_value = "")]
        reason: String,
        /// For how long, e.g. 12h or 30d [default: for ever]
        #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
        lifetime: Option<Duration>,
        /// One JSON object, for programs
        #[arg(long)]
        json: bool,
    },
    /// Prints all
    List {
        /// One JSON object a line, for programs
        #[arg(long)]
        json: bool,
    },
    /// Lets engines decide again
    Rm {
        #[command(flatten)]
        content: Content,
        /// One JSON object, for programs
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
    /// The SHA-256 of the content: 64 hexadecimal digits
    pub(crate) sha256: Option<Sha256>,
    /// A file with the content
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
