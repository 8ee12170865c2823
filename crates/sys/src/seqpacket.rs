//! `SOCK_SEQPACKET` over Unix sockets: whole messages, descriptors alongside,
//! and an end of file when the other side is gone.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// Longest message, in bytes.
pub const MAX_MESSAGE: usize = 64 << 10;

/// Most descriptors in one message.
pub const MAX_FDS: usize = 3;

/// The descriptors of one message, in their order.
pub type Fds = [Option<OwnedFd>; MAX_FDS];

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// Connects to a listener. The socket does not block.
///
/// # Errors
/// `ENOENT` and `ECONNREFUSED` when nobody listens; `EAGAIN` when the listener's
/// queue is full.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket()?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Listens at `path`, which must not exist. The socket does not block.
///
/// # Errors
/// As `bind(2)` and `listen(2)`.
pub fn listen(path: &Path) -> io::Result<OwnedFd> {
    const BACKLOG: i32 = 4096;
    let socket = socket()?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Accepts a connection, or fails with `EAGAIN`. The new socket does not block.
///
/// # Errors
/// As `accept4(2)`.
pub fn accept(listener: impl AsFd) -> io::Result<OwnedFd> {
    Ok(rustix::net::accept_with(listener, FLAGS)?)
}

/// Two connected sockets that do not block.
///
/// # Errors
/// As `socketpair(2)`.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        FLAGS,
        None,
    )?)
}

/// The user id of the process that connected, at the time it did.
///
/// # Errors
/// As `getsockopt(2)`.
pub fn peer_uid(socket: impl AsFd) -> io::Result<u32> {
    Ok(rustix::net::sockopt::socket_peercred(socket)?.uid.as_raw())
}

/// Sends one message with descriptors. Never raises `SIGPIPE`.
///
/// # Errors
/// `EAGAIN` when the other side does not read, `EPIPE` when it is gone.
pub fn send(socket: impl AsFd, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "too many descriptors in one message",
        ));
    }
    let sent = rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(
            &socket,
            &[IoSlice::new(message)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )
    })?;
    if sent == message.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

/// Receives one message: its length and its descriptors. A length of 0 is the
/// end of file; messages of that length are never sent.
///
/// # Errors
/// `EAGAIN` when there is none; `InvalidData` when it was too long or carried too
/// many descriptors, which are then closed.
pub fn receive(
    socket: impl AsFd,
    buffer: &mut [u8],
    fds: &mut [Option<OwnedFd>; MAX_FDS],
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        let mut parts = [IoSliceMut::new(buffer)];
        rustix::net::recvmsg(&socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut slots = fds.iter_mut();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            for fd in rights {
                if let Some(slot) = slots.next() {
                    *slot = Some(fd);
                }
            }
        }
    }
    if received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        fds.fill_with(|| None);
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a message or its descriptors were cut off",
        ));
    }
    Ok(received.bytes)
}

fn socket() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        FLAGS,
        None,
    )?)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use super::*;

    #[test]
    fn carries_a_message_and_its_descriptors() {
        let (ours, theirs) = pair().unwrap();
        let file = File::open("/proc/self/stat").unwrap();
        send(&ours, b"hello", &[file.as_fd()]).unwrap();
        let (mut buffer, mut fds) = ([0; 16], Default::default());
        assert_eq!(receive(&theirs, &mut buffer, &mut fds).unwrap(), 5);
        assert_eq!(&buffer[..5], b"hello");
        let mut text = String::new();
        File::from(fds[0].take().unwrap())
            .read_to_string(&mut text)
            .unwrap();
        assert!(text.starts_with(&std::process::id().to_string()));
    }

    #[test]
    fn says_when_a_message_is_cut_off_and_when_the_other_side_is_gone() {
        let (ours, theirs) = pair().unwrap();
        send(&ours, b"too long", &[]).unwrap();
        let (mut buffer, mut fds) = ([0; 4], Default::default());
        assert_eq!(
            receive(&theirs, &mut buffer, &mut fds).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        assert_eq!(
            receive(&theirs, &mut buffer, &mut fds).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        drop(ours);
        assert_eq!(receive(&theirs, &mut buffer, &mut fds).unwrap(), 0);
    }
}
