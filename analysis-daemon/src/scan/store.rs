//! The records of scans, one file each, named after its id.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::Record;
use crate::durable;

/// Records kept, beside those of scans that go on.
const KEEP: usize = 200;

/// Largest record, in bytes. A cursor of the longest path, each of its bytes
/// escaped as badly as can be, is two thirds of it.
const MAX_RECORD: u64 = 16 << 20;

const SUFFIX: &str = "json";

#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
}

impl Store {
    pub(super) fn open(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    /// The path of a file that is no record.
    pub(super) fn beside(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Puts a record in the place of an earlier one of this scan; when it is over,
    /// the oldest records make room. Survives a power cut.
    pub(super) fn save(&self, record: &Record) -> io::Result<()> {
        let json = serde_json::to_vec(record)?;
        durable::replace(&self.path(&record.id), &json, 0o600)?;
        if record.is_over() { self.prune() } else { Ok(()) }
    }

    pub(super) fn remove(&self, record: &Record) -> io::Result<()> {
        fs::remove_file(self.path(&record.id))
    }

    /// All records, oldest first. What cannot be read is told in the log.
    pub(super) fn list(&self) -> Vec<Record> {
        let paths = self.paths().unwrap_or_else(|error| {
            tracing::error!(%error, folder = %self.folder.display(), "the records of scans cannot be listed");
            Vec::new()
        });
        let read = |path: &PathBuf| match read(path) {
            Ok(record) => Some(record),
            // Somebody pruned meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "the record of a scan cannot be read");
                None
            }
        };
        paths.iter().filter_map(read).collect()
    }

    fn path(&self, id: &str) -> PathBuf {
        self.folder.join(id).with_extension(SUFFIX)
    }

    /// Of all records, oldest first.
    fn paths(&self) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let is_hidden = path
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if !is_hidden && path.extension().is_some_and(|suffix| suffix == SUFFIX) {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }

    fn prune(&self) -> io::Result<()> {
        let paths = self.paths()?;
        let too_many = paths.len().saturating_sub(KEEP);
        for path in paths.iter().take(too_many) {
            // One that goes on, or holds something, is still needed.
            if read(path).map_or(true, |record| record.is_over() && record.lease.is_none()) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<Record> {
    let mut json = Vec::new();
    File::open(path)?.take(MAX_RECORD).read_to_end(&mut json)?;
    Ok(serde_json::from_slice(&json)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::{State, Target};

    fn record(state: State) -> Record {
        let mut record = Record::new(Target::Path("/srv".into()), false);
        record.state = state;
        record
    }

    #[test]
    fn keeps_what_goes_on_and_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("scans")).unwrap();
        let running = record(State::Running);
        store.save(&running).unwrap();
        let mut newest = running.id.clone();
        for _ in 0..KEEP + 3 {
            let done = record(State::Done);
            newest = newest.max(done.id.clone());
            store.save(&done).unwrap();
        }
        let left = store.list();
        assert!(left.len() <= KEEP + 1, "{}", left.len());
        assert!(left.contains(&running));
        assert!(left.iter().any(|record| record.id == newest));
    }

    #[test]
    fn damaged_files_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_owned()).unwrap();
        fs::write(folder.path().join("x.json"), "{").unwrap();
        fs::write(folder.path().join(".y.json.new"), "").unwrap();
        let done = record(State::Done);
        store.save(&done).unwrap();
        assert_eq!(store.list(), [done]);
    }
}
