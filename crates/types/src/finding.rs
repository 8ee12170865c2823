//! What an engine says of a file, and what is done about it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How bad a finding is. The names are Falco's priorities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Severity {
    /// Worth a line in a log.
    Notice,
    /// Unusual; somebody should look.
    Warning,
    /// Something failed, or a protection did.
    Error,
    /// Known bad. Never put to a vote.
    Critical,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It went on, and nothing is to be told.
    Allow,
    /// It went on, and somebody is told.
    Alert,
    /// The opener got `EPERM`.
    Deny,
    /// The file was moved into the quarantine, after its opener was denied.
    Quarantine,
    /// The process was killed.
    Kill,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Alert => "alert",
            Self::Deny => "deny",
            Self::Quarantine => "quarantine",
            Self::Kill => "kill",
        })
    }
}

/// What the opener wanted of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// `open(2)` and what is like it, the loader's included.
    Open,
    /// `execve(2)`: the program itself or the interpreter of a `#!` line.
    Exec,
    /// `close(2)` by who could write to it: it may be another content now.
    Write,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Exec => "exec",
            Self::Write => "write",
        })
    }
}

/// Which engine found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// The lists of SHA-256 digests.
    HashList,
    /// YARA rules.
    Yara,
    /// The lists of TLSH digests: what is similar to known bad content.
    Tlsh,
    /// What a source text does with what a request sends it.
    Structure,
    /// Unpacking: what is inside and cannot be judged.
    Unpack,
    /// ClamAV's daemon.
    Clamd,
    /// An engine of others. Its name begins the rule's.
    External,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HashList => "hash-list",
            Self::Yara => "yara",
            Self::Tlsh => "tlsh",
            Self::Structure => "structure",
            Self::Unpack => "unpack",
            Self::Clamd => "clamd",
            Self::External => "external",
        })
    }
}

/// One engine's conviction of one content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// The name of the signature or rule.
    pub rule: String,
    /// Whose finding it is.
    pub engine: Engine,
}

/// Why a file has no verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnjudgedReason {
    /// Larger than `scan.max_file_size`.
    TooLarge,
    /// Not judged within `scan.timeout`.
    Timeout,
    /// Reading it failed.
    ReadError,
    /// The process or the engine that judged it failed.
    EngineFailed,
    /// Its content changed again and again while it was judged.
    Changing,
    /// An archive nested deeper than `scan.unpack.depth`.
    UnpackDepth,
    /// An archive of more members than `scan.unpack.members`.
    UnpackMembers,
    /// An archive that unpacks to more than `scan.unpack.size`.
    UnpackSize,
    /// A stream that unpacks to more than `scan.unpack.ratio` times its size.
    UnpackRatio,
    /// An archive that was not unpacked within `scan.timeout`.
    UnpackTime,
    /// clamd stopped at one of its own limits.
    EngineLimit,
}

impl fmt::Display for UnjudgedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "larger than scan.max_file_size",
            Self::Timeout => "not judged within scan.timeout",
            Self::ReadError => "could not be read",
            Self::EngineFailed => "the engine that judged it failed",
            Self::Changing => "its content kept changing while it was judged",
            Self::UnpackDepth => "limit reached: nested deeper than scan.unpack.depth",
            Self::UnpackMembers => "limit reached: more members than scan.unpack.members",
            Self::UnpackSize => "limit reached: unpacks to more than scan.unpack.size",
            Self::UnpackRatio => "limit reached: unpacks to more than scan.unpack.ratio times its size",
            Self::UnpackTime => "limit reached: not unpacked within scan.timeout",
            Self::EngineLimit => "limit reached: one of clamd's own",
        })
    }
}
