//! The marks of the node's group: on superblocks that are guarded, and on mounts that are spared.

use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lazaret_sys::fanotify::Group;
use lazaret_sys::mounts::{self, Device, Mount, Mounts};
use lazaret_sys::pidfd;
use lazaret_types::Superblock;
use rustix::fs::{Mode, OFlags};
use thiserror::Error;

use super::bystander::Bystander;
use super::layers::Layers;
use super::members::Members;
use crate::session::Session;

/// The file systems that nobody but this kernel answers for. On any other, to open the file of an
/// event can take for ever or be refused, and the host would bear it.
const LOCAL: [&str; 13] = [
    "btrfs", "devtmpfs", "erofs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "squashfs", "tmpfs",
    "vfat", "xfs",
];

/// How a root folder is opened.
const ROOT: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Mounts spared one by one. The kernel forgets those that are unmounted and does not say so:
/// when so many have been spared, it is begun anew.
const MAX_SPARED: usize = 65_536;

/// What becomes of the superblocks that a container shares with the host.
#[derive(Debug, Clone, Default)]
pub(crate) struct Coverage {
    pub(crate) guarded: Vec<Superblock>,
    /// Each with the reason.
    pub(crate) unguarded: Vec<(Superblock, String)>,
    /// Of the guarded ones.
    pub(super) devices: Vec<Device>,
    /// The ids of the container's mounts on them.
    pub(super) mounts: Vec<u64>,
}

/// Why a superblock is not guarded.
#[derive(Debug, Error)]
enum NotGuarded {
    #[error("what is opened on a file system of this type may depend on others than this kernel")]
    NotLocal,
    #[error("it is no longer mounted there")]
    Gone,
    #[error("another mount hides it")]
    Hidden,
    #[error("the kernel refuses a mark: {0}")]
    Refused(#[from] io::Error),
}

/// All marks of the node's group.
#[derive(Debug)]
pub(super) struct Marks {
    group: Arc<Group>,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    /// The marked superblocks, and how many containers share each.
    sharers: HashMap<Device, usize>,
    /// Mounts that were spared one by one.
    spared: usize,
    /// How often all that was spared was forgotten.
    flushes: u64,
}

/// Descriptors on the mounts of one superblock in a container.
#[derive(Debug)]
struct Reached {
    mounts: Vec<OwnedFd>,
    /// There are no others.
    all: bool,
}

impl Reached {
    fn new<'a>(root: BorrowedFd<'_>, mounts: impl Iterator<Item = &'a Mount>) -> Self {
        /// A container that runs may have made any number.
        const MAX: usize = 64;
        let mut reached = Self {
            mounts: Vec::new(),
            all: true,
        };
        for mount in mounts {
            match mounts::reach(root, mount) {
                Some(on) if reached.mounts.len() < MAX => reached.mounts.push(on),
                None => reached.all = false,
                Some(_one_too_many) => {
                    reached.all = false;
                    break;
                }
            }
        }
        reached
    }
}

impl Coverage {
    pub(crate) fn guards_any(&self) -> bool {
        !self.guarded.is_empty()
    }

    /// Nothing is guarded, for this reason.
    pub(super) fn none(superblocks: &[Superblock], why: &str) -> Self {
        let unguarded = superblocks
            .iter()
            .map(|superblock| (superblock.clone(), why.to_owned()));
        Self {
            unguarded: unguarded.collect(),
            ..Self::default()
        }
    }
}

impl Marks {
    pub(super) fn new(group: Arc<Group>) -> Self {
        Self {
            group,
            book: Mutex::default(),
        }
    }

