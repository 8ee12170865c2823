//! The engines that are not a part of lazaret: clamd, and programs of others.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::changes::Changes;
use crate::clamd::Clamd;
use crate::durable;
use crate::engine::Engine;
use crate::external::External;

/// All of them.
pub(crate) struct Others {
    /// None when it is not wanted.
    pub(crate) clamd: Option<Arc<Clamd>>,
    pub(crate) external: Vec<Arc<External>>,
    pub(crate) reloads: Reloads,
}

/// How often somebody said that they judge by something else, in all the node's life.
///
/// It is a part of what their sets are called. Were it to begin anew with each lazaretd, the record
/// of a scan could answer for a set that was called the same.
#[derive(Debug)]
pub(crate) struct Reloads {
    file: PathBuf,
    count: Mutex<u64>,
}

impl Others {
    /// In the order in which they are asked: who is quick first.
    pub(crate) fn engines(&self) -> Vec<Arc<dyn Engine>> {
        let external = self
            .external
            .iter()
            .map(|one| -> Arc<dyn Engine> { Arc::clone(one) as _ });
        let clamd = self
            .clamd
            .iter()
            .map(|one| -> Arc<dyn Engine> { Arc::clone(one) as _ });
        clamd.chain(external).collect()
    }

    /// Those of each.
    pub(crate) fn changes(&self) -> impl Iterator<Item = &Changes> {
        let clamd = self.clamd.iter().map(|clamd| &clamd.changes);
        clamd.chain(self.external.iter().map(|one| one.changes()))
    }

    /// Has everything asked about again that they judged: what they judge by may have changed
    /// without their telling. One that cannot be started anew goes on as it is, and is logged. Blocks
    /// on the disk.
    pub(crate) fn reload(&self) {
        if self.clamd.is_none() && self.external.is_empty() {
            return;
        }
        let reloads = self.reloads.next();
        self.clamd.iter().for_each(|clamd| clamd.forget(reloads));
        for one in &self.external {
            if let Err(error) = one.reload(reloads) {
                tracing::error!(engine = one.name(), %error, "not started anew; the old one stays");
            }
        }
    }
}

impl Reloads {
    /// The count is kept in `file`, which need not exist.
    ///
    /// # Errors
    /// When it exists and cannot be read; `InvalidData` when it holds no number.
    pub(crate) fn open(file: PathBuf) -> io::Result<Self> {
        let count = match fs::read_to_string(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            read => read?
                .trim()
                .parse()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?,
        };
        let count = Mutex::new(count);
        Ok(Self { file, count })
    }

    pub(crate) fn count(&self) -> u64 {
        *self.lock()
    }

    fn next(&self) -> u64 {
        let mut count = self.lock();
        *count = count.saturating_add(1);
        if let Err(error) = durable::replace(&self.file, count.to_string().as_bytes(), 0o600) {
            let file = self.file.display();
            tracing::warn!(%file, %error, "after a restart, records of scans may answer by what other engines knew before");
        }
        *count
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reloads_are_counted_over_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Reloads::open(folder.path().join("reloads"));
        let first = open().unwrap();
        assert_eq!((first.count(), first.next(), first.next()), (0, 1, 2));
        assert_eq!(open().unwrap().count(), 2);
        fs::write(folder.path().join("reloads"), "many").unwrap();
        assert_eq!(open().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
