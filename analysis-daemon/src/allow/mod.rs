//! Contents that an administrator declared clean, whatever engines say.
//!
//! One small file for each, named after its SHA-256. The list is asked before the
//! verdict cache and keeps nothing in it, so that a change needs no invalidation:
//! the next opener is judged by the new list.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use lazaret_types::Sha256;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::durable;
use crate::incidents::rfc3339;

/// Entries; each takes less than 1 KiB of memory.
const MAX_ENTRIES: usize = 10_000;

/// Longest reason, in bytes.
pub(crate) const MAX_REASON: usize = 512;

/// A record is smaller.
const MAX_RECORD: u64 = 8 << 10;

/// One content that is clean by decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Allowed {
    pub(crate) sha256: Sha256,
    /// Why, for the next administrator.
    pub(crate) reason: String,
    /// Who decided it.
    pub(crate) by: String,
    /// When: RFC 3339, UTC.
    pub(crate) time: String,
    /// When it ends: seconds since 1970, UTC; none means never.
    pub(crate) expires: Option<u64>,
}

/// The list cannot be read or changed.
#[derive(Debug, Error)]
pub(crate) enum AllowError {
    /// Its folder is out of reach.
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
    #[error("the limit of {MAX_ENTRIES} allowed contents is reached; remove one first")]
    Full,
    /// It would not fit, or not be shown as it is.
    #[error("the reason must be at most {MAX_REASON} bytes without control characters")]
    Reason,
}

/// The list.
#[derive(Debug)]
pub(crate) struct AllowList {
    folder: PathBuf,
    entries: RwLock<BTreeMap<Sha256, Allowed>>,
    /// Held by who changes files, so that memory and disk never differ. Not the
    /// lock that look-ups take.
    changing: Mutex<()>,
}

impl AllowList {
    /// Reads the list in `folder`, which is created when it is missing. A record
    /// that cannot be read is told and allows nothing.
    ///
    /// # Errors
    /// When there is no such folder to read.
    pub(crate) fn open(folder: impl Into<PathBuf>) -> Result<Self, AllowError> {
        let folder = folder.into();
        let entries = read_all(&folder).map_err(|source| AllowError::Io {
            what: "read",
            path: folder.clone(),
            source,
        })?;
        Ok(Self {
            folder,
            entries: RwLock::new(entries),
            changing: Mutex::new(()),
        })
    }

    /// Whether a content is to be taken for clean. Cheap: no disk.
    pub(crate) fn allows(&self, sha256: &Sha256) -> bool {
        let entries = self.read();
        entries.get(sha256).is_some_and(Allowed::counts)
    }

    /// All that count now, ordered by digest.
    pub(crate) fn list(&self) -> Vec<Allowed> {
        self.read()
            .values()
            .filter(|entry| entry.counts())
            .cloned()
            .collect()
    }

    /// Adds or replaces an entry: when this returns, it counts and survives a power
    /// cut. Returns what counted before. Blocks on the disk.
    ///
    /// # Errors
    /// When it cannot be kept; nothing has changed then.
    pub(crate) fn add(&self, entry: Allowed) -> Result<Option<Allowed>, AllowError> {
        if entry.reason.len() > MAX_REASON || entry.reason.chars().any(char::is_control) {
            return Err(AllowError::Reason);
        }
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.forget_expired()?;
        let before = self.read().get(&entry.sha256).cloned();
        if before.is_none() && self.read().len() >= MAX_ENTRIES {
            return Err(AllowError::Full);
        }
        let path = self.path(&entry.sha256);
        serde_json::to_vec(&entry)
            .map_err(io::Error::from)
            .and_then(|json| durable::replace(&path, &json, 0o600))
            .map_err(|source| AllowError::Io {
                what: "write",
                path,
                source,
            })?;
        self.write().insert(entry.sha256, entry);
        Ok(before)
    }

    /// Removes an entry: when this returns, it counts no more, also after a power
    /// cut. Returns what it was; none when there was none. Blocks on the disk.
    ///
    /// # Errors
    /// When the disk does not take it; the entry still counts then.
    pub(crate) fn remove(&self, sha256: &Sha256) -> Result<Option<Allowed>, AllowError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.forget(sha256)
    }

    fn forget_expired(&self) -> Result<(), AllowError> {
        let over = |entry: &&Allowed| !entry.counts();
        let over: Vec<_> = self
            .read()
            .values()
            .filter(over)
            .map(|entry| entry.sha256)
            .collect();
        over.iter().try_for_each(|sha256| self.forget(sha256).map(drop))
    }

    fn forget(&self, sha256: &Sha256) -> Result<Option<Allowed>, AllowError> {
        let path = self.path(sha256);
        let removed = match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => durable::sync_folder(&self.folder),
        };
        removed.map_err(|source| AllowError::Io {
            what: "remove",
            path,
            source,
        })?;
        Ok(self.write().remove(sha256).filter(Allowed::counts))
    }

    fn path(&self, sha256: &Sha256) -> PathBuf {
        self.folder.join(format!("{sha256}.json"))
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Sha256, Allowed>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<Sha256, Allowed>> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Allowed {
    /// An entry that begins now; `lifetime` is in seconds, none means for ever.
    pub(crate) fn new(sha256: Sha256, reason: String, by: String, lifetime: Option<u64>) -> Self {
        Self {
            sha256,
            reason,
            by,
            time: rfc3339(SystemTime::now()),
            expires: lifetime.map(|lifetime| now().saturating_add(lifetime)),
        }
    }

    /// Whether it has not expired.
    fn counts(&self) -> bool {
        self.expires.is_none_or(|expires| now() < expires)
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

fn read_all(folder: &Path) -> io::Result<BTreeMap<Sha256, Allowed>> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut entries = BTreeMap::new();
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        match read_one(&path) {
            Ok(_) if entries.len() >= MAX_ENTRIES => {
                tracing::warn!("more than {MAX_ENTRIES} contents are allowed; the rest is not read");
                break;
            }
            Ok(entry) => drop(entries.insert(entry.sha256, entry)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "an allowed content cannot be read: it counts for nothing");
            }
        }
    }
    Ok(entries)
}

fn read_one(path: &Path) -> io::Result<Allowed> {
    let mut json = Vec::new();
    File::open(path)?.take(MAX_RECORD).read_to_end(&mut json)?;
    let entry: Allowed = serde_json::from_slice(&json)?;
    // The name is what an administrator sees and removes.
    if path
        .file_stem()
        .is_some_and(|stem| *stem == *entry.sha256.to_string())
    {
        Ok(entry)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "its name is of another content",
        ))
    }
}
