//! The calls about the quarantine.

use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use lazaret_api::control::v1 as api;
use lazaret_types::Sha256;
use tokio::sync::mpsc;
use tonic::Status;
use ulid::Ulid;

use super::{State, convert};
use crate::quarantine::{self, Item, Refusal};

/// Bytes of a content in one message.
const CHUNK: usize = 256 << 10;

/// Sends all items. To be run on a thread that may block.
pub(super) fn list(state: &State, sender: &mpsc::Sender<Result<api::QuarantineItem, Status>>) {
    for id in state.quarantine.ids() {
        let item = match state.quarantine.get(id) {
            Ok(item) => Ok(to_api(item)),
            // Removed since we asked for the ids.
            Err(Refusal::NoItem(_)) => continue,
            Err(refusal) => Err(status(&refusal)),
        };
        let failed = item.is_err();
        if sender.blocking_send(item).is_err() || failed {
            return;
        }
    }
}

/// Sends a content. To be run on a thread that may block.
pub(super) fn export(
    state: &State,
    id: Ulid,
    plain: bool,
    sender: &mpsc::Sender<Result<api::ExportedChunk, Status>>,
) {
    let mut sink = io::BufWriter::with_capacity(CHUNK, Chunks(sender));
    let exported = state.quarantine.export(id, plain, &mut sink);
    let exported = exported.and_then(|()| {
        sink.flush().map_err(|source| Refusal::Io {
            what: "send the content",
            source,
        })
    });
    // What is buffered of a damaged content is not to be sent.
    drop(sink.into_parts());
    if let Err(refusal) = exported {
        // Who has gone needs no reason.
        drop(sender.blocking_send(Err(status(&refusal))));
    }
}

/// Each write is a message.
struct Chunks<'a>(&'a mpsc::Sender<Result<api::ExportedChunk, Status>>);

impl Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (now, _later) = bytes.split_at(bytes.len().min(CHUNK));
        let chunk = api::ExportedChunk {
            bytes: now.to_owned(),
        };
        let sent = self.0.blocking_send(Ok(chunk));
        sent.map_err(|_gone| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(now.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Puts an item back. Blocks.
pub(super) fn restore(state: &State, id: Ulid, force: bool, by: &str) -> Result<Item, Refusal> {
    let item = state.quarantine.get(id)?;
    let session = (state.session)(&item.container.namespace, &item.container.id);
    state.quarantine.restore(id, session.as_deref(), force, by)
}

/// Puts the image's own version where an item was. Blocks.
pub(super) fn restore_original(
    state: &State,
    id: Ulid,
    force: bool,
    by: &str,
) -> Result<(Item, Sha256), Refusal> {
    let item = state.quarantine.get(id)?;
    let session = (state.session)(&item.container.namespace, &item.container.id);
    let judge = |file: BorrowedFd<'_>| (state.judge)(file);
    state
        .quarantine
        .restore_original(id, session.as_deref(), force, by, judge)
}

/// Runs what blocks on a thread for that.
pub(super) async fn blocking<T: Send + 'static>(
    state: &Arc<State>,
    work: impl FnOnce(&State) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Status> {
    let state = Arc::clone(state);
    tokio::task::spawn_blocking(move || work(&state))
        .await
        .map_err(|_panic| Status::internal("the quarantine's work was cut short"))?
        .map_err(|refusal| status(&refusal))
}

/// The id that a caller wrote.
pub(super) fn id(text: &str) -> Result<Ulid, Status> {
    Ulid::from_string(text).map_err(|_not_a_ulid| {
        let begin: String = text.chars().take(40).collect();
        Status::invalid_argument(format!(
            "id: {begin:?} is not the id of an item: a ULID has 26 letters and digits"
        ))
    })
}

pub(super) fn status(refusal: &Refusal) -> Status {
    let text = refusal.to_string();
    match refusal {
        Refusal::NoItem(_) => Status::not_found(text),
        Refusal::Occupied(_) => Status::already_exists(text),
        Refusal::NotInImage(_) => Status::not_found(text),
        Refusal::NotRunning(_)
        | Refusal::NoLayers(_)
        | Refusal::NotLayered(_)
        | Refusal::OriginalBad(_)
        | Refusal::OriginalUnjudged(_)
        | Refusal::Ending => Status::failed_precondition(text),
        Refusal::Full { .. } | Refusal::TooMany(_) | Refusal::Allow(_) => Status::resource_exhausted(text),
        _ => Status::unavailable(text),
    }
}

pub(super) fn to_api(item: Item) -> api::QuarantineItem {
    api::QuarantineItem {
        id: item.id.to_string(),
        state: match item.state {
            quarantine::State::Held => api::QuarantineState::Held,
            quarantine::State::Moved => api::QuarantineState::Moved,
            quarantine::State::Restoring => api::QuarantineState::Restoring,
        }
        .into(),
        time: item.time,
        by: item.by,
        container_id: item.container.id,
        container_namespace: item.container.namespace,
        image: item.container.image.unwrap_or_default(),
        pod: item.container.pod.unwrap_or_default(),
        path: item.path,
        host_path: item.host_path,
        sha256: item.sha256.to_string(),
        size: item.size,
        rule: item.rule,
        severity: convert::api_severity(item.severity).into(),
        mode: item.attributes.mode,
        uid: item.attributes.uid,
        gid: item.attributes.gid,
        links: item.links,
    }
}
