//! The process that loaded the rules, and forks workers.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lazaret_api::scan::v1::{Fork, FromZygote, Ready, ToZygote, from_zygote};
use lazaret_config::Unpack;
use lazaret_sys::seqpacket;
use thiserror::Error;

use super::worker::{Worker, answer_buffer, receive, send};
use crate::engine::Priority;

/// Compiling five thousand rules takes seconds; compiled ones load at once.
const LOADING: Duration = Duration::from_secs(120);

/// A fork takes a millisecond.
const FORKING: Duration = Duration::from_secs(2);

/// How a zygote is started.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The program.
    pub(crate) program: PathBuf,
    /// What its workers judge by.
    pub(crate) by: By,
    /// Whom workers run as.
    pub(crate) uid: u32,
    /// Bytes that a worker may use.
    pub(crate) memory: u64,
    /// How far it looks into archives.
    pub(crate) unpack: Unpack,
}

/// What workers judge by.
#[derive(Debug, Clone)]
pub(crate) enum By {
    /// Our own engines.
    Rules {
        /// Folders of rules, as far as they exist.
        rules: Vec<PathBuf>,
        /// The folder of TLSH lists.
        lists: PathBuf,
        /// Where compiled rules are kept.
        cache: PathBuf,
    },
    /// A program of others, which each worker becomes.
    Program {
        command: PathBuf,
        args: Vec<String>,
        /// What it may read and run.
        paths: Vec<PathBuf>,
    },
}

/// No zygote, or none any more.
#[derive(Debug, Error)]
pub(crate) enum ZygoteError {
    #[error(
        "cannot start the scan worker {program}: {source}; install it beside lazaretd or set scan.worker"
    )]
    Start { program: PathBuf, source: io::Error },
    #[error("the scan worker failed: {0}")]
    Failed(String),
    #[error("the scan worker does not answer: {0}")]
    Silent(#[from] io::Error),
}

/// A running zygote. Dropping it ends it; its workers go on.
#[derive(Debug)]
pub(crate) struct Zygote {
    socket: OwnedFd,
    child: Child,
}

impl Zygote {
    /// Starts a zygote and waits until its rules are loaded.
    pub(crate) fn start(settings: &Settings) -> Result<(Self, Ready), ZygoteError> {
        let (socket, theirs) = seqpacket::pair()?;
        let child = Command::new(&settings.program)
            .args(arguments(settings))
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .env_clear()
            .spawn()
            .map_err(|source| ZygoteError::Start {
                program: settings.program.clone(),
                source,
            })?;
        let zygote = Self { socket, child };
        let ready = zygote.hear(LOADING)?;
        match ready {
            (Some(from_zygote::Message::Ready(ready)), _) => Ok((zygote, ready)),
            (other, _) => Err(unexpected(other)),
        }
    }

    /// Forks a worker for such work.
    pub(crate) fn fork(&self, priority: Priority) -> Result<Worker, ZygoteError> {
        let fork = Fork {
            background: priority == Priority::Background,
        };
        send(&self.socket, &ToZygote { fork: Some(fork) }, None)?;
        match self.hear(FORKING)? {
            (Some(from_zygote::Message::Forked(_)), [Some(socket), Some(pidfd), _]) => {
                Ok(Worker::new(socket, pidfd))
            }
            (other, _) => Err(unexpected(other)),
        }
    }

    fn hear(&self, patience: Duration) -> io::Result<(Option<from_zygote::Message>, seqpacket::Fds)> {
        let (mut buffer, deadline) = (answer_buffer(), Instant::now() + patience);
        let (message, fds) = receive::<FromZygote>(self.socket.as_fd(), &mut buffer, deadline)?;
        Ok((message.message, fds))
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        // It holds nothing that matters, so it may end at once.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn arguments(settings: &Settings) -> Vec<OsString> {
    let option = |name: &str, value: &Path| [name.into(), value.into()];
    let numbers = [("--uid", u64::from(settings.uid)), ("--memory", settings.memory)];
    let numbers = numbers
        .into_iter()
        .flat_map(|(name, value)| [name.into(), value.to_string().into()]);
    let by: Vec<OsString> = match &settings.by {
        By::Rules { rules, lists, cache } => rules
            .iter()
            .flat_map(|folder| option("--rules", folder))
            .chain(option("--lists", lists))
            .chain(option("--cache", cache))
            .collect(),
        By::Program { command, args, paths } => option("--engine", command)
            .into_iter()
            .chain(paths.iter().flat_map(|path| option("--path", path)))
            // Whatever comes behind is the program's own.
            .chain(["--".into()])
            .chain(args.iter().map(OsString::from))
            .collect(),
    };
    numbers.chain(by).collect()
}

fn unexpected(message: Option<from_zygote::Message>) -> ZygoteError {
    ZygoteError::Failed(match message {
        Some(from_zygote::Message::Failed(failed)) => failed.reason,
        other => format!("it sent {other:?}"),
    })
}
