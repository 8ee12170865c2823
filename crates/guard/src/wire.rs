//! Messages of the hand-over protocol, to and from bytes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use lazaret_api::handover::v1 as pb;
use lazaret_types::{Container, HANDOVER_PROTOCOL, Pod, Role, Superblock};
use pb::from_keeper::Message as FromKeeper;
use prost::Message;

use crate::survey::Survey;

/// Room for every message of a keeper but Attach.
pub(crate) type Small = [u8; 64];

/// The Attach message of a container, ready to be sent again after a restart of
/// the daemon.
pub(crate) fn attach(container: &Container, survey: &Survey) -> Vec<u8> {
    let attach = pb::Attach {
        protocol: HANDOVER_PROTOCOL,
        container: Some(describe(container)),
        guarded: survey
            .private
            .iter()
            .map(|(superblock, _)| superblock_message(superblock))
            .collect(),
        shared: survey.shared.iter().map(superblock_message).collect(),
    };
    pb::FromKeeper {
        message: Some(FromKeeper::Attach(attach)),
    }
    .encode_to_vec()
}

/// Encodes a small message without allocating.
pub(crate) fn encode(message: FromKeeper, buffer: &mut Small) -> &[u8] {
    let message = pb::FromKeeper {
        message: Some(message),
    };
    let length = message.encoded_len();
    let mut rest = buffer.as_mut_slice();
    // It fits: four numbers and a few tags. An empty message is refused by its receiver.
    match message.encode(&mut rest) {
        Ok(()) => buffer.get(..length).unwrap_or_default(),
        Err(_) => &[],
    }
}

/// What the daemon says; none when it is not understood.
pub(crate) fn decode(bytes: &[u8]) -> Option<pb::from_daemon::Message> {
    pb::FromDaemon::decode(bytes).ok()?.message
}

fn describe(container: &Container) -> pb::Container {
    pb::Container {
        namespace: container.namespace.clone(),
        id: container.id.to_string(),
        image: container.image.clone().unwrap_or_default(),
        pod: container.pod.as_ref().map(pod_message),
        sandbox: container.role == Role::Sandbox,
        annotations: container.annotations.clone().into_iter().collect(),
        bundle: bytes(&container.bundle),
        upper_layer: container.layers.upper.as_deref().map(bytes).unwrap_or_default(),
        lower_layers: container.layers.lower.iter().map(|layer| bytes(layer)).collect(),
        containerd_socket: container.containerd.as_deref().map(bytes).unwrap_or_default(),
    }
}

fn pod_message(pod: &Pod) -> pb::Pod {
    pb::Pod {
        name: pod.name.clone(),
        namespace: pod.namespace.clone(),
        uid: pod.uid.clone(),
        sandbox_id: pod.sandbox_id.clone(),
    }
}

fn superblock_message(superblock: &Superblock) -> pb::Superblock {
    pb::Superblock {
        mount_point: bytes(&superblock.mount_point),
        fs_type: superblock.fs_type.clone(),
    }
}

fn bytes(path: &Path) -> Vec<u8> {
    OsStr::as_bytes(path.as_os_str()).to_vec()
}
