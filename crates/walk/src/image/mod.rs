//! Container images as folder trees, through containerd's API.
//!
//! containerd has unpacked the layers; it is asked for a read-only view of them,
//! which is mounted where nobody else sees it. No tar and no gzip is read here.
//! A lease holds the view: when we die, its expiry, or whoever calls
//! [`Containerd::release`] with its name, lets containerd remove it.
//!
//! Everything blocks, with a time limit for each question: not for a thread that
//! runs tasks.

mod manifest;
mod mount;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lazaret_api::containerd::content::ReadContentRequest;
use lazaret_api::containerd::content::content_client::ContentClient;
use lazaret_api::containerd::images::GetImageRequest;
use lazaret_api::containerd::images::images_client::ImagesClient;
use lazaret_api::containerd::leases::leases_client::LeasesClient;
use lazaret_api::containerd::leases::{CreateRequest, DeleteRequest};
use lazaret_api::containerd::snapshots::snapshots_client::SnapshotsClient;
use lazaret_api::containerd::snapshots::{
    Mount, RemoveSnapshotRequest, StatSnapshotRequest, UsageRequest, ViewSnapshotRequest,
};
use thiserror::Error;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// For one question.
const DEADLINE: Duration = Duration::from_secs(10);

/// containerd removes a view that nobody removed after this time.
const EXPIRY: Duration = Duration::from_secs(24 * 60 * 60);

/// Largest manifest or configuration, in bytes.
const MAX_BLOB: usize = 8 << 20;

/// Most layers of an image; overlayfs takes 500.
const MAX_LAYERS: usize = 500;

/// There is no tree of an image.
#[derive(Debug, Error)]
pub enum ImageError {
    /// Nobody answers on the socket.
    #[error("containerd does not answer: {0}")]
    Connect(#[from] tonic::transport::Error),
    /// No image of this name in this namespace.
    #[error("containerd has no image {0}")]
    Unknown(String),
    /// The image was pulled, but not for this snapshotter.
    #[error("the image is not unpacked for the snapshotter {0}")]
    NotUnpacked(String),
    /// Manifest or configuration cannot be used.
    #[error("the image is not usable: {0}")]
    Malformed(String),
    /// containerd refused.
    #[error("containerd refused: {0}")]
    Refused(#[from] Status),
    /// A name that does not fit in a header.
    #[error("not a usable name: {0:?}")]
    Name(String),
    /// The view cannot be mounted.
    #[error("cannot mount the image: {0}")]
    Mount(io::Error),
    /// No runtime, no thread.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A namespace of a containerd, with one of its snapshotters.
#[derive(Debug)]
pub struct Containerd {
    runtime: Runtime,
    channel: Channel,
    namespace: String,
    snapshotter: String,
}

/// An image that containerd knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Of the manifest for this machine: the identity of the image.
    pub digest: String,
    /// Of all layers: the snapshot that a view is made of.
    chain_id: String,
}

/// About how much is in an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Files, folders, links.
    pub inodes: u64,
    /// On disk.
    pub bytes: u64,
}

/// The read-only tree that overlayfs makes of an image's layers, the topmost first, until the
/// descriptor is closed. Nobody else sees it.
///
/// # Errors
/// When there is no layer, or they cannot be mounted.
pub fn merged(layers: &[PathBuf]) -> io::Result<OwnedFd> {
    let text = |layer: &PathBuf| layer.to_str().map(str::to_owned);
    let layers: Option<Vec<_>> = layers.iter().map(text).collect();
    let layers = layers.ok_or(io::ErrorKind::InvalidInput)?;
    let mount = match layers.as_slice() {
        [] => return Err(io::ErrorKind::NotFound.into()),
        // Overlayfs takes no single one. No layer lies below it that it could hide anything of.
        [only] => Mount {
            r#type: "bind".into(),
            source: only.clone(),
            ..Mount::default()
        },
        several => Mount {
            r#type: "overlay".into(),
            options: vec![format!("lowerdir={}", several.join(":"))],
            ..Mount::default()
        },
    };
    mount::privately(vec![mount])
}

impl Containerd {
    /// Connects to a socket.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn connect(socket: &Path, namespace: &str, snapshotter: &str) -> Result<Self, ImageError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let endpoint = Endpoint::try_from(format!("unix://{}", socket.display()))?
            .connect_timeout(DEADLINE)
            .timeout(DEADLINE);
        let channel = runtime.block_on(endpoint.connect())?;
        Ok(Self {
            runtime,
            channel,
            namespace: namespace.to_owned(),
            snapshotter: snapshotter.to_owned(),
        })
    }

    /// Finds an image by its name, for this machine's architecture.
    ///
    /// # Errors
    /// [`ImageError::Unknown`] when there is none.
    pub fn image(&self, reference: &str) -> Result<Image, ImageError> {
        let name = reference.to_owned();
        let request = self.request(GetImageRequest { name })?;
        let mut images = ImagesClient::new(self.channel.clone());
        let image = match self.runtime.block_on(images.get(request)) {
            Ok(answer) => answer.into_inner().image,
            Err(status) if status.code() == Code::NotFound => None,
            Err(status) => return Err(status.into()),
        };
        let target = image.and_then(|image| image.target);
        let target = target.ok_or_else(|| ImageError::Unknown(reference.to_owned()))?;
        let (digest, chain_id) = manifest::resolve(&target.digest, |digest| self.blob(digest))?;
        Ok(Image { digest, chain_id })
    }

