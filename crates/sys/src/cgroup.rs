//! The cgroup of a process and who else is in it.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::mounts;

/// The folder of the process's cgroup v2, also on a hybrid machine.
///
/// # Errors
/// `NotFound` when the machine has no cgroup v2 mounted, or the process is gone.
pub fn v2_folder(pid: i32) -> io::Result<PathBuf> {
    // Found early among what may be thousands of mounts.
    let is_it = |mount: &io::Result<mounts::Mount>| mount.as_ref().map_or(true, |it| it.fs_type == "cgroup2");
    let hierarchy = mounts::each_own()?
        .find(is_it)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no cgroup2 file system is mounted"))??
        .mount_point;
    let path = v2_path(pid)?;
    Ok(hierarchy.join(path.strip_prefix("/").unwrap_or(&path)))
}

/// The process's cgroup v2 below the root of the hierarchy, beginning with `/`.
///
/// # Errors
/// As [`v2_folder`]; `InvalidFilename` when its path is longer than the kernel tells.
pub fn v2_path(pid: i32) -> io::Result<PathBuf> {
    // Bytes: whoever may make a cgroup chooses its name.
    let membership = fs::read(format!("/proc/{pid}/cgroup"))?;
    // "0::/path", relative to the hierarchy's root in our cgroup namespace.
    let mut lines = membership.split(|byte| *byte == b'\n');
    let path = lines.find_map(|line| line.strip_prefix(b"0::"));
    path.map(|path| OsStr::from_bytes(path).into()).ok_or_else(|| {
        let what = format!("no cgroup v2 membership for process {pid}");
        io::Error::new(io::ErrorKind::NotFound, what)
    })
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
    listed(folder, "cgroup.procs")
}

/// The threads in a cgroup and in all below it, as of about now.
///
/// # Errors
/// As [`processes`].
pub fn threads(folder: &Path) -> io::Result<Vec<i32>> {
    listed(folder, "cgroup.threads")
}

fn listed(folder: &Path, list: &str) -> io::Result<Vec<i32>> {
    let ids = fs::read_to_string(folder.join(list))?;
    let mut ids: Vec<i32> = ids.lines().filter_map(|id| id.parse().ok()).collect();
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            ids.extend(listed(&entry.path(), list).unwrap_or_default());
        }
    }
    Ok(ids)
}
