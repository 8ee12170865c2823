//! Why something was not done. Every sentence goes to an administrator.

use std::io;

use bytesize::ByteSize;
use thiserror::Error;

/// Why a file was not moved, or an item not given back.
#[derive(Debug, Error)]
pub(crate) enum Refusal {
    /// Bounded disk.
    #[error(
        "the quarantine is full: {} of quarantine.max_size ({}) are taken and this file has {}",
        ByteSize(*.used), ByteSize(*.limit), ByteSize(*.size)
    )]
    Full {
        /// Bytes in it.
        used: u64,
        /// Bytes that may be.
        limit: u64,
        /// Bytes of the file.
        size: u64,
    },
    /// Bounded number.
    #[error("the quarantine is full: it holds quarantine.max_items = {0}")]
    TooMany(usize),
    /// Another content than was judged.
    #[error("the file changed after it was judged")]
    Changed,
    /// Another file than was judged, or none.
    #[error("another file has its path now")]
    Elsewhere,
    /// As [`Refusal::Elsewhere`], seen too late to put that other file back.
    #[error("another file had its path and could not be put back there: it lies beside it as {0}")]
    Displaced(String),
    /// Neither a path nor a name of it is known.
    #[error("the file has no path any more")]
    NoPath,
    /// Not a regular file.
    #[error("it is not a regular file")]
    NotAFile,
    /// The administrator's word counts more.
    #[error("its content is on the allow-list")]
    Allowed,
    /// The container ends, and takes its file systems along.
    #[error("the container is ending")]
    Ending,
    /// More at once than can be moved.
    #[error("too many files wait to be quarantined")]
    Busy,
    /// Nothing has that id.
    #[error("there is no item {0} in the quarantine")]
    NoItem(String),
    /// Where it was, something else is.
    #[error("there is something at {0} in the container already; --force replaces it")]
    Occupied(String),
    /// The content has nowhere to go back to.
    #[error(
        "container {0} does not run under lazaret on this node: `lazaret quarantine export` gives you the content"
    )]
    NotRunning(String),
    /// As [`Refusal::NotRunning`], for what only its layers have.
    #[error(
        "container {0} does not run under lazaret on this node, so nothing tells which layers its image had: \
        a new container of the image has the file as the image has it"
    )]
    NoLayers(String),
    /// What is below was hidden by nobody, it never was there.
    #[error("the image of the container has no file {0}")]
    NotInImage(String),
    /// The container's root is no overlay of layers.
    #[error("the root file system of container {0} is not made of layers: nothing tells what its image had")]
    NotLayered(String),
    /// The image is no better.
    #[error("the image's own version of it is known bad ({0}); `lazaret allow add` allows a content")]
    OriginalBad(String),
    /// Nor is it known to be.
    #[error("the image's own version of it could not be judged: {0}")]
    OriginalUnjudged(lazaret_types::UnjudgedReason),
    /// A list that must stay bounded.
    #[error(transparent)]
    Allow(#[from] crate::allow::AllowError),
    /// The kernel said no.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl Refusal {
    /// For `map_err`.
    pub(super) fn io<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Io {
            what,
            source: source.into(),
        }
    }
}
