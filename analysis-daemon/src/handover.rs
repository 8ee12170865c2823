//! The daemon's side of the hand-over protocol (`handover.proto`): one connection
//! for each container, from Attach to Detach, to a planned restart, or to the
//! death of the keeper.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lazaret_api::handover::v1::{
    Attached, Detached, FromDaemon, FromKeeper, Refused, Return, Stopped, from_daemon, from_keeper,
};
use lazaret_sys::seqpacket::{self, MAX_FDS, MAX_MESSAGE};
use lazaret_sys::watched::watch;
use lazaret_types::{Action, Gap, Severity};
use prost::Message;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch::Receiver;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::catch_up;
use crate::daemon::Daemon;
use crate::incidents::Draft;
use crate::offer::Offer;
use crate::policy::Policy;
use crate::reader::Ticket;
use crate::session::Session;
use crate::shared::Coverage;

/// How long a keeper may take for its part of the conversation.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the last references to a container may take to go.
const RELEASE: Duration = Duration::from_millis(500);

/// Accepts keepers until `stop` turns true; then hands every container back.
///
/// # Errors
/// When the listener fails for good.
pub(crate) async fn serve(daemon: Arc<Daemon>, listener: OwnedFd, stop: Receiver<bool>) -> io::Result<()> {
    let listener = watch(listener, Interest::READABLE)?;
    let mut containers = JoinSet::new();
    loop {
        tokio::select! {
            () = stopping(&stop) => break,
            Some(_) = containers.join_next(), if !containers.is_empty() => {}
            socket = accept(&listener) => match socket {
                Ok(socket) => {
                    containers.spawn(converse(Arc::clone(&daemon), socket, stop.clone()));
                }
                Err(error) => {
                    tracing::error!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    // Nobody may connect to a daemon that leaves.
    drop(listener);
    while containers.join_next().await.is_some() {}
    Ok(())
}

/// Waits until the daemon is to stop.
pub(crate) async fn stopping(stop: &Receiver<bool>) {
    // An error means that nobody is left to say so: as good as said.
    let _gone = stop.clone().wait_for(|stop| *stop).await.is_err();
}

/// Accepts a connection of root or of our own user.
async fn accept(listener: &AsyncFd<OwnedFd>) -> io::Result<Connection> {
    loop {
        let socket = listener
            .async_io(Interest::READABLE, |socket| seqpacket::accept(socket))
            .await?;
        let uid = seqpacket::peer_uid(&socket)?;
        if uid == 0 || uid == rustix::process::geteuid().as_raw() {
            return Ok(Connection {
                socket: watch(socket, Interest::READABLE | Interest::WRITABLE)?,
                buffer: Vec::new(),
            });
        }
        tracing::warn!(uid, "a stranger connected to guard.sock and was sent away");
    }
}

async fn converse(daemon: Arc<Daemon>, mut keeper: Connection, stop: Receiver<bool>) {
    let session = match timeout(PATIENCE, meet(&daemon, &mut keeper)).await {
        Ok(Ok(session)) => session,
        Ok(Err(error)) => return tracing::warn!(%error, "a container was not taken"),
        Err(_) => return tracing::warn!("a keeper connected and did not say what it wants in time"),
    };
    // Not given up half-way: what was attached must be detached.
    let (shared, attached) = (Arc::clone(&daemon.shared), Arc::clone(&session));
    // It fails only when it panics, which ends the process.
    let _attached = tokio::task::spawn_blocking(move || shared.attach(&attached)).await;
    let container = Arc::clone(&session.container);
    let gap = match timeout(PATIENCE, agree(&daemon, &mut keeper)).await {
        Ok(Ok(gap)) => gap,
        failed => {
            tracing::warn!(container = %container.id, ?failed, "a container was not taken");
            return daemon.shared.detach(&session).await;
        }
    };
    if let Err(error) = guard(&daemon, session, gap, keeper, &stop).await {
        tracing::error!(container = %container.id, %error, "the guard of a container ended with an error");
    }
}

/// Attach.
async fn meet(daemon: &Daemon, keeper: &mut Connection) -> io::Result<Arc<Session>> {
    let mut fds = [const { None }; MAX_FDS];
    let length = keeper.receive(&mut fds).await?;
    match Offer::new(keeper.buffer.get(..length).unwrap_or_default(), fds) {
        Ok(offer) => {
            let policy = Policy::of(&offer.container, &daemon.drift);
            Ok(Arc::new(Session::new(offer, policy, daemon.container_budget)))
        }
        Err(error) => {
            let refused = from_daemon::Message::Refused(Refused {
                reason: error.to_string(),
            });
            keeper.send(refused).await?;
            Err(io::Error::new(io::ErrorKind::InvalidData, error))
        }
    }
}

/// Attached, Take. Returns the gap in which nobody judged, if it was not planned.
async fn agree(daemon: &Daemon, keeper: &mut Connection) -> io::Result<Option<Gap>> {
    keeper
        .send(from_daemon::Message::Attached(Attached {
            event_fd_limit: daemon.event_fd_limit,
        }))
        .await?;
    match keeper.hear().await? {
        Some(from_keeper::Message::Take(take)) => Ok(take.gap.filter(|gap| !gap.planned).map(|gap| Gap {
            lasted_ms: gap.lasted_ms,
            allowed: gap.allowed,
            denied: gap.denied,
        })),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a keeper took its offer back",
        )),
    }
}

/// Guards a container until it ends or we do.
async fn guard(
    daemon: &Arc<Daemon>,
    session: Arc<Session>,
    gap: Option<Gap>,
    mut keeper: Connection,
    stop: &Receiver<bool>,
) -> io::Result<()> {
    let ticket = daemon.readers.add(Arc::clone(&session));
    daemon.registry.insert(ticket, Arc::clone(&session));
    watch_writes(daemon, ticket, &session);
    let container = Arc::clone(&session.container);
    tracing::info!(container = %container.id, namespace = container.namespace, "guarding");
    daemon.quarantine.resume(&session);
    if let Some(gap) = gap {
        mind(daemon, &session, gap);
    }
    tokio::select! {
        message = keeper.hear() => match message {
            Ok(Some(from_keeper::Message::Detach(_))) => {
                release(daemon, session, ticket).await;
                keeper.send(from_daemon::Message::Detached(Detached {})).await?;
            }
            other => {
                tracing::warn!(container = %container.id, ?other, "the keeper is gone; guarding until the container ends");
                exited(&session, stop).await?;
                release(daemon, session, ticket).await;
            }
        },
        () = stopping(stop) => hand_back(daemon, session, ticket, keeper).await?,
    }
    tracing::info!(container = %container.id, "let go");
    Ok(())
}

/// No reason not to guard: whatever is written is judged when it is opened.
fn watch_writes(daemon: &Daemon, ticket: Ticket, session: &Arc<Session>) {
    let watched = daemon.writes.as_ref().map(|writes| writes.watch(ticket, session));
    if let Some(Err(error)) = watched {
        let container = &session.container.id;
        tracing::warn!(%container, %error, "what it writes is judged only when it is opened");
    }
}

/// Tells of a gap, and looks at what it let through.
fn mind(daemon: &Arc<Daemon>, session: &Arc<Session>, gap: Gap) {
    *session
        .gap
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(gap);
    let (severity, action) = match gap {
        Gap { allowed: 1.., .. } => (Severity::Error, Action::Alert),
        Gap { denied: 1.., .. } => (Severity::Warning, Action::Deny),
        _ => (Severity::Notice, Action::Allow),
    };
    let mut output = format!(
        "container {} had no judge for {} ms: {} opens went through unjudged, {} were refused",
        session.container.id, gap.lasted_ms, gap.allowed, gap.denied
    );
    if session.coverage.get().is_some_and(Coverage::guards_any) {
        // Only its own group has a keeper.
        output.push_str("; what it opened on file systems shared with the host was not judged");
    }
    daemon.incidents.report(Draft {
        tags: vec!["guard".into()],
        container: Some(Arc::clone(&session.container)),
        gap: Some(gap),
        ..Draft::new("Guard gap", severity, action, output)
    });
    let (daemon, session) = (Arc::clone(daemon), Arc::clone(session));
    tokio::task::spawn_blocking(move || catch_up::run(&daemon, &session));
}

/// Waits until the container's init has exited, or until we have to leave.
async fn exited(session: &Session, stop: &Receiver<bool>) -> io::Result<()> {
    let init = watch(session.init.try_clone()?, Interest::READABLE)?;
    tokio::select! {
        exited = init.readable() => exited.map(drop),
        () = stopping(stop) => Ok(()),
    }
}

/// The container is over: nothing of it may stay open.
async fn release(daemon: &Daemon, session: Arc<Session>, ticket: Ticket) {
    session.ending.store(true, Ordering::Release);
    stop_reading(daemon, &session, ticket).await;
    close(session).await;
}

/// A planned restart: what was read is judged and answered, the rest waits for
/// the next daemon.
async fn hand_back(
    daemon: &Daemon,
    session: Arc<Session>,
    ticket: Ticket,
    mut keeper: Connection,
) -> io::Result<()> {
    keeper.send(from_daemon::Message::Return(Return {})).await?;
    stop_reading(daemon, &session, ticket).await;
    keeper.send(from_daemon::Message::Stopped(Stopped {})).await?;
    // Only now does the keeper know that it may act; had we closed before, it
    // would have taken us for dead.
    match timeout(PATIENCE, keeper.hear()).await {
        Ok(Ok(Some(from_keeper::Message::Take(_)))) => {}
        other => {
            tracing::warn!(container = %session.container.id, ?other, "the keeper did not take the group back");
        }
    }
    close(session).await;
    Ok(())
}

async fn stop_reading(daemon: &Daemon, session: &Arc<Session>, ticket: Ticket) {
    daemon.readers.remove(ticket).await;
    if let Some(writes) = &daemon.writes {
        writes.forget(ticket);
    }
    daemon.shared.detach(session).await;
    daemon.registry.remove(ticket);
    // The deadline of each opener bounds this.
    session.drained().await;
    let (seals, sealed) = (Arc::clone(&daemon.seals), Arc::clone(session));
    // Giving back thousands of leases takes a while. It fails only when it panics.
    let _lifted = tokio::task::spawn_blocking(move || seals.forget(&sealed)).await;
    daemon.quarantine.forget(session);
}

/// Waits for those who look at the session just now, and closes it.
async fn close(session: Arc<Session>) {
    let alone = async {
        while Arc::strong_count(&session) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    if timeout(RELEASE, alone).await.is_err() {
        tracing::warn!(container = %session.container.id, "somebody still works on a container that has ended");
    }
}

/// One connection to a keeper.
struct Connection {
    socket: AsyncFd<OwnedFd>,
    buffer: Vec<u8>,
}

impl Connection {
    /// The next message; none at the end of file.
    async fn hear(&mut self) -> io::Result<Option<from_keeper::Message>> {
        let mut fds = [const { None }; MAX_FDS];
        match self.receive(&mut fds).await? {
            0 => Ok(None),
            length => {
                let message = FromKeeper::decode(self.buffer.get(..length).unwrap_or_default());
                let message = message.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                Ok(message.message)
            }
        }
    }

    /// The length of the next message, which lies in the buffer from then on.
    async fn receive(&mut self, fds: &mut [Option<OwnedFd>; MAX_FDS]) -> io::Result<usize> {
        let Self { socket, buffer } = self;
        loop {
            let mut ready = socket.readable().await?;
            // Only while a message is at hand: most of a connection's life is silence.
            buffer.resize(MAX_MESSAGE, 0);
            match ready.try_io(|socket| seqpacket::receive(socket, buffer, fds)) {
                Ok(received) => {
                    buffer.truncate(*received.as_ref().unwrap_or(&0));
                    buffer.shrink_to_fit();
                    return received;
                }
                Err(_not_ready) => *buffer = Vec::new(),
            }
        }
    }

    async fn send(&mut self, message: from_daemon::Message) -> io::Result<()> {
        let message = FromDaemon {
            message: Some(message),
        }
        .encode_to_vec();
        let send = |socket: &OwnedFd| seqpacket::send(socket, &message, &[]);
        timeout(PATIENCE, self.socket.async_io(Interest::WRITABLE, send))
            .await
            .map_err(|_elapsed| io::ErrorKind::TimedOut)?
    }
}
