//! Messages over the sockets to lazaretd.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use lazaret_sys::seqpacket::{self, MAX_FDS, MAX_MESSAGE};
use prost::Message;

/// Sends one message; waits while the other side does not read.
pub(crate) fn send(socket: &OwnedFd, message: &impl Message, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = message.encode_to_vec();
    loop {
        match seqpacket::send(socket, &bytes, fds) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                lazaret_sys::wait::writable(socket.as_fd(), None)?;
            }
            sent => return sent,
        }
    }
}

/// Receives one message; none at the end of file.
pub(crate) fn receive<M: Message + Default>(
    socket: &OwnedFd,
    fds: &mut [Option<OwnedFd>; MAX_FDS],
) -> io::Result<Option<M>> {
    let mut buffer = vec![0; MAX_MESSAGE.min(4096)];
    loop {
        match seqpacket::receive(socket, &mut buffer, fds) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                lazaret_sys::wait::readable(socket.as_fd(), None)?;
            }
            Ok(0) => return Ok(None),
            length => {
                let message = buffer.get(..length?).unwrap_or_default();
                return M::decode(message).map(Some).map_err(io::Error::other);
            }
        }
    }
}
