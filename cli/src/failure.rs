//! Why a command failed, in words that say what to do.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;

use thiserror::Error;
use tonic::{Code, Status};

#[derive(Debug, Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Config(#[from] lazaret_config::ConfigError),
    #[error(
        "lazaretd is not running: nothing listens on {}; start it with `systemctl start lazaretd`, \
         or as root with `lazaretd`",
        .0.display()
    )]
    NotRunning(PathBuf),
    #[error("{} belongs to root: run this command as root, e.g. with sudo", .0.display())]
    NotAllowed(PathBuf),
    #[error("cannot talk to lazaretd on {}: {why}", .socket.display())]
    Connect { socket: PathBuf, why: String },
    #[error("lazaretd {}", what_it_said(.0))]
    Refused(#[source] Box<Status>),
    #[error("cannot read {}: {source}", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("cannot write {}: {source}", .path.display())]
    Export { path: PathBuf, source: io::Error },
    #[error("the content that lazaretd sent is not that of item {0}; the file was removed")]
    OtherContent(String),
    #[error("there is no item {0} in the quarantine")]
    NoItem(String),
    #[error("{0} is not on the allow-list")]
    NotAllowListed(String),
    #[error("lazaretd sent an incident that cannot be read: {0}")]
    Incident(serde_json::Error),
    #[error("{errors} errors in the rules")]
    Rules { errors: usize },
    #[error("the scan worker does not work: {0}")]
    Worker(String),
    #[error("no scan: {0}")]
    Scan(String),
    /// A scan found something.
    #[error("something bad was found")]
    Found,
    /// A scan found nothing, but could not judge everything.
    #[error("not everything was judged")]
    Incomplete,
    #[error("cannot write the output: {0}")]
    Output(io::Error),
    /// The output is a pipe, and its reader has gone: `| head`.
    #[error("nobody reads the output")]
    NobodyReads,
    #[error("cannot start: {0}")]
    Runtime(io::Error),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::NobodyReads,
            _ => Self::Output(error),
        }
    }
}

fn what_it_said(status: &Status) -> String {
    match status.code() {
        Code::Unimplemented => "is of another version and does not know this request".into(),
        Code::DeadlineExceeded | Code::Cancelled => "gave no answer in time; its log may say why".into(),
        // Made by our side of the connection.
        _ if status.source().is_some() => "closed the connection; its log may say why".into(),
        _ => format!("refused: {}", status.message()),
    }
}
