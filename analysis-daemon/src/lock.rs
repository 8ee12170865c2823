//! One daemon a node: two would read the same groups.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

/// Between two looks at a lock that another daemon still holds.
const LOOK: Duration = Duration::from_millis(20);

/// Held for the life of the daemon.
#[derive(Debug)]
pub(crate) struct Lock {
    #[expect(dead_code, reason = "the lock is the open file")]
    file: File,
}

impl Lock {
    /// Takes the lock, waiting for a daemon that is just leaving.
    ///
    /// # Errors
    /// `WouldBlock` when another daemon keeps it for longer than `patience`.
    pub(crate) fn take(run_dir: &Path, patience: Duration) -> io::Result<Self> {
        let path = run_dir.join("lazaretd.lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        let deadline = Instant::now() + patience;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { file }),
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(LOOK),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
