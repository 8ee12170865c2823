//! The cgroup of a container: where it is and what is used in it.

mod files;
mod mounted;
mod oom;
mod remnant;
mod v1;
mod v2;

use std::collections::HashMap;
use std::fs;
use std::io;

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use rustix::process::Pid;

use crate::process::number;
use files::Folder;
use mounted::Hierarchy;

pub(crate) use oom::Watch as OomWatch;
pub(crate) use remnant::remove;

/// A folder for each controller.
type Controllers = HashMap<String, Folder>;

/// A cgroup, which may have ended since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cgroup {
    /// Of version 1, also where version 2 is there beside it: that has no controllers.
    V1(Controllers),
    V2(Folder),
}

impl Cgroup {
    /// The cgroup that a process is in.
    pub(crate) fn of(pid: Pid) -> io::Result<Self> {
        let membership = fs::read_to_string(format!("/proc/{}/cgroup", number(pid)))?;
        Self::parse(&membership, &mounted::hierarchies()?)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no cgroup file system is mounted"))
    }

    /// Lines of `HIERARCHY:CONTROLLERS:PATH`, with no controllers for version 2.
    fn parse(membership: &str, hierarchies: &[Hierarchy]) -> Option<Self> {
        let mut controllers = Controllers::new();
        let mut unified = None;
        for line in membership.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(names), Some(path)) = (fields.next(), fields.next()) else {
                continue;
            };
            if names.is_empty() {
                let hierarchy = hierarchies.iter().find(|it| it.controllers.is_empty());
                unified = hierarchy.map(|hierarchy| Folder(hierarchy.folder(path)));
            }
            // A hierarchy with a name has no controllers: systemd keeps track by it.
            for name in names
                .split(',')
                .filter(|name| !name.is_empty() && !name.contains('='))
            {
                let is_mounted = |it: &&Hierarchy| it.controllers.iter().any(|controller| controller == name);
                if let Some(hierarchy) = hierarchies.iter().find(is_mounted) {
                    controllers.insert(name.to_owned(), Folder(hierarchy.folder(path)));
                }
            }
        }
        match controllers.is_empty() {
            true => unified.map(Self::V2),
            false => Some(Self::V1(controllers)),
        }
    }

    /// What is used in it, in the message that containerd knows for its version.
    pub(crate) fn metrics(&self) -> io::Result<Any> {
        let any = |type_url: &str, value: Vec<u8>| Any {
            type_url: type_url.to_owned(),
            value,
            ..Default::default()
        };
        Ok(match self {
            Self::V1(controllers) => any(
                "io.containerd.cgroups.v1.Metrics",
                v1::metrics(controllers).write_to_bytes()?,
            ),
            Self::V2(folder) => any(
                "io.containerd.cgroups.v2.Metrics",
                v2::metrics(folder).write_to_bytes()?,
            ),
        })
    }

    /// Whether it is there still.
    pub(crate) fn exists(&self) -> bool {
        match self {
            Self::V1(controllers) => controllers.values().any(|folder| folder.0.exists()),
            Self::V2(folder) => folder.0.exists(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::mounted::tests::mounted;
    use super::*;

    fn mounts(all: &[(&str, &str, &str)]) -> Vec<Hierarchy> {
        let all = all
            .iter()
            .map(|(point, kind, options)| mounted("/", point, kind, options));
        all.filter_map(Hierarchy::of).collect()
    }

    fn folder(path: &str) -> Folder {
        Folder(PathBuf::from(path))
    }

    #[test]
    fn version_2_has_one_folder() {
        let mounts = mounts(&[("/sys/fs/cgroup", "cgroup2", "rw")]);
        let found = Cgroup::parse("0::/kubepods.slice/c1.scope\n", &mounts);
        let wanted = folder("/sys/fs/cgroup/kubepods.slice/c1.scope");
        assert_eq!(found, Some(Cgroup::V2(wanted)));
    }

    #[test]
    fn version_1_has_one_for_each_controller_also_on_a_hybrid_machine() {
        let mounts = mounts(&[
            ("/c/cpu,cpuacct", "cgroup", "rw,cpu,cpuacct"),
            ("/c/systemd", "cgroup", "rw,name=systemd"),
            ("/c/unified", "cgroup2", "rw"),
        ]);
        let membership = "9:memory:/m\n4:cpu,cpuacct:/a:b\n1:name=systemd:/s\n0::/u\n";
        let found = Cgroup::parse(membership, &mounts);
        let folder = folder("/c/cpu,cpuacct/a:b");
        let wanted = Controllers::from([("cpu".into(), folder.clone()), ("cpuacct".into(), folder)]);
        assert_eq!(found, Some(Cgroup::V1(wanted)), "memory is not mounted");
    }

    #[test]
    fn nothing_is_found_where_nothing_is_mounted() {
        assert_eq!(Cgroup::parse("0::/a\n1:pids:/a\nrubbish\n", &[]), None);
    }
}
