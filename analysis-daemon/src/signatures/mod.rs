//! The lists of SHA-256 digests that are known bad.
//!
//! Every `*.sha256` file in the folder is read: one that `lazaret signatures add`
//! writes, and whatever an administrator puts beside it. A line that cannot be
//! read is told with its place and skipped: one slip must not disarm the rest.

mod line;
mod read;
mod set;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::{fs, io};

use thiserror::Error;

pub(crate) use line::Signature;
pub(crate) use set::SignatureSet;

use crate::changes::Changes;
use crate::durable;

/// The file that [`Signatures::add`] writes. Others are only read.
const OWN_FILE: &str = "local.sha256";

const OWN_FILE_BEGINS: &str =
    "# Kept by `lazaret signatures add`; edits survive. `kill -HUP` makes lazaretd read them.\n";

/// The signatures cannot be read or changed.
#[derive(Debug, Error)]
pub(crate) enum SignaturesError {
    /// The folder or our own file is out of reach.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Bounded memory.
    #[error(
        "the limit of {} signatures is reached; {sha256} was not added",
        set::MAX_SIGNATURES
    )]
    Full {
        /// What was not added.
        sha256: lazaret_types::Sha256,
    },
}

/// The current signatures, and how they change.
#[derive(Debug)]
pub(crate) struct Signatures {
    folder: PathBuf,
    current: RwLock<Arc<SignatureSet>>,
    /// Held by who reads or writes the files, so that an older reading never
    /// replaces a newer one. Not the lock that look-ups take.
    changing: Mutex<()>,
    pub(crate) changes: Changes,
}

/// What [`Signatures::add`] did.
#[derive(Debug)]
pub(crate) struct Added {
    /// The set that holds it.
    pub(crate) set: Arc<SignatureSet>,
    /// It, or the same with a higher severity, was there already.
    pub(crate) known: bool,
}

impl Signatures {
    /// Reads the lists in `folder`, which is created when it is missing.
    ///
    /// # Errors
    /// When there is no such folder to read.
    pub(crate) fn open(folder: impl Into<PathBuf>) -> Result<Self, SignaturesError> {
        let folder = folder.into();
        fs::create_dir_all(&folder).map_err(|source| SignaturesError::Io {
            what: "create",
            path: folder.clone(),
            source,
        })?;
        let set = read::folder(&folder)?;
        Ok(Self {
            folder,
            current: RwLock::new(Arc::new(set)),
            changing: Mutex::new(()),
            changes: Changes::default(),
        })
    }

    /// What judges now. Cheap: no more than a reference is copied.
    pub(crate) fn current(&self) -> Arc<SignatureSet> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the lists again. Blocks on the disk.
    ///
    /// # Errors
    /// When the folder cannot be read; the old set stays.
    pub(crate) fn reload(&self) -> Result<Arc<SignatureSet>, SignaturesError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.read_again()
    }

    /// Adds one signature: when this returns, it judges and survives a power cut.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// When it cannot be kept; nothing has changed then.
    pub(crate) fn add(&self, signature: &Signature) -> Result<Added, SignaturesError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.current();
        let found = current.lookup(&signature.sha256);
        let known = found.as_ref().is_some_and(|found| {
            found.severity > signature.severity
                || (found.severity == signature.severity && found.rule == signature.name)
        });
        if known {
            return Ok(Added { set: current, known });
        }
        if found.is_none() && current.len() >= set::MAX_SIGNATURES {
            return Err(SignaturesError::Full {
                sha256: signature.sha256,
            });
        }
        self.append(&signature.to_line())?;
        Ok(Added {
            set: self.read_again()?,
            known,
        })
    }

    fn read_again(&self) -> Result<Arc<SignatureSet>, SignaturesError> {
        let set = Arc::new(read::folder(&self.folder)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&set);
        tracing::info!(version = %set.version(), count = set.len(), "signatures read");
        self.changes.tell();
        Ok(set)
    }

    fn append(&self, line: &str) -> Result<(), SignaturesError> {
        let path = self.folder.join(OWN_FILE);
        let failed = |what| {
            let path = path.clone();
            move |source| SignaturesError::Io { what, path, source }
        };
        let mut text = match read::bytes(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => OWN_FILE_BEGINS.into(),
            read => read.map_err(failed("read"))?,
        };
        if text.last().is_some_and(|last| *last != b'\n') {
            text.push(b'\n');
        }
        text.extend_from_slice(line.as_bytes());
        text.push(b'\n');
        read::check_size(text.len()).map_err(failed("grow"))?;
        durable::replace(&path, &text, 0o644).map_err(failed("write"))
    }
}
