//! Where cgroup file systems are mounted.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lazaret_sys::mounts::{self, Mount};

/// One hierarchy of cgroups.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) mount_point: PathBuf,
    /// The cgroup that is mounted: not the topmost one if we run in a container.
    root: PathBuf,
    /// Names of controllers, and other options; none of version 2.
    pub(super) controllers: Vec<String>,
}

impl Hierarchy {
    pub(super) fn of(mount: Mount) -> Option<Self> {
        let controllers = match mount.fs_type.as_str() {
            "cgroup" => mount.super_options.split(',').map(str::to_owned).collect(),
            "cgroup2" => Vec::new(),
            _ => return None,
        };
        Some(Self {
            root: mount.root,
            mount_point: mount.mount_point,
            controllers,
        })
    }

    /// The folder of a cgroup, by its path as the kernel tells it.
    pub(super) fn folder(&self, cgroup: &str) -> PathBuf {
        let cgroup = Path::new(cgroup);
        let inside = cgroup.strip_prefix(&self.root).or(cgroup.strip_prefix("/"));
        self.mount_point.join(inside.unwrap_or(cgroup))
    }
}

/// All hierarchies of version 1, and that of version 2, each once.
pub(super) fn hierarchies() -> io::Result<Vec<Hierarchy>> {
    // Every process is in each of them. They are mounted early, and a node has thousands of
    // mounts: who has found all asks for no more.
    let count = fs::read_to_string("/proc/self/cgroup")?.lines().count();
    let mut found = BTreeMap::new();
    for mount in mounts::each_own()? {
        let mount = mount?;
        let device = mount.device;
        if let Some(hierarchy) = Hierarchy::of(mount) {
            found.entry(device).or_insert(hierarchy);
        }
        if found.len() >= count {
            break;
        }
    }
    Ok(found.into_values().collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn mounted(root: &str, mount_point: &str, fs_type: &str, options: &str) -> Mount {
        Mount {
            id: 29,
            device: mounts::Device { major: 0, minor: 26 },
            root: root.into(),
            mount_point: mount_point.into(),
            fs_type: fs_type.into(),
            super_options: options.into(),
        }
    }

    #[test]
    fn finds_both_versions() {
        let memory = mounted("/", "/sys/fs/cgroup/memory", "cgroup", "rw,memory");
        let memory = Hierarchy::of(memory).unwrap();
        assert_eq!(memory.controllers, ["rw", "memory"]);
        assert_eq!(memory.folder("/a/b"), Path::new("/sys/fs/cgroup/memory/a/b"));
        let unified = mounted("/", "/sys/fs/cgroup/unified", "cgroup2", "rw");
        let unified = Hierarchy::of(unified).unwrap();
        assert!(unified.controllers.is_empty());
        assert_eq!(unified.folder("/"), Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(Hierarchy::of(mounted("/", "/tmp", "tmpfs", "cgroup")), None);
    }

    #[test]
    fn knows_a_part_of_a_hierarchy() {
        let nested = mounted("/docker/x", "/sys/fs/cgroup/pids", "cgroup", "rw,pids");
        let nested = Hierarchy::of(nested).unwrap();
        assert_eq!(
            nested.folder("/docker/x/pod"),
            Path::new("/sys/fs/cgroup/pids/pod")
        );
    }
}
