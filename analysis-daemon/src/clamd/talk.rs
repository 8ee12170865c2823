//! One question to clamd, one connection: nothing of an earlier question is left in it, and
//! closing it takes back what was not answered. clamd(8) describes the commands.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Instant;

use lazaret_sys::stream;
use thiserror::Error;

use super::reply::{self, Reply};

/// Longest reply, in bytes. One about a file has no path in it.
const MAX_REPLY: usize = 1 << 10;

/// No answer, or none that makes sense.
#[derive(Debug, Error)]
pub(super) enum TalkError {
    /// It was never asked.
    #[error("it cannot be reached: {0}")]
    Unreachable(io::Error),
    /// It was asked.
    #[error("it does not answer")]
    Late,
    /// It was asked, and hung up or answered nonsense.
    #[error("it broke off: {0}")]
    Broken(io::Error),
}

/// Which program and which database judge.
pub(super) fn version(socket: &Path, deadline: Instant) -> Result<String, TalkError> {
    let line = ask(socket, b"zVERSION\0", None, deadline)?;
    reply::of_version(&line).ok_or_else(nonsense)
}

/// Has a file judged, which must be regular and open for reading.
pub(super) fn scan(socket: &Path, file: BorrowedFd<'_>, deadline: Instant) -> Result<Reply, TalkError> {
    let line = ask(socket, b"zFILDES\0", Some(file), deadline)?;
    reply::of_file(&line).ok_or_else(nonsense)
}

/// `z` before a command has it, and the reply, end with a zero byte.
fn ask(
    socket: &Path,
    command: &[u8],
    file: Option<BorrowedFd<'_>>,
    deadline: Instant,
) -> Result<Vec<u8>, TalkError> {
    let connection = stream::connect(socket).map_err(TalkError::Unreachable)?;
    stream::send(&connection, command, &[]).map_err(TalkError::Unreachable)?;
    if let Some(file) = file {
        // A descriptor travels with at least one byte, whatever that is.
        stream::send(&connection, &[0], &[file]).map_err(TalkError::Unreachable)?;
    }
    stream::receive_until(connection.as_fd(), 0, MAX_REPLY, deadline).map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => TalkError::Late,
        _ => TalkError::Broken(error),
    })
}

fn nonsense() -> TalkError {
    TalkError::Broken(io::ErrorKind::InvalidData.into())
}
