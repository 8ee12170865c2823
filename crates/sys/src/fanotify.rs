//! One fanotify group that is asked before files are opened or run.
//!
//! The constants and the two calls that make and mark a group are
//! `fanotify-rs`'s; reading and answering are written here, because its reader
//! panics on a path that is not UTF-8, closes descriptors before they are
//! answered, and swallows errors (docs/decisions/0002).

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use fanotify::low_level as fan;

/// Asks for a pidfd with each event (Linux 5.15); `fanotify-rs` does not have it.
const FAN_REPORT_PIDFD: u32 = libc::FAN_REPORT_PIDFD;

/// Opens and executions, the two that fanotify can refuse. `ld.so FILE` is an
/// open only, which is why executions alone are not enough.
const MASK: u64 = fan::FAN_OPEN_PERM | fan::FAN_OPEN_EXEC_PERM;

/// `struct fanotify_event_metadata`, 24 bytes (include/uapi/linux/fanotify.h).
const METADATA: usize = 24;

/// `struct fanotify_event_info_pidfd`: a 4-byte header and the descriptor.
const PIDFD_INFO: usize = 8;

/// Bytes of one event as this group reads them.
pub const EVENT_SIZE: usize = METADATA + PIDFD_INFO;

/// Which openers of a file go on without asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unasked {
    /// Those that open it, but not those that run it.
    Opens,
    /// All.
    All,
}

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Response {
    /// It may go on.
    Allow,
    /// It gets `EPERM`.
    Deny,
}

/// An opener that waits for our answer.
///
/// Nothing answers when this is dropped: whoever took it owes
/// [`Group::respond`] one answer under [`Event::number`], while `file` is open.
#[derive(Debug)]
pub struct Event {
    /// The file, open for reading, without further events.
    pub file: OwnedFd,
    /// The opener; none when it has exited already.
    pub pidfd: Option<OwnedFd>,
    /// The opener's pid (its thread group) in our pid namespace: for display.
    pub pid: i32,
    /// Whether it is to be run, not only opened.
    pub exec: bool,
}

