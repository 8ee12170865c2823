//! Scans: from a request to targets, and from jobs to a stream.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;

use lazaret_api::control::v1 as api;
use lazaret_api::control::v1::scan_event::Event;
use lazaret_api::control::v1::scan_request::{ContainerTarget, ImageTarget as ApiImage, Target as Wanted};
use tokio::sync::{mpsc, watch};
use tonic::Status;

use super::{State, convert};
use crate::scan::{
    Cause, Found, ImageTarget, Record, Snapshot, StartError, State as ScanState, Target, Watching,
};

/// What unpacks images unless somebody chose otherwise.
const SNAPSHOTTER: &str = "overlayfs";

type Sender = mpsc::Sender<Result<api::ScanEvent, Status>>;

/// Begins the scans that are asked for, or joins those that run.
pub(super) async fn begin(state: &Arc<State>, request: api::ScanRequest) -> Result<Vec<Watching>, Status> {
    let (force, detach) = (request.force, request.detach);
    let wanted = request
        .target
        .ok_or_else(|| Status::invalid_argument("target: nothing is to be scanned"))?;
    if let Wanted::ScanId(id) = wanted {
        let joined = blocking(state, move |state| state.scans.join(&id).ok_or(id)).await?;
        return match joined {
            Ok(watching) => Ok(vec![watching]),
            Err(id) => Err(Status::not_found(format!("there is no scan {id}"))),
        };
    }
    let targets = targets(state, wanted)?;
    let started = blocking(state, move |state| {
        let start = |target| state.scans.start(target, force, detach);
        targets.into_iter().map(start).collect::<Result<Vec<_>, _>>()
    });
    started.await?.map_err(|error| match error {
        StartError::Busy => Status::resource_exhausted(error.to_string()),
        _ => Status::unavailable(error.to_string()),
    })
}

/// Asks the scans on a thread that may block.
async fn blocking<T: Send + 'static>(
    state: &Arc<State>,
    ask: impl FnOnce(&State) -> T + Send + 'static,
) -> Result<T, Status> {
    let state = Arc::clone(state);
    let asked = tokio::task::spawn_blocking(move || ask(&state));
    asked
        .await
        .map_err(|_panic| Status::internal("the scan was cut short"))
}

fn targets(state: &State, wanted: Wanted) -> Result<Vec<Target>, Status> {
    match wanted {
        Wanted::Path(path) => {
            let path = PathBuf::from(OsString::from_vec(path));
            if path.is_absolute() {
                Ok(vec![Target::Path(path)])
            } else {
                Err(Status::invalid_argument("path: it must be absolute"))
            }
        }
        Wanted::Container(wanted) => container(state, &wanted).map(|target| vec![target]),
        Wanted::Image(wanted) => Ok(vec![image(state, wanted)?]),
        Wanted::All(true) => Ok((state.containers)()
            .iter()
            .map(|status| Target::of_container(&status.container))
            .collect()),
        Wanted::All(false) => Err(Status::invalid_argument("all: it must be true")),
        Wanted::ScanId(_) => Err(Status::invalid_argument("scan_id: it names a scan, not a target")),
    }
}

fn container(state: &State, wanted: &ContainerTarget) -> Result<Target, Status> {
    let containers = (state.containers)();
    let mut found = containers
        .iter()
        .map(|status| &status.container)
        .filter(|container| {
            container.id.as_str() == wanted.id
                && (wanted.namespace.is_empty() || container.namespace == wanted.namespace)
        });
    let first = found.next().ok_or_else(|| {
        Status::not_found(format!(
            "no container {} is guarded; `lazaret status` lists them",
            wanted.id
        ))
    })?;
    match found.find(|other| other.namespace != first.namespace) {
        Some(other) => Err(Status::invalid_argument(format!(
            "namespace: {} is in {} and in {}",
            wanted.id, first.namespace, other.namespace
        ))),
        None => Ok(Target::of_container(first)),
    }
}

