//! One write by `io_uring`, as `liburing` would do it.

#![allow(unsafe_code, reason = "attacks are made of system calls that nobody wraps")]

use std::ffi::c_void;
use std::fs::File;
use std::mem::size_of;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};
use nix::libc;

use super::raw::{Mapping, check};

/// `struct io_uring_params` (include/uapi/linux/io_uring.h).
#[repr(C)]
#[derive(Default)]
struct RingParameters {
    entries: u32,
    completion_entries: u32,
    flags: u32,
    more: [u32; 7],
    submission: RingOffsets,
    completion: RingOffsets,
}

/// `struct io_sqring_offsets`; `struct io_cqring_offsets` has `entries` for `array`'s
/// predecessors: what we need of both is in the same places but for the last two.
#[repr(C)]
#[derive(Default)]
struct RingOffsets {
    head: u32,
    tail: u32,
    mask: u32,
    count: u32,
    /// Of a submission ring `flags`, of a completion ring `overflow`.
    fifth: u32,
    /// Of a submission ring `dropped`, of a completion ring `cqes`.
    sixth: u32,
    /// Of a submission ring `array`.
    seventh: u32,
    reserved: u32,
    user: u64,
}

/// The first 40 bytes of `struct io_uring_sqe`; the rest is 0 for a write.
#[repr(C)]
#[derive(Default)]
struct Submission {
    opcode: u8,
    flags: u8,
    priority: u16,
    file: i32,
    offset: u64,
    buffer: u64,
    bytes: u32,
    rest: [u32; 7],
}

/// Writes by `io_uring`.
pub(super) fn write(file: &File, at: usize, bytes: &[u8]) -> Result<()> {
    const IORING_OP_WRITE: u8 = 23;
    const IORING_OFF_SQES: libc::off_t = 0x1000_0000;
    const IORING_ENTER_GETEVENTS: u32 = 1;
    /// More than one entry of either ring takes; the kernel rounds up to pages.
    const LENGTH: usize = 4096;
    let mut parameters = RingParameters::default();
    // SAFETY: the kernel fills in the parameters, of its own layout.
    let ring = check(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, &raw mut parameters) });
    let ring = ring.context("io_uring_setup")?;
    // SAFETY: the kernel has just returned this descriptor, and nobody else has it.
    let ring = unsafe { OwnedFd::from_raw_fd(i32::try_from(ring)?) };
    // Since 5.4 both rings are in one mapping.
    let rings = Mapping::at(ring.as_fd(), LENGTH, 0)?;
    let entries = Mapping::at(ring.as_fd(), LENGTH, IORING_OFF_SQES)?;
    let submission = Submission {
        opcode: IORING_OP_WRITE,
        file: file.as_raw_fd(),
        offset: at as u64,
        buffer: bytes.as_ptr().addr() as u64,
        bytes: u32::try_from(bytes.len())?,
        ..Submission::default()
    };
    // SAFETY: the first entry is ours until it is submitted.
    unsafe { entries.pointer::<Submission>(0).write(submission) };
    let slot = rings.pointer::<u32>(parameters.submission.seventh as usize);
    // SAFETY: so is the first slot of the array, which is to name it.
    unsafe { slot.write(0) };
    // SAFETY: the kernel reads the tail as an atomic, too.
    let tail = unsafe { &*rings.pointer::<AtomicU32>(parameters.submission.tail as usize) };
    tail.store(1, Ordering::Release);
    let (file, flags, none) = (ring.as_raw_fd(), IORING_ENTER_GETEVENTS, ptr::null::<c_void>());
    // SAFETY: what the submission names lives until it is done, which is awaited.
    check(unsafe { libc::syscall(libc::SYS_io_uring_enter, file, 1, 1, flags, none, 0) })
        .context("io_uring_enter")?;
    // struct io_uring_cqe { u64 user_data; s32 res; u32 flags; }
    let result = parameters.completion.sixth as usize + size_of::<u64>();
    // SAFETY: the kernel has written the completion that we waited for.
    let result = unsafe { rings.pointer::<i32>(result).read_volatile() };
    ensure!(
        usize::try_from(result) == Ok(bytes.len()),
        "io_uring wrote {result}"
    );
    Ok(())
}
