//! `lazaret events`

use std::error::Error;
use std::time::Duration;

use lazaret_api::control::v1::{Event, EventsRequest};
use lazaret_types::{FileFields, Incident, Severity};
use tonic::Code;

use crate::args::Events;
use crate::client::Client;
use crate::failure::Failure;
use crate::print::{BAD, DIM, GOOD, ODD, Printer, Styled, remark};
use crate::text::{Safe, count, safe_json};

/// How often a daemon that is gone is looked for.
const RETRY: Duration = Duration::from_secs(1);

/// Prints incidents; with `follow`, until somebody stops it.
pub(crate) async fn show(client: &Client, wanted: &Events, printer: &mut Printer) -> Result<(), Failure> {
    let mut request = EventsRequest {
        from_seq: wanted.since.map_or(0, |since| since.saturating_add(1)),
        follow: wanted.follow,
        container_id: wanted.container.clone().unwrap_or_default(),
    };
    stream(client, &mut request, wanted.json, printer).await?;
    if !wanted.follow {
        return Ok(());
    }
    loop {
        // The daemon stopped. The log outlives it, and we know where we were.
        remark("lazaretd has stopped; waiting for it to come back");
        let mut back = false;
        while !back {
            tokio::time::sleep(RETRY).await;
            back = came_back(stream(client, &mut request, wanted.json, printer).await)?;
        }
    }
}

/// Prints one stream to its end; `request` is moved on to what comes after it.
async fn stream(
    client: &Client,
    request: &mut EventsRequest,
    json: bool,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let mut events = client
        .connect()
        .await?
        .events(request.clone())
        .await?
        .into_inner();
    loop {
        match events.message().await {
            Ok(Some(event)) => {
                request.from_seq = event.seq.saturating_add(1);
                print(&event, json, printer)?;
            }
            Ok(None) => return Ok(()),
            // Made by our end of the connection: the daemon was killed. For who
            // waits for more, that is an end like any other.
            Err(status) if request.follow && status.source().is_some() => return Ok(()),
            Err(status) => return Err(status.into()),
        }
    }
}

/// Whether a stream was had again; what waiting does not cure is an error.
fn came_back(streamed: Result<(), Failure>) -> Result<bool, Failure> {
    match streamed {
        Ok(()) => Ok(true),
        Err(Failure::NotRunning(_) | Failure::Connect { .. }) => Ok(false),
        Err(Failure::Refused(status)) if status.code() == Code::Unavailable => Ok(false),
        Err(failure) => Err(failure),
    }
}

fn print(event: &Event, json: bool, printer: &mut Printer) -> Result<(), Failure> {
    if event.missed > 0 {
        let missed = count(event.missed, "incident");
        remark(&format!(
            "{missed} before #{} not shown: no longer on disk",
            event.seq
        ));
    }
    if json {
        return printer.raw((safe_json(&event.json) + "\n").as_bytes());
    }
    let incident: Incident = serde_json::from_str(&event.json).map_err(Failure::Incident)?;
    let style = match incident.priority {
        Severity::Critical | Severity::Error => BAD,
        Severity::Warning => ODD,
        Severity::Notice => GOOD,
    };
    let priority = incident.priority.to_string();
    printer.line(format_args!(
        "{} #{} {} {}",
        Styled(DIM, Safe(&incident.time)),
        incident.seq,
        Styled(style, format_args!("{priority:8}")),
        Safe(&incident.output)
    ))?;
    let details = details(&incident);
    if details.is_empty() {
        return Ok(());
    }
    printer.line(Styled(DIM, format_args!("    {}", Safe(&details.join("  ")))))
}

/// What the sentence does not say.
fn details(incident: &Incident) -> Vec<String> {
    let mut details = Vec::new();
    if let Some(image) = incident
        .container
        .as_ref()
        .and_then(|container| container.image.as_ref())
    {
        details.push(format!("image {image}"));
    }
    if let Some(pod) = incident
        .container
        .as_ref()
        .and_then(|container| container.pod.as_ref())
    {
        details.push(format!("pod {pod}"));
    }
    if let Some(uid) = incident.process.as_ref().and_then(|process| process.uid) {
        details.push(format!("uid {uid}"));
    }
    if let Some(FileFields {
        sha256, host_path, ..
    }) = &incident.file
    {
        details.extend(sha256.map(|sha256| format!("sha256 {sha256}")));
        details.extend(host_path.as_ref().map(|path| format!("on the host {path}")));
    }
    details
}
