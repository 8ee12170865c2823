//! What is judged: the bytes of a file, read once.
//!
//! A file may change between two readings, and a verdict on one content, kept under the digest of
//! another, would be a verdict on every file of the node that has it. So the very bytes that are
//! digested here go to whoever judges: nothing is read a second time, and nobody can change them
//! on the way.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use lazaret_sys::sealed::{Draft, Sealed};
use lazaret_types::Sha256;
use sha2::Digest;

use crate::engine::{Failure, Limits};

/// Bytes read at once: large enough that a system call costs nothing beside it.
const CHUNK: usize = 128 << 10;

/// Contents up to this size, in bytes, go to a worker in a message: that costs less than memory
/// of their own, and most files are smaller.
const SMALL: usize = 32 << 10;

/// What `/proc` shows of memory that holds a content.
const NAME: &str = "lazaret-content";

/// A content and its identity.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) digest: Sha256,
    pub(crate) bytes: Bytes,
}

/// Where the bytes are.
#[derive(Debug)]
pub(crate) enum Bytes {
    Small(Vec<u8>),
    Large(Sealed),
}

impl Content {
    /// Reads a file to its end.
    ///
    /// With `pread`, never mapped: the file may be cut short meanwhile, which would be a `SIGBUS`,
    /// and the descriptor's offset is the container's own business.
    ///
    /// # Errors
    /// When it is larger or slower than the limits, or cannot be read.
    pub(crate) fn of_file(file: BorrowedFd<'_>, limits: Limits) -> Result<Self, Failure> {
        let file = File::from(file.try_clone_to_owned().map_err(Failure::Read)?);
        let size = file.metadata().map_err(Failure::Read)?.len();
        if size > limits.size {
            return Err(Failure::TooLarge);
        }
        // One byte more than it has: what is not filled is the end.
        let mut buffer = vec![0; CHUNK.min(usize::try_from(size).unwrap_or(CHUNK) + 1)];
        let mut reading = Reading {
            file,
            limits,
            hasher: sha2::Sha256::new(),
            offset: 0,
        };
        let length = reading.fill(&mut buffer)?;
        let bytes = if length < buffer.len() && length <= SMALL {
            buffer.truncate(length);
            Bytes::Small(buffer)
        } else {
            Bytes::Large(reading.rest(&mut buffer, length)?)
        };
        Ok(Self {
            digest: Sha256::new(reading.hasher.finalize().into()),
            bytes,
        })
    }
}

impl Bytes {
    /// Sealed memory that holds them, for who is handed nothing but files.
    ///
    /// # Errors
    /// When the kernel has no memory or no descriptor.
    pub(crate) fn memory(&self) -> io::Result<Sealed> {
        match self {
            Self::Small(bytes) => in_memory(bytes),
            Self::Large(memory) => memory.try_clone(),
        }
    }
}

/// Puts bytes at hand into sealed memory.
///
/// # Errors
/// As [`Bytes::memory`].
pub(crate) fn in_memory(bytes: &[u8]) -> io::Result<Sealed> {
    let mut memory = Draft::new(NAME)?;
    memory.write_all(bytes)?;
    memory.seal()
}

/// A file on the way from its beginning to its end.
struct Reading {
    file: File,
    limits: Limits,
    hasher: sha2::Sha256,
    offset: u64,
}

impl Reading {
    /// Reads and digests until `buffer` is full or the file ends; returns how much that was.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            if Instant::now() > self.limits.deadline {
                return Err(Failure::Timeout);
            }
            match self.file.read_at(rest, self.offset) {
                Ok(0) => break,
                Ok(length) => {
                    filled += length;
                    self.offset += length as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::Read(error)),
            }
            // It may grow while it is read.
            if self.offset > self.limits.size {
                return Err(Failure::TooLarge);
            }
        }
        self.hasher.update(buffer.get(..filled).unwrap_or_default());
        Ok(filled)
    }

    /// Puts what was read first, and all that follows, into memory that is then sealed.
    fn rest(&mut self, buffer: &mut [u8], first: usize) -> Result<Sealed, Failure> {
        let no_memory = |error: io::Error| Failure::Engine(format!("no memory for a content: {error}"));
        let mut memory = Draft::new(NAME).map_err(no_memory)?;
        let mut length = first;
        loop {
            let chunk = buffer.get(..length).unwrap_or_default();
            memory.write_all(chunk).map_err(no_memory)?;
            if length < buffer.len() {
                return memory.seal().map_err(no_memory);
            }
            length = self.fill(buffer)?;
        }
    }
}

#[cfg(test)]
impl Content {
    /// Of bytes that no file has.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        Self {
            digest: Sha256::new(sha2::Sha256::digest(bytes).into()),
            bytes: Bytes::Small(bytes.to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::*;
    use crate::engine::Priority;

    const LIMITS: fn() -> Limits = || Limits {
        size: 1 << 20,
        deadline: Instant::now() + Duration::from_secs(60),
        priority: Priority::Opener,
    };

    fn file(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file
    }

    fn read(content: &[u8]) -> (Sha256, Vec<u8>) {
        let content = Content::of_file(file(content).as_fd(), LIMITS()).unwrap();
        let handed = content.bytes.memory().unwrap().map().unwrap().to_vec();
        let bytes = match content.bytes {
            Bytes::Small(bytes) => bytes,
            Bytes::Large(memory) => memory.map().unwrap().to_vec(),
        };
        assert!(handed == bytes, "who is handed a file gets the same");
        (content.digest, bytes)
    }

    #[test]
    fn what_is_digested_is_what_is_judged() {
        for size in [0, 1, SMALL, SMALL + 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5] {
            let content: Vec<u8> = (0..=u8::MAX).cycle().take(size).collect();
            let (digest, bytes) = read(&content);
            assert!(bytes == content, "{size} bytes");
            assert_eq!(
                digest,
                Sha256::new(sha2::Sha256::digest(&content).into()),
                "{size} bytes"
            );
        }
    }

    #[test]
    fn the_empty_file_is_known() {
        assert_eq!(
            read(b"").0.to_string(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn a_sparse_giant_and_a_late_one_have_none() {
        let giant = file(b"");
        giant.set_len(4 << 30).unwrap();
        let refused = Content::of_file(giant.as_fd(), LIMITS());
        assert!(matches!(refused, Err(Failure::TooLarge)));
        let late = Limits {
            deadline: Instant::now() - Duration::from_millis(1),
            ..LIMITS()
        };
        let refused = Content::of_file(file(b"x").as_fd(), late);
        assert!(matches!(refused, Err(Failure::Timeout)));
    }
}
