//! The image's own version of a file that was taken out of a container.
//!
//! It is read through an overlay of our own, of the image's layers alone: so the kernel decides
//! which layer has the file and what hides it, and the container, which never sees that overlay,
//! has no say in it.
//!
//! To take the whiteout out of the container's upper layer would bring the file back at no cost.
//! But nobody may change the layers of an overlay that is mounted, and the kernel remembers that
//! the name means nothing: the file would come back whenever that memory is needed for something
//! else. So the file is written anew, through the container's own root.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use lazaret_sys::open_as_written;
use lazaret_types::{Layers, Sha256};
use rustix::fs::OFlags;

use super::attributes::Attributes;
use super::object;
use super::place::{self, Stamp};
use super::refusal::Refusal;
use super::step::{Step, passed};
use super::store::Positioned;

/// What the image has at a path.
#[derive(Debug)]
pub(super) struct Original {
    file: File,
    stamp: Stamp,
}

impl Original {
    /// Finds what an image has at `path`.
    ///
    /// # Errors
    /// When it is not a regular file, or its layers cannot be looked into.
    pub(super) fn find(layers: &Layers, path: &Path) -> Result<Self, Refusal> {
        let failed = || Refusal::io("look into the image's layers");
        let image = lazaret_walk::image::merged(&layers.lower).map_err(failed())?;
        let not_there = || Refusal::NotInImage(crate::evidence::escape(path).0);
        // First only what it is: to open a device or a FIFO may do something.
        let found = match open_as_written(image.as_fd(), path, OFlags::PATH | OFlags::NOFOLLOW) {
            Err(error) if is_nothing(&error) => return Err(not_there()),
            found => found.map_err(failed())?,
        };
        match Self::of(&found) {
            Err(Refusal::NotAFile) => Err(not_there()),
            original => original,
        }
    }

    /// An open file, `O_PATH` or not.
    ///
    /// # Errors
    /// When it is not a regular one.
    pub(super) fn of(found: &OwnedFd) -> Result<Self, Refusal> {
        let stamp = place::stamp(found.as_fd())?;
        let file = crate::origin::reopen(found).map_err(Refusal::io("open the image's version"))?;
        Ok(Self {
            file: file.into(),
            stamp,
        })
    }

    /// To be judged.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Bytes.
    pub(super) fn size(&self) -> u64 {
        self.stamp.size
    }

    /// Makes a new file what this one is, and closes it.
    ///
    /// # Errors
    /// When it cannot, or when what is copied is not what was judged.
    pub(super) fn write(&self, mut new: File, judged: Sha256) -> Result<(), Refusal> {
        let failed = || Refusal::io("write the file");
        let source = Positioned {
            file: self.file.as_fd(),
            offset: 0,
        };
        let copied = object::copy(source, &mut new, self.stamp.size).map_err(failed())?;
        if copied.sha256 != judged {
            return Err(Refusal::Changed);
        }
        let attributes = Attributes::whole(self.file.as_fd()).map_err(Refusal::io("read its attributes"))?;
        let given = attributes.apply(new.as_fd());
        given.map_err(Refusal::io("give the file its owner, mode, times and attributes"))?;
        new.flush().and_then(|()| new.sync_all()).map_err(failed())?;
        passed(Step::OriginalWritten);
        Ok(())
    }
}

/// Nothing is there, or a part of the path is no folder, or a link that the container did not have.
fn is_nothing(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let nothing = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP];
    nothing
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