    /// Marks what a container shares with the host, unless another one has had it marked.
    pub(super) fn cover(&self, session: &Session) -> Coverage {
        if session.shared.is_empty() {
            return Coverage::default();
        }
        let seen = match mounts_of(session) {
            Ok(seen) => seen,
            Err(error) => return Coverage::none(&session.shared, &error.to_string()),
        };
        let mut coverage = Coverage::default();
        for superblock in &session.shared {
            let is_it = |mount: &&Mount| {
                (&mount.mount_point, &mount.fs_type) == (&superblock.mount_point, &superblock.fs_type)
                    && !coverage.devices.contains(&mount.device)
            };
            let device = seen.iter().find(is_it).map(|mount| mount.device);
            let device = device.ok_or(NotGuarded::Gone).and_then(|device| {
                // To open the file of an event could take for ever there.
                if !LOCAL.contains(&superblock.fs_type.as_str()) {
                    return Err(NotGuarded::NotLocal);
                }
                self.guard(session.root.as_fd(), &seen, device)
            });
            match device {
                Ok(device) => {
                    coverage.guarded.push(superblock.clone());
                    coverage.devices.push(device);
                }
                Err(why) => coverage.unguarded.push((superblock.clone(), why.to_string())),
            }
        }
        let on_guarded = seen
            .iter()
            .filter(|mount| coverage.devices.contains(&mount.device));
        coverage.mounts = on_guarded.map(|mount| mount.id).collect();
        coverage
    }

    fn guard(&self, root: BorrowedFd<'_>, seen: &[Mount], device: Device) -> Result<Device, NotGuarded> {
        // Before the book is locked: a container that runs can have look-ups take for ever.
        let of_container = seen.iter().filter(|mount| mount.device == device);
        let reached = Reached::new(root, of_container);
        let on = reached.mounts.first().ok_or(NotGuarded::Hidden)?;
        loop {
            let flushes = self.lock().flushes;
            self.spare_host(device)?;
            let mut book = self.lock();
            if book.flushes != flushes {
                // What was spared has been forgotten meanwhile.
                continue;
            }
            self.claim(&mut book, &reached, device)?;
            if !book.sharers.contains_key(&device) {
                self.group.mark_superblock(on.as_fd())?;
            }
            *book.sharers.entry(device).or_default() += 1;
            return Ok(device);
        }
    }

    /// Makes sure that no mount of a container is spared: before it was a member, the one who
    /// prepared it may have opened something there, as a bystander.
    fn claim(&self, book: &mut Book, reached: &Reached, device: Device) -> io::Result<()> {
        if !reached.all {
            self.begin_anew(book)?;
            self.spare_host(device)?;
        }
        let mut mounts = reached.mounts.iter();
        mounts.try_for_each(|on| self.group.heed_mount(on.as_fd()))
    }

    /// Spares no mounts but those of the host.
    fn begin_anew(&self, book: &mut Book) -> io::Result<()> {
        self.heed_all(book)?;
        book.sharers
            .keys()
            .try_for_each(|device| self.spare_host(*device))
    }

    fn heed_all(&self, book: &mut Book) -> io::Result<()> {
        book.spared = 0;
        book.flushes += 1;
        self.group.heed_all_mounts()
    }

    /// Spares the mounts of the host. One that is hidden below another is left to its first opener.
    fn spare_host(&self, device: Device) -> io::Result<()> {
        on_host(device, |on| self.group.spare_mount(on).map(ControlFlow::Continue))
    }

    /// Spares the mount that a bystander came by: if it is in the bystander's own namespace, or of a
    /// layer of an overlay there, and no process of a guarded container is in that namespace.
    pub(super) fn spare(&self, bystander: &Bystander, members: &Members, layers: &Layers) -> io::Result<()> {
        let Bystander { file, pid, pidfd } = bystander;
        let seen = mounts::of(*pid)?;
        let root = rustix::fs::open(format!("/proc/{pid}/root"), ROOT, Mode::empty())?;
        let namespace = mounts::namespace_of(*pid)?;
        if pidfd::has_exited(pidfd)? || members.may_be_in(namespace) {
            return Ok(());
        }
        let id = mounts::id_of(file.as_fd())?;
        let is_own = seen.iter().any(|mount| mount.id == id);
        if !is_own && !is_of_overlay(&seen, root.as_fd(), file.as_fd(), layers) {
            return Ok(());
        }
        // Whoever becomes a member after this has his mounts looked at by `claim`. Nobody can
        // become one in between: an overlay's mount of a layer leads to nothing but the layer.
        self.spare_one(file.as_fd(), || !is_own || !members.may_be_in(namespace))
    }

