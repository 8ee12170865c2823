//! Which node this is, for as long as its state is kept.
//!
//! Host names change and repeat; an incident must name the same node for ever.

use std::path::{Path, PathBuf};
use std::{fs, io};

use thiserror::Error;
use ulid::Ulid;

use crate::durable;

/// The file in the state folder.
const FILE: &str = "node-id";

/// The node has no id.
#[derive(Debug, Error)]
pub(crate) enum NodeIdError {
    /// The file cannot be read or created.
    #[error("cannot keep the node's id in {path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds something else. A new id would tear what was reported
    /// before from what comes, so that is the administrator's decision.
    #[error("{path} does not hold a ULID; restore it, or remove it to give this node a new identity")]
    NotAnId {
        /// Which file.
        path: PathBuf,
    },
}

/// Reads the node's id, or makes one at the first start. Creates `state_dir`.
///
/// # Errors
/// When it can be neither read nor kept.
pub(crate) fn load_or_create(state_dir: &Path) -> Result<Ulid, NodeIdError> {
    let path = state_dir.join(FILE);
    match read_or_create(state_dir, &path) {
        Ok(text) => Ulid::from_string(text.trim()).map_err(|_not_a_ulid| NodeIdError::NotAnId { path }),
        Err(source) => Err(NodeIdError::Io { path, source }),
    }
}

fn read_or_create(state_dir: &Path, path: &Path) -> io::Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = Ulid::generate().to_string();
            fs::create_dir_all(state_dir)?;
            durable::replace(path, format!("{id}\n").as_bytes(), 0o644)?;
            Ok(id)
        }
        read => read,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test is a panic")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn is_the_same_at_every_start() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("new/state");
        let first = load_or_create(&state).unwrap();
        assert_eq!(load_or_create(&state).unwrap(), first);
        assert_eq!(
            fs::metadata(state.join(FILE)).unwrap().permissions().mode() & 0o777,
            0o644
        );
    }

    #[test]
    fn a_broken_file_is_told_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "node-7\n").unwrap();
        let error = load_or_create(folder.path()).unwrap_err();
        assert!(error.to_string().contains(FILE), "{error}");
        assert_eq!(fs::read_to_string(folder.path().join(FILE)).unwrap(), "node-7\n");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(
            load_or_create(&file.join("state")),
            Err(NodeIdError::Io { .. })
        ));
    }
}
