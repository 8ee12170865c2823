//! Scans for programs.

use lazaret_api::control::v1::{Scan, ScanCause, ScanFinding, ScanProgress, ScanState};
use serde_json::{Value, json};

use crate::signatures::severity_name;
use crate::text;

pub(super) fn begun(id: &str, target: &str) -> Value {
    json!({ "event": "begun", "scan": id, "target": target })
}

pub(super) fn progress(target: &str, progress: &ScanProgress) -> Value {
    json!({
        "event": "progress",
        "target": target,
        "files": progress.files,
        "bytes": progress.bytes,
        "findings": progress.findings,
        "path": text::path(&progress.path),
        "total_files": some(progress.total_files),
        "total_bytes": some(progress.total_bytes),
    })
}

pub(super) fn finding(id: &str, finding: &ScanFinding) -> Value {
    json!({
        "event": "finding",
        "scan": id,
        "path": text::path(&finding.path),
        "rule": finding.rule,
        "severity": severity_name(finding.severity()),
        "sha256": finding.sha256,
        "size": finding.size,
    })
}

pub(super) fn ended(id: &str, scan: &Scan) -> Value {
    let mut ended = of_scan(scan);
    if let Value::Object(keys) = &mut ended {
        keys.insert("event".into(), "ended".into());
        keys.insert("scan".into(), id.into());
        keys.insert("from_record".into(), scan.from_record.into());
    }
    ended
}

pub(super) fn of_scan(scan: &Scan) -> Value {
    json!({
        "id": scan.id,
        "target": scan.target,
        "cause": cause(scan.cause()),
        "state": state(scan.state()),
        "error": Some(&scan.error).filter(|error| !error.is_empty()),
        "began_at_unix_ms": scan.began_at_unix_ms,
        "ended_at_unix_ms": some(scan.ended_at_unix_ms),
        "files": scan.files,
        "bytes": scan.bytes,
        "findings": scan.findings,
        "current": scan.current,
        "unjudged": scan.unjudged,
        "problems": scan.problems,
        "signature_set": scan.signature_set,
        "image_digest": Some(&scan.image_digest).filter(|digest| !digest.is_empty()),
        "resumed": scan.resumed,
    })
}

fn some(number: u64) -> Option<u64> {
    (number > 0).then_some(number)
}

fn cause(cause: ScanCause) -> &'static str {
    match cause {
        ScanCause::Unspecified => "unknown",
        ScanCause::Asked => "asked",
        ScanCause::NewSignatures => "new-signatures",
    }
}

pub(super) fn state(state: ScanState) -> &'static str {
    match state {
        ScanState::Unspecified => "unknown",
        ScanState::Waiting => "waiting",
        ScanState::Running => "running",
        ScanState::Done => "done",
        ScanState::Cancelled => "cancelled",
        ScanState::Failed => "failed",
    }
}
