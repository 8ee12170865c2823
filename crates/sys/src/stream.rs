//! Stream sockets over Unix addresses that never block.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use rustix::net::{AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType};

pub use crate::seqpacket::send;
use crate::wait;

/// Connects to a listener, at once or not at all.
///
/// # Errors
/// `ENOENT` and `ECONNREFUSED` when nobody listens; `EAGAIN` when the listener's
/// queue is full.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Receives up to the byte `end`, which is left out, and reads no further than that.
///
/// # Errors
/// `TimedOut` when it has not come by the deadline, `UnexpectedEof` when the other side
/// hangs up before it, `InvalidData` when more than `most` bytes come before it.
pub fn receive_until(socket: BorrowedFd<'_>, end: u8, most: usize, deadline: Instant) -> io::Result<Vec<u8>> {
    const PIECE: usize = 512;
    let (mut line, mut piece) = (Vec::new(), [0; PIECE]);
    while line.len() <= most {
        if !wait::readable(socket.as_fd(), Some(deadline))? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let received = rustix::net::recv(socket, &mut piece[..], RecvFlags::DONTWAIT);
        let length = match received {
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => continue,
            received => received?.0,
        };
        let bytes = piece.get(..length).unwrap_or_default();
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(at) = bytes.iter().position(|byte| *byte == end) {
            line.extend(bytes.iter().take(at));
            return Ok(line);
        }
        line.extend_from_slice(bytes);
    }
    Err(io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    fn said(bytes: &[u8], hang_up: bool) -> io::Result<Vec<u8>> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(bytes).unwrap();
        let kept = (!hang_up).then_some(theirs);
        let deadline = Instant::now() + Duration::from_millis(50);
        let received = receive_until(ours.as_fd(), 0, 1024, deadline);
        drop(kept);
        received
    }

    #[test]
    fn a_line_ends_where_it_says() {
        assert_eq!(said(b"PONG\0rest", false).unwrap(), b"PONG");
        assert_eq!(said(b"\0", true).unwrap(), b"");
    }

    #[test]
    fn what_never_ends_is_an_error() {
        let kind = |bytes: &[u8], hang_up| said(bytes, hang_up).unwrap_err().kind();
        assert_eq!(kind(b"PON", false), io::ErrorKind::TimedOut);
        assert_eq!(kind(b"PON", true), io::ErrorKind::UnexpectedEof);
        assert_eq!(kind(&[b'x'; 5_000], false), io::ErrorKind::InvalidData);
    }

    #[test]
    fn nobody_there_is_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        assert_eq!(connect(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert_eq!(
            connect(&path).unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
    }
}
