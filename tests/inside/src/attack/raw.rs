//! System calls that no crate here has as safe functions; with `uring.rs`, the only place of this
//! helper with `unsafe`.

#![allow(unsafe_code, reason = "attacks are made of system calls that nobody wraps")]

use std::ffi::{CStr, c_void};
use std::fs::File;
use std::io::{self, Write as _};
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::ptr::{self, NonNull};

use anyhow::{Context as _, Result, ensure};
use nix::libc;

/// What `open_tree(2)` and `move_mount(2)` take (include/uapi/linux/mount.h).
const OPEN_TREE_CLONE: libc::c_long = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_long = 4;

/// The path by which this process names an open file.
pub(super) fn proc_path(file: &impl AsFd) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()).into()
}

pub(super) fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Pages that this process shares with somebody: a file, or the kernel.
pub(super) struct Mapping {
    start: NonNull<c_void>,
    length: usize,
}

impl Mapping {
    /// Maps a file that is open for reading and writing.
    pub(super) fn shared(file: &impl AsFd, length: usize) -> Result<Self> {
        Self::at(file.as_fd(), length, 0)
    }

    pub(super) fn at(file: BorrowedFd<'_>, length: usize, offset: libc::off_t) -> Result<Self> {
        Self::of(
            file,
            length,
            offset,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
        )
    }

    fn of(
        file: BorrowedFd<'_>,
        length: usize,
        offset: libc::off_t,
        access: libc::c_int,
        flags: libc::c_int,
    ) -> Result<Self> {
        let (file, none) = (file.as_raw_fd(), ptr::null_mut());
        // SAFETY: the kernel chooses the address, so that nothing of ours is mapped over.
        let start = unsafe { libc::mmap(none, length, access, flags, file, offset) };
        ensure!(start != libc::MAP_FAILED, "mmap: {}", io::Error::last_os_error());
        let start = NonNull::new(start).context("mapped at 0")?;
        Ok(Self { start, length })
    }

    /// A pointer to the `T` at a distance from the start.
    pub(super) fn pointer<T>(&self, at: usize) -> *mut T {
        assert!(at + size_of::<T>() <= self.length);
        // SAFETY: it points into the mapping, as just asserted.
        unsafe { self.start.as_ptr().byte_add(at).cast() }
    }

    pub(super) fn store(&self, at: usize, bytes: &[u8]) {
        for (index, byte) in bytes.iter().enumerate() {
            // SAFETY: `pointer` stays within the mapping, which is writable; others may see each
            // byte change, and nobody here holds a reference to it.
            unsafe { self.pointer::<u8>(at + index).write_volatile(*byte) };
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference to it was given out.
        unsafe { libc::munmap(self.start.as_ptr(), self.length) };
    }
}

/// Some bytes of a file as they are in memory that can be executed.
pub(super) fn executable_bytes(file: &File, at: usize, count: usize) -> Result<Vec<u8>> {
    let access = libc::PROT_READ | libc::PROT_EXEC;
    let mapping = Mapping::of(file.as_fd(), at + count, 0, access, libc::MAP_PRIVATE)?;
    let byte = |index: usize| {
        // SAFETY: `pointer` stays within the mapping, which is readable.
        unsafe { mapping.pointer::<u8>(at + index).read_volatile() }
    };
    Ok((0..count).map(byte).collect())
}

/// `struct iocb` (include/uapi/linux/aio_abi.h), little-endian.
#[repr(C)]
#[derive(Default)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event_file: u32,
}

/// Writes by libaio's `io_submit`.
pub(super) fn aio_write(file: &File, at: usize, bytes: &[u8]) -> Result<()> {
    const IOCB_CMD_PWRITE: u16 = 1;
    let mut request = Iocb {
        opcode: IOCB_CMD_PWRITE,
        file: file.as_raw_fd().cast_unsigned(),
        buffer: bytes.as_ptr().addr() as u64,
        bytes: bytes.len() as u64,
        offset: i64::try_from(at)?,
        ..Iocb::default()
    };
    let mut requests = [&raw mut request];
    // struct io_event { u64 data, obj; s64 res, res2; }
    let mut done = [0_i64; 4];
    let mut context: libc::c_ulong = 0;
    // SAFETY: the kernel writes the context's number to where it is told.
    check(unsafe { libc::syscall(libc::SYS_io_setup, 1, &raw mut context) }).context("io_setup")?;
    // SAFETY: the request and the bytes that it names live until it is done, which is awaited.
    let submitted = unsafe { libc::syscall(libc::SYS_io_submit, context, 1, requests.as_mut_ptr()) };
    check(submitted).context("io_submit")?;
    let none = ptr::null_mut::<libc::timespec>();
    // SAFETY: there is room for one event.
    let got = unsafe { libc::syscall(libc::SYS_io_getevents, context, 1, 1, done.as_mut_ptr(), none) };
    check(got).context("io_getevents")?;
    // SAFETY: nothing uses the context any more.
    check(unsafe { libc::syscall(libc::SYS_io_destroy, context) }).context("io_destroy")?;
    ensure!(
        usize::try_from(done[2]) == Ok(bytes.len()),
        "io_submit wrote {}",
        done[2]
    );
    Ok(())
}