    /// Spares the mount by which overlayfs opened a layer of a container's root file system.
    pub(super) fn spare_layer(&self, file: &OwnedFd, session: &Session, layers: &Layers) -> io::Result<()> {
        if layers.is_of(session.root.as_fd(), file.as_fd())? {
            self.spare_one(file.as_fd(), || true)?;
        }
        Ok(())
    }

    fn spare_one(&self, file: BorrowedFd<'_>, still: impl FnOnce() -> bool) -> io::Result<()> {
        let mut book = self.lock();
        if book.sharers.is_empty() || !still() {
            return Ok(());
        }
        if book.spared >= MAX_SPARED {
            self.begin_anew(&mut book)?;
        }
        self.group.spare_mount(file)?;
        book.spared += 1;
        Ok(())
    }

    /// A container ended that shared these.
    pub(super) fn release(&self, devices: &[Device]) {
        let mut book = self.lock();
        for device in devices {
            let Some(sharers) = book.sharers.get_mut(device) else {
                continue;
            };
            *sharers -= 1;
            if *sharers == 0 {
                book.sharers.remove(device);
                self.unmark(*device)
                    .unwrap_or_else(|error| told("unmark", &error));
            }
        }
        if book.sharers.is_empty() {
            let unmarked = self.group.unmark_all_superblocks();
            let heeded = self.heed_all(&mut book);
            unmarked.and(heeded).unwrap_or_else(|error| told("flush", &error));
        }
    }

    /// Takes the mark off a superblock, by a mount of the host: the container's are gone. Without
    /// any it stays until the last container has ended, and costs the host what bystanders cost.
    fn unmark(&self, device: Device) -> io::Result<()> {
        on_host(device, |on| {
            self.group.unmark_superblock(on).map(ControlFlow::Break)
        })
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a file was opened as part of one of these overlays.
fn is_of_overlay(seen: &[Mount], root: BorrowedFd<'_>, file: BorrowedFd<'_>, layers: &Layers) -> bool {
    /// A host has those of all its containers; theirs are told by their own processes.
    const MAX: usize = 8;
    let overlays = seen.iter().filter(|mount| mount.fs_type == "overlay");
    let mut roots = overlays.filter_map(|mount| mounts::reach(root, mount)).take(MAX);
    roots.any(|root| layers.is_of(root.as_fd(), file).unwrap_or(false))
}

fn told(what: &str, error: &io::Error) {
    tracing::error!(%error, what, "marks of the node's group were left behind");
}

/// The mounts of a container, read by its init's pid, which still was init's after.
fn mounts_of(session: &Session) -> io::Result<Vec<Mount>> {
    let seen = mounts::of(session.init_pid);
    if pidfd::has_exited(&session.init)? {
        return Err(rustix::io::Errno::SRCH.into());
    }
    seen
}

/// Gives `each` a descriptor on every mount of a superblock in our namespace, and in that of the
/// machine's init, which may be another, until it breaks off. None is kept: it would keep the mount
/// busy.
fn on_host(device: Device, each: impl Fn(BorrowedFd<'_>) -> io::Result<ControlFlow<()>>) -> io::Result<()> {
    if on_mounts(device, "/", mounts::each_own()?, &each)?.is_continue() && !mounts::as_init()? {
        return on_mounts(device, "/proc/1/root", mounts::each_of(1)?, &each).map(|_end| ());
    }
    Ok(())
}

/// The same for what is seen from one root. A node has thousands of mounts: they are not collected.
fn on_mounts(
    device: Device,
    root: &str,
    seen: Mounts,
    each: impl Fn(BorrowedFd<'_>) -> io::Result<ControlFlow<()>>,
) -> io::Result<ControlFlow<()>> {
    // We may not be allowed to look into the init; then its mounts wait for their first opener.
    let Ok(root) = rustix::fs::open(root, ROOT, Mode::empty()) else {
        return Ok(ControlFlow::Continue(()));
    };
    for mount in seen {
        let mount = mount?;
        let on = (mount.device == device).then(|| mounts::reach(root.as_fd(), &mount));
        let Some(on) = on.flatten() else {
            continue;
        };
        if each(on.as_fd())?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}
