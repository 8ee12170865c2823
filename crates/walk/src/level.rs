//! One folder on the way from the root to where a walk is.
//!
//! A folder may have more names than fit in memory, and a path more folders than
//! there are descriptors. So a level holds no descriptor, and only the next names
//! in order, up to a bound; they can be forgotten at any time and listed again
//! behind the last one that was taken.

use std::collections::BinaryHeap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{RawDir, SeekFrom};

use crate::look::Identity;

/// Names that a level holds at once: at most 16 MiB.
pub(crate) const BATCH: usize = 1 << 16;

/// Read from the kernel at once, in bytes.
const BUFFER: usize = 32 << 10;

#[derive(Debug)]
pub(crate) struct Level {
    /// In the level above; empty for the root.
    pub(crate) name: OsString,
    pub(crate) identity: Identity,
    /// The last name that was taken.
    after: Option<OsString>,
    /// The next names, the very next one last.
    names: Vec<OsString>,
    /// Nothing comes behind `names`.
    is_all: bool,
}

impl Level {
    /// A level that begins behind the name `after`.
    pub(crate) fn new(name: OsString, identity: Identity, after: Option<OsString>) -> Self {
        Self {
            name,
            identity,
            after,
            names: Vec::new(),
            is_all: false,
        }
    }

    /// Takes the next name; none when there is no more. `folder` is this level's.
    pub(crate) fn take(&mut self, folder: BorrowedFd<'_>, batch: usize) -> io::Result<Option<OsString>> {
        if self.names.is_empty() && !self.is_all {
            self.list(folder, batch)?;
        }
        let name = self.names.pop();
        if name.is_some() {
            self.after.clone_from(&name);
        }
        Ok(name)
    }

    /// How many names it holds.
    pub(crate) fn held(&self) -> usize {
        self.names.len()
    }

    /// Gives the memory of its names back.
    pub(crate) fn forget(&mut self) {
        if !self.names.is_empty() {
            self.names = Vec::new();
            self.is_all = false;
        }
    }

    /// Nothing of it is wanted any more.
    pub(crate) fn finish(&mut self) {
        self.names = Vec::new();
        self.is_all = true;
    }

    /// Lists the smallest names behind `after`, `batch` of them.
    fn list(&mut self, folder: BorrowedFd<'_>, batch: usize) -> io::Result<()> {
        rustix::fs::seek(folder, SeekFrom::Start(0))?;
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut entries = RawDir::new(folder, &mut buffer);
        let mut smallest = BinaryHeap::new();
        self.is_all = true;
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            let is_self = name == "." || name == "..";
            if is_self || self.after.as_deref().is_some_and(|after| name <= after) {
                continue;
            }
            smallest.push(name.to_owned());
            if smallest.len() > batch {
                smallest.pop();
                self.is_all = false;
            }
        }
        self.names = smallest.into_sorted_vec();
        self.names.reverse();
        Ok(())
    }
}
