//! One scan worker.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use lazaret_api::scan::v1::not_scanned::Reason;
use lazaret_api::scan::v1::{FromWorker, Scan, ToWorker, from_worker};
use lazaret_sys::{pidfd, seqpacket};
use lazaret_types::{Engine, Finding, Severity, Sha256};
use prost::Message;
use thiserror::Error;

/// Bytes of an answer.
const MAX_ANSWER: usize = 32 << 10;

/// A worker that waits for a file. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Worker {
    socket: OwnedFd,
    pidfd: OwnedFd,
}

/// What a worker says of a file.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Of the content that it judged.
    pub(crate) digest: Sha256,
    /// The worst finding.
    pub(crate) finding: Option<Finding>,
}

/// A file without a verdict.
#[derive(Debug, Error)]
pub(crate) enum WorkerError {
    #[error("the scan worker was late and was ended")]
    Late,
    #[error("the scan worker died: {0}")]
    Died(io::Error),
    #[error("the file is too large")]
    TooLarge,
    #[error("the file could not be read: {0}")]
    Read(String),
    #[error("the engine failed: {0}")]
    Engine(String),
}

impl WorkerError {
    /// Whether the worker can take another file.
    pub(crate) fn is_survived(&self) -> bool {
        matches!(self, Self::TooLarge | Self::Read(_) | Self::Engine(_))
    }
}

impl Worker {
    pub(super) fn new(socket: OwnedFd, pidfd: OwnedFd) -> Self {
        Self { socket, pidfd }
    }

    /// Has a file judged.
    pub(crate) fn scan(
        &self,
        file: BorrowedFd<'_>,
        max_size: u64,
        deadline: Instant,
    ) -> Result<Answer, WorkerError> {
        send(
            &self.socket,
            &ToWorker {
                scan: Some(Scan { max_size }),
            },
            Some(file),
        )
        .map_err(WorkerError::Died)?;
        let answer = receive::<FromWorker>(self.socket.as_fd(), deadline);
        match answer {
            Ok((
                FromWorker {
                    message: Some(message),
                },
                _,
            )) => understand(message),
            Ok(_) => Err(WorkerError::Died(io::ErrorKind::InvalidData.into())),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(WorkerError::Late),
            Err(error) => Err(WorkerError::Died(error)),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may be at a file that never ends. ESRCH: it has ended by itself.
        let _gone = pidfd::kill(&self.pidfd);
    }
}

fn understand(message: from_worker::Message) -> Result<Answer, WorkerError> {
    match message {
        from_worker::Message::Scanned(scanned) => {
            let digest = <[u8; 32]>::try_from(scanned.sha256.as_slice());
            let digest = digest.map_err(|_size| WorkerError::Died(io::ErrorKind::InvalidData.into()))?;
            let findings = scanned.findings.into_iter().map(|finding| Finding {
                severity: severity(&finding.severity),
                rule: finding.rule,
                engine: Engine::Yara,
            });
            Ok(Answer {
                digest: Sha256::new(digest),
                finding: findings.max_by_key(|finding| finding.severity),
            })
        }
        from_worker::Message::NotScanned(not) => Err(match not.reason() {
            Reason::TooLarge => WorkerError::TooLarge,
            Reason::ReadError => WorkerError::Read(not.message),
            Reason::EngineError | Reason::Unspecified => WorkerError::Engine(not.message),
        }),
    }
}

/// The `severity` of a rule's metadata. A rule that has none alerts and refuses
/// nothing: public collections hold many that only inform.
fn severity(text: &str) -> Severity {
    let known = [
        Severity::Notice,
        Severity::Warning,
        Severity::Error,
        Severity::Critical,
    ];
    let named = known
        .into_iter()
        .find(|severity| severity.to_string().eq_ignore_ascii_case(text));
    named.unwrap_or(Severity::Warning)
}

/// Sends one message, which always fits: the other side holds one at a time.
pub(super) fn send(socket: &OwnedFd, message: &impl Message, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    seqpacket::send(socket, &message.encode_to_vec(), fd.as_slice())
}

/// Receives one message; `TimedOut` when none came, `UnexpectedEof` when the other
/// side is gone.
pub(super) fn receive<M: Message + Default>(
    socket: BorrowedFd<'_>,
    deadline: Instant,
) -> io::Result<(M, seqpacket::Fds)> {
    let mut buffer = vec![0; MAX_ANSWER];
    loop {
        if !lazaret_sys::wait::readable(socket, Some(deadline))? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut fds = seqpacket::Fds::default();
        match seqpacket::receive(socket, &mut buffer, &mut fds) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_without_severity_refuses_nothing() {
        assert_eq!(severity("critical"), Severity::Critical);
        assert_eq!(severity("Error"), Severity::Error);
        assert_eq!(severity(""), Severity::Warning);
        assert_eq!(severity("apocalyptic"), Severity::Warning);
    }
}