    /// The read-only tree of an image, until the descriptor is closed. Then call
    /// [`Containerd::release`] with the same `lease`, a name that nobody else uses.
    ///
    /// # Errors
    /// When containerd has not unpacked it, or it cannot be mounted. Release the
    /// lease then, too.
    pub fn view(&self, image: &Image, lease: &str) -> Result<OwnedFd, ImageError> {
        self.create_lease(lease)?;
        let mut request = self.request(ViewSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: lease.to_owned(),
            parent: image.chain_id.clone(),
        })?;
        request.metadata_mut().insert("containerd-lease", header(lease)?);
        let mut snapshots = SnapshotsClient::new(self.channel.clone());
        let mounts: Vec<Mount> = match self.runtime.block_on(snapshots.view(request)) {
            Ok(answer) => answer.into_inner().mounts,
            Err(status) if status.code() == Code::NotFound => {
                return Err(ImageError::NotUnpacked(self.snapshotter.clone()));
            }
            Err(status) => return Err(status.into()),
        };
        mount::privately(mounts).map_err(ImageError::Mount)
    }

    /// Removes the view of a lease, and the lease. Neither need exist.
    ///
    /// # Errors
    /// When containerd does not answer; the lease expires by itself then.
    pub fn release(&self, lease: &str) -> Result<(), ImageError> {
        let request = self.request(RemoveSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: lease.to_owned(),
        })?;
        let mut snapshots = SnapshotsClient::new(self.channel.clone());
        none_is_fine(self.runtime.block_on(snapshots.remove(request)))?;
        let request = self.request(DeleteRequest {
            id: lease.to_owned(),
            sync: false,
        })?;
        let mut leases = LeasesClient::new(self.channel.clone());
        none_is_fine(self.runtime.block_on(leases.delete(request)))
    }

    /// How much there is, summed up over the layers; none when containerd does
    /// not tell.
    #[must_use]
    pub fn size(&self, image: &Image) -> Option<Size> {
        let mut size = Size::default();
        let mut layer = image.chain_id.clone();
        for _ in 0..MAX_LAYERS {
            if layer.is_empty() {
                return Some(size);
            }
            let (usage, parent) = self.layer(layer).ok()?;
            size.inodes = size.inodes.saturating_add(usage.inodes);
            size.bytes = size.bytes.saturating_add(usage.bytes);
            layer = parent;
        }
        None
    }

    /// The size of one layer, and the name of the one below.
    fn layer(&self, key: String) -> Result<(Size, String), ImageError> {
        let mut snapshots = SnapshotsClient::new(self.channel.clone());
        let snapshotter = self.snapshotter.clone();
        let request = self.request(UsageRequest {
            snapshotter: snapshotter.clone(),
            key: key.clone(),
        })?;
        let usage = self.runtime.block_on(snapshots.usage(request))?.into_inner();
        let request = self.request(StatSnapshotRequest { snapshotter, key })?;
        let stat = self.runtime.block_on(snapshots.stat(request))?.into_inner();
        let size = Size {
            inodes: u64::try_from(usage.inodes).unwrap_or_default(),
            bytes: u64::try_from(usage.size).unwrap_or_default(),
        };
        Ok((size, stat.info.unwrap_or_default().parent))
    }

    fn create_lease(&self, id: &str) -> Result<(), ImageError> {
        let expire = jiff::Timestamp::now() + EXPIRY;
        let labels = HashMap::from([("containerd.io/gc.expire".into(), expire.to_string())]);
        let request = self.request(CreateRequest {
            id: id.to_owned(),
            labels,
        })?;
        let mut leases = LeasesClient::new(self.channel.clone());
        self.runtime.block_on(leases.create(request))?;
        Ok(())
    }

    fn blob(&self, digest: &str) -> Result<Vec<u8>, ImageError> {
        let request = self.request(ReadContentRequest {
            digest: digest.to_owned(),
            offset: 0,
            size: 0,
        })?;
        let mut content = ContentClient::new(self.channel.clone());
        self.runtime.block_on(async {
            let mut parts = content.read(request).await?.into_inner();
            let mut blob = Vec::new();
            while let Some(part) = parts.message().await? {
                blob.extend(part.data);
                if blob.len() > MAX_BLOB {
                    return Err(ImageError::Malformed(format!(
                        "{digest} is larger than {MAX_BLOB} bytes"
                    )));
                }
            }
            Ok(blob)
        })
    }

    fn request<T>(&self, message: T) -> Result<Request<T>, ImageError> {
        let mut request = Request::new(message);
        let namespace = header(&self.namespace)?;
        request.metadata_mut().insert("containerd-namespace", namespace);
        Ok(request)
    }
}

fn header(name: &str) -> Result<tonic::metadata::AsciiMetadataValue, ImageError> {
    name.parse().map_err(|_invalid| ImageError::Name(name.to_owned()))
}

fn none_is_fine<T>(answer: Result<T, Status>) -> Result<(), ImageError> {
    match answer {
        Err(status) if status.code() != Code::NotFound => Err(status.into()),
        _ => Ok(()),
    }
}
