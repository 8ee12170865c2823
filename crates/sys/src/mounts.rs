//! What is mounted where: `/proc/PID/mountinfo` (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Take};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, OFlags, StatxFlags};

use crate::open_in_root;

/// A longer mountinfo is refused: the kernel's limit of 100,000 mounts
/// (`fs.mount-max`) fits.
const MAX_BYTES: u64 = 64 << 20;

/// The device number that names a superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Device {
    /// As in `st_dev`.
    pub major: u32,
    /// As in `st_dev`.
    pub minor: u32,
}

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Unique among the mounts that exist now.
    pub id: u64,
    /// Whose file system it is.
    pub device: Device,
    /// Which folder or file of it.
    pub root: PathBuf,
    /// Where it is mounted, as seen from the root folder of the process.
    pub mount_point: PathBuf,
    /// e.g. `overlay`
    pub fs_type: String,
    /// Those of the file system: all of its mounts have them.
    pub super_options: String,
}

/// The mounts that a process sees, in the order in which they were made.
///
/// # Errors
/// When the process is gone, or the kernel's text is not what it documents.
pub fn of(pid: i32) -> io::Result<Vec<Mount>> {
    each_of(pid)?.collect()
}

/// The same one by one, for who keeps few of them: a node has thousands.
///
/// # Errors
/// As [`of`].
pub fn each_of(pid: i32) -> io::Result<Mounts> {
    Mounts::open(format!("/proc/{pid}/mountinfo"))
}

/// The mounts that we see, one by one.
///
/// # Errors
/// As [`of`].
pub fn each_own() -> io::Result<Mounts> {
    Mounts::open("/proc/self/mountinfo".into())
}

/// Whether we see the mounts that the machine's init sees. No mount is in two namespaces, so who
/// sees the same one first sees the same all over; and, unlike for the name of init's namespace,
/// one needs no right to trace it.
///
/// # Errors
/// As [`of`].
pub fn as_init() -> io::Result<bool> {
    let first = |mut mounts: Mounts| -> io::Result<_> { Ok(mounts.next().transpose()?.map(|it| it.id)) };
    Ok(first(each_own()?)? == first(each_of(1)?)?)
}

/// Reads mounts as they are asked for.
#[derive(Debug)]
pub struct Mounts {
    path: String,
    text: BufReader<Take<File>>,
    line: Vec<u8>,
}

impl Mounts {
    fn open(path: String) -> io::Result<Self> {
        let text = File::open(&path)?.take(MAX_BYTES + 1);
        Ok(Self {
            path,
            text: BufReader::new(text),
            line: Vec::new(),
        })
    }

    /// None at the end.
    fn read(&mut self) -> io::Result<Option<Mount>> {
        self.line.clear();
        if self.text.read_until(b'\n', &mut self.line)? == 0 {
            return Ok(None);
        }
        if self.text.get_ref().limit() == 0 {
            let what = format!("{} is larger than {MAX_BYTES} bytes", self.path);
            return Err(io::Error::other(what));
        }
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        let mount = parse(line).ok_or_else(|| {
            let line = String::from_utf8_lossy(line);
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("unexpected mountinfo line {line:?}"),
            )
        });
        mount.map(Some)
    }
}

impl Iterator for Mounts {
    type Item = io::Result<Mount>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// The id of the mount that a descriptor is on: what [`Mount::id`] names.
///
/// # Errors
/// As `statx(2)`; `ENOSYS` before Linux 5.8.
pub fn id_of(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let stat = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    if stat.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
        return Err(rustix::io::Errno::NOSYS.into());
    }
    Ok(stat.stx_mnt_id)
}

/// The superblock that a file lies on, by the number in its attributes: with Btrfs that is not the
/// one that mountinfo tells.
///
/// # Errors
/// As `stat(2)`.
pub fn device_of(path: &Path) -> io::Result<Device> {
    let device = std::fs::metadata(path)?.dev();
    Ok(Device {
        major: rustix::fs::major(device),
        minor: rustix::fs::minor(device),
    })
}

