//! The standard streams of a process: pipes or a terminal on its side, the client's
//! fifos, a file or a logging program on the other.
//!
//! We keep both ends of an output's fifo: a client may go away and come back, and
//! neither does the process die of `SIGPIPE` nor is what it wrote lost. A pipe's
//! input ends when its client closes it; a terminal has no end.

mod fifo;
mod logger;
mod pipes;
mod pty;
mod relay;
mod sink;
mod target;
mod terminal;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::error::Result;
use crate::options::Options;
use crate::reaper::Reaper;
use crate::sync::lock;
use logger::Logger;
use pipes::Pipes;
use pty::Pty;
use terminal::Terminal;

/// How long a process that has ended may keep us waiting for its last output:
/// somebody else may have inherited its end of the pipe.
const DRAIN: Duration = Duration::from_secs(10);

/// Where the client wants the streams: paths of fifos, empty for none. What `stdout` names
/// may also be a URL, which then stands for both outputs: see [`target`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
}

/// Whose streams are opened, and what that takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner<'a> {
    /// The id of the container or exec, and its namespace: a logging program is told.
    pub(crate) id: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) options: &'a Options,
    pub(crate) reaper: &'a Reaper,
}

/// Our side of the streams of a process that the runtime is still making: what it
/// says about a failure is an error for containerd, and not the process's output.
#[derive(Debug)]
pub(crate) enum Prepared {
    Pipes(Pipes),
    Terminal(Terminal),
}

/// Our side of a process's streams. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Streams {
    outputs: JoinSet<()>,
    /// Nobody waits for its end.
    _input: JoinSet<()>,
    close_stdin: Arc<Notify>,
    /// Reading ends of the output fifos, so that what nobody has read yet stays.
    _unread: Vec<OwnedFd>,
    terminal: Option<Arc<Pty>>,
    logger: Option<Logger>,
}

/// The process's side, for the runtime that starts it.
#[derive(Debug, Default)]
pub(crate) struct ChildEnds {
    pipes: Mutex<Ends>,
    console_socket: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct Ends {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

impl Prepared {
    /// Opens the client's side, and makes what the process gets instead of it.
    pub(crate) async fn open(request: &Request, owner: Owner<'_>) -> Result<(Self, ChildEnds)> {
        if request.terminal {
            Terminal::open(request, owner).await
        } else {
            Pipes::open(request, owner).await
        }
    }

    /// Lets the bytes flow. The runtime has made the process.
    pub(crate) async fn start(self) -> Result<Streams> {
        match self {
            Self::Pipes(pipes) => Ok(pipes.start()),
            Self::Terminal(terminal) => terminal.start().await,
        }
    }
}

impl Streams {
    fn new(unread: Vec<OwnedFd>) -> Self {
        Self {
            outputs: JoinSet::new(),
            _input: JoinSet::new(),
            close_stdin: Arc::default(),
            _unread: unread,
            terminal: None,
            logger: None,
        }
    }

    /// Lets the process see the end of its input once it has read what the client
    /// has written so far.
    pub(crate) fn close_stdin(&self) {
        self.close_stdin.notify_one();
    }

    /// Changes the size of the terminal, if it is one.
    pub(crate) fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        match &self.terminal {
            Some(pty) => pty.resize(columns, rows),
            None => Ok(()),
        }
    }

    /// Waits until all that the process wrote has arrived.
    pub(crate) async fn drain(mut self) {
        let all = async { while self.outputs.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, all).await.is_err() {
            tracing::warn!("a process has ended, but another one holds its output open; it is cut off");
        }
        // What is still on its way to a logging program ends with this.
        self.outputs.shutdown().await;
        if let Some(logger) = self.logger.take() {
            logger.end().await;
        }
    }
}

impl ChildEnds {
    /// Where the runtime is to send the process's terminal, if it gets one.
    pub(crate) fn console_socket(&self) -> Option<&Path> {
        self.console_socket.as_deref()
    }
}

#[async_trait]
impl runc::Io for ChildEnds {
    /// Moves the ends into the command, with which our copies are closed.
    async fn set(&self, command: &mut runc::Command) -> io::Result<()> {
        let ends = std::mem::take(&mut *lock(&self.pipes));
        let stdio = |end: Option<OwnedFd>| end.map_or_else(Stdio::null, Stdio::from);
        command
            .stdin(stdio(ends.stdin))
            .stdout(stdio(ends.stdout))
            .stderr(stdio(ends.stderr));
        Ok(())
    }

    async fn close_after_start(&self) {}
}

fn log_failure(done: io::Result<()>) {
    match done {
        // The process does not read its input any more.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => tracing::warn!("a standard stream broke: {error}"),
        Ok(()) => {}
    }
}
