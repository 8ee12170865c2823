//! What is scanned.

use std::fmt;
use std::path::PathBuf;

use lazaret_types::Container;
use serde::{Deserialize, Serialize};

/// Tried in turn for an image whose namespace nobody named.
const NAMESPACES: [&str; 3] = ["default", "k8s.io", "moby"];

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Target {
    /// A folder or a file of the host, without other mounts in it.
    Path(#[serde(with = "super::bytes")] PathBuf),
    /// The file systems that are a guarded container's own.
    Container {
        namespace: String,
        id: String,
    },
    Image(ImageTarget),
}

/// An image that containerd has unpacked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageTarget {
    pub(crate) reference: String,
    /// None means the first one that knows the image.
    pub(crate) namespace: Option<String>,
    /// The socket.
    #[serde(with = "super::bytes")]
    pub(crate) containerd: PathBuf,
    pub(crate) snapshotter: String,
}

impl Target {
    pub(crate) fn of_container(container: &Container) -> Self {
        Self::Container {
            namespace: container.namespace.clone(),
            id: container.id.to_string(),
        }
    }
}

impl ImageTarget {
    pub(crate) fn namespaces(&self) -> Vec<&str> {
        match &self.namespace {
            Some(namespace) => vec![namespace],
            None => NAMESPACES.to_vec(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Container { namespace, id } => write!(f, "container {namespace}/{id}"),
            Self::Image(image) => write!(f, "image {}", image.reference),
        }
    }
}
