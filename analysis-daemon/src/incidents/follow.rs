//! Reads the log by cursor, at the reader's own pace.
//!
//! A follower shares nothing with the writer but the number of the last line on
//! disk. It holds nobody up, and nobody keeps lines in memory for it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use serde::Deserialize;
use tokio::sync::watch;

use super::MAX_LINE;
use super::segment::{self, Segment};

/// Read at once, in bytes: at least one line.
const CHUNK: usize = MAX_LINE;

/// One incident as it is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) seq: u64,
    /// One JSON object, without the line end.
    pub(crate) json: String,
    /// How many right before it are no longer on disk.
    pub(crate) missed: u64,
}

/// A cursor into the log.
#[derive(Debug)]
pub(crate) struct Follower {
    folder: PathBuf,
    committed: watch::Receiver<Option<u64>>,
    /// The `seq` wanted next; 0 means the oldest.
    cursor: u64,
    missed: u64,
    place: Option<Place>,
}

/// An open file, and where in it the next line begins. It stays readable when
/// rotation removes its name.
#[derive(Debug)]
struct Place {
    segment: Segment,
    file: File,
    offset: u64,
}

#[derive(Deserialize)]
struct Seq {
    seq: u64,
}

impl Follower {
    pub(super) fn new(folder: PathBuf, committed: watch::Receiver<Option<u64>>, cursor: u64) -> Self {
        Self {
            folder,
            committed,
            cursor,
            missed: 0,
            place: None,
        }
    }

    /// The `seq` that [`Follower::read`] wants next; 0 means the oldest.
    pub(crate) fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Waits until the log could be opened; the last `seq` on disk, 0 without any.
    /// None when the log was closed instead.
    pub(crate) async fn opened(&self) -> Option<u64> {
        let mut committed = self.committed.clone();
        committed
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|last| *last)
    }

    /// Waits until [`Follower::read`] has something to do. False when the log
    /// was closed.
    pub(crate) async fn wait(&mut self) -> bool {
        let cursor = self.cursor.max(1);
        self.committed
            .wait_for(|last| last.is_some_and(|last| last >= cursor))
            .await
            .is_ok()
    }

    /// The next lines, at most [`CHUNK`] bytes; none when all on disk were read.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// When the log cannot be read. The cursor stays, so that it can be tried again.
    pub(crate) fn read(&mut self) -> io::Result<Vec<Line>> {
        let Some(last) = *self.committed.borrow() else {
            return Ok(Vec::new());
        };
        let mut buffer = vec![0; CHUNK];
        let mut lines = Vec::new();
        // What is wanted is on disk, unless somebody removed or damaged it: each
        // round moves on in a file, to the next file, or over what is missing.
        while lines.is_empty() && last > 0 && self.cursor <= last {
            let Some(place) = &mut self.place else {
                self.next_file(last)?;
                continue;
            };
            let size = read_at(place, &mut buffer)?;
            let chunk = buffer.get(..size).unwrap_or_default();
            match chunk.iter().rposition(|byte| *byte == b'\n') {
                Some(end) => self.take_lines(chunk.get(..=end).unwrap_or_default(), last, &mut lines),
                // No writer makes such a line; what follows in it is not taken for one.
                None if size == CHUNK => place.offset += size as u64,
                None => self.next_file(last)?,
            }
        }
        Ok(lines)
    }

    /// Opens the file after the current one; without one, the file that holds the cursor.
    pub(super) fn next_file(&mut self, last: u64) -> io::Result<()> {
        let mut segments = segment::list(&self.folder)?;
        let next = match &self.place {
            Some(place) => segments.partition_point(|segment| segment.first <= place.segment.first),
            None => segments
                .partition_point(|segment| segment.first <= self.cursor)
                .saturating_sub(1),
        };
        if next >= segments.len() {
            // Whoever took the files took these incidents too.
            self.skip_to(last + 1);
            return Ok(());
        }
        let segment = segments.swap_remove(next);
        match File::open(&segment.path) {
            Ok(file) => {
                self.skip_to(segment.first);
                self.place = Some(Place {
                    segment,
                    file,
                    offset: 0,
                });
                Ok(())
            }
            // Rotated away since it was listed: the next look finds another.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn take_lines(&mut self, bytes: &[u8], last: u64, lines: &mut Vec<Line>) {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            let seq = serde_json::from_slice(text).map(|Seq { seq }| seq);
            if seq.as_ref().is_ok_and(|seq| *seq > last) {
                // Not synced yet, so it stays unread; and nothing up to `last` follows.
                self.skip_to(last + 1);
                return;
            }
            if let Some(place) = &mut self.place {
                place.offset += line.len() as u64;
            }
            let (Ok(seq), Ok(json)) = (seq, std::str::from_utf8(text)) else {
                continue;
            };
            if seq >= self.cursor {
                self.skip_to(seq);
                self.cursor = seq + 1;
                lines.push(Line {
                    seq,
                    json: json.to_owned(),
                    missed: std::mem::take(&mut self.missed),
                });
            }
        }
    }

    /// Moves the cursor forward over what is not there.
    fn skip_to(&mut self, seq: u64) {
        // From 0, the oldest is wanted, whichever it is.
        if self.cursor > 0 {
            self.missed += seq.saturating_sub(self.cursor);
        }
        self.cursor = self.cursor.max(seq);
    }
}

fn read_at(place: &Place, buffer: &mut [u8]) -> io::Result<usize> {
    let mut size = 0;
    while let Some(rest) = buffer.get_mut(size..).filter(|rest| !rest.is_empty()) {
        match place.file.read_at(rest, place.offset + size as u64) {
            Ok(0) => break,
            Ok(read) => size += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(size)
}
