//! The stream of incidents.

use std::time::Duration;

use lazaret_api::control::v1::{Event, EventsRequest};
use serde::Deserialize;
use tokio::sync::{mpsc, watch};
use tonic::Status;

use super::State;
use crate::incidents::{Follower, Line};

/// How long a daemon that has just started may take to open its log.
const OPENING: Duration = Duration::from_secs(2);

type Sender = mpsc::Sender<Result<Event, Status>>;

/// Where a stream begins and ends.
pub(super) struct Span {
    follower: Follower,
    /// The last `seq` to send; none for a stream that follows.
    end: Option<u64>,
}

/// Finds where a stream begins.
pub(super) async fn begin(state: &State, request: &EventsRequest) -> Result<Span, Status> {
    let follower = state.incidents.follow(request.from_seq);
    let opened = tokio::time::timeout(OPENING, follower.opened())
        .await
        .ok()
        .flatten();
    let Some(last) = opened else {
        let trouble = state
            .incidents
            .trouble()
            .unwrap_or_else(|| "it is not open yet".into());
        return Err(Status::unavailable(format!(
            "the incident log cannot be read: {trouble}"
        )));
    };
    if request.from_seq > last.saturating_add(1) {
        // Most likely a cursor from before the state folder was lost: waiting
        // for it would hide all that comes first.
        let asked = request.from_seq;
        return Err(Status::out_of_range(format!(
            "incident {asked} is far ahead: the last one is {last}"
        )));
    }
    Ok(Span {
        follower,
        end: (!request.follow).then_some(last),
    })
}

/// Sends until the reader has gone or has everything it asked for.
pub(super) async fn send(
    span: Span,
    container_id: &str,
    sender: &Sender,
    mut stopped: watch::Receiver<bool>,
) {
    let Span { mut follower, end } = span;
    let mut missed = 0;
    while end.is_none_or(|end| follower.cursor() <= end) {
        let (returned, lines) = match read(follower).await {
            Ok(read) => read,
            Err(status) => {
                // Who has gone needs no reason.
                drop(sender.send(Err(status)).await);
                return;
            }
        };
        follower = returned;
        if lines.is_empty() && (end.is_some() || !more(&mut follower, sender, &mut stopped).await) {
            return;
        }
        for line in lines
            .into_iter()
            .take_while(|line| end.is_none_or(|end| line.seq <= end))
        {
            missed += line.missed;
            if !wanted(&line, container_id) {
                continue;
            }
            let event = Event {
                seq: line.seq,
                json: line.json,
                missed: std::mem::take(&mut missed),
            };
            if sender.send(Ok(event)).await.is_err() {
                return;
            }
        }
    }
}

/// Waits for more lines; false when nobody wants or writes them any more.
async fn more(follower: &mut Follower, sender: &Sender, stopped: &mut watch::Receiver<bool>) -> bool {
    tokio::select! {
        more = follower.wait() => more,
        () = sender.closed() => false,
        _ = stopped.wait_for(|stopped| *stopped) => false,
    }
}

/// Reads on a thread that may block, and hands the follower back.
async fn read(mut follower: Follower) -> Result<(Follower, Vec<Line>), Status> {
    let read = tokio::task::spawn_blocking(move || follower.read().map(|lines| (follower, lines))).await;
    read.map_err(|_panic| Status::internal("reading the incidents was cut short"))?
        .map_err(|error| Status::unavailable(format!("the incident log cannot be read: {error}")))
}

#[derive(Deserialize)]
struct Concerning<'a> {
    #[serde(borrow)]
    container: Option<Container<'a>>,
}

#[derive(Deserialize)]
struct Container<'a> {
    id: &'a str,
}

fn wanted(line: &Line, container_id: &str) -> bool {
    // An id has no character that JSON escapes, so it is there as it is.
    container_id.is_empty()
        || serde_json::from_str::<Concerning<'_>>(&line.json).is_ok_and(|incident| {
            incident
                .container
                .is_some_and(|container| container.id == container_id)
        })
}
