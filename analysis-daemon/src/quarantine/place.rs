//! Where a file lies in a container, while the container may do anything to it.
//!
//! A name can mean another file from one moment to the next, and no call removes
//! a name only while it means a certain file. So the file is first *taken away*:
//! renamed, within its folder, to a name that nobody else uses. Whatever was taken
//! is then looked at, and removed if it is the file that was judged, or given
//! back. Paths are resolved as the container sees them and never leave its root.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use lazaret_sys::{open_as_written, open_in_root};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, StatxFlags};
use rustix::io::Errno;
use ulid::Ulid;

use super::refusal::Refusal;
use super::step::{Step, passed};

/// What of a file changes when its content does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) size: u64,
    modified: (i64, u32),
    pub(super) links: u32,
}

/// Which file it is, and through which mount.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    device: (u32, u32),
    inode: u64,
    mount: u64,
}

/// Looks at an open file.
///
/// # Errors
/// When it is not a regular file.
pub(super) fn stamp(file: BorrowedFd<'_>) -> Result<Stamp, Refusal> {
    let stat = stat(file, Path::new("")).map_err(Refusal::io("look at the file"))?;
    if u32::from(stat.stx_mode) & libc::S_IFMT != libc::S_IFREG {
        return Err(Refusal::NotAFile);
    }
    Ok(Stamp {
        size: stat.stx_size,
        modified: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
        links: stat.stx_nlink,
    })
}

/// `name` in `folder`, itself when it is a link; an empty name means `folder`.
fn stat(folder: BorrowedFd<'_>, name: &Path) -> io::Result<rustix::fs::Statx> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let mask = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    let stat = rustix::fs::statx(folder, name, flags, mask)?;
    if stat.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
        return Err(Errno::NOSYS.into());
    }
    Ok(stat)
}

fn identity(folder: BorrowedFd<'_>, name: &Path) -> io::Result<Identity> {
    let stat = stat(folder, name)?;
    Ok(Identity {
        device: (stat.stx_dev_major, stat.stx_dev_minor),
        inode: stat.stx_ino,
        mount: stat.stx_mnt_id,
    })
}

/// A folder of a container and a name in it.
#[derive(Debug)]
pub(super) struct Place {
    folder: OwnedFd,
    name: OsString,
    /// The name of what was taken away.
    taken: OsString,
    /// The name of what is being put there.
    coming: OsString,
}

impl Place {
    /// Finds the folder of `path` in the container whose root folder is `root`.
    /// `id` makes the names that nobody else uses.
    ///
    /// # Errors
    /// When there is no such folder.
    pub(super) fn find(root: BorrowedFd<'_>, path: &Path, id: Ulid) -> Result<Self, Refusal> {
        Self::by(open_in_root, root, path, id)
    }

    /// As [`Place::find`], when no part of the path is a link and all of it is on the mount that
    /// the root is on.
    ///
    /// # Errors
    /// Also when it is otherwise.
    pub(super) fn find_as_written(root: BorrowedFd<'_>, path: &Path, id: Ulid) -> Result<Self, Refusal> {
        Self::by(open_as_written, root, path, id)
    }

