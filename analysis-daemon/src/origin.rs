//! Where the content of a container's file comes from: from its image, or from itself.
//!
//! A path is only a hint here. The container may rename files while we look, so what is found
//! under a path of the host counts only when it is the very inode that was opened.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use lazaret_sys::fd_path;
use lazaret_types::Layers;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags};

/// `f_type` of overlayfs (include/uapi/linux/magic.h).
const OVERLAYFS: i64 = 0x794c_7630;

/// `f_type` of the file systems whose inodes hold what they show: nothing below them, nobody
/// beyond this kernel who changes it. tmpfs, ext4, XFS, Btrfs, F2FS.
const PLAIN: [i64; 5] = [0x0102_1994, 0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010];

/// What a file is.
#[derive(Debug)]
pub(crate) enum Origin {
    /// As the image has it: it lies in a lower layer, and nothing was copied up.
    Image(Inode),
    /// The container's own, in its upper layer: an `O_PATH` descriptor of the inode there.
    Layer(OwnedFd),
    /// On a file system without layers.
    Plain,
    /// The image's, copied up when the container changed it; or on a file system that we cannot
    /// see through; or it moved while we looked.
    Unknown,
}

/// An inode with one content, among all that ever were on this machine. That holds for a file
/// whose change time nobody can set back, as with what only the host writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Inode {
    device: (u32, u32),
    identity: Identity,
}

impl Inode {
    /// Whether it had this identity when it was looked up.
    pub(crate) fn is(&self, identity: &Identity) -> bool {
        self.identity == *identity
    }
}

/// What overlayfs passes on of the inode below. The birth tells inodes apart that had the same
/// number in turn, and it changes when a file is copied up, as does the change time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    number: u64,
    born: Option<(i64, u32)>,
    changed: (i64, u32),
    size: u64,
}

impl Identity {
    /// # Errors
    /// As `statx(2)`.
    pub(crate) fn of(file: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self::from(&statx(file)?))
    }

    fn from(stat: &Statx) -> Self {
        let has_birth = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        Self {
            number: stat.stx_ino,
            born: has_birth.then_some((stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec)),
            changed: (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
            size: stat.stx_size,
        }
    }
}

fn statx(file: BorrowedFd<'_>) -> io::Result<Statx> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    Ok(rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, wanted)?)
}

impl Origin {
    /// Finds out where the content of an open file is. Opens folders of the host, and nothing
    /// for reading.
    pub(crate) fn of(file: BorrowedFd<'_>, layers: &Layers) -> Self {
        let Ok(kind) = rustix::fs::fstatfs(file) else {
            return Self::Unknown;
        };
        match kind.f_type {
            OVERLAYFS => layered(file, layers).unwrap_or(Self::Unknown),
            kind if PLAIN.contains(&kind) => Self::Plain,
            _ => Self::Unknown,
        }
    }
}

fn layered(file: BorrowedFd<'_>, layers: &Layers) -> io::Result<Origin> {
    let opened = Identity::of(file)?;
    let path = path_of(file)?;
    let Ok(relative) = path.strip_prefix("/") else {
        return Ok(Origin::Unknown);
    };
    if let Some((found, stat)) = layers.upper.as_deref().and_then(|upper| regular(upper, relative)) {
        // Copied up, it would show the number that it has in the image.
        let own = Identity::from(&stat) == opened;
        return Ok(if own {
            Origin::Layer(found)
        } else {
            Origin::Unknown
        });
    }
    let lower = layers.lower.iter().filter_map(|layer| regular(layer, relative));
    for (_, stat) in lower {
        let identity = Identity::from(&stat);
        if identity == opened {
            let device = (stat.stx_dev_major, stat.stx_dev_minor);
            return Ok(Origin::Image(Inode { device, identity }));
        }
    }
    Ok(Origin::Unknown)
}

/// The path of an open file, as its container sees it.
pub(crate) fn path_of(file: BorrowedFd<'_>) -> io::Result<PathBuf> {
    fs::read_link(fd_path(file))
}

/// Where a file of the rootfs seems to lie on the host.
pub(crate) fn host_path(layers: &Layers, path: &Path) -> Option<PathBuf> {
    let relative = path.strip_prefix("/").ok()?;
    for layer in layers.upper.iter().chain(&layers.lower) {
        match look_up(layer, relative) {
            Ok((_, stat)) if is_regular(&stat) => return Some(layer.join(relative)),
            // A whiteout: the layers below do not show.
            Ok(_) => return None,
            Err(_) => {}
        }
    }
    None
}

fn regular(layer: &Path, relative: &Path) -> Option<(OwnedFd, Statx)> {
    look_up(layer, relative).ok().filter(|(_, stat)| is_regular(stat))
}

fn is_regular(stat: &Statx) -> bool {
    FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile
}

/// Looks a path up in a layer without following any link.
fn look_up(layer: &Path, relative: &Path) -> io::Result<(OwnedFd, Statx)> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let layer = rustix::fs::open(layer, flags | OFlags::DIRECTORY, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let file = rustix::fs::openat2(layer, relative, flags | OFlags::NOFOLLOW, Mode::empty(), resolve)?;
    let stat = statx(file.as_fd())?;
    Ok((file, stat))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_link_does_not_lead_out_of_a_layer() {
        let layer = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", layer.path().join("etc")).unwrap();
        fs::write(layer.path().join("file"), "").unwrap();
        assert!(regular(layer.path(), Path::new("file")).is_some());
        assert!(regular(layer.path(), Path::new("etc/passwd")).is_none());
        assert!(regular(layer.path(), Path::new("../../etc/passwd")).is_none());
    }

    #[test]
    fn a_file_without_layers_is_plain() {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        fs::write(folder.path().join("file"), "x").unwrap();
        let file = File::open(folder.path().join("file")).unwrap();
        assert!(matches!(
            Origin::of(file.as_fd(), &Layers::default()),
            Origin::Plain
        ));
    }
}
