//! What is kept of a scan.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use lazaret_types::{Severity, Sha256};
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::Target;

/// Findings that are kept; all are counted, and told as incidents.
const MAX_FOUND: usize = 200;

/// Unjudged files that are kept with the reason; all are counted.
const MAX_PROBLEMS: usize = 20;

/// One scan, as it is on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// A ULID: sorted by it is sorted by time.
    pub(crate) id: String,
    pub(crate) target: Target,
    #[serde(default)]
    pub(crate) cause: Cause,
    pub(crate) state: State,
    /// Why it failed.
    pub(crate) error: Option<String>,
    /// Milliseconds since 1970, UTC; 0 while it has not ended.
    pub(crate) began_at: u64,
    pub(crate) ended_at: u64,
    pub(crate) counts: Counts,
    /// The first ones.
    pub(crate) found: Vec<Found>,
    /// The first files without a verdict, each with its path and the reason.
    pub(crate) problems: Vec<String>,
    /// What decided; none before it began.
    pub(crate) basis: Option<Basis>,
    /// That changed on the way: it cannot answer for later scans.
    pub(crate) mixed: bool,
    /// Of an image.
    pub(crate) digest: Option<String>,
    /// What containerd holds for it, to be released.
    pub(crate) lease: Option<Lease>,
    /// The file that was judged last.
    pub(crate) cursor: Option<Cursor>,
    /// Goes on when nobody watches.
    pub(crate) detached: bool,
    /// Not to be answered from an earlier record.
    pub(crate) force: bool,
    /// Times that it went on after the daemon had gone.
    pub(crate) resumed: u32,
}

/// Why there is a scan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Cause {
    /// Somebody asked for it. It reports and changes nothing.
    #[default]
    Asked,
    /// What judges has changed, and the container goes on running.
    NewSignatures,
}

/// What decides on a content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Basis {
    /// The version of the signatures.
    pub(crate) set: String,
    /// The digest of the digests that an administrator allows.
    pub(crate) allowed: Sha256,
}

/// How far a scan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    Waiting,
    Running,
    Done,
    Cancelled,
    Failed,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Regular files that were looked at.
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) findings: u64,
    /// Files and folders without a verdict.
    pub(crate) unjudged: u64,
    /// Files that needed no judgement: by the same signatures there was a verdict already.
    #[serde(default)]
    pub(crate) current: u64,
}

/// A bad file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    /// As whoever uses the target sees it.
    #[serde(with = "super::bytes")]
    pub(crate) path: PathBuf,
    pub(crate) rule: String,
    pub(crate) severity: Severity,
    pub(crate) sha256: Sha256,
    /// Bytes.
    pub(crate) size: u64,
}

/// A path, from the root of the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cursor(#[serde(with = "super::bytes")] pub(crate) PathBuf);

/// A view of an image that containerd holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    pub(crate) id: String,
    pub(crate) namespace: String,
}

impl Record {
    pub(crate) fn new(target: Target, force: bool) -> Self {
        Self {
            id: Ulid::generate().to_string(),
            target,
            cause: Cause::Asked,
            state: State::Waiting,
            error: None,
            began_at: now(),
            ended_at: 0,
            counts: Counts::default(),
            found: Vec::new(),
            problems: Vec::new(),
            basis: None,
            mixed: false,
            digest: None,
            lease: None,
            cursor: None,
            detached: false,
            force,
            resumed: 0,
        }
    }

    /// Of a container that is to be scanned again, whoever watches.
    pub(crate) fn renewal(target: Target) -> Self {
        Self {
            cause: Cause::NewSignatures,
            detached: true,
            ..Self::new(target, false)
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        !matches!(self.state, State::Waiting | State::Running)
    }

    /// Whether it tells what a scan of this image would find now.
    pub(crate) fn answers(&self, digest: &str, basis: &Basis) -> bool {
        self.state == State::Done
            && !self.mixed
            && self.basis.as_ref() == Some(basis)
            && self.digest.as_deref() == Some(digest)
    }

    /// Forgets what was found so far: it begins anew.
    pub(crate) fn restart(&mut self) {
        self.counts = Counts::default();
        self.found.clear();
        self.problems.clear();
        self.cursor = None;
        self.mixed = false;
    }

    pub(crate) fn add_found(&mut self, found: Found) {
        self.counts.findings += 1;
        if self.found.len() < MAX_FOUND {
            self.found.push(found);
        }
    }

    pub(crate) fn add_problem(&mut self, path: &Path, why: &str) {
        self.counts.unjudged += 1;
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(format!("{}: {why}", path.display()));
        }
    }

    pub(crate) fn end(&mut self, state: State, error: Option<String>) {
        self.state = state;
        self.error = error;
        self.ended_at = now();
        self.cursor = None;
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