fn image(state: &State, wanted: ApiImage) -> Result<Target, Status> {
    if wanted.reference.is_empty() {
        return Err(Status::invalid_argument("image.reference: no image is named"));
    }
    let or = |text: String, default: &str| if text.is_empty() { default.to_owned() } else { text };
    Ok(Target::Image(ImageTarget {
        reference: wanted.reference,
        namespace: Some(wanted.namespace).filter(|namespace| !namespace.is_empty()),
        containerd: match wanted.containerd.as_str() {
            "" => state.containerd.clone(),
            socket => socket.into(),
        },
        snapshotter: or(wanted.snapshotter, SNAPSHOTTER),
    }))
}

/// Sends what there is to see of scans, one after the other, until the last one
/// has ended or nobody reads. Leaving them cancels those that are not detached.
pub(super) async fn send(watched: Vec<Watching>, sender: &Sender, mut stopped: watch::Receiver<bool>) {
    for watching in &watched {
        let target = watching.snapshot().record.target.to_string();
        if !tell(watching, Event::Begun(api::ScanBegun { target }), sender).await {
            return;
        }
    }
    for mut watching in watched {
        let mut findings = 0;
        loop {
            let now = watching.snapshot();
            // It began anew by other signatures.
            if now.record.found.len() < findings {
                findings = 0;
            }
            for found in now.record.found.iter().skip(findings) {
                if !tell(&watching, Event::Finding(finding(found)), sender).await {
                    return;
                }
            }
            findings = now.record.found.len();
            if now.record.is_over() {
                if tell(&watching, Event::Ended(ended(&now)), sender).await {
                    break;
                }
                return;
            }
            if !tell(&watching, Event::Progress(progress(&now)), sender).await {
                return;
            }
            tokio::select! {
                () = watching.changed() => {}
                () = sender.closed() => return,
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
        }
    }
}

/// Sends one event; false when nobody reads any more.
async fn tell(watching: &Watching, event: Event, sender: &Sender) -> bool {
    let event = api::ScanEvent {
        scan_id: watching.id().to_owned(),
        event: Some(event),
    };
    sender.send(Ok(event)).await.is_ok()
}

/// Every record, oldest first.
pub(super) async fn list(state: &Arc<State>) -> Result<Vec<api::Scan>, Status> {
    let listed = blocking(state, |state| state.scans.list()).await?;
    Ok(listed.iter().map(scan).collect())
}

fn progress(now: &Snapshot) -> api::ScanProgress {
    let total = now.total.unwrap_or_default();
    api::ScanProgress {
        files: now.record.counts.files,
        bytes: now.record.counts.bytes,
        findings: now.record.counts.findings,
        path: now.path.as_os_str().as_bytes().to_vec(),
        total_files: total.inodes,
        total_bytes: total.bytes,
    }
}

fn finding(found: &Found) -> api::ScanFinding {
    api::ScanFinding {
        path: found.path.as_os_str().as_bytes().to_vec(),
        rule: found.rule.clone(),
        severity: convert::api_severity(found.severity).into(),
        sha256: found.sha256.to_string(),
        size: found.size,
    }
}

fn ended(now: &Snapshot) -> api::Scan {
    api::Scan {
        from_record: now.is_answer,
        ..scan(&now.record)
    }
}

fn scan(record: &Record) -> api::Scan {
    let state = match record.state {
        ScanState::Waiting => api::ScanState::Waiting,
        ScanState::Running => api::ScanState::Running,
        ScanState::Done => api::ScanState::Done,
        ScanState::Cancelled => api::ScanState::Cancelled,
        ScanState::Failed => api::ScanState::Failed,
    };
    api::Scan {
        id: record.id.clone(),
        target: record.target.to_string(),
        state: state.into(),
        error: record.error.clone().unwrap_or_default(),
        began_at_unix_ms: record.began_at,
        ended_at_unix_ms: record.ended_at,
        files: record.counts.files,
        bytes: record.counts.bytes,
        findings: record.counts.findings,
        unjudged: record.counts.unjudged,
        problems: record.problems.clone(),
        signature_set: record
            .basis
            .as_ref()
            .map(|basis| basis.set.clone())
            .unwrap_or_default(),
        image_digest: record.digest.clone().unwrap_or_default(),
        resumed: record.resumed,
        from_record: false,
        cause: match record.cause {
            Cause::Asked => api::ScanCause::Asked,
            Cause::NewSignatures => api::ScanCause::NewSignatures,
        }
        .into(),
        current: record.counts.current,
    }
}
