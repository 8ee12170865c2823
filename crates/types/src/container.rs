//! A container as lazaret knows it, and what of it is guarded.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Annotations with this prefix are lazaret's; all others are left unread.
pub const ANNOTATION_PREFIX: &str = "lazaret.io/";

/// The id of a container, unique on a node within its containerd namespace.
///
/// containerd's own rule (`identifiers.Validate`): at most 76 bytes, letters and
/// digits separated by single `-`, `_` or `.`. An id becomes part of file names,
/// so nothing else is ever accepted.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

/// The text cannot be the id of a container.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not a container id: 1 to 76 letters and digits, separated by single '-', '_' or '.'")]
pub struct IdError(String);

impl ContainerId {
    /// Longest id, in bytes.
    pub const MAX: usize = 76;

    /// Checks and wraps an id.
    ///
    /// # Errors
    /// When the text breaks the rule above.
    pub fn new(id: impl Into<String>) -> Result<Self, IdError> {
        let id = id.into();
        let words_are_whole = id
            .split(['-', '_', '.'])
            .all(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric()));
        if id.len() <= Self::MAX && words_are_whole {
            Ok(Self(id))
        } else {
            Err(IdError(id.chars().take(Self::MAX + 1).collect()))
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ContainerId {
    type Error = IdError;

    fn try_from(id: String) -> Result<Self, Self::Error> {
        Self::new(id)
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

/// The inode number of a cgroup v2 folder: what `bpf_get_current_cgroup_id` returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CgroupId(pub u64);

/// What a container is to its pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The pause container that holds the pod's namespaces.
    Sandbox,
    /// A container of the workload.
    #[default]
    Workload,
}

/// The Kubernetes pod (CRI sandbox) that a container belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// `metadata.name`
    pub name: String,
    /// `metadata.namespace`
    pub namespace: String,
    /// `metadata.uid`
    pub uid: String,
    /// The CRI sandbox id, which is also the id of the pod's first container.
    pub sandbox_id: String,
}

/// The folders of the host that an overlay rootfs is made of, topmost first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layers {
    /// What the container writes goes here; none for a read-only snapshot.
    pub upper: Option<PathBuf>,
    /// The image's layers.
    pub lower: Vec<PathBuf>,
}

/// What to do when the daemon cannot judge because it is not there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LossPolicy {
    /// Nothing starts and nothing opens until the daemon is back.
    #[default]
    Closed,
    /// Containers run unguarded, which is counted and told.
    Open,
}

/// Everything the guard and the daemon know of a container before it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// containerd namespace, e.g. `k8s.io`.
    pub namespace: String,
    /// Unique within the namespace.
    pub id: ContainerId,
    /// As the bundle names it (CRI); the daemon asks containerd when it does not.
    pub image: Option<String>,
    /// The pod, when the bundle carries CRI's annotations.
    pub pod: Option<Pod>,
    /// What the container is to its pod.
    pub role: Role,
    /// The bundle's annotations that begin with [`ANNOTATION_PREFIX`].
    pub annotations: BTreeMap<String, String>,
    /// Where the OCI bundle lies on the host.
    pub bundle: PathBuf,
    /// The layers of its rootfs, from the mounts that containerd asked for.
    pub layers: Layers,
    /// containerd's gRPC socket, which knows the image; none for other managers.
    pub containerd: Option<PathBuf>,
}

/// One superblock that a container sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Superblock {
    /// The first place where the container sees it.
    pub mount_point: PathBuf,
    /// As in `/proc/PID/mountinfo`, e.g. `overlay`.
    pub fs_type: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_containerd_accepts() {
        for id in ["a", "web-1", "a.b_c-d", &"x".repeat(76)] {
            assert!(ContainerId::new(id).is_ok(), "{id}");
        }
    }

    #[test]
    fn refuses_what_could_leave_a_folder() {
        for id in [
            "",
            ".",
            "..",
            "../a",
            "a/b",
            "a..b",
            "-a",
            "a-",
            "a b",
            "a\0",
            "é",
            &"x".repeat(77),
        ] {
            assert!(ContainerId::new(id).is_err(), "{id}");
        }
    }
}
