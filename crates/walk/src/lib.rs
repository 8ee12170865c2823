//! Walks folder trees that somebody hostile owns and changes meanwhile, and shows
//! every regular file to a [`Visitor`].
//!
//! - It never leaves the root: names are opened one by one beneath an open folder,
//!   symbolic links are not followed, other mounts are entered only when asked for.
//! - It opens regular files and folders, and nothing else: what a name is, is
//!   looked at without opening it, and then that very inode is opened.
//! - Three descriptors and some 40 MiB suffice for any tree: see `level.rs`.
//! - The order is that of the names' bytes, level by level, so a walk can go on
//!   after the last file that it showed: [`Options::after`].
//!
//! [`image`] makes such a tree of a container image.

#![forbid(unsafe_code)]

pub mod image;
mod level;
mod look;
#[cfg(test)]
mod tests;
mod walker;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

/// A regular file, open for reading from its beginning.
#[derive(Debug, Clone, Copy)]
pub struct Regular<'a> {
    /// From the root, without a leading slash; longer than `PATH_MAX` when the
    /// tree is deep. Empty when the root itself is a file.
    pub path: &'a Path,
    /// Opened with `O_NONBLOCK`. Its content may change at any time.
    pub file: BorrowedFd<'a>,
    /// Bytes, a moment ago.
    pub size: u64,
}

/// What is done on the way. Each call may stop the walk.
pub trait Visitor {
    /// A regular file; one with several names comes once (see [`MAX_LINKS`]).
    fn file(&mut self, file: &Regular<'_>) -> ControlFlow<()>;

    /// Something that should have been looked at and was not.
    fn skipped(&mut self, path: &Path, why: Skip) -> ControlFlow<()>;

    /// `path` comes next, whatever it is: the chance to stop, or to show progress.
    fn next(&mut self, path: &Path) -> ControlFlow<()> {
        let _ = path;
        ControlFlow::Continue(())
    }
}

/// Why something was not looked at.
#[derive(Debug)]
pub enum Skip {
    /// It lies on a mount that [`Mounts`] does not name.
    OtherMount,
    /// A mount that shows what was or will be seen elsewhere in the walk.
    Cycle,
    /// More than [`MAX_DEPTH`] folders deep.
    TooDeep,
    /// A folder that was moved while it was walked: what of it had not been seen
    /// by then was not seen.
    Moved,
    /// The kernel refused. What merely vanished is not reported.
    Failed(io::Error),
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherMount => f.write_str("on another mount"),
            Self::Cycle => f.write_str("mounted twice"),
            Self::TooDeep => write!(f, "more than {MAX_DEPTH} folders deep"),
            Self::Moved => f.write_str("moved while it was walked"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

/// Which mounts a walk enters besides the root's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mounts {
    /// None.
    Stay,
    /// Those of these devices, as in `st_dev` of their folders. Each folder that
    /// is the root of a mount is entered once.
    Into(BTreeSet<u64>),
}

/// How to walk.
#[derive(Debug, Clone)]
pub struct Options {
    /// See [`Mounts`].
    pub mounts: Mounts,
    /// Go on behind this file, which an earlier walk has shown.
    pub after: Option<PathBuf>,
}

/// How a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walked {
    /// Everything was shown or skipped.
    All,
    /// A visitor stopped it.
    Stopped,
}

/// Deepest folder that is entered. A path of that many folders is at most 2.5 MiB.
pub const MAX_DEPTH: usize = 10_000;

/// Files with several names that are remembered, 16 bytes each. Later ones are
/// shown once for each name.
pub const MAX_LINKS: usize = 1 << 20;

/// Walks the tree of `root`: a folder, `O_PATH` or not, or a single regular file.
///
/// # Errors
/// When the root cannot be opened. Everything else is told to the visitor.
pub fn walk(root: BorrowedFd<'_>, options: &Options, visitor: &mut dyn Visitor) -> io::Result<Walked> {
    walker::walk(root, options, visitor)
}
