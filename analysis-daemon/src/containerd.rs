//! Asks containerd what a bundle does not tell: the image of a container, and
//! the name that people gave it.
//!
//! Only incidents need it, after the verdict was answered, so it may take a
//! while; but containerd may hang, and a node may have many containers.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use lazaret_api::containerd::GetContainerRequest;
use lazaret_api::containerd::containers_client::ContainersClient;
use lazaret_types::Container;
use lru::LruCache;
use thiserror::Error;
use tonic::transport::Endpoint;
use tonic::{Code, Request};

/// For one question, connecting included.
const DEADLINE: Duration = Duration::from_millis(500);

/// How long a containerd that gave no answer is not asked again.
const SILENCE: Duration = Duration::from_secs(10);

/// Containers whose answer is remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);

/// Sockets whose silence is remembered: a node has one or two.
const MAX_SOCKETS: usize = 16;

/// Largest answer, in bytes. It carries the container's whole OCI spec.
const MAX_ANSWER: usize = 4 << 20;

/// Labels that hold a name, of Kubernetes and of nerdctl.
const NAME_LABELS: [&str; 2] = ["io.kubernetes.container.name", "nerdctl/name"];

/// What containerd knows of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) image: Option<String>,
    /// What people call it, when that is not its id.
    pub(crate) name: Option<String>,
}

/// Asks, and remembers the answers.
#[derive(Debug)]
pub(crate) struct Images {
    answers: LruCache<Key, Answer>,
    silent_until: HashMap<PathBuf, Instant>,
}

/// Namespace and id.
type Key = (String, String);

#[derive(Debug)]
struct Answer {
    /// A later container may have the same id.
    of: Weak<Container>,
    known: Known,
}

#[derive(Debug, Error)]
enum AskError {
    #[error("no answer within {DEADLINE:?}")]
    Timeout(#[from] tokio::time::error::Elapsed),
    #[error("its socket's path is not UTF-8")]
    Path,
    #[error("the namespace does not fit in a header")]
    Namespace(#[from] tonic::metadata::errors::InvalidMetadataValue),
    #[error(transparent)]
    Connect(#[from] tonic::transport::Error),
    #[error(transparent)]
    Refused(#[from] tonic::Status),
    #[error(transparent)]
    Runtime(#[from] std::io::Error),
}

impl Images {
    pub(crate) fn new() -> Self {
        Self {
            answers: LruCache::new(REMEMBERED),
            silent_until: HashMap::new(),
        }
    }

    /// What containerd knows of a container; nothing when it does not answer.
    /// Blocks for at most [`DEADLINE`], and only the first time. Not for a
    /// thread that runs tasks.
    pub(crate) fn known(&mut self, container: &Arc<Container>) -> Known {
        let Some(socket) = &container.containerd else {
            return Known::default();
        };
        let key = (container.namespace.clone(), container.id.to_string());
        let remembered = self
            .answers
            .get(&key)
            .filter(|answer| answer.of.as_ptr() == Arc::as_ptr(container));
        if let Some(answer) = remembered {
            return answer.known.clone();
        }
        if self
            .silent_until
            .get(socket)
            .is_some_and(|until| Instant::now() < *until)
        {
            return Known::default();
        }
        match ask(socket, &container.namespace, container.id.as_str()) {
            Ok(known) => {
                self.answers.put(
                    key,
                    Answer {
                        of: Arc::downgrade(container),
                        known: known.clone(),
                    },
                );
                known
            }
            Err(error) => {
                tracing::warn!(socket = %socket.display(), container = %container.id, %error, "containerd does not tell the image");
                self.remember_silence(socket);
                Known::default()
            }
        }
    }

    fn remember_silence(&mut self, socket: &Path) {
        let now = Instant::now();
        self.silent_until.retain(|_, until| now < *until);
        if self.silent_until.len() < MAX_SOCKETS {
            self.silent_until.insert(socket.to_owned(), now + SILENCE);
        }
    }
}

/// One question on a connection of its own: they are rare, and what is not kept
/// open cannot go stale.
fn ask(socket: &Path, namespace: &str, id: &str) -> Result<Known, AskError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async { tokio::time::timeout(DEADLINE, get(socket, namespace, id)).await? })
}

async fn get(socket: &Path, namespace: &str, id: &str) -> Result<Known, AskError> {
    let path = socket.to_str().ok_or(AskError::Path)?;
    let channel = Endpoint::try_from(format!("unix://{path}"))?.connect().await?;
    let mut request = Request::new(GetContainerRequest { id: id.to_owned() });
    request
        .metadata_mut()
        .insert("containerd-namespace", namespace.parse()?);
    let mut client = ContainersClient::new(channel).max_decoding_message_size(MAX_ANSWER);
    let container = match client.get(request).await {
        Ok(response) => response.into_inner().container.unwrap_or_default(),
        // An answer too: whoever made this container did not tell containerd.
        Err(status) if status.code() == Code::NotFound => return Ok(Known::default()),
        Err(status) => return Err(status.into()),
    };
    let name = NAME_LABELS.iter().find_map(|label| container.labels.get(*label));
    Ok(Known {
        image: Some(container.image).filter(|image| !image.is_empty()),
        name: name.cloned(),
    })
}

#[cfg(test)]
mod tests;
