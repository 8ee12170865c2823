//! What a name is, and how to open it without side effects.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use lazaret_sys::fd_path;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::{Mounts, Skip};

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// `O_NONBLOCK`: a file under a lease is refused instead of waited for.
const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// An inode, as long as somebody holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl Identity {
    pub(crate) fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
        }
    }
}

/// What stands behind a name.
pub(crate) enum Found {
    Folder {
        fd: OwnedFd,
        identity: Identity,
        /// The name is a mount point.
        mount: bool,
    },
    File {
        fd: OwnedFd,
        stat: Stat,
    },
    /// A link, FIFO, device or socket; or nothing any more.
    Nothing,
}

/// Looks a single name up in a folder and opens it when it is a folder or a
/// regular file.
pub(crate) fn at(folder: BorrowedFd<'_>, name: &OsStr, mounts: &Mounts) -> Result<Found, Skip> {
    match look(folder, name, mounts) {
        // It vanished, or became something else, since it was listed.
        Err(Skip::Failed(error)) if is_gone(&error) => Ok(Found::Nothing),
        found => found,
    }
}

fn is_gone(error: &io::Error) -> bool {
    [Errno::NOENT, Errno::NOTDIR, Errno::STALE]
        .iter()
        .any(|gone| error.raw_os_error() == Some(gone.raw_os_error()))
}

fn look(folder: BorrowedFd<'_>, name: &OsStr, mounts: &Mounts) -> Result<Found, Skip> {
    let stay = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |resolve| rustix::fs::openat2(folder, name, flags, Mode::empty(), resolve);
    let (fd, mount) = match (open(stay | ResolveFlags::NO_XDEV), mounts) {
        (Err(Errno::XDEV), Mounts::Stay) => return Err(Skip::OtherMount),
        (Err(Errno::XDEV), Mounts::Into(_)) => (open(stay).map_err(failed)?, true),
        (opened, _) => (opened.map_err(failed)?, false),
    };
    let stat = rustix::fs::fstat(&fd).map_err(failed)?;
    if let Mounts::Into(devices) = mounts
        && mount
        && !devices.contains(&stat.st_dev)
    {
        return Err(Skip::OtherMount);
    }
    open_found(fd.as_fd(), stat, mount).map_err(Skip::Failed)
}

fn failed(error: Errno) -> Skip {
    Skip::Failed(error.into())
}

/// Opens what an `O_PATH` descriptor refers to: that inode, not its name.
fn open_found(fd: BorrowedFd<'_>, stat: Stat, mount: bool) -> io::Result<Found> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Ok(Found::Folder {
            fd: folder(fd)?,
            identity: Identity::of(&stat),
            mount,
        }),
        FileType::RegularFile => Ok(Found::File {
            fd: rustix::fs::open(fd_path(fd), FILE, Mode::empty())?,
            stat,
        }),
        _ => Ok(Found::Nothing),
    }
}

/// As [`at`], for the root of a walk.
pub(crate) fn root(fd: BorrowedFd<'_>) -> io::Result<Found> {
    open_found(fd, rustix::fs::fstat(fd)?, false)
}

/// The folder itself, opened to be listed.
fn folder(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(fd, ".", FOLDER, Mode::empty())?)
}

/// The folder that holds `child`, if it is still the one with this identity.
pub(crate) fn parent(child: BorrowedFd<'_>, identity: Identity) -> Option<OwnedFd> {
    let parent = rustix::fs::openat(child, "..", FOLDER, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&parent).ok()?;
    (Identity::of(&stat) == identity).then_some(parent)
}
