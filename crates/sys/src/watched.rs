//! Descriptors in a tokio runtime.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor with the current runtime.
///
/// # Errors
/// When the runtime's epoll does not take it.
///
/// # Panics
/// Outside of a runtime with I/O.
pub fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open, and the same, for as long as it exists, and
    // AsyncFd gives out its contents only by deregistering them first.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}
