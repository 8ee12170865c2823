//! What a keeper offers, checked: it comes from another process.

use std::ffi::OsString;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use lazaret_api::handover::v1 as pb;
use lazaret_sys::fanotify::Group;
use lazaret_sys::seqpacket::MAX_FDS;
use lazaret_sys::{fd_path, pidfd};
use lazaret_types::{Container, ContainerId, HANDOVER_PROTOCOL, Layers, Pod, Role, Superblock};
use thiserror::Error;

/// What makes a [`crate::session::Session`].
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) container: Container,
    pub(crate) group: Group,
    pub(crate) root: OwnedFd,
    pub(crate) init: OwnedFd,
    pub(crate) init_pid: i32,
    pub(crate) guarded: Vec<Superblock>,
    pub(crate) shared: Vec<Superblock>,
}

/// Why an offer is refused; said to the keeper, too.
#[derive(Debug, Error)]
pub(crate) enum OfferError {
    #[error("it is no hand-over message")]
    Malformed,
    #[error("the first message must be Attach")]
    NotAttach,
    #[error(
        "it speaks version {theirs} of the hand-over protocol and lazaretd version {HANDOVER_PROTOCOL}; \
         install shim and daemon of one release"
    )]
    Protocol { theirs: u32 },
    #[error("{0}")]
    Id(#[from] lazaret_types::IdError),
    #[error("it carries no description of the container")]
    NoContainer,
    #[error("its descriptors are not a fanotify group, a root folder and a pidfd of the init")]
    Descriptors,
    #[error("the container's init has exited")]
    InitGone,
}

impl Offer {
    /// Checks a first message and its descriptors.
    pub(crate) fn new(bytes: &[u8], fds: [Option<OwnedFd>; MAX_FDS]) -> Result<Self, OfferError> {
        use prost::Message;
        let message = pb::FromKeeper::decode(bytes)
            .map_err(|_not_ours| OfferError::Malformed)?
            .message;
        let Some(pb::from_keeper::Message::Attach(attach)) = message else {
            return Err(if message.is_some() {
                OfferError::NotAttach
            } else {
                OfferError::Malformed
            });
        };
        if attach.protocol != HANDOVER_PROTOCOL {
            return Err(OfferError::Protocol {
                theirs: attach.protocol,
            });
        }
        let [Some(group), Some(root), Some(init)] = fds else {
            return Err(OfferError::Descriptors);
        };
        let is_group =
            fs::read_link(fd_path(&group)).is_ok_and(|link| link.as_os_str() == "anon_inode:[fanotify]");
        let is_folder = rustix::fs::fstat(&root)
            .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir());
        if !is_group || !is_folder {
            return Err(OfferError::Descriptors);
        }
        Ok(Self {
            container: container(attach.container.ok_or(OfferError::NoContainer)?)?,
            group: Group::from_fd(group),
            root,
            init_pid: pidfd::pid(&init).map_err(|_gone| OfferError::InitGone)?,
            init,
            guarded: attach.guarded.into_iter().map(superblock).collect(),
            shared: attach.shared.into_iter().map(superblock).collect(),
        })
    }
}

fn container(described: pb::Container) -> Result<Container, OfferError> {
    Ok(Container {
        namespace: described.namespace,
        id: ContainerId::new(described.id)?,
        image: (!described.image.is_empty()).then_some(described.image),
        pod: described.pod.map(pod),
        role: if described.sandbox {
            Role::Sandbox
        } else {
            Role::Workload
        },
        annotations: described.annotations.into_iter().collect(),
        bundle: path(described.bundle),
        layers: Layers {
            upper: some_path(described.upper_layer),
            lower: described.lower_layers.into_iter().map(path).collect(),
        },
        containerd: some_path(described.containerd_socket),
    })
}

fn pod(pod: pb::Pod) -> Pod {
    Pod {
        name: pod.name,
        namespace: pod.namespace,
        uid: pod.uid,
        sandbox_id: pod.sandbox_id,
    }
}

fn superblock(superblock: pb::Superblock) -> Superblock {
    Superblock {
        mount_point: path(superblock.mount_point),
        fs_type: superblock.fs_type,
    }
}

fn path(bytes: Vec<u8>) -> PathBuf {
    OsString::from_vec(bytes).into()
}

fn some_path(bytes: Vec<u8>) -> Option<PathBuf> {
    (!bytes.is_empty()).then(|| path(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_not_an_offer() {
        let none = || [const { None }; MAX_FDS];
        assert!(matches!(
            Offer::new(b"\xff\xffgarbage", none()),
            Err(OfferError::Malformed)
        ));
        assert!(matches!(Offer::new(b"", none()), Err(OfferError::Malformed)));
    }

    #[test]
    fn refuses_another_version_and_missing_descriptors() {
        use prost::Message;
        let attach = |protocol| {
            let attach = pb::Attach {
                protocol,
                ..pb::Attach::default()
            };
            pb::FromKeeper {
                message: Some(pb::from_keeper::Message::Attach(attach)),
            }
            .encode_to_vec()
        };
        let offer = |protocol| Offer::new(&attach(protocol), [const { None }; MAX_FDS]);
        assert!(matches!(
            offer(HANDOVER_PROTOCOL + 1),
            Err(OfferError::Protocol { .. })
        ));
        assert!(matches!(offer(HANDOVER_PROTOCOL), Err(OfferError::Descriptors)));
    }
}
