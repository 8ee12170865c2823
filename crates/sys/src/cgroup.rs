//! The cgroup of a process and who else is in it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::mounts;

/// The folder of the process's cgroup v2, also on a hybrid machine.
///
/// # Errors
/// `NotFound` when the machine has no cgroup v2 mounted, or the process is gone.
pub fn v2_folder(pid: i32) -> io::Result<PathBuf> {
    let none = |what: &str| io::Error::new(io::ErrorKind::NotFound, format!("{what} for process {pid}"));
    let hierarchy = mounts::own()?
        .into_iter()
        .find(|mount| mount.fs_type == "cgroup2")
        .ok_or_else(|| none("no cgroup2 file system is mounted"))?
        .mount_point;
    // "0::/path", relative to the hierarchy's root in our cgroup namespace.
    let membership = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let path = membership
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .ok_or_else(|| none("no cgroup v2 membership"))?;
    Ok(hierarchy.join(path))
}

/// The id of a cgroup v2 folder: its inode number (kernfs).
///
/// # Errors
/// As `stat(2)`.
pub fn id(folder: &Path) -> io::Result<u64> {
    Ok(fs::metadata(folder)?.ino())
}

/// The processes in a cgroup and in all below it, as of about now.
///
/// # Errors
/// As `read(2)` of the topmost; one that vanishes below it is passed over.
pub fn processes(folder: &Path) -> io::Result<Vec<i32>> {
    let mut pids: Vec<i32> = fs::read_to_string(folder.join("cgroup.procs"))?
        .lines()
        .filter_map(|pid| pid.parse().ok())
        .collect();
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            pids.extend(processes(&entry.path()).unwrap_or_default());
        }
    }
    Ok(pids)
}