    fn by(
        open: impl FnOnce(BorrowedFd<'_>, &Path, OFlags) -> io::Result<OwnedFd>,
        root: BorrowedFd<'_>,
        path: &Path,
        id: Ulid,
    ) -> Result<Self, Refusal> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Refusal::NoPath);
        };
        let folder = open(root, parent, OFlags::PATH | OFlags::DIRECTORY)
            .map_err(Refusal::io("open the file's folder in the container"))?;
        Ok(Self {
            folder,
            name: name.to_owned(),
            taken: format!(".lazaret-taken-{id}").into(),
            coming: format!(".lazaret-coming-{id}").into(),
        })
    }

    /// Removes `file` from here, if its name still means it and it still is as
    /// `stamp` says.
    ///
    /// # Errors
    /// Whatever the name means now is then where it was, unless the error is
    /// [`Refusal::Displaced`].
    pub(super) fn remove(&self, file: BorrowedFd<'_>, stamp: Stamp) -> Result<(), Refusal> {
        // Looking first spares whoever put another file here the moment in which
        // it is away.
        self.expect(&self.name, file, stamp)?;
        self.rename(&self.name, &self.taken, RenameFlags::NOREPLACE)
            .map_err(Refusal::io("take the file away"))?;
        passed(Step::TakenAway);
        if let Err(refusal) = self.expect(&self.taken, file, stamp) {
            return Err(self.give_back().err().unwrap_or(refusal));
        }
        self.unlink(&self.taken).map_err(Refusal::io("remove the file"))?;
        passed(Step::Unlinked);
        Ok(())
    }

    fn expect(&self, name: &OsString, file: BorrowedFd<'_>, before: Stamp) -> Result<(), Refusal> {
        // Both are asked now: a file that overlayfs copies up changes its number.
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => Refusal::Elsewhere,
            _ => Refusal::io("look at the file")(error),
        };
        let found = identity(self.folder.as_fd(), name.as_ref()).map_err(failed)?;
        if found != identity(file, Path::new("")).map_err(failed)? {
            return Err(Refusal::Elsewhere);
        }
        let now = stamp(file)?;
        if (now.size, now.modified) == (before.size, before.modified) {
            Ok(())
        } else {
            Err(Refusal::Changed)
        }
    }

    fn give_back(&self) -> Result<(), Refusal> {
        match self.rename(&self.taken, &self.name, RenameFlags::NOREPLACE) {
            // It was moved or removed by somebody else, whose business it is now.
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(_) => Err(Refusal::Displaced(self.taken.to_string_lossy().into_owned())),
        }
    }

    /// Whether something has the name now.
    pub(super) fn is_taken(&self) -> bool {
        stat(self.folder.as_fd(), self.name.as_ref()).is_ok()
    }

    /// Puts a new file here, which `fill` writes and closes: one that is open for
    /// writing cannot be run. Nobody meets it half-written under its own name, and
    /// only with `replace` does it take the place of another.
    ///
    /// # Errors
    /// Then nothing has changed.
    pub(super) fn put(
        &self,
        replace: bool,
        fill: impl FnOnce(File) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        self.clear_coming();
        let file = self.create().map_err(Refusal::io("create the file"))?;
        let flags = if replace {
            RenameFlags::empty()
        } else {
            RenameFlags::NOREPLACE
        };
        let put = fill(file).and_then(|()| {
            self.rename(&self.coming, &self.name, flags)
                .map_err(|errno| match errno {
                    Errno::EXIST => Refusal::Occupied(self.name.to_string_lossy().into_owned()),
                    other => Refusal::io("give the file its name")(other),
                })
        });
        if put.is_err() {
            self.clear_coming();
        }
        put
    }

    fn create(&self) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        Ok(rustix::fs::openat(&self.folder, &self.coming, flags, mode)?.into())
    }

    /// Removes what a crash left here: half of a file that was coming, and a file
    /// that was taken away, if `is_it` knows it. Returns whether that was there.
    pub(super) fn clear(&self, is_it: impl FnOnce(File) -> bool) -> Result<bool, Refusal> {
        self.clear_coming();
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let taken = match rustix::fs::openat(&self.folder, &self.taken, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(false),
            other => other.map_err(Refusal::io("find what was taken away"))?,
        };
        // Only a file is opened: to open a device or a FIFO may do something.
        stamp(taken.as_fd())?;
        let file =
            File::open(lazaret_sys::fd_path(&taken)).map_err(Refusal::io("open what was taken away"))?;
        let known = is_it(file);
        if known {
            self.unlink(&self.taken)
                .map_err(Refusal::io("remove what was taken away"))?;
        }
        Ok(known)
    }

    fn clear_coming(&self) {
        // What cannot be removed is met again by whoever creates it.
        let _absent = self.unlink(&self.coming);
    }

    fn rename(&self, from: &OsString, to: &OsString, flags: RenameFlags) -> rustix::io::Result<()> {
        rustix::fs::renameat_with(&self.folder, from, &self.folder, to, flags)
    }

    fn unlink(&self, name: &OsString) -> rustix::io::Result<()> {
        rustix::fs::unlinkat(&self.folder, name, AtFlags::empty())
    }
}
