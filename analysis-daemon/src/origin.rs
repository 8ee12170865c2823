//! Where the content of a container's file comes from: from its image, or from itself.
//!
//! A path is only a hint here. The container may rename files while we look, so what is found
//! under a path of the host counts only when it is the very inode that was opened.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lazaret_sys::{fd_path, handle, mounts};
use lazaret_types::Layers;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags};

use crate::session::Session;

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
    /// The image's once, copied up when the container changed it or its attributes.
    Copied(Copied),
    /// On a file system without layers.
    Plain,
    /// Nobody can find it any more: it was deleted, or never had a name.
    Nameless,
    /// On a file system that we cannot see through; or it moved while we looked.
    Unknown,
}

/// A file in the upper layer, and the one in the image that it was made of.
#[derive(Debug)]
pub(crate) struct Copied {
    /// `O_PATH`, in the upper layer.
    pub(crate) own: OwnedFd,
    pub(crate) image: Below,
}

/// A file in a lower layer.
#[derive(Debug)]
pub(crate) struct Below {
    /// `O_PATH`
    pub(crate) file: OwnedFd,
    pub(crate) inode: Inode,
}

/// An inode with one content, among all that ever were on this machine: nobody can set a change
/// time back but who sets the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Inode {
    device: (u32, u32),
    identity: Identity,
}

/// For so long two changes may have the same time: two seconds on FAT, one where an inode has no
/// room for more, a tick of the clock elsewhere.
const COARSEST: Duration = Duration::from_secs(3);

