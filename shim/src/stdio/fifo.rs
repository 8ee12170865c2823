//! The client's fifos.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use tokio::net::unix::pipe::{OpenOptions, Receiver, Sender};

use crate::error::{Context, Error, Result};

/// The client's end of an output. We keep both ends of the fifo: a client may go
/// away and come back, and neither is what was written lost nor does the writer die.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) to: Sender,
    /// Its reading end, so that what nobody has read yet stays.
    pub(super) unread: OwnedFd,
}

/// Opens an input's fifo without waiting for the client.
pub(super) fn input(path: &str) -> Result<Receiver> {
    open(path, OpenOptions::open_receiver)
}

/// Opens a fifo that is read for writing too, so that it never seems to end.
pub(super) fn hold(path: &str) -> Result<Sender> {
    open(path, OpenOptions::open_sender)
}

/// Opens an output's fifo without waiting for the client.
pub(super) fn output(path: &str) -> Result<Output> {
    // First: there is no writing to a fifo that nobody reads.
    let unread = open(path, OpenOptions::open_receiver)?;
    let to = open(path, OpenOptions::open_sender)?;
    // Held, and no longer registered for events that nobody wants.
    let unread = unread
        .into_nonblocking_fd()
        .context(|| format!("cannot hold {path}"))?;
    Ok(Output { to, unread })
}

fn open<'a, E>(path: &'a str, open: fn(&OpenOptions, &'a str) -> io::Result<E>) -> Result<E> {
    if !Path::new(path).is_absolute() {
        return Err(Error::invalid_argument(format!(
            "the path {path} of a standard stream is not absolute"
        )));
    }
    open(&OpenOptions::new(), path)
        .map_err(|error| Error::invalid_argument(format!("cannot use {path} as a standard stream: {error}")))
}
