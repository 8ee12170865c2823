//! Settings of a pid namespace, which only a process inside of it can change.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::thread;

use nix::sched::CloneFlags;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

/// Enough for one system call.
const STACK: usize = 16 << 10;

/// Whether a process began a pid namespace of its own, in which it is the init.
///
/// # Errors
/// `NotFound` when it is gone.
pub fn is_init(pid: i32) -> io::Result<bool> {
    let namespace = |who: &str| std::fs::metadata(format!("/proc/{who}/ns/pid"));
    if namespace(&pid.to_string())?.ino() == namespace("self")?.ino() {
        return Ok(false);
    }
    // Bytes: a process gives itself a name, which comes first with its line ends escaped.
    let status = std::fs::read(format!("/proc/{pid}/status"))?;
    let mut lines = status.split(|byte| *byte == b'\n');
    let pids = lines.find_map(|line| line.strip_prefix(b"NSpid:"));
    let innermost = pids.and_then(|pids| str::from_utf8(pids).ok()?.split_ascii_whitespace().last());
    Ok(innermost == Some("1"))
}

/// Writes to a setting below `/proc/sys` as a process of the pid namespace of `init` would.
///
/// # Errors
/// `NotFound` when the kernel has no such setting, `ESRCH` when the namespace is over, and what
/// the setting says to the value.
pub fn set(init: BorrowedFd<'_>, setting: &str, value: &[u8]) -> io::Result<()> {
    let setting = File::options().write(true).open(format!("/proc/sys/{setting}"))?;
    // The thread's children belong to that namespace from now on, so it is not to have others.
    let in_thread = || {
        nix::sched::setns(init, CloneFlags::CLONE_NEWPID)?;
        write_in_child(setting.as_fd(), value)
    };
    thread::scope(|scope| scope.spawn(in_thread).join()).unwrap_or_else(|_panic| Err(ErrorKind::Other.into()))
}

fn write_in_child(setting: BorrowedFd<'_>, value: &[u8]) -> io::Result<()> {
    let mut stack = vec![0; STACK];
    let write = || match rustix::io::write(setting, value) {
        Ok(_) => 0,
        Err(error) => isize::try_from(error.raw_os_error()).unwrap_or(isize::MAX),
    };
    // No signal at its end, so that nobody who waits for children takes it for one of his own.
    let flags = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK;
    // SAFETY: the child shares our memory, but this thread stands still until it has exited
    // (CLONE_VFORK). It makes one system call on a stack of its own, and neither allocates nor
    // locks.
    let child = unsafe { nix::sched::clone(Box::new(write), &mut stack, flags, None) }?;
    match waitpid(child, Some(WaitPidFlag::__WCLONE))? {
        WaitStatus::Exited(_, 0) => Ok(()),
        WaitStatus::Exited(_, error) => Err(io::Error::from_raw_os_error(error)),
        other => Err(io::Error::other(format!(
            "the process that was to write it: {other:?}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::pidfd;

    const SETTING: &str = "vm/memfd_noexec";

    /// The first child of a process, when it has one.
    fn init_below(parent: &Child) -> i32 {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let children = format!("/proc/{0}/task/{0}/children", parent.id());
            let children = std::fs::read_to_string(children).unwrap();
            if let Some(pid) = children.split_whitespace().next() {
                return pid.parse().unwrap();
            }
            assert!(Instant::now() < until, "it never forks");
        }
    }

    fn inside(pid: i32) -> String {
        let target = pid.to_string();
        let mut nsenter = Command::new("nsenter");
        let nsenter = nsenter
            .args(["-p", "-t", &target, "cat"])
            .arg(format!("/proc/sys/{SETTING}"));
        String::from_utf8(nsenter.output().unwrap().stdout).unwrap()
    }

    #[test]
    fn sets_it_there_and_not_here() {
        let here = std::fs::read_to_string(format!("/proc/sys/{SETTING}")).unwrap();
        let mut unshare = Command::new("unshare");
        let mut parent = unshare
            .args(["-pf", "--kill-child", "sleep", "60"])
            .spawn()
            .unwrap();
        let pid = init_below(&parent);
        assert!(is_init(pid).unwrap());
        let init = pidfd::open(pid).unwrap();
        set(init.as_fd(), SETTING, b"2").unwrap();
        assert_eq!(inside(pid), "2\n");
        assert_eq!(
            std::fs::read_to_string(format!("/proc/sys/{SETTING}")).unwrap(),
            here
        );
        let refused = set(init.as_fd(), SETTING, b"no number").unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EINVAL));
        parent.kill().unwrap();
        parent.wait().unwrap();
    }

    #[test]
    fn one_of_ours_is_no_init() {
        assert!(!is_init(std::process::id().cast_signed()).unwrap());
    }
}
