//! The control API: gRPC on a Unix socket that only the daemon's own user reaches.
//!
//! It answers administrators and must never cost containers anything: whatever
//! blocks runs on a thread for that, everything is bounded, and a caller that
//! stops reading is waited for by nobody but its own stream.

mod allow;
mod convert;
mod events;
mod quarantine;
mod scan;
mod service;
mod socket;
#[cfg(test)]
mod tests;

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use lazaret_api::control::v1::control_server::ControlServer;
use thiserror::Error;
use tokio::sync::{Semaphore, watch};
use tonic::transport::Server;

use crate::allow::AllowList;
use crate::counters::Counters;
use crate::daemon::Daemon;
use crate::engine::{Input, Priority};
use crate::incidents::IncidentLog;
use crate::judge::Outcome;
use crate::quarantine::Quarantine;
use crate::registry::ContainerStatus;
use crate::scan::Scans;
use crate::session::Session;
use crate::signatures::Signatures;
use crate::workers::{Rules, ZygoteError};

/// For the answer to a call; a stream's answer is its beginning.
const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// How long a shutdown waits for streams to end.
const FAREWELL: Duration = Duration::from_secs(1);

/// Calls under way on one connection.
const MAX_CALLS: u32 = 16;

/// Streams under way on the node.
const MAX_STREAMS: usize = 32;

/// Largest request, in bytes.
const MAX_REQUEST: usize = 16 << 10;

/// A peer that shows no sign of life for this long is gone.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// The control API cannot be served.
#[derive(Debug, Error)]
pub(crate) enum ControlError {
    /// The socket cannot be made.
    #[error("cannot listen on {path}: {source}")]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The server gave up.
    #[error("the control API stopped: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// Loads the rules anew; blocks meanwhile.
type Reload = Arc<dyn Fn() -> Result<Arc<Rules>, ZygoteError> + Send + Sync>;

/// Finds a verdict on a file; blocks meanwhile.
type JudgeFile = dyn Fn(BorrowedFd<'_>) -> Outcome + Send + Sync;

/// How the engines get on that are not a part of lazaret.
type Engines = dyn Fn() -> Vec<crate::engine::Status> + Send + Sync;

type FindSession = dyn Fn(&str, &str) -> Option<Arc<Session>> + Send + Sync;

/// What the API tells of and works on.
pub(crate) struct State {
    node: String,
    started_at: SystemTime,
    containers: Box<dyn Fn() -> Vec<ContainerStatus> + Send + Sync>,
    counters: Arc<Counters>,
    incidents: Arc<IncidentLog>,
    signatures: Arc<Signatures>,
    reload_rules: Reload,
    engines: Box<Engines>,
    allow: Arc<AllowList>,
    quarantine: Arc<Quarantine>,
    scans: Arc<Scans>,
    /// Where images are, unless a request says otherwise.
    containerd: PathBuf,
    /// The guarded container with this namespace and id.
    session: Box<FindSession>,
    judge: Box<JudgeFile>,
    streams: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
}

impl State {
    fn of(daemon: &Arc<Daemon>, stopped: watch::Receiver<bool>) -> Self {
        let registry = Arc::clone(daemon);
        let sessions = Arc::clone(daemon);
        let reloading = Arc::clone(daemon);
        let (judge, judging) = (Arc::clone(&daemon.judge), Arc::clone(&daemon.judge));
        Self {
            node: daemon.node.clone(),
            started_at: daemon.started_at,
            containers: Box::new(move || registry.registry.snapshot()),
            counters: Arc::clone(&daemon.counters),
            incidents: Arc::clone(&daemon.incidents),
            signatures: Arc::clone(&daemon.signatures),
            reload_rules: Arc::new(move || reloading.reload_rules()),
            engines: Box::new(move || judging.engines()),
            allow: Arc::clone(&daemon.allow),
            quarantine: Arc::clone(&daemon.quarantine),
            scans: Arc::clone(&daemon.scans),
            containerd: daemon.containerd.clone(),
            session: Box::new(move |namespace, id| sessions.registry.find(namespace, id)),
            judge: Box::new(move |file| {
                let deadline = Instant::now() + judge.timeout;
                judge.judge(Input::File(file), deadline, Priority::Background)
            }),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            stopped,
        }
    }
}

/// Serves the API until `stopped` says so. A socket that a dead daemon left is
/// replaced.
///
/// # Errors
/// When the socket cannot be made.
pub(crate) async fn serve(
    path: PathBuf,
    daemon: Arc<Daemon>,
    stopped: watch::Receiver<bool>,
) -> Result<(), ControlError> {
    serve_state(path, State::of(&daemon, stopped)).await
}

async fn serve_state(path: PathBuf, state: State) -> Result<(), ControlError> {
    let listener = socket::listen(&path).map_err(|source| ControlError::Listen { path, source })?;
    let stopped = state.stopped.clone();
    let service = ControlServer::new(service::Service::new(state)).max_decoding_message_size(MAX_REQUEST);
    let server = Server::builder()
        .timeout(CALL_DEADLINE)
        .max_concurrent_streams(MAX_CALLS)
        .http2_max_header_list_size(u32::try_from(MAX_REQUEST).unwrap_or(u32::MAX))
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .serve_with_incoming_shutdown(service, socket::accept(listener), until(stopped.clone()));
    tokio::select! {
        served = server => Ok(served?),
        // A peer may hold its connection for ever; we do not.
        () = async { until(stopped).await; tokio::time::sleep(FAREWELL).await } => Ok(()),
    }
}

/// Returns when the daemon stops, or is gone.
async fn until(mut stopped: watch::Receiver<bool>) {
    // An error says that nobody can stop us any more: that is a stop, too.
    drop(stopped.wait_for(|stopped| *stopped).await);
}
