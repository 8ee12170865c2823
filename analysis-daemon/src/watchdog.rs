//! Ends a daemon that hangs, so that the guards take over.
//!
//! Inside, a thread gives a sign of life as long as every opener is answered in
//! time and every reader gets on. Outside, a small process of its own waits for
//! that sign, because a stopped process cannot notice that it is stopped.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use lazaret_sys::pidfd;
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::liveness::Pulse;
use crate::pool::Pool;

/// Signs of life within one deadline: one may come late.
const BEATS: u32 = 4;

/// Starts the process outside and the thread inside.
///
/// # Errors
/// When one of them cannot be started.
pub(crate) fn start(deadline: Duration, pool: Arc<Pool>, pulses: Vec<Arc<Pulse>>) -> io::Result<()> {
    let mut life = spawn(deadline)?;
    thread::Builder::new().name("watchdog".into()).spawn(move || {
        loop {
            thread::sleep(deadline / BEATS);
            let stuck = pulses
                .iter()
                .map(|pulse| pulse.busy_for())
                .chain([pool.longest_wait()])
                .max();
            if stuck.is_some_and(|stuck| stuck > deadline) {
                tracing::error!(
                    ?stuck,
                    "lazaretd hangs; it ends itself so that the guards take over"
                );
                std::process::abort();
            }
            if life.write_all(b".").is_err() {
                tracing::error!("the watchdog process is gone; starting another");
                match spawn(deadline) {
                    Ok(new) => life = new,
                    Err(error) => tracing::error!(%error, "no watchdog process could be started"),
                }
            }
        }
    })?;
    Ok(())
}

/// Starts `lazaretd watchdog`; returns the pipe that it listens to.
fn spawn(deadline: Duration) -> io::Result<impl Write + use<>> {
    let mut child = Command::new("/proc/self/exe")
        .arg("watchdog")
        .arg(std::process::id().to_string())
        .arg(deadline.as_millis().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let life = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    // It ends when we do; until then it is ours to reap.
    thread::Builder::new()
        .name("watchdog-reaper".into())
        .spawn(move || child.wait())?;
    Ok(life)
}

/// The process outside: kills `daemon` when standard input is silent for longer
/// than `deadline`. Returns when the daemon has ended by itself.
///
/// # Errors
/// When the daemon cannot be watched.
pub(crate) fn watch(daemon: i32, deadline: Duration) -> io::Result<()> {
    // Our parent cannot have been replaced: then its end of the pipe is closed.
    let pidfd = pidfd::open(daemon)?;
    let mut signs = io::stdin().lock();
    let mut bytes = [0; 64];
    loop {
        if !readable(&signs, deadline)? {
            return end(daemon, &pidfd, deadline);
        }
        match signs.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn readable(fd: impl AsFd, timeout: Duration) -> io::Result<bool> {
    let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    Ok(rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&timeout)))? > 0)
}

fn end(daemon: i32, pidfd: &OwnedFd, deadline: Duration) -> io::Result<()> {
    tracing::error!(
        pid = daemon,
        ?deadline,
        "lazaretd gave no sign of life; killing it so that the guards take over"
    );
    pidfd::kill(pidfd)
}
