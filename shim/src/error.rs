//! What a request is answered with when it is refused or fails.

use std::fmt::Display;

use containerd_shim_protos::ttrpc::{self, Code};
use thiserror::Error;

/// containerd acts on the code; a person reads the message, which says what
/// happened, to whom, and what to do.
#[derive(Debug, Error)]
#[error("{message}")]
pub(crate) struct Error {
    code: Code,
    message: String,
}

/// The result of whatever serves a request.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NOT_FOUND, message)
    }

    pub(crate) fn already_exists(message: impl Into<String>) -> Self {
        Self::new(Code::ALREADY_EXISTS, message)
    }

    /// The request is fine, but not now.
    pub(crate) fn failed_precondition(message: impl Into<String>) -> Self {
        Self::new(Code::FAILED_PRECONDITION, message)
    }

    pub(crate) fn invalid_argument(message: impl Into<String>) -> Self {
        Self::new(Code::INVALID_ARGUMENT, message)
    }

    pub(crate) fn unimplemented(message: impl Into<String>) -> Self {
        Self::new(Code::UNIMPLEMENTED, message)
    }

    /// Somebody else must do something first; then the same request may succeed.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Code::UNAVAILABLE, message)
    }

    /// What has no code of its own, with which containerd's own shim answers as well.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::UNKNOWN, message)
    }

    /// The same, with more to say.
    pub(crate) fn and(mut self, more: impl Display) -> Self {
        self.message = format!("{}; {more}", self.message);
        self
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.code == Code::NOT_FOUND
    }
}

impl From<Error> for ttrpc::Error {
    fn from(error: Error) -> Self {
        Self::RpcStatus(ttrpc::get_status(error.code, error.message))
    }
}

/// Says what was being done when something failed.
pub(crate) trait Context<T> {
    /// Turns the failure into an internal error that begins with `what`.
    fn context<W: Display>(self, what: impl FnOnce() -> W) -> Result<T>;
}

impl<T, E: Display> Context<T> for std::result::Result<T, E> {
    fn context<W: Display>(self, what: impl FnOnce() -> W) -> Result<T> {
        self.map_err(|error| Error::internal(format!("{}: {error}", what())))
    }
}
