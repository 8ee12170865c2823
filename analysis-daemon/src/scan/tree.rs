//! The folder tree of a target.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use lazaret_sys::open_in_root;
use lazaret_walk::Mounts;
use lazaret_walk::image::{Containerd, Image, ImageError};
use rustix::fs::{Mode, OFlags};

use super::record::Lease;
use super::target::ImageTarget;
use crate::registry::Registry;
use crate::session::Session;

/// What is walked.
pub(super) struct Tree {
    pub(super) root: OwnedFd,
    pub(super) mounts: Mounts,
    /// Whose it is. It must be left at once when the container ends.
    pub(super) session: Option<Arc<Session>>,
}

/// A path of the host, links in it followed: an administrator gave it.
pub(super) fn of_path(path: &Path) -> io::Result<Tree> {
    let root = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    Ok(Tree {
        root,
        mounts: Mounts::Stay,
        session: None,
    })
}

/// The superblocks of a container that nobody else has. What it shares with the
/// host is the host's, and may be all of its disk.
pub(super) fn of_container(registry: &Registry, namespace: &str, id: &str) -> io::Result<Tree> {
    let session = registry.find(namespace, id);
    let session = session.ok_or_else(|| io::Error::other("the container is not guarded, or has ended"))?;
    let root = session.root.try_clone()?;
    let device = |mount_point: &Path| {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let folder = open_in_root(root.as_fd(), mount_point, flags)?;
        Ok::<_, io::Error>(rustix::fs::fstat(folder)?.st_dev)
    };
    // A mount that has vanished since the guard began needs no scan.
    let guarded = session.guarded.iter();
    let devices: BTreeSet<_> = guarded
        .filter_map(|superblock| device(&superblock.mount_point).ok())
        .collect();
    Ok(Tree {
        root,
        mounts: Mounts::Into(devices),
        session: Some(session),
    })
}

/// Finds an image in the namespaces that it may be in.
pub(super) fn find_image(target: &ImageTarget) -> Result<(Containerd, Lease, Image), ImageError> {
    let mut unknown = ImageError::Unknown(target.reference.clone());
    for namespace in target.namespaces() {
        let containerd = Containerd::connect(&target.containerd, namespace, &target.snapshotter)?;
        match containerd.image(&target.reference) {
            Ok(image) => {
                let lease = Lease {
                    id: format!("lazaret-scan-{}", ulid::Ulid::generate()),
                    namespace: namespace.to_owned(),
                };
                return Ok((containerd, lease, image));
            }
            Err(error @ ImageError::Unknown(_)) => unknown = error,
            Err(error) => return Err(error),
        }
    }
    Err(unknown)
}
