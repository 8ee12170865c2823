//! What the standard library lacks for child processes.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// Lets the child be killed when the *thread* that spawns it ends, which must
/// therefore be one that lives as long as the process.
pub fn end_with_parent(command: &mut Command) {
    let parent = Pid::from_raw(std::process::id().cast_signed());
    let arm = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // A parent that died before the line above sends nothing any more.
        if getppid() == parent {
            Ok(())
        } else {
            Err(rustix::io::Errno::SRCH.into())
        }
    };
    // SAFETY: between fork and exec only async-signal-safe code may run. The
    // closure makes two plain system calls and neither allocates nor locks.
    unsafe { command.pre_exec(arm) };
}

/// Sends a signal by its number, real-time signals included, which the signal
/// types of rustix and nix cannot name.
///
/// # Errors
/// `EINVAL` when there is no such signal, otherwise as `kill(2)`.
pub fn signal(pid: Pid, number: i32) -> io::Result<()> {
    // SAFETY: kill(2) takes two integers; rustix's `Pid` is never 0 or negative,
    // so no process group is meant.
    match unsafe { libc::kill(pid.as_raw_pid(), number) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