/// Writes by `splice(2)` out of a pipe.
pub(super) fn splice_from_pipe(file: &File, at: usize, bytes: &[u8]) -> Result<()> {
    let (reader, mut writer) = io::pipe()?;
    writer.write_all(bytes)?;
    let mut at = i64::try_from(at)?;
    let (from, to, none) = (reader.as_raw_fd(), file.as_raw_fd(), ptr::null_mut());
    // SAFETY: the kernel moves the offset on, which outlives the call.
    let moved = unsafe { libc::splice(from, none, to, &raw mut at, bytes.len(), 0) };
    ensure!(
        usize::try_from(moved) == Ok(bytes.len()),
        "splice: {}",
        io::Error::last_os_error()
    );
    Ok(())
}

/// Writes all of one file over a part of another by `sendfile(2)`.
pub(super) fn send_file(from: &File, mut to: &File, at: usize) -> Result<()> {
    let length = usize::try_from(from.metadata()?.len())?;
    io::Seek::seek(&mut to, io::SeekFrom::Start(at as u64))?;
    // SAFETY: no pointer but a null one is passed.
    let sent = unsafe { libc::sendfile(to.as_raw_fd(), from.as_raw_fd(), ptr::null_mut(), length) };
    ensure!(
        usize::try_from(sent) == Ok(length),
        "sendfile: {}",
        io::Error::last_os_error()
    );
    Ok(())
}

/// The same by `copy_file_range(2)`.
pub(super) fn copy_range(from: &File, to: &File, at: usize) -> Result<()> {
    let length = usize::try_from(from.metadata()?.len())?;
    let mut at = i64::try_from(at)?;
    let (from, to, none) = (from.as_raw_fd(), to.as_raw_fd(), ptr::null_mut());
    // SAFETY: the kernel moves the offset on, which outlives the call.
    let copied = unsafe { libc::copy_file_range(from, none, to, &raw mut at, length, 0) };
    ensure!(
        usize::try_from(copied) == Ok(length),
        "copy_file_range: {}",
        io::Error::last_os_error()
    );
    Ok(())
}

/// Takes a lease, `F_RDLCK` or `F_WRLCK`. It ends when the file is closed.
pub(super) fn take_lease(file: &File, kind: libc::c_int) -> Result<()> {
    // SAFETY: this command takes an integer.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) }.into()).context("F_SETLEASE")?;
    Ok(())
}

/// The signal that tells of a lease to be given back is of no consequence.
pub(super) fn ignore_lease_breaks() -> Result<()> {
    // SAFETY: no handler is installed.
    let before = unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
    ensure!(before != libc::SIG_ERR, "signal: {}", io::Error::last_os_error());
    Ok(())
}

/// Queues real-time signals to itself until the kernel takes no more from this user.
pub(super) fn exhaust_signals() -> Result<()> {
    let (signal, this) = (libc::SIGRTMAX(), nix::unistd::getpid().as_raw());
    block(signal);
    let value = libc::sigval {
        sival_ptr: ptr::null_mut(),
    };
    // SAFETY: the signal is blocked, so nobody sees the value.
    while unsafe { libc::sigqueue(this, signal, value) } == 0 {}
    let error = io::Error::last_os_error();
    ensure!(error.raw_os_error() == Some(libc::EAGAIN), "sigqueue: {error}");
    Ok(())
}

/// Of the real-time signals nix has none.
fn block(signal: libc::c_int) {
    // SAFETY: a set of signals is plain bits.
    let mut set = unsafe { zeroed::<libc::sigset_t>() };
    // SAFETY: the set outlives the call, and the signal exists.
    unsafe { libc::sigaddset(&raw mut set, signal) };
    // SAFETY: the set outlives the call, and the old one is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) };
}

/// A copy of the mount tree at `path` that is mounted nowhere.
pub(super) fn clone_tree(path: &CStr) -> Result<OwnedFd> {
    // SAFETY: the path is a C string.
    let tree = unsafe {
        libc::syscall(
            libc::SYS_open_tree,
            libc::AT_FDCWD,
            path.as_ptr(),
            OPEN_TREE_CLONE,
        )
    };
    let tree = i32::try_from(check(tree).context("open_tree")?)?;
    // SAFETY: the kernel has just returned this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(tree) })
}

/// Mounts such a copy.
pub(super) fn mount_tree(tree: &OwnedFd, at: &CStr) -> Result<()> {
    let (tree, nothing, here) = (tree.as_raw_fd(), c"".as_ptr(), libc::AT_FDCWD);
    let (at, flags) = (at.as_ptr(), MOVE_MOUNT_F_EMPTY_PATH);
    // SAFETY: both paths are C strings.
    check(unsafe { libc::syscall(libc::SYS_move_mount, tree, nothing, here, at, flags) })
        .context("move_mount")?;
    Ok(())
}

/// From now on this process runs when nobody else wants to.
pub(super) fn be_idle() -> Result<()> {
    const LAST: libc::c_int = 19;
    // SAFETY: only integers are passed.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, LAST) }.into()).context("setpriority")?;
    Ok(())
}
