//! The containers that lazaretd guards now.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use lazaret_types::{CgroupId, Container, Gap, Superblock};

use crate::reader::Ticket;
use crate::session::Session;

/// All sessions, by the token of their ticket.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<BTreeMap<u64, Arc<Session>>>);

/// How far the guard of a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GuardState {
    /// Every superblock of its own is judged.
    Guarded,
    /// So is this, and what ran already while nobody judged is being looked at.
    CatchingUp,
}

/// A container as `lazaret status` shows it.
#[derive(Debug, Clone)]
pub(crate) struct ContainerStatus {
    pub(crate) container: Arc<Container>,
    pub(crate) state: GuardState,
    pub(crate) attached_at: SystemTime,
    pub(crate) guarded: Vec<Superblock>,
    /// Shared with the host, and guarded for the whole node.
    pub(crate) node_guarded: Vec<Superblock>,
    /// Shared with the host and not guarded, each with the reason.
    pub(crate) unguarded: Vec<(Superblock, String)>,
    pub(crate) events: u64,
    pub(crate) denied: u64,
    pub(crate) unjudged: u64,
    /// Files that may be opened unasked.
    pub(crate) sealed: u64,
    pub(crate) gap: Option<Gap>,
    pub(crate) init_pid: i32,
    pub(crate) cgroup: Option<CgroupId>,
}

impl Registry {
    pub(crate) fn insert(&self, ticket: Ticket, session: Arc<Session>) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(ticket.token(), session);
    }

    pub(crate) fn remove(&self, ticket: Ticket) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&ticket.token());
    }

    /// The container with this namespace and id.
    pub(crate) fn find(&self, namespace: &str, id: &str) -> Option<Arc<Session>> {
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |session: &&Arc<Session>| {
            session.container.namespace == namespace && session.container.id.as_str() == id
        };
        // Of two with one id, the older one is ending.
        sessions.values().rev().find(is_it).cloned()
    }

    /// The containers, in the order in which they came.
    pub(crate) fn snapshot(&self) -> Vec<ContainerStatus> {
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.values().map(|session| status(session)).collect()
    }
}

fn status(session: &Session) -> ContainerStatus {
    let coverage = session.coverage.get().cloned().unwrap_or_default();
    let catching_up = session.catching_up.load(Ordering::Acquire);
    ContainerStatus {
        container: Arc::clone(&session.container),
        state: if catching_up {
            GuardState::CatchingUp
        } else {
            GuardState::Guarded
        },
        attached_at: session.attached_at,
        guarded: session.guarded.clone(),
        node_guarded: coverage.guarded,
        unguarded: coverage.unguarded,
        events: session.events.get(),
        denied: session.denied.get(),
        unjudged: session.unjudged.get(),
        sealed: session.sealed.load(Ordering::Relaxed),
        gap: session.gap(),
        init_pid: session.init_pid,
        cgroup: session.cgroup.as_ref().map(|(_, id)| *id),
    }
}
