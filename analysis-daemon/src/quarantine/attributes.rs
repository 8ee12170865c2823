//! What a file is besides its content.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use serde::{Deserialize, Serialize};

use super::hex;

/// Extended attributes kept of one file, names and values together, in bytes.
const MAX_XATTRS: usize = 4096;

/// The same where they only pass through memory: a value has at most 64 KiB (`XATTR_SIZE_MAX`).
const MAX_WHOLE: usize = 1 << 20;

/// The names of all extended attributes that a file may have (`XATTR_LIST_MAX`).
const MAX_LIST: usize = 64 << 10;

/// The attribute that makes an executable privileged.
const CAPABILITY: &[u8] = b"security.capability";

/// A POSIX access control list.
const ACL: &[u8] = b"system.posix_acl_access";

/// What a file's owner gave it.
const USER: &[u8] = b"user.";

/// Owner, mode, times and extended attributes of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attributes {
    /// Permissions, set-user-id and the like included.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) accessed: Time,
    pub(crate) modified: Time,
    xattrs: Vec<Xattr>,
    /// Some did not fit and are lost.
    #[serde(default)]
    pub(crate) xattrs_cut: bool,
}

/// Since 1970, UTC; a file may well claim to be older.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Xattr {
    #[serde(with = "hex")]
    name: Vec<u8>,
    #[serde(with = "hex")]
    value: Vec<u8>,
}

impl Attributes {
    /// Reads them.
    pub(super) fn of(file: BorrowedFd<'_>) -> io::Result<Self> {
        Self::within(MAX_XATTRS, file)
    }

    /// All of a file that is not to be recorded.
    ///
    /// # Errors
    /// Also when there are more than [`MAX_WHOLE`].
    pub(super) fn whole(file: BorrowedFd<'_>) -> io::Result<Self> {
        let all = Self::within(MAX_WHOLE, file)?;
        let too_many = || io::Error::other("it has too many extended attributes");
        (!all.xattrs_cut).then_some(all).ok_or_else(too_many)
    }

    fn within(room: usize, file: BorrowedFd<'_>) -> io::Result<Self> {
        let stat = rustix::fs::fstat(file)?;
        let time = |seconds, nanoseconds| Time {
            seconds,
            nanoseconds: u32::try_from(nanoseconds).unwrap_or_default(),
        };
        let (xattrs, xattrs_cut) = xattrs(file, room)?;
        Ok(Self {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            accessed: time(stat.st_atime, stat.st_atime_nsec),
            modified: time(stat.st_mtime, stat.st_mtime_nsec),
            xattrs,
            xattrs_cut,
        })
    }

    /// Gives them to a file, whose owner changes first: that takes privileges off.
    pub(super) fn apply(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        rustix::fs::fchown(file, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?;
        rustix::fs::fchmod(file, Mode::from_raw_mode(self.mode & 0o7777))?;
        for Xattr { name, value } in &self.xattrs {
            rustix::fs::fsetxattr(file, name.as_slice(), value, XattrFlags::empty())?;
        }
        let timespec = |time: Time| Timespec {
            tv_sec: time.seconds,
            tv_nsec: time.nanoseconds.into(),
        };
        rustix::fs::futimens(
            file,
            &Timestamps {
                last_access: timespec(self.accessed),
                last_modification: timespec(self.modified),
            },
        )?;
        Ok(())
    }
}

/// Those that are kept, in `room` bytes, and whether some were left out.
fn xattrs(file: BorrowedFd<'_>, mut room: usize) -> io::Result<(Vec<Xattr>, bool)> {
    let mut names = vec![0; MAX_LIST];
    let length = match rustix::fs::flistxattr(file, &mut *names) {
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let names = names.get(..length).unwrap_or_default();
    let (mut kept, mut cut) = (Vec::new(), false);
    for name in names.split(|byte| *byte == 0) {
        if ![CAPABILITY, ACL].contains(&name) && !name.starts_with(USER) {
            continue;
        }
        let Some(left) = room.checked_sub(name.len()) else {
            cut = true;
            continue;
        };
        let mut value = vec![0; left];
        match rustix::fs::fgetxattr(file, name, &mut *value) {
            // A value of no bytes is asked for with no room: that only tells its size.
            Ok(length) if length <= left => {
                value.truncate(length);
                room = left - length;
                kept.push(Xattr {
                    name: name.to_owned(),
                    value,
                });
            }
            Ok(_) | Err(rustix::io::Errno::RANGE) => cut = true,
            // Taken off meanwhile.
            Err(rustix::io::Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok((kept, cut))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn set(file: &std::fs::File, name: &str, value: &[u8]) {
        rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()).unwrap();
    }

    #[test]
    fn attributes_come_back() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let file = std::fs::File::create(folder.path().join("a")).unwrap();
        set(&file, "user.empty", b"");
        set(&file, "user.bytes", b"\0\xff");
        rustix::fs::fchmod(&file, Mode::from_raw_mode(0o4751)).unwrap();
        let mut attributes = Attributes::of(file.as_fd()).unwrap();
        assert_eq!((attributes.mode, attributes.xattrs.len()), (0o4751, 2));
        // Before 1970.
        attributes.modified = Time {
            seconds: -3,
            nanoseconds: 7,
        };
        let text = serde_json::to_string(&attributes).unwrap();
        let read: Attributes = serde_json::from_str(&text).unwrap();
        let other = std::fs::File::create(folder.path().join("b")).unwrap();
        read.apply(other.as_fd()).unwrap();
        assert_eq!(Attributes::of(other.as_fd()).unwrap(), attributes);
    }

    #[test]
    fn too_many_are_cut() {
        let folder = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(folder.path().join("a")).unwrap();
        for n in 0..5 {
            set(&file, &format!("user.{n}"), &[7; 90]);
        }
        let (kept, cut) = xattrs(file.as_fd(), 400).unwrap();
        assert_eq!((kept.len(), cut), (4, true));
        let (kept, cut) = xattrs(file.as_fd(), 500).unwrap();
        assert_eq!((kept.len(), cut), (5, false));
    }
}
