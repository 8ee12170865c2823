//! A program that takes a process's output: `binary://`.
//!
//! It finds standard output on descriptor 3, standard error on 4, and closes 5 when it is
//! ready; who it is called for is in its environment. The process writes to it directly,
//! and it outlives the shim: what is written after the shim's death is logged as well.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use tokio::net::unix::pipe::Receiver;

use super::Owner;
use crate::error::{Context, Error, Result};
use crate::reaper::{Ending, Reaper};

/// Where the program finds what it needs.
const STDOUT: i32 = 3;
const STDERR: i32 = 4;
const READY: i32 = 5;

/// How long it may take to be ready.
const START: Duration = Duration::from_secs(10);

/// How long it may go on reading when all that wrote to it have ended, before it is told to
/// end; and how long it may take to do so.
const END: Duration = Duration::from_secs(2);
const TERMINATION: Duration = Duration::from_secs(10);

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// A running logging program.
#[derive(Debug)]
pub(super) struct Logger {
    program: String,
    pid: Pid,
    ending: Option<Ending>,
    reaper: Reaper,
}

/// The writing ends of what a logging program reads.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

impl Logger {
    /// Starts it and waits until it is ready.
    pub(super) async fn start(
        program: &Path,
        arguments: &[String],
        owner: Owner<'_>,
    ) -> Result<(Self, Inputs)> {
        let name = program.display().to_string();
        let cannot = || format!("cannot start the logging program {name}");
        let pipe = || pipe_with(PipeFlags::CLOEXEC).context(cannot);
        let ((stdout, to_stdout), (stderr, to_stderr), (ready, to_ready)) = (pipe()?, pipe()?, pipe()?);
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("CONTAINER_ID", owner.id)
            .env("CONTAINER_NAMESPACE", owner.namespace)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mapped = [(stdout, STDOUT), (stderr, STDERR), (to_ready, READY)];
        let mapped = mapped.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
        command.fd_mappings(mapped.into()).context(cannot)?;
        let (child, ending) = owner.reaper.spawn_lasting(&mut command).context(cannot)?;
        drop(command); // And with it our copies of its ends.
        let logger = Self {
            program: name.clone(),
            pid: Pid::from_child(&child),
            ending: Some(ending),
            reaper: owner.reaper.clone(),
        };
        match tokio::time::timeout(START, readiness(ready)).await {
            Ok(ready) => ready.context(cannot)?,
            Err(_late) => {
                return Err(Error::internal(format!(
                    "the logging program {name} did not become ready within {START:?}"
                )));
            }
        }
        let (stdout, stderr) = (to_stdout, to_stderr);
        Ok((logger, Inputs { stdout, stderr }))
    }

    /// Lets it read to the end. Whoever wrote to it has ended.
    pub(super) async fn end(mut self) {
        let Some(mut ending) = self.ending.take() else {
            return;
        };
        for (patience, signal) in [(END, SIGTERM), (TERMINATION, SIGKILL)] {
            if tokio::time::timeout(patience, &mut ending).await.is_ok() {
                return;
            }
            self.signal(signal);
        }
        tracing::warn!(
            program = self.program,
            "a logging program did not end and was killed"
        );
    }

    fn signal(&self, number: i32) {
        // It has ended, or it is ours to signal.
        self.reaper.signal(self.pid, number).ok();
    }
}

impl Drop for Logger {
    /// Of a process that never came to be, or was given up.
    fn drop(&mut self) {
        if self.ending.is_some() {
            self.signal(SIGTERM);
        }
    }
}

/// Waits until the program writes a byte or closes its end.
async fn readiness(ready: OwnedFd) -> io::Result<()> {
    let ready = Receiver::from_owned_fd(ready)?;
    loop {
        ready.readable().await?;
        match ready.try_read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done.map(drop),
        }
    }
}
