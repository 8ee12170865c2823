//! Writes lines so that they are on disk when it says so.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::fcntl::{Flock, FlockArg};
use ulid::Ulid;

use super::segment::{self, Segment};
use super::tail::{self, Mark, Tail};
use crate::durable;

/// One daemon at a time writes.
const LOCK: &str = "lock";

/// What was cut off a damaged file. One is kept: the newest damage.
const SET_ASIDE: &str = "damaged";

/// The newest file of the log, open for writing.
///
/// After an error it must be dropped and opened again: that is one way for a
/// full disk, a torn line and a crash, and each is taken at every start.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    limits: Limits,
    _lock: Flock<File>,
    file: File,
    /// Bytes in `file`.
    len: u64,
    next_seq: u64,
    last_id: Ulid,
}

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// A file of this size is rotated, in bytes.
    pub(super) max_file_size: u64,
    /// Rotated files kept.
    pub(super) keep: usize,
}

/// The log had an end that nobody can read.
#[derive(Debug)]
pub(super) struct Damage {
    /// What happened to it, for a person.
    pub(super) told: String,
}

impl Store {
    /// Opens the newest file and cuts off what a crash left half-written, or
    /// begins a new log.
    pub(super) fn open(folder: &Path, limits: Limits) -> io::Result<(Self, Option<Damage>)> {
        DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
        let lock = lock(folder)?;
        let mut segments = segment::list(folder)?;
        let newest = segments.pop().unwrap_or_else(|| Segment::new(folder, 1));
        let file = append_to(&newest.path)?;
        let size = file.metadata()?.len();

        let (len, last, damage) = match tail::read(&file, size)? {
            Tail::Sound { len, last, rest } => (len, last, cut_off(folder, &file, len, &rest)?),
            Tail::Lost => (size, None, None),
        };
        let mut store = Self {
            folder: folder.to_owned(),
            limits,
            _lock: lock,
            file,
            len,
            next_seq: newest
                .first
                .max(last.map_or(1, |last| last.seq.saturating_add(1))),
            last_id: last
                .or_else(|| last_of(&segments))
                .map_or_else(Ulid::nil, |last| last.id),
        };
        // What a killed daemon had written and not synced is about to be shown.
        store.file.sync_all()?;
        let damage = match last {
            None if len > 0 => Some(store.leave_behind(&newest)?),
            _ => damage,
        };
        durable::sync_folder(folder)?;
        Ok((store, damage))
    }

    /// What the next line's `seq` must be.
    pub(super) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// An id that is larger than all before, whatever the clock does.
    pub(super) fn next_id(&mut self, time: SystemTime) -> Ulid {
        let fresh = Ulid::from_datetime(time);
        self.last_id = if fresh > self.last_id {
            fresh
        } else {
            let next_ms = || Ulid::from_parts(self.last_id.timestamp_ms() + 1, 0);
            self.last_id.increment().unwrap_or_else(|_overflow| next_ms())
        };
        self.last_id
    }

    /// Appends `count` lines, whose `seq` begins with [`Store::next_seq`], and
    /// waits for the disk. Returns the last `seq`.
    pub(super) fn append(&mut self, lines: &[u8], count: u64) -> io::Result<u64> {
        let added = lines.len() as u64;
        let full = self.len > 0 && self.len.saturating_add(added) > self.limits.max_file_size;
        // Removed under our feet: what goes there now would be gone.
        if full || self.file.metadata()?.nlink() == 0 {
            self.rotate()?;
        }
        let written = self.file.write_all(lines).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // The lines will come again. When this fails too, the next opening
            // cuts off the torn one, and the whole ones are told twice.
            drop(self.file.set_len(self.len));
            return Err(error);
        }
        self.len += added;
        self.next_seq += count;
        Ok(self.next_seq - 1)
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = append_to(&Segment::new(&self.folder, self.next_seq).path)?;
        self.len = self.file.metadata()?.len();
        durable::sync_folder(&self.folder)?;
        if let Err(error) = segment::prune(&self.folder, self.limits.keep) {
            // Too much on the disk is better than an incident that is not.
            tracing::warn!(folder = %self.folder.display(), %error, "cannot remove old incidents");
        }
        Ok(())
    }

    /// Goes on in a new file, because nobody knows where `old` ended. A line has
    /// more than one byte, so adding the size never gives a `seq` a second time.
    fn leave_behind(&mut self, old: &Segment) -> io::Result<Damage> {
        self.next_seq = old.first.saturating_add(self.len);
        self.rotate()?;
        let old = old.path.display();
        Ok(Damage {
            told: format!("the end of {old} cannot be read; it stays as it is"),
        })
    }
}

fn lock(folder: &Path) -> io::Result<Flock<File>> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(folder.join(LOCK))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::Error::EWOULDBLOCK => io::Error::new(
            io::ErrorKind::WouldBlock,
            "another lazaretd writes incidents here",
        ),
        other => other.into(),
    })
}

/// The last line of the newest file that has one: a crash or a full disk right
/// after a rotation leaves a file without any.
fn last_of(segments: &[Segment]) -> Option<Mark> {
    segments.iter().rev().find_map(|segment| {
        let file = File::open(&segment.path).ok()?;
        let size = file.metadata().ok()?.len();
        match tail::read(&file, size).ok()? {
            Tail::Sound { last, .. } => last,
            Tail::Lost => None,
        }
    })
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .read(true)
        .append(true)
        .mode(0o640)
        .open(path)
}

fn cut_off(folder: &Path, file: &File, len: u64, rest: &[u8]) -> io::Result<Option<Damage>> {
    if rest.is_empty() {
        return Ok(None);
    }
    let path = folder.join(SET_ASIDE);
    let kept = match durable::replace(&path, rest, 0o640) {
        Ok(()) => format!("are in {}", path.display()),
        Err(error) => format!("could not be kept: {error}"),
    };
    file.set_len(len)?;
    Ok(Some(Damage {
        told: format!("the last {} bytes were not a whole line and {kept}", rest.len()),
    }))
}
