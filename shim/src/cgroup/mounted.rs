//! Where cgroup file systems are mounted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

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
    /// The folder of a cgroup, by its path as the kernel tells it.
    pub(super) fn folder(&self, cgroup: &str) -> PathBuf {
        let cgroup = Path::new(cgroup);
        let inside = cgroup.strip_prefix(&self.root).or(cgroup.strip_prefix("/"));
        self.mount_point.join(inside.unwrap_or(cgroup))
    }
}

/// All hierarchies of version 1, and that of version 2.
pub(super) fn hierarchies() -> io::Result<Vec<Hierarchy>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(text.lines().filter_map(parse).collect())
}

/// `ID PARENT MAJOR:MINOR ROOT MOUNT_POINT OPTIONS [TAG...] - TYPE SOURCE OPTIONS`
pub(super) fn parse(line: &str) -> Option<Hierarchy> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let (mut mount, mut filesystem) = (mount.split(' '), filesystem.split(' '));
    let controllers = match (filesystem.next()?, filesystem.nth(1)) {
        ("cgroup", Some(options)) => options.split(',').map(str::to_owned).collect(),
        ("cgroup2", _) => Vec::new(),
        _ => return None,
    };
    Some(Hierarchy {
        root: mount.nth(3)?.into(),
        mount_point: mount.next()?.into(),
        controllers,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn finds_both_versions() {
        let memory = "29 25 0:26 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory";
        let memory = parse(memory).unwrap();
        assert_eq!(memory.controllers, ["rw", "memory"]);
        assert_eq!(memory.folder("/a/b"), Path::new("/sys/fs/cgroup/memory/a/b"));
        let unified = parse("30 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw").unwrap();
        assert!(unified.controllers.is_empty());
        assert_eq!(unified.folder("/"), Path::new("/sys/fs/cgroup/unified"));
        for other in [
            "31 25 0:28 / /tmp rw - tmpfs cgroup rw",
            "rubbish",
            "a - cgroup",
            "",
        ] {
            assert_eq!(parse(other), None);
        }
    }

    #[test]
    fn knows_a_part_of_a_hierarchy() {
        let nested = "29 25 0:26 /docker/x /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids";
        let nested = parse(nested).unwrap();
        assert_eq!(
            nested.folder("/docker/x/pod"),
            Path::new("/sys/fs/cgroup/pids/pod")
        );
    }
}
