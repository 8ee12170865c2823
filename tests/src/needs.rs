//! What a test needs of the machine. Where it is missing the test is listed as not run, with
//! the reason; it never passes.

use std::fs;
use std::path::Path;

use nix::unistd::geteuid;

/// One thing that a privileged test cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Effective user id 0.
    Root,
    /// fanotify with permission events.
    Fanotify,
    /// A mounted cgroup hierarchy.
    Cgroup,
    /// The overlay file system.
    Overlay,
}

impl Need {
    /// Why this machine cannot serve it.
    #[must_use]
    pub fn missing(self) -> Option<&'static str> {
        let (there, why) = match self {
            Self::Root => (geteuid().is_root(), "needs root"),
            Self::Fanotify => (Path::new("/proc/sys/fs/fanotify").is_dir(), "needs fanotify"),
            Self::Cgroup => (has_cgroups(), "needs a mounted cgroup hierarchy"),
            Self::Overlay => (has_overlay(), "needs overlayfs"),
        };
        (!there).then_some(why)
    }
}

fn has_cgroups() -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| {
        line.split(' ')
            .nth(2)
            .is_some_and(|kind| kind.starts_with("cgroup"))
    })
}

fn has_overlay() -> bool {
    let kinds = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    // A module that is not loaded yet is loaded by the first mount.
    kinds.lines().any(|line| line.ends_with("\toverlay"))
        || Path::new("/sys/module/overlay").exists()
        || fs::read_to_string("/proc/modules").is_ok()
}
