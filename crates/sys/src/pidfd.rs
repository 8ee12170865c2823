//! Processes by descriptor, so that a recycled pid is never mistaken for its
//! former owner.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

/// Opens a pidfd of the process that has this pid *now*. The caller must know
/// why that is still the right one.
///
/// # Errors
/// `ESRCH` when there is no such process.
pub fn open(pid: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or(rustix::io::Errno::SRCH)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?)
}

/// The pid of the process, in our pid namespace.
///
/// # Errors
/// `ESRCH` when it is gone: its pid may be somebody else's by now.
pub fn pid(pidfd: impl AsFd) -> io::Result<i32> {
    use std::os::fd::AsRawFd;
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_fd().as_raw_fd()))?;
    info.lines()
        .find_map(|line| line.strip_prefix("Pid:"))
        .and_then(|pid| pid.trim().parse().ok())
        .filter(|pid| *pid > 0)
        .ok_or_else(|| rustix::io::Errno::SRCH.into())
}

/// Whether the process has exited (it may not have been reaped).
///
/// # Errors
/// As `poll(2)`.
pub fn has_exited(pidfd: impl AsFd) -> io::Result<bool> {
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    Ok(rustix::event::poll(&mut fds, Some(&now))? > 0)
}

/// Waits for the exit of the process; false when it still runs after `timeout`.
///
/// # Errors
/// As `poll(2)`.
pub fn wait_exit(pidfd: impl AsFd, timeout: Duration) -> io::Result<bool> {
    let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    Ok(rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&timeout)))? > 0)
}

/// Sends `SIGKILL`.
///
/// # Errors
/// `ESRCH` when it has exited already.
pub fn kill(pidfd: impl AsFd) -> io::Result<()> {
    Ok(rustix::process::pidfd_send_signal(pidfd, Signal::KILL)?)
}

#[cfg(test)]
#[allow(clippy::cast_possible_wrap)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn follows_a_process_to_its_end_and_not_further() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pidfd = open(child.id() as i32).unwrap();
        assert_eq!(pid(&pidfd).unwrap(), child.id() as i32);
        assert!(!has_exited(&pidfd).unwrap());
        kill(&pidfd).unwrap();
        assert!(wait_exit(&pidfd, Duration::from_secs(5)).unwrap());
        child.wait().unwrap();
        assert!(pid(&pidfd).is_err());
        assert!(kill(&pidfd).is_err());
    }
}
