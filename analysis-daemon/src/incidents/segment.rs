//! The files of the incident log: each is named after the first `seq` that it holds.
//!
//! Nothing is ever renamed, so a reader finds the file of any `seq` by its name,
//! and whatever ships `incidents-*.jsonl` to elsewhere sees each line once.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const PREFIX: &str = "incidents-";
const SUFFIX: &str = ".jsonl";

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Segment {
    /// The `seq` of its first line.
    pub(super) first: u64,
    pub(super) path: PathBuf,
}

impl Segment {
    pub(super) fn new(folder: &Path, first: u64) -> Self {
        // As many digits as u64::MAX has: sorted by name is sorted by seq.
        Self {
            first,
            path: folder.join(format!("{PREFIX}{first:020}{SUFFIX}")),
        }
    }

    fn of(path: PathBuf) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let first = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()?;
        Some(Self { first, path })
    }
}

/// All files of a folder, oldest first.
pub(super) fn list(folder: &Path) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(folder)? {
        segments.extend(Segment::of(entry?.path()));
    }
    segments.sort();
    Ok(segments)
}

/// Removes the oldest files, so that the newest and `keep` rotated ones are left.
pub(super) fn prune(folder: &Path, keep: usize) -> io::Result<()> {
    let segments = list(folder)?;
    let too_many = segments.len().saturating_sub(keep.saturating_add(1));
    segments
        .iter()
        .take(too_many)
        .try_for_each(|segment| fs::remove_file(&segment.path))
}
