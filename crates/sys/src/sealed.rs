//! Memory that nobody can change any more (memfd_create(2), "File sealing").
//!
//! Whoever is handed it may map it: what it reads stays as it is, and no page of it goes away
//! below it, as one of a file would that is cut short (`SIGBUS`).

use std::fs::File;
use std::io::{self, Write};
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use memmap2::{Mmap, MmapOptions};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;

/// What makes a content final. The last one keeps it from being lifted, or more being added.
const FINAL: SealFlags = SealFlags::WRITE
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

/// Memory that is being filled.
#[derive(Debug)]
pub struct Draft(File);

impl Draft {
    /// Empty memory; `name` is what `/proc` shows of it.
    ///
    /// # Errors
    /// As `memfd_create(2)`.
    pub fn new(name: &str) -> io::Result<Self> {
        let create = |flags| rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | flags);
        let memory = match create(MemfdFlags::NOEXEC_SEAL) {
            // Before Linux 6.3.
            Err(Errno::INVAL) => create(MemfdFlags::ALLOW_SEALING),
            made => made,
        };
        Ok(Self(memory?.into()))
    }

    /// Makes it final.
    ///
    /// # Errors
    /// As `F_ADD_SEALS` of `fcntl(2)`.
    pub fn seal(self) -> io::Result<Sealed> {
        rustix::fs::fcntl_add_seals(&self.0, FINAL)?;
        Ok(Sealed(self.0.into()))
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Memory that nobody can change any more.
#[derive(Debug)]
pub struct Sealed(OwnedFd);

impl Sealed {
    /// Takes what somebody handed over.
    ///
    /// # Errors
    /// `InvalidData` when it may still change.
    pub fn accept(memory: OwnedFd) -> io::Result<Self> {
        if rustix::fs::fcntl_get_seals(&memory)?.contains(FINAL) {
            Ok(Self(memory))
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "this memory is not sealed",
            ))
        }
    }

    /// The same memory, by one more descriptor.
    ///
    /// # Errors
    /// As `F_DUPFD_CLOEXEC` of `fcntl(2)`.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Maps it to be read.
    ///
    /// # Errors
    /// As `mmap(2)`.
    pub fn map(&self) -> io::Result<Mapped> {
        let mut options = MmapOptions::new();
        // One system call instead of a fault for every few pages: all of it will be read.
        options.populate();
        // Private: before Linux 6.7 sealed memory cannot be mapped shared, not even to be read.
        // SAFETY: the seals keep everybody, this process too, from changing or shortening it.
        Ok(Mapped(unsafe { options.map_copy_read_only(&self.0) }?))
    }
}

impl AsFd for Sealed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A mapping of sealed memory.
#[derive(Debug)]
pub struct Mapped(Mmap);

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn draft(content: &[u8]) -> Draft {
        let mut draft = Draft::new("test").unwrap();
        draft.write_all(content).unwrap();
        draft
    }

    #[test]
    fn nobody_changes_what_was_sealed() {
        let sealed = draft(b"content").seal().unwrap();
        let mapped = sealed.map().unwrap();
        let other = File::from(sealed.as_fd().try_clone_to_owned().unwrap());
        assert!(other.write_at(b"x", 0).is_err());
        assert!(other.set_len(0).is_err() && other.set_len(1 << 20).is_err());
        // SAFETY: it is never made.
        assert!(unsafe { MmapOptions::new().map_mut(&other) }.is_err());
        assert_eq!(&mapped[..], b"content");
    }

    #[test]
    fn what_may_change_is_not_accepted() {
        let open = draft(b"content");
        assert!(Sealed::accept(open.0.into()).is_err());
        assert!(Sealed::accept(tempfile::tempfile().unwrap().into()).is_err());
        let sealed = draft(b"content").seal().unwrap();
        assert_eq!(&Sealed::accept(sealed.0).unwrap().map().unwrap()[..], b"content");
    }

    #[test]
    fn nothing_is_a_content_too() {
        assert!(draft(b"").seal().unwrap().map().unwrap().is_empty());
    }
}
