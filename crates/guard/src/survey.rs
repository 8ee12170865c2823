//! Which superblocks a container sees, and which of them are its own.
//!
//! A mark on a superblock catches every open on it, by whomever. On one that the
//! host uses as well, a container's group would hold up the host: such a one is
//! listed as shared and never marked here.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use lazaret_sys::mounts::{self, Device, Mount, Mounts};
use lazaret_sys::pidfd;
use lazaret_types::{LossPolicy, Superblock};
use thiserror::Error;

use crate::Target;

/// Kernel interfaces: they hold no file content that could run, and most refuse
/// permission marks.
const INTERFACES: [&str; 19] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "sysfs",
    "tracefs",
];

/// What of a container's file systems can be guarded by its own group.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// Its own, each with a descriptor on it.
    pub(crate) private: Vec<(Superblock, OwnedFd)>,
    /// Shared with the host, or out of reach below another mount.
    pub(crate) shared: Vec<Superblock>,
}

/// Why a container's file systems cannot be told.
#[derive(Debug, Error)]
pub enum SurveyError {
    /// Its init has exited.
    #[error("its init process is gone; it may have been killed while it was created")]
    InitGone,
    /// Its root folder lies on a file system of the host.
    #[error(
        "its root ({fs_type}) shares a file system with the host, so a guard on it would hold up the host; \
         use the overlayfs snapshotter"
    )]
    RootShared {
        /// The type of the root's file system.
        fs_type: String,
    },
    /// Reading its mounts failed.
    #[error("its mounts cannot be read: {0}")]
    Mounts(#[from] io::Error),
}

/// Sorts the superblocks of a container whose init is blocked.
pub(crate) fn survey(target: &Target, policy: LossPolicy) -> Result<Survey, SurveyError> {
    let seen = mounts_of_init(target.init.as_fd())?;
    let root_id = mounts::id_of(target.root.as_fd())?;

    let mut by_device: BTreeMap<Device, Vec<&Mount>> = BTreeMap::new();
    for mount in seen
        .iter()
        .filter(|mount| !INTERFACES.contains(&mount.fs_type.as_str()))
    {
        by_device.entry(mount.device).or_default().push(mount);
    }
    let asked = by_device.keys().copied().collect();
    let host = of_host(&asked, &target.container.bundle)?;
    let mut survey = Survey::default();
    for (device, mounts) in by_device {
        let Some(first) = mounts.first() else { continue };
        let superblock = Superblock {
            mount_point: first.mount_point.clone(),
            fs_type: first.fs_type.clone(),
        };
        if !host.contains(&device) {
            let root = target.root.as_fd();
            match mounts.iter().find_map(|mount| mounts::reach(root, mount)) {
                Some(fd) => survey.private.push((superblock, fd)),
                None => survey.shared.push(superblock),
            }
            continue;
        }
        if policy == LossPolicy::Closed && mounts.iter().any(|mount| mount.id == root_id) {
            return Err(SurveyError::RootShared {
                fs_type: superblock.fs_type,
            });
        }
        survey.shared.push(superblock);
    }
    Ok(survey)
}

/// Reads the mounts by pid, and makes sure that the pid still was init's after.
fn mounts_of_init(init: BorrowedFd<'_>) -> Result<Vec<Mount>, SurveyError> {
    let pid = pidfd::pid(init).map_err(|_gone| SurveyError::InitGone)?;
    let seen = mounts::of(pid);
    if pidfd::has_exited(init)? {
        return Err(SurveyError::InitGone);
    }
    Ok(seen?)
}

/// Which of these superblocks the host mounts, but for the bundle's own rootfs, which containerd
/// mounts in the host's namespace for this container alone. A node has thousands of mounts, and
/// each container comes by here: only what is asked for is kept.
fn of_host(asked: &BTreeSet<Device>, bundle: &Path) -> io::Result<BTreeSet<Device>> {
    let rootfs = bundle
        .canonicalize()
        .unwrap_or_else(|_gone| bundle.to_owned())
        .join("rootfs");
    let mut found = BTreeSet::new();
    let mut look = |mounts: Mounts| -> io::Result<()> {
        for mount in mounts {
            let mount = mount?;
            if asked.contains(&mount.device) && mount.mount_point != rootfs {
                found.insert(mount.device);
            }
        }
        Ok(())
    };
    look(mounts::each_of(1)?)?;
    // Ours may differ from init's: containerd can be confined to a namespace of its own.
    if !mounts::as_init()? {
        look(mounts::each_own()?)?;
    }
    Ok(found)
}
