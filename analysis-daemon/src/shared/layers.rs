//! The mounts by which overlayfs opens the files of its layers.
//!
//! Each overlay has a mount of its own for each layer, which is in no namespace. A mark on the
//! superblock that the layers lie on asks about what is opened there, too, although the overlay's
//! file has been asked about before, or is sealed. Such a mount is spared once it was told for
//! certain: what we open ourselves in an overlay that we trust is opened by a mount of that
//! overlay, and nobody else has a say in that.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use lazaret_sys::fanotify::OwnOpens;
use lazaret_sys::mounts;

use crate::origin;

/// Tells whether a file was opened as part of an overlay.
#[derive(Debug)]
pub(super) struct Layers(OwnOpens);

impl Layers {
    /// For one thread: it alone is watched.
    ///
    /// # Errors
    /// When the kernel gives no group.
    pub(super) fn new() -> io::Result<Self> {
        OwnOpens::new().map(Self)
    }

    /// Whether `file` was opened by the mount of a layer of the overlay with this root. Not when
    /// the file was renamed meanwhile, or cannot be told for another reason.
    ///
    /// # Errors
    /// When it cannot be opened (again), or the kernel does not tell.
    pub(super) fn is_of(&self, root: BorrowedFd<'_>, file: BorrowedFd<'_>) -> io::Result<bool> {
        let id = mounts::id_of(file)?;
        if !origin::is_overlay(root) || mounts::id_of(root)? == id {
            return Ok(false);
        }
        // From the root of its mount, which is the layer.
        let path = origin::path_of(file)?;
        let Ok(relative) = path.strip_prefix(Path::new("/")) else {
            return Ok(false);
        };
        let Some((inside, _)) = origin::regular(root, relative) else {
            return Ok(false);
        };
        let by = self.0.during(file, || origin::reopen(&inside))?;
        Ok(by
            .iter()
            .any(|opened| mounts::id_of(opened.as_fd()).is_ok_and(|by| by == id)))
    }
}
