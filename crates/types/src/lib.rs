//! What lazaret talks about: containers, files, verdicts, findings, incidents.
//!
//! No I/O and no policy here: a type in this crate means the same in the shim,
//! the daemon and the command line, and in the files that they write.

#![forbid(unsafe_code)]

mod container;
mod finding;
mod incident;
mod sha256;

pub use container::{
    ANNOTATION_PREFIX, CgroupId, Container, ContainerId, IdError, Layers, LossPolicy, Pod, Role, Superblock,
};
pub use finding::{Access, Action, Engine, Finding, Severity, UnjudgedReason};
pub use incident::{ContainerFields, FileFields, Gap, INCIDENT_SCHEMA, Incident, ProcessFields};
pub use sha256::{ParseSha256Error, Sha256};

/// The version of the hand-over protocol (`handover.proto`) that this build
/// speaks. Keepers and a daemon of different versions refuse each other.
pub const HANDOVER_PROTOCOL: u32 = 1;