/// An `O_PATH` descriptor on a mount, seen from `root`, the root folder of whoever's mounts were
/// read. None when it cannot be had: another mount lies on top, or the mount is gone. The path is
/// only a hint: what it leads to counts when it is on this very mount.
#[must_use]
pub fn reach(root: BorrowedFd<'_>, mount: &Mount) -> Option<OwnedFd> {
    let fd = open_in_root(root, &mount.mount_point, OFlags::PATH).ok()?;
    let is_it = id_of(fd.as_fd()).is_ok_and(|id| id == mount.id);
    is_it.then_some(fd)
}

/// A mount namespace among those that exist now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Namespace(u64);

/// The mount namespace of a process.
///
/// # Errors
/// `NotFound` when it is gone, `PermissionDenied` for one that we may not look into.
pub fn namespace_of(pid: i32) -> io::Result<Namespace> {
    let metadata = std::fs::metadata(format!("/proc/{pid}/ns/mnt"))?;
    Ok(Namespace(metadata.ino()))
}

/// `ID PARENT MAJOR:MINOR ROOT MOUNT_POINT OPTIONS [TAG...] - TYPE SOURCE OPTIONS`
fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = number(fields.next()?)?;
    let mut device = fields.nth(1)?.split(|byte| *byte == b':');
    let device = Device {
        major: number(device.next()?)?,
        minor: number(device.next()?)?,
    };
    let path = |field: &[u8]| PathBuf::from(OsString::from_vec(unescape(field)));
    let root = path(fields.next()?);
    let mount_point = path(fields.next()?);
    fields.find(|field| *field == b"-")?;
    let fs_type = String::from_utf8(unescape(fields.next()?)).ok()?;
    let super_options = fields.nth(1).map(unescape).unwrap_or_default();
    Some(Mount {
        id,
        device,
        root,
        mount_point,
        fs_type,
        super_options: String::from_utf8_lossy(&super_options).into_owned(),
    })
}

fn number<N: std::str::FromStr>(field: &[u8]) -> Option<N> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Undoes the kernel's `\040` for what would break the line (seq_path(), octal).
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = (byte == b'\\').then(|| after.split_at_checked(3)).flatten();
        match escaped.and_then(|(digits, after)| Some((octal(digits)?, after))) {
            Some((value, after)) => {
                out.push(value);
                rest = after;
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

fn octal(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_line_with_tags_and_escapes() {
        let line =
            b"36 35 98:0 /mnt1 /mnt\\040two\\134 rw,noatime master:1 shared:3 - ext3 /dev/root rw,a\\054b";
        let mount = parse(line).unwrap();
        assert_eq!(mount.id, 36);
        assert_eq!(mount.device, Device { major: 98, minor: 0 });
        assert_eq!(mount.root, Path::new("/mnt1"));
        assert_eq!(mount.mount_point, Path::new("/mnt two\\"));
        assert_eq!(mount.fs_type, "ext3");
        assert_eq!(mount.super_options, "rw,a,b");
    }

    #[test]
    fn refuses_what_is_no_line() {
        for line in [
            "",
            "36",
            "36 35 98 / / rw - ext3 a b",
            "x 35 98:0 / / rw - ext3",
            "36 35 98:0 / / rw",
        ] {
            assert!(parse(line.as_bytes()).is_none(), "{line}");
        }
    }

    #[test]
    fn knows_the_mount_of_a_descriptor() {
        let root = File::open("/").unwrap();
        let id = id_of(root.as_fd()).unwrap();
        let mut all = each_own().unwrap().map(Result::unwrap);
        let mount = all.find(|mount| mount.id == id).unwrap();
        assert_eq!(mount.mount_point, Path::new("/"));
        assert_eq!(device_of(Path::new("/")).unwrap(), mount.device);
        assert_eq!(id_of(reach(root.as_fd(), &mount).unwrap().as_fd()).unwrap(), id);
        let elsewhere = Mount {
            mount_point: "/proc".into(),
            ..mount
        };
        assert!(reach(root.as_fd(), &elsewhere).is_none());
    }
}
