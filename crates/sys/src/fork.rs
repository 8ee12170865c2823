//! Forking a process that has one thread.

use std::io;

use nix::sched::CloneFlags;
use nix::unistd::ForkResult;

/// On which side of the fork we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// In the new process.
    Child,
    /// In the old one, which must reap the child.
    Parent {
        /// The new process's pid.
        child: i32,
    },
}

/// Forks.
///
/// # Errors
/// `EINVAL` when this process has more than one thread: whatever lock another one
/// holds would stay locked in the child for ever. Otherwise as `fork(2)`.
pub fn fork() -> io::Result<Side> {
    // The kernel unshares a thread group only when it has a single thread, which
    // makes this a test that needs no /proc (unshare(2)).
    nix::sched::unshare(CloneFlags::CLONE_THREAD)?;
    // SAFETY: this is the only thread, and it is here: no lock is held by another,
    // so the child may do whatever the parent may.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => Ok(Side::Child),
        ForkResult::Parent { child } => Ok(Side::Parent {
            child: child.as_raw(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_not_forked() {
        // The test runner's own thread makes two.
        assert_eq!(fork().unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }
}
