//! What is told: one JSON object a line. `docs/incidents.md` is its reference.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::{Action, Engine, Severity, Sha256};

/// The version of [`Incident`]'s form. Fields are only ever added within one.
pub const INCIDENT_SCHEMA: u32 = 1;

/// One thing that happened. The first six keys are Falco's JSON output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// RFC 3339, UTC, microseconds.
    pub time: String,
    /// The signature, or the name of what happened, e.g. `Daemon lost`.
    pub rule: String,
    /// How bad.
    pub priority: Severity,
    /// One sentence for a person.
    pub output: String,
    /// The same facts under Falco's field names, e.g. `container.id`.
    pub output_fields: BTreeMap<String, serde_json::Value>,
    /// Where it belongs, MITRE ATT&CK techniques included.
    pub tags: Vec<String>,

    /// Unique everywhere.
    pub id: Ulid,
    /// [`INCIDENT_SCHEMA`]
    pub schema: u32,
    /// The node's stable id.
    pub node: String,
    /// Grows by one with each incident of the node.
    pub seq: u64,
    /// The version of the signature set that judged.
    pub signature_set: String,
    /// What was done.
    pub action: Action,
    /// Which engine found it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub engine: Option<Engine>,
    /// Whom it concerns; none for the node itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub container: Option<ContainerFields>,
    /// Who did it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub process: Option<ProcessFields>,
    /// With which file.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file: Option<FileFields>,
    /// The item of the quarantine that the file is now.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub quarantine_item: Option<Ulid>,
    /// For how long a container had no judge.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gap: Option<Gap>,
}

/// The container of an [`Incident`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerFields {
    /// Unique within its namespace.
    pub id: String,
    /// containerd namespace.
    pub namespace: String,
    /// As containerd names it; none when nobody could tell.
    pub image: Option<String>,
    /// `metadata.namespace/metadata.name`
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pod: Option<String>,
}

/// The process of an [`Incident`], as the host sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessFields {
    /// In the host's pid namespace.
    pub pid: i32,
    /// Effective user id, in the host's user namespace; none when it was gone.
    pub uid: Option<u32>,
    /// The kernel's name of it, at most 15 bytes.
    pub comm: Option<String>,
    /// The path of its program, as the container sees it.
    pub exe: Option<String>,
}

/// The file of an [`Incident`].
///
/// A path that is not UTF-8 is written with `\xNN` for each byte that does not
/// fit and `\\` for a backslash, and `path_escaped` is true.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFields {
    /// As the container sees it.
    pub path: String,
    /// Whether `path` is escaped.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub path_escaped: bool,
    /// Where the host has it: in a layer of the overlay; none on tmpfs.
    pub host_path: Option<String>,
    /// None when it was not judged.
    pub sha256: Option<Sha256>,
    /// Bytes.
    pub size: u64,
}

/// A time in which nobody judged what a container opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Milliseconds.
    pub lasted_ms: u64,
    /// Opens and executions allowed unjudged.
    pub allowed: u64,
    /// Opens and executions denied unjudged.
    pub denied: u64,
}
