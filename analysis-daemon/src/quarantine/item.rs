//! The record of one file that was quarantined.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use lazaret_types::{ContainerFields, Severity, Sha256};
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::attributes::Attributes;
use super::hex;

/// The version of [`Item`]'s form.
pub(super) const SCHEMA: u32 = 1;

/// A file of a container. Several may have one content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Item {
    /// [`SCHEMA`]
    pub(crate) schema: u32,
    pub(crate) id: Ulid,
    /// RFC 3339, UTC.
    pub(crate) time: String,
    /// Who had it moved.
    pub(crate) by: String,
    pub(crate) container: ContainerFields,
    /// As the container saw it; any bytes but 0.
    #[serde(with = "hex")]
    pub(crate) path: Vec<u8>,
    /// In a layer of the overlay; empty on other file systems.
    #[serde(with = "hex", default)]
    pub(crate) host_path: Vec<u8>,
    pub(crate) sha256: Sha256,
    /// Bytes.
    pub(crate) size: u64,
    pub(crate) rule: String,
    pub(crate) severity: Severity,
    pub(crate) attributes: Attributes,
    /// Names that the file had, this one included.
    pub(crate) links: u32,
    pub(crate) state: State,
}

/// How far an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// The content is held; the original could not be removed, or that was not
    /// seen any more.
    Held,
    /// The original is gone from the container.
    Moved,
    /// On its way back into the container.
    Restoring,
}

impl Item {
    /// [`Item::path`] as a path.
    pub(crate) fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.path))
    }

    /// Whether it is of the container with this namespace and id.
    pub(crate) fn is_of(&self, namespace: &str, id: &str) -> bool {
        self.container.namespace == namespace && self.container.id == id
    }
}
