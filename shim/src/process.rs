//! One process that containerd knows: a container's init, or an exec.

use std::sync::{Mutex, OnceLock};

use containerd_shim_protos::api::Status;
use rustix::process::Pid;
use tokio::sync::watch;

use crate::error::{Context, Error, Result};
use crate::reaper::Exit;
use crate::stdio::{Request, Streams};
use crate::sync::lock;

/// Where a process is in its life. It only ever moves on, except that a start
/// that fails leads back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Known, and not started.
    Created,
    /// The runtime is starting it.
    Starting,
    /// Started, and not known to have ended.
    Running,
    /// Ended, and containerd has been told.
    Stopped(Exit),
}

/// A process and its streams. Nothing here is held over a call of the runtime: who
/// must wait watches the phase.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) stdio: Request,
    pid: OnceLock<Pid>,
    phase: watch::Sender<Phase>,
    streams: Mutex<Option<Streams>>,
}

impl Process {
    pub(crate) fn new(stdio: Request) -> Self {
        let phase = watch::Sender::new(Phase::Created);
        Self {
            stdio,
            pid: OnceLock::new(),
            phase,
            streams: Mutex::default(),
        }
    }

    pub(crate) fn pid(&self) -> Option<Pid> {
        self.pid.get().copied()
    }

    /// As containerd wants it: 0 before there is one.
    pub(crate) fn pid_number(&self) -> u32 {
        self.pid().map_or(0, number)
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    pub(crate) fn status(&self) -> Status {
        match self.phase() {
            Phase::Created => Status::CREATED,
            // Its pid is known to containerd only when it runs.
            Phase::Starting if self.pid().is_none() => Status::CREATED,
            Phase::Starting | Phase::Running => Status::RUNNING,
            Phase::Stopped(_) => Status::STOPPED,
        }
    }

    /// The runtime has made it.
    pub(crate) fn born(&self, pid: Pid, streams: Streams) {
        // An exec whose start failed is started again under another pid only if the
        // first one never came to life, and so never got here.
        self.pid.get_or_init(|| pid);
        *lock(&self.streams) = Some(streams);
    }

    /// Claims the start for the caller, who then calls the runtime.
    pub(crate) fn begin_start(&self, who: &str) -> Result<()> {
        let mut refused = None;
        self.phase.send_if_modified(|phase| match phase {
            Phase::Created => {
                *phase = Phase::Starting;
                true
            }
            phase => {
                refused = Some(*phase);
                false
            }
        });
        match refused {
            None => Ok(()),
            Some(Phase::Stopped(_)) => Err(Error::failed_precondition(format!("{who} has ended"))),
            Some(_) => Err(Error::failed_precondition(format!(
                "{who} has been started already"
            ))),
        }
    }

    pub(crate) fn end_start(&self, started: bool) {
        self.phase
            .send_replace(if started { Phase::Running } else { Phase::Created });
    }

    pub(crate) fn stop(&self, exit: Exit) {
        self.phase.send_replace(Phase::Stopped(exit));
    }

    /// Waits until no start is under way.
    pub(crate) async fn settled(&self) {
        self.until(|phase| phase != Phase::Starting).await;
    }

    /// Waits until it does not run: it has ended, or was never started.
    pub(crate) async fn at_rest(&self) {
        self.until(|phase| matches!(phase, Phase::Created | Phase::Stopped(_)))
            .await;
    }

    /// Waits for its end.
    pub(crate) async fn exited(&self) -> Exit {
        loop {
            if let Phase::Stopped(exit) = self.until(|phase| matches!(phase, Phase::Stopped(_))).await {
                return exit;
            }
        }
    }

    pub(crate) fn close_stdin(&self) {
        if let Some(streams) = &*lock(&self.streams) {
            streams.close_stdin();
        }
    }

    /// Changes the size of its terminal; without one there is nothing to change.
    pub(crate) fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        match &*lock(&self.streams) {
            Some(streams) => streams
                .resize(columns, rows)
                .context(|| "cannot change the size of the terminal"),
            None => Ok(()),
        }
    }

    /// Ends the streams, once all that the process wrote has been passed on.
    pub(crate) async fn drain(&self) {
        let streams = lock(&self.streams).take();
        if let Some(streams) = streams {
            streams.drain().await;
        }
    }

    async fn until(&self, mut wanted: impl FnMut(Phase) -> bool) -> Phase {
        let mut phase = self.phase.subscribe();
        // It cannot fail: `self` holds the sender.
        let reached = phase.wait_for(|phase| wanted(*phase)).await.map(|phase| *phase);
        reached.unwrap_or_else(|_closed| self.phase())
    }
}

/// A pid as containerd's messages carry it.
pub(crate) fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn is_started_once() {
        let process = Process::new(Request::default());
        process.begin_start("x").unwrap();
        assert!(
            process
                .begin_start("x")
                .unwrap_err()
                .to_string()
                .contains("already")
        );
        process.end_start(false);
        process.begin_start("x").unwrap();
        process.end_start(true);
        process.stop(Exit {
            status: 3,
            at: SystemTime::now(),
        });
        assert!(
            process
                .begin_start("x")
                .unwrap_err()
                .to_string()
                .contains("ended")
        );
        assert_eq!(process.status(), Status::STOPPED);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn wakes_those_who_wait_for_its_end() {
        let process = std::sync::Arc::new(Process::new(Request::default()));
        let waiting = process.clone();
        let waiter = tokio::spawn(async move { waiting.exited().await.status });
        tokio::task::yield_now().await;
        process.stop(Exit {
            status: 9,
            at: SystemTime::now(),
        });
        assert_eq!(waiter.await.unwrap(), 9);
        assert_eq!(process.exited().await.status, 9);
    }
}
