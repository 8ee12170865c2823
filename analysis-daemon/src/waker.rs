//! Wakes a reader from its wait for events.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// Wakes one reader.
#[derive(Debug, Clone)]
pub(crate) struct Waker {
    eventfd: Arc<OwnedFd>,
    /// It has left somebody out for want of budget.
    paused: Arc<AtomicBool>,
}

impl Waker {
    /// # Errors
    /// When the kernel gives no eventfd.
    pub(crate) fn new() -> io::Result<Self> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            eventfd: Arc::new(eventfd),
            paused: Arc::default(),
        })
    }

    pub(crate) fn wake(&self) {
        // It fails only when the counter is full: then the reader is awake.
        let _awake = rustix::io::write(&*self.eventfd, &1_u64.to_ne_bytes());
    }

    /// The reader waits for room in the budgets. It must look once more after this: room may have
    /// been made just before.
    pub(crate) fn pause(&self) {
        self.paused.store(true, Ordering::Release);
    }

    pub(crate) fn wake_if_paused(&self) {
        if self.paused.swap(false, Ordering::AcqRel) {
            self.wake();
        }
    }

    /// The reader is awake.
    pub(crate) fn clear(&self) {
        let mut count = [0; 8];
        // Nothing to read means that an earlier round has seen it all.
        let _seen = rustix::io::read(&*self.eventfd, &mut count);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}
