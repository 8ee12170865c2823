//! The only home of raw system calls in lazaret, as safe functions on owned
//! descriptors. Where rustix or nix has a call, it is used; what is written here
//! is what they lack, and what must be done the same way everywhere.

#![allow(unsafe_code, reason = "this crate is where unsafe code may live")]

pub mod cgroup;
pub mod child;
pub mod fanotify;
pub mod fork;
pub mod handle;
pub mod lease;
pub mod mounts;
pub mod pidfd;
pub mod pidns;
pub mod priority;
pub mod sealed;
pub mod seqpacket;
pub mod stat;
pub mod stream;
pub mod thread;
pub mod wait;
#[cfg(feature = "tokio")]
pub mod watched;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};

/// The path that opens what a descriptor refers to, `O_PATH` or not.
#[must_use]
pub fn fd_path(fd: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

/// Opens `path` as if `root` were `/`: neither `..` nor a symbolic link nor a
/// `/proc` link leads out of it, whatever the container does meanwhile.
///
/// # Errors
/// As `openat2(2)`; `EAGAIN` after a race with a rename is retried a few times.
pub fn open_in_root(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    resolve(
        root,
        path,
        flags,
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
}

/// As [`open_in_root`], but the path must mean what it says: no link of any kind is followed, and
/// all of it lies on the mount of `root`.
///
/// # Errors
/// As [`open_in_root`]; `ELOOP` when there is a link, `EXDEV` when there is another mount.
pub fn open_as_written(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let strict = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    resolve(root, path, flags, ResolveFlags::IN_ROOT | strict)
}

fn resolve(root: BorrowedFd<'_>, path: &Path, flags: OFlags, resolve: ResolveFlags) -> io::Result<OwnedFd> {
    let open = || rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve);
    // The kernel cannot prove that `..` stayed inside while a rename runs anywhere.
    const TRIES: u32 = 16;
    for _ in 1..TRIES {
        match open() {
            Err(rustix::io::Errno::AGAIN) => {}
            done => return Ok(done?),
        }
    }
    Ok(open()?)
}