impl Event {
    /// The number that an answer names this event by.
    #[must_use]
    pub fn number(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// A fanotify group.
#[derive(Debug)]
pub struct Group(OwnedFd);

impl Group {
    /// Makes a group that marks nothing yet. Its descriptors do not block: not
    /// for the reader, and not on a file that the container holds a lease on.
    ///
    /// # Errors
    /// `EMFILE` when `fs.fanotify.max_user_groups` are in use, `EPERM` without
    /// `CAP_SYS_ADMIN`.
    pub fn new() -> io::Result<Self> {
        let flags = fan::FAN_CLASS_CONTENT
            | fan::FAN_UNLIMITED_QUEUE
            | fan::FAN_UNLIMITED_MARKS
            | fan::FAN_NONBLOCK
            | fan::FAN_CLOEXEC
            | FAN_REPORT_PIDFD;
        make(flags).map(Self)
    }

    /// Takes over a group that another process made with [`Group::new`].
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Marks the superblock that `on` lies on (any descriptor, `O_PATH` too).
    ///
    /// # Errors
    /// As `fanotify_mark(2)`: `EINVAL` or `EOPNOTSUPP` for what has no
    /// permission events, such as `/proc`.
    pub fn mark_superblock(&self, on: BorrowedFd<'_>) -> io::Result<()> {
        self.mark(on, fan::FAN_MARK_ADD | fan::FAN_MARK_FILESYSTEM, MASK)
    }

    /// Takes the mark of [`Group::mark_superblock`] off; `on` may be any descriptor on it.
    ///
    /// # Errors
    /// As `fanotify_mark(2)`.
    pub fn unmark_superblock(&self, on: BorrowedFd<'_>) -> io::Result<()> {
        let flags = fan::FAN_MARK_REMOVE | fan::FAN_MARK_FILESYSTEM;
        removed(self.mark(on, flags, MASK))
    }

    /// Lets whoever opens something through the mount of `on` go on without asking, for good:
    /// other mounts of the same superblock are not concerned.
    ///
    /// # Errors
    /// As `fanotify_mark(2)`; `EINVAL` before Linux 6.0.
    pub fn spare_mount(&self, on: BorrowedFd<'_>) -> io::Result<()> {
        let ignore = libc::FAN_MARK_IGNORE | fan::FAN_MARK_IGNORED_SURV_MODIFY;
        self.mark(on, fan::FAN_MARK_ADD | fan::FAN_MARK_MOUNT | ignore, MASK)
    }

    /// Ends [`Group::spare_mount`], if it ever was.
    ///
    /// # Errors
    /// As `fanotify_mark(2)`.
    pub fn heed_mount(&self, on: BorrowedFd<'_>) -> io::Result<()> {
        let flags = fan::FAN_MARK_REMOVE | fan::FAN_MARK_MOUNT | libc::FAN_MARK_IGNORE;
        removed(self.mark(on, flags, MASK))
    }

    /// Ends [`Group::spare_mount`] for all mounts.
    ///
    /// # Errors
    /// As `fanotify_mark(2)`.
    pub fn heed_all_mounts(&self) -> io::Result<()> {
        self.flush(fan::FAN_MARK_MOUNT)
    }

    /// Takes the marks off all superblocks.
    ///
    /// # Errors
    /// As `fanotify_mark(2)`.
    pub fn unmark_all_superblocks(&self) -> io::Result<()> {
        self.flush(fan::FAN_MARK_FILESYSTEM)
    }

    /// Lets openers of the file `on` go on without asking, until its content is written to through
    /// a system call. The kernel forgets it when it needs the memory.
    ///
    /// Stores through a shared mapping and asynchronous writes do *not* end it: whoever calls
    /// this holds a [`Lease`](crate::lease::Lease) for as long as it is to be true.
    ///
    /// # Errors
    /// As `fanotify_mark(2)`; `EINVAL` before Linux 6.0.
    pub fn ignore(&self, on: BorrowedFd<'_>, unasked: Unasked) -> io::Result<()> {
        let mask = match unasked {
            Unasked::Opens => fan::FAN_OPEN_PERM,
            Unasked::All => MASK,
        };
        let evictable = libc::FAN_MARK_EVICTABLE;
        self.mark(on, fan::FAN_MARK_ADD | libc::FAN_MARK_IGNORE | evictable, mask)
    }

    /// Ends [`Group::ignore`].
    ///
    /// # Errors
    /// As `fanotify_mark(2)`.
    pub fn heed(&self, on: BorrowedFd<'_>) -> io::Result<()> {
        removed(self.mark(on, fan::FAN_MARK_REMOVE | libc::FAN_MARK_IGNORE, MASK))
    }

    fn mark(&self, on: BorrowedFd<'_>, flags: u32, mask: u64) -> io::Result<()> {
        // By path, because the kernel takes no O_PATH descriptor here.
        let path = crate::fd_path(on);
        fan::fanotify_mark(self.0.as_raw_fd(), flags, mask, libc::AT_FDCWD, path.as_path())
    }

    /// Drops every mark on an inode, ignore marks among them; those on
    /// superblocks stay.
    ///
    /// # Errors
    /// As `fanotify_mark(2)`.
    pub fn flush_inode_marks(&self) -> io::Result<()> {
        self.flush(fan::FAN_MARK_INODE)
    }

    fn flush(&self, kind: u32) -> io::Result<()> {
        let flags = fan::FAN_MARK_FLUSH | kind;
        fan::fanotify_mark(self.0.as_raw_fd(), flags, 0, libc::AT_FDCWD, "/")
    }

    /// Reads what waits, as many events as `buffer` holds, and gives each to
    /// `each`. Returns how many.
    ///
    /// # Errors
    /// `EAGAIN` when nothing waits, or when an event was refused by the kernel
    /// because its file could not be opened without waiting (others may still
    /// wait); `EMFILE` when we are out of descriptors, which refuses the event.
    pub fn read(&self, buffer: &mut [u8], mut each: impl FnMut(Event)) -> io::Result<usize> {
        let length = rustix::io::read(&self.0, &mut *buffer)?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        let mut count = 0;
        while let Some((record, after)) = split_record(rest) {
            // Without a file it is no opener: a group without a queue limit gets none of these.
            if let Some(event) = parse(record)? {
                each(event);
                count += 1;
            }
            rest = after;
        }
        Ok(count)
    }

    /// Answers the event of that number.
    ///
    /// # Errors
    /// `ENOENT` when no event of that number waits.
    pub fn respond(&self, number: RawFd, response: Response) -> io::Result<()> {
        let response = match response {
            Response::Allow => fan::FAN_ALLOW,
            Response::Deny => fan::FAN_DENY,
        };
        // struct fanotify_response { __s32 fd; __u32 response; }
        let mut answer = [0_u8; size_of::<fan::FanotifyResponse>()];
        let (fd, verdict) = answer.split_at_mut(size_of::<RawFd>());
        fd.copy_from_slice(&number.to_ne_bytes());
        verdict.copy_from_slice(&response.to_ne_bytes());
        rustix::io::retry_on_intr(|| rustix::io::write(&self.0, &answer))?;
        Ok(())
    }

    /// A second descriptor of the same group.
    ///
    /// # Errors
    /// As `fcntl(2)`.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }
}

/// A group that is told of files after somebody who could write to them closed them. It holds
/// nobody up, so it may lose some.
#[derive(Debug)]
pub struct Writes(OwnedFd);

/// What such a group is told.
#[derive(Debug)]
pub enum Written {
    /// A file, and who closed it.
    File(Event),
    /// More than could be remembered.
    Lost,
}

impl Writes {
    /// Makes a group that marks nothing yet. The kernel remembers
    /// `fs.fanotify.max_queued_events` files for it.
    ///
    /// # Errors
    /// As [`Group::new`].
    pub fn new() -> io::Result<Self> {
        let flags = fan::FAN_CLASS_NOTIF
            | fan::FAN_UNLIMITED_MARKS
            | fan::FAN_NONBLOCK
            | fan::FAN_CLOEXEC
            | FAN_REPORT_PIDFD;
        make(flags).map(Self)
    }

    /// As [`Group::mark_superblock`].
    ///
    /// # Errors
    /// As there.
    pub fn mark_superblock(&self, on: BorrowedFd<'_>) -> io::Result<()> {
        mark_superblock(&self.0, on, fan::FAN_CLOSE_WRITE)
    }

    /// Reads what there is, as many as `buffer` holds, and gives each to `each`.
    ///
    /// # Errors
    /// `EAGAIN` when there is nothing; others when one could not be opened, which is lost then.
    pub fn read(&self, buffer: &mut [u8], mut each: impl FnMut(Written)) -> io::Result<()> {
        let length = rustix::io::read(&self.0, &mut *buffer)?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        while let Some((record, after)) = split_record(rest) {
            each(parse(record)?.map_or(Written::Lost, Written::File));
            rest = after;
        }
        Ok(())
    }
}

impl AsFd for Writes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Tells by which mounts a thread of ours opens something.
#[derive(Debug)]
pub struct OwnOpens(OwnedFd);

impl OwnOpens {
    /// # Errors
    /// As [`Group::new`].
    pub fn new() -> io::Result<Self> {
        let flags = fan::FAN_CLASS_NOTIF | fan::FAN_NONBLOCK | fan::FAN_CLOEXEC | fan::FAN_REPORT_TID;
        make(flags).map(Self)
    }

    /// Lets this thread open something, and returns each descriptor of the inode of `file` by a
    /// mount by which the thread opened it then: on overlayfs, what is below of what it opened.
    ///
    /// # Errors
    /// Those of `open`, and as `fanotify_mark(2)` and `read(2)`.
    pub fn during<T>(
        &self,
        file: BorrowedFd<'_>,
        open: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<Vec<OwnedFd>> {
        let path = crate::fd_path(file);
        let mark =
            |flags, mask| fan::fanotify_mark(self.0.as_raw_fd(), flags, mask, libc::AT_FDCWD, path.as_path());
        mark(fan::FAN_MARK_ADD, fan::FAN_OPEN)?;
        let opened = open();
        let files = self.read();
        mark(fan::FAN_MARK_FLUSH, 0)?;
        opened?;
        files
    }

    /// What this thread has opened; what others have is passed over.
    fn read(&self) -> io::Result<Vec<OwnedFd>> {
        let own = rustix::thread::gettid().as_raw_nonzero().get();
        let mut buffer = [0; 16 * METADATA];
        let mut files = Vec::new();
        loop {
            let length = match rustix::io::read(&self.0, &mut buffer) {
                Err(rustix::io::Errno::AGAIN) => return Ok(files),
                Err(rustix::io::Errno::INTR) => continue,
                read => read?,
            };
            let mut rest = buffer.get(..length).unwrap_or_default();
            while let Some((record, after)) = split_record(rest) {
                let event = parse(record)?.filter(|event| event.pid == own);
                files.extend(event.map(|event| event.file));
                rest = after;
            }
        }
    }
}

fn make(flags: u32) -> io::Result<OwnedFd> {
    let event_flags = libc::O_RDONLY | libc::O_LARGEFILE | libc::O_CLOEXEC | libc::O_NONBLOCK;
    let fd = fan::fanotify_init(flags, event_flags.cast_unsigned())?;
    // SAFETY: fanotify_init has just returned this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn mark_superblock(group: &OwnedFd, on: BorrowedFd<'_>, mask: u64) -> io::Result<()> {
    // By path, because the kernel takes no O_PATH descriptor here.
    let path = crate::fd_path(on);
    let flags = fan::FAN_MARK_ADD | fan::FAN_MARK_FILESYSTEM;
    fan::fanotify_mark(group.as_raw_fd(), flags, mask, libc::AT_FDCWD, path.as_path())
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Group> for OwnedFd {
    fn from(group: Group) -> Self {
        group.0
    }
}

/// A mark that the kernel has forgotten already needs no removal.
fn removed(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        done => done,
    }
}

/// Splits off the first record; none when there is no whole one.
fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(field(bytes, 0)?)).ok()?;
    if length < METADATA {
        None
    } else {
        bytes.split_at_checked(length)
    }
}

/// Reads one record: `event_len u32, vers u8, reserved u8, metadata_len u16,
/// mask u64, fd s32, pid s32`, then information records. None for a record that
/// carries no file: the queue was full.
fn parse(record: &[u8]) -> io::Result<Option<Event>> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "malformed fanotify event");
    if record.get(4) != Some(&fan::FANOTIFY_METADATA_VERSION) {
        return Err(malformed());
    }
    let mask = u64::from_ne_bytes(field(record, 8).ok_or_else(malformed)?);
    let fd = i32::from_ne_bytes(field(record, 16).ok_or_else(malformed)?);
    let pid = i32::from_ne_bytes(field(record, 20).ok_or_else(malformed)?);
    let pidfd = record.get(METADATA..).and_then(pidfd_of);
    // SAFETY: the kernel opened this descriptor for us in this read, and it is parsed once.
    let file = (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) });
    // SAFETY: as above.
    let pidfd = pidfd
        .filter(|fd| *fd >= 0)
        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    let exec = mask & fan::FAN_OPEN_EXEC_PERM != 0;
    Ok(file.map(|file| Event {
        file,
        pidfd,
        pid,
        exec,
    }))
}

/// Finds `struct fanotify_event_info_pidfd` among the information records:
/// `info_type u8, pad u8, len u16, pidfd s32`.
fn pidfd_of(mut infos: &[u8]) -> Option<RawFd> {
    loop {
        let length = usize::from(u16::from_ne_bytes(field(infos, 2)?));
        if infos.first() == Some(&libc::FAN_EVENT_INFO_TYPE_PIDFD) {
            return Some(i32::from_ne_bytes(field(infos, 4)?));
        }
        infos = infos.get(length.max(4)..)?;
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}
