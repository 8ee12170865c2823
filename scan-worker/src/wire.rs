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

/// Room for one message, to be used again: clearing it for each would cost more than most of them.
pub(crate) fn buffer() -> Vec<u8> {
    vec![0; MAX_MESSAGE]
}

/// Receives one message into a [`buffer`]; none at the end of file.
pub(crate) fn receive<M: Message + Default>(
    socket: &OwnedFd,
    buffer: &mut [u8],
    fds: &mut [Option<OwnedFd>; MAX_FDS],
) -> io::Result<Option<M>> {
    loop {
        match seqpacket::receive(socket, buffer, fds) {
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