impl Inode {
    /// # Errors
    /// As `statx(2)`.
    pub(crate) fn of(file: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self::from(&statx(file)?))
    }

    /// Whether another change from now on would give it another change time.
    pub(crate) fn is_settled(&self) -> bool {
        let (seconds, nanoseconds) = self.identity.changed;
        let since_epoch = u64::try_from(seconds).map(|seconds| Duration::new(seconds, nanoseconds));
        let changed = since_epoch.ok().and_then(|since| UNIX_EPOCH.checked_add(since));
        let age = changed.and_then(|changed| SystemTime::now().duration_since(changed).ok());
        age.is_some_and(|age| age > COARSEST)
    }

    /// What a file would be if it was a layer's on one of these devices, as overlayfs shows it.
    pub(crate) fn in_layers(
        file: BorrowedFd<'_>,
        devices: &[(u32, u32)],
    ) -> io::Result<impl Iterator<Item = Self>> {
        let identity = Identity::of(file)?;
        let at = move |device: &(u32, u32)| Self {
            device: *device,
            identity,
        };
        Ok(devices.iter().map(at))
    }

    fn from(stat: &Statx) -> Self {
        Self {
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            identity: Identity::from(stat),
        }
    }

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

    fn numbered(self, number: u64) -> Self {
        Self { number, ..self }
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

/// The devices on which the layers of an image lie, each once.
pub(crate) fn devices(layers: &Layers) -> Vec<(u32, u32)> {
    let device = |layer: &PathBuf| {
        let stat = statx(open_layer(layer).ok()?.as_fd()).ok()?;
        Some((stat.stx_dev_major, stat.stx_dev_minor))
    };
    let devices: BTreeSet<_> = layers.lower.iter().filter_map(device).collect();
    devices.into_iter().collect()
}

impl Origin {
    /// Finds out where the content of a file is that process `pid` opened. Opens folders of the
    /// host, and nothing for reading.
    pub(crate) fn of(file: BorrowedFd<'_>, pid: i32, session: &Session) -> Self {
        let Ok(kind) = rustix::fs::fstatfs(file) else {
            return Self::Unknown;
        };
        match kind.f_type {
            OVERLAYFS => layered(file, pid, session).unwrap_or(Self::Unknown),
            kind if PLAIN.contains(&kind) => Self::Plain,
            _ => Self::Unknown,
        }
    }
}

fn layered(file: BorrowedFd<'_>, pid: i32, session: &Session) -> io::Result<Origin> {
    let stat = statx(file)?;
    if stat.stx_nlink == 0 {
        return Ok(Origin::Nameless);
    }
    let opened = Identity::from(&stat);
    let path = path_on_rootfs(file, pid, session)?;
    let Ok(relative) = path.strip_prefix("/") else {
        return Ok(Origin::Unknown);
    };
    let layers = &session.container.layers;
    let upper = layers
        .upper
        .as_deref()
        .and_then(|upper| regular_in(upper, relative));
    let mut lower = layers
        .lower
        .iter()
        .filter_map(|layer| regular_in(layer, relative));
    let Some((own, stat)) = upper else {
        let image = lower.map(|(_, stat)| Inode::from(&stat));
        let mut itself = image.filter(|inode| inode.is(&opened));
        return Ok(itself.next().map_or(Origin::Unknown, Origin::Image));
    };
    let identity = Identity::from(&stat);
    if identity == opened {
        return Ok(Origin::Layer(own));
    }
    let Some((file, stat)) = lower.next() else {
        return Ok(Origin::Unknown);
    };
    // Overlayfs shows a file that was copied up under the number that it has in the image.
    let inode = Inode::from(&stat);
    let is_it = opened == identity.numbered(inode.identity.number) && is_copy(&own, &file)?;
    Ok(if is_it {
        let image = Below { file, inode };
        Origin::Copied(Copied { own, image })
    } else {
        Origin::Unknown
    })
}

/// What the image has at the path of a file that process `pid` opened. A layer that only hides
/// what is below it, by a whiteout or an opaque folder, is where the search ends.
pub(crate) fn below(file: BorrowedFd<'_>, pid: i32, session: &Session) -> Option<Below> {
    let path = path_on_rootfs(file, pid, session).ok()?;
    below_upper(&session.container.layers, path.strip_prefix("/").ok()?)
}

fn below_upper(layers: &Layers, relative: &Path) -> Option<Below> {
    for layer in &layers.lower {
        let layer = open_layer(layer).ok()?;
        match look_up(layer.as_fd(), relative) {
            Ok((file, stat)) => {
                let inode = Inode::from(&stat);
                return is_regular(&stat).then_some(Below { file, inode });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && !hides(layer.as_fd(), relative) => {}
            // A part of the path is no folder there.
            Err(_) => return None,
        }
    }
    None
}

/// Whether a folder of the path is opaque in a layer: nothing of the layers below shows in it.
fn hides(layer: BorrowedFd<'_>, relative: &Path) -> bool {
    let is_opaque = |folder: &Path| {
        let mut value = [0; 1];
        let found = look_up(layer, folder)
            .map(|(folder, _)| rustix::fs::getxattr(fd_path(&folder), "trusted.overlay.opaque", &mut value));
        matches!(found, Ok(Ok(1))) && value == *b"y"
    };
    let folders = relative.ancestors().skip(1);
    folders.filter(|folder| *folder != Path::new("")).any(is_opaque)
}

/// The path of a file of the root file system, also when it was opened through a mount of a part
/// of it.
fn path_on_rootfs(file: BorrowedFd<'_>, pid: i32, session: &Session) -> io::Result<PathBuf> {
    let path = path_of(file)?;
    let mount = mounts::id_of(file)?;
    if mount == session.root_mount {
        return Ok(path);
    }
    // What a mount shows, and where, is the opener's own word; but whatever is found counts only
    // when it is the inode that was opened.
    let mut mounts = mounts::each_of(pid)?;
    let mount = mounts.find_map(|seen| seen.ok().filter(|seen| seen.id == mount));
    let below = mount.and_then(|mount| Some(mount.root.join(path.strip_prefix(&mount.mount_point).ok()?)));
    Ok(below.unwrap_or(path))
}

/// Whether overlayfs noted that it made one file of the other. It notes it for one file only,
/// and a container cannot write the note.
fn is_copy(own: &OwnedFd, image: &OwnedFd) -> io::Result<bool> {
    /// Longer than any: see [`note`].
    const MAX: usize = 256;
    let mut value = [0; MAX];
    let length = match rustix::fs::getxattr(fd_path(own), "trusted.overlay.origin", &mut value) {
        Err(rustix::io::Errno::NODATA) => return Ok(false),
        got => got?,
    };
    let handle = handle::of(image.as_fd())?;
    Ok(note(value.get(..length).unwrap_or_default()) == Some((handle.kind, handle.bytes.as_slice())))
}

/// The file handle in `struct ovl_fb` (fs/overlayfs/overlayfs.h): `version u8 = 0, magic u8 =
/// 0xfb, len u8, flags u8, type u8, uuid [u8; 16], handle [u8]`.
fn note(value: &[u8]) -> Option<(i32, &[u8])> {
    const UUID: usize = 16;
    let (&[version, magic, length, _flags, kind], rest) = value.split_first_chunk()?;
    let whole = version == 0 && magic == 0xfb && usize::from(length) == value.len();
    let handle = rest.get(UUID..)?;
    whole.then_some((i32::from(kind), handle))
}

/// Opens the regular file that an `O_PATH` descriptor names, for reading.
///
/// # Errors
/// As `open(2)`.
pub(crate) fn reopen(path: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(fd_path(path), flags, Mode::empty())?)
}

/// The path of an open file, as its container sees it.
pub(crate) fn path_of(file: BorrowedFd<'_>) -> io::Result<PathBuf> {
    fs::read_link(fd_path(file))
}

/// Where a file of the rootfs seems to lie on the host.
pub(crate) fn host_path(layers: &Layers, path: &Path) -> Option<PathBuf> {
    let relative = path.strip_prefix("/").ok()?;
    for layer in layers.upper.iter().chain(&layers.lower) {
        match open_layer(layer).and_then(|folder| look_up(folder.as_fd(), relative)) {
            Ok((_, stat)) if is_regular(&stat) => return Some(layer.join(relative)),
            // A whiteout: the layers below do not show.
            Ok(_) => return None,
            Err(_) => {}
        }
    }
    None
}

/// Whether this lies on an overlay.
pub(crate) fn is_overlay(file: BorrowedFd<'_>) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|kind| kind.f_type == OVERLAYFS)
}

fn regular_in(layer: &Path, relative: &Path) -> Option<(OwnedFd, Statx)> {
    regular(open_layer(layer).ok()?.as_fd(), relative)
}

/// A regular file in a folder, as `O_PATH`, on the same mount and by no link.
pub(crate) fn regular(folder: BorrowedFd<'_>, relative: &Path) -> Option<(OwnedFd, Statx)> {
    look_up(folder, relative)
        .ok()
        .filter(|(_, stat)| is_regular(stat))
}

fn is_regular(stat: &Statx) -> bool {
    FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile
}

fn open_layer(layer: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY;
    Ok(rustix::fs::open(layer, flags, Mode::empty())?)
}

/// Looks a path up in a folder without following any link.
fn look_up(folder: BorrowedFd<'_>, relative: &Path) -> io::Result<(OwnedFd, Statx)> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let file = rustix::fs::openat2(folder, relative, flags, Mode::empty(), resolve)?;
    let stat = statx(file.as_fd())?;
    Ok((file, stat))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_does_not_lead_out_of_a_layer() {
        let layer = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", layer.path().join("etc")).unwrap();
        fs::write(layer.path().join("file"), "").unwrap();
        assert!(regular_in(layer.path(), Path::new("file")).is_some());
        assert!(regular_in(layer.path(), Path::new("etc/passwd")).is_none());
        assert!(regular_in(layer.path(), Path::new("../../etc/passwd")).is_none());
    }

    #[test]
    fn a_layer_that_hides_what_is_below_it_ends_the_search() {
        let folder = tempfile::tempdir().unwrap();
        let layer = |name: &str| folder.path().join(name);
        for name in ["top", "middle", "bottom"] {
            fs::create_dir_all(layer(name).join("opt/x")).unwrap();
        }
        for file in ["opt/a", "opt/gone", "opt/x/b"] {
            fs::write(layer("bottom").join(file), "").unwrap();
        }
        // As good as a whiteout, which takes root to make.
        fs::create_dir(layer("middle").join("opt/gone")).unwrap();
        fs::write(layer("top").join("opt/file"), "").unwrap();
        let layers = Layers {
            upper: None,
            lower: ["top", "middle", "bottom"].map(layer).to_vec(),
        };
        let found = |path: &str| below_upper(&layers, Path::new(path)).is_some();
        assert!(found("opt/a") && found("opt/x/b") && found("opt/file"));
        assert!(!found("opt/gone") && !found("opt/file/c") && !found("opt/none") && !found("opt/x"));
        let flags = rustix::fs::XattrFlags::empty();
        let opaque = layer("middle").join("opt/x");
        match rustix::fs::setxattr(opaque, "trusted.overlay.opaque", b"y", flags) {
            Ok(()) => assert!(found("opt/a") && !found("opt/x/b")),
            Err(error) => eprintln!("not run: an opaque folder: {error}"),
        }
    }

    #[test]
    fn reads_overlayfs_notes_and_nothing_else() {
        let mut value = vec![0, 0xfb, 29, 0, 1];
        value.extend([9; 16]);
        value.extend([1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(note(&value), Some((1, &[1, 2, 3, 4, 5, 6, 7, 8][..])));
        (0..value.len()).for_each(|length| assert_eq!(note(&value[..length]), None));
        value[1] = 0;
        assert_eq!(note(&value), None);
    }
}
