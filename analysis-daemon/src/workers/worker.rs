//! One scan worker.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use lazaret_api::scan::v1::not_scanned::Reason;
use lazaret_api::scan::v1::{FromWorker, NotScanned, Scan, ToWorker, Unpack, from_worker};
use lazaret_sys::{pidfd, seqpacket};
use prost::Message;
use thiserror::Error;

use super::answer::{Answer, Member};
use crate::content::Bytes;

/// Bytes of an answer.
const MAX_ANSWER: usize = seqpacket::MAX_MESSAGE;

/// A worker that waits for a content. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Worker {
    socket: OwnedFd,
    pidfd: OwnedFd,
    /// For answers.
    buffer: Vec<u8>,
}

/// A content without a verdict.
#[derive(Debug, Error)]
pub(crate) enum WorkerError {
    #[error("the scan worker was late and was ended")]
    Late,
    #[error("the scan worker died: {0}")]
    Died(io::Error),
    #[error("the scan worker could not read the content: {0}")]
    Read(String),
    #[error("the engine failed: {0}")]
    Engine(String),
}

impl WorkerError {
    /// Whether the worker can take another content.
    pub(crate) fn is_survived(&self) -> bool {
        matches!(self, Self::Read(_) | Self::Engine(_))
    }
}

impl Worker {
    pub(super) fn new(socket: OwnedFd, pidfd: OwnedFd) -> Self {
        Self {
            socket,
            pidfd,
            buffer: answer_buffer(),
        }
    }

    /// Has a content judged; `inside` is told of what is in it, if it is an archive.
    pub(crate) fn scan(
        &mut self,
        bytes: &Bytes,
        unpack: Option<Unpack>,
        deadline: Instant,
        inside: &mut dyn FnMut(Member),
    ) -> Result<Answer, WorkerError> {
        let (content, memory) = match bytes {
            Bytes::Small(bytes) => (Some(bytes.clone()), None),
            Bytes::Large(memory) => (None, Some(memory.as_fd())),
        };
        let message = ToWorker {
            scan: Some(Scan { content, unpack }),
        };
        send(&self.socket, &message, memory).map_err(WorkerError::Died)?;
        loop {
            match self.hear(deadline)? {
                from_worker::Message::Members(members) => {
                    for member in members.members {
                        inside(Member::new(member).ok_or_else(babbles)?);
                    }
                }
                from_worker::Message::Scanned(scanned) => {
                    return Ok(Answer::new(scanned));
                }
                from_worker::Message::NotScanned(not) => return Err(not_scanned(not)),
            }
        }
    }

    fn hear(&mut self, deadline: Instant) -> Result<from_worker::Message, WorkerError> {
        match receive::<FromWorker>(self.socket.as_fd(), &mut self.buffer, deadline) {
            Ok((FromWorker { message }, _)) => message.ok_or_else(babbles),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(WorkerError::Late),
            Err(error) => Err(WorkerError::Died(error)),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may be at a content that never ends. ESRCH: it has ended by itself.
        let _gone = pidfd::kill(&self.pidfd);
    }
}

fn not_scanned(not: NotScanned) -> WorkerError {
    match not.reason() {
        Reason::ReadError => WorkerError::Read(not.message),
        Reason::EngineError | Reason::Unspecified => WorkerError::Engine(not.message),
    }
}

/// It speaks another language: it may be somebody else by now.
fn babbles() -> WorkerError {
    WorkerError::Died(io::ErrorKind::InvalidData.into())
}

/// Sends one message, which always fits: the other side holds one at a time.
pub(super) fn send(socket: &OwnedFd, message: &impl Message, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    seqpacket::send(socket, &message.encode_to_vec(), fd.as_slice())
}

/// Room for one message, to be used again: clearing it for each would cost more than most of them.
pub(super) fn answer_buffer() -> Vec<u8> {
    vec![0; MAX_ANSWER]
}

/// Receives one message into an [`answer_buffer`]; `TimedOut` when none came, `UnexpectedEof` when
/// the other side is gone.
pub(super) fn receive<M: Message + Default>(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    deadline: Instant,
) -> io::Result<(M, seqpacket::Fds)> {
    loop {
        if !lazaret_sys::wait::readable(socket, Some(deadline))? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut fds = seqpacket::Fds::default();
        match seqpacket::receive(socket, buffer, &mut fds) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => {
                let message = M::decode(buffer.get(..length?).unwrap_or_default());
                return Ok((
                    message.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?,
                    fds,
                ));
            }
        }
    }
}
