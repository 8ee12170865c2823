//! One guarded container, and the openers that wait for its judgement.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Instant, SystemTime};

use lazaret_sys::fanotify::{Event, Group, Response};
use lazaret_types::{Access, CgroupId, Container, Gap, Superblock};
use tokio::sync::Notify;

use crate::budget::Budget;
use crate::counters::Counter;
use crate::offer::Offer;
use crate::origin;
use crate::policy::Policy;
use crate::rate::Reports;
use crate::runs::{InodeNumber, Runs};
use crate::shared::Coverage;
use crate::waker::Waker;

/// A container while lazaretd guards it. Its descriptors keep the container's
/// file systems busy, so the last reference goes when the container does.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) container: Arc<Container>,
    pub(crate) group: Group,
    /// `O_PATH` on the container's root folder.
    pub(crate) root: OwnedFd,
    /// The id of the mount that this is on; 0 when it cannot be told.
    pub(crate) root_mount: u64,
    /// The devices on which the image's layers lie.
    pub(crate) layer_devices: Vec<(u32, u32)>,
    /// A pidfd of the container's init.
    pub(crate) init: OwnedFd,
    pub(crate) init_pid: i32,
    /// Its cgroup v2 folder; none on a machine without cgroup v2.
    pub(crate) cgroup: Option<(PathBuf, CgroupId)>,
    pub(crate) guarded: Vec<Superblock>,
    /// Those that the host mounts, too.
    pub(crate) shared: Vec<Superblock>,
    /// What becomes of these; set before its first instruction.
    pub(crate) coverage: OnceLock<Coverage>,
    pub(crate) policy: Policy,
    pub(crate) attached_at: SystemTime,
    /// The gap that it came with, when it was attached before.
    pub(crate) gap: Mutex<Option<Gap>>,
    /// It ends: nobody waits for a verdict any more.
    pub(crate) ending: AtomicBool,
    /// Looking at what already ran when the daemon came.
    pub(crate) catching_up: AtomicBool,

    pub(crate) events: Counter,
    pub(crate) denied: Counter,
    pub(crate) unjudged: Counter,
    /// Clean files that may be opened unasked; see `seals.rs`.
    pub(crate) sealed: AtomicU64,
    /// Bounds the incidents of one container.
    pub(crate) reports: Reports,

    pub(crate) runs: Runs,
    pub(crate) budget: Budget,
    open: AtomicUsize,
    idle: Notify,
}

impl Session {
    /// A session of an offered container, which may have `budget` openers under
    /// judgement at once.
    pub(crate) fn new(offer: Offer, policy: Policy, budget: usize) -> Self {
        let Offer {
            container,
            group,
            root,
            init,
            init_pid,
            guarded,
            shared,
        } = offer;
        let cgroup = lazaret_sys::cgroup::v2_folder(init_pid).ok().and_then(|folder| {
            let id = CgroupId(lazaret_sys::cgroup::id(&folder).ok()?);
            Some((folder, id))
        });
        Self {
            layer_devices: origin::devices(&container.layers),
            container: Arc::new(container),
            group,
            root_mount: lazaret_sys::mounts::id_of(root.as_fd()).unwrap_or_default(),
            root,
            init,
            init_pid,
            cgroup,
            guarded,
            shared,
            coverage: OnceLock::new(),
            policy,
            attached_at: SystemTime::now(),
            gap: Mutex::new(None),
            ending: AtomicBool::new(false),
            catching_up: AtomicBool::new(false),
            events: Counter::default(),
            denied: Counter::default(),
            unjudged: Counter::default(),
            sealed: AtomicU64::new(0),
            reports: Reports::new(),
            runs: Runs::default(),
            budget: Budget::new(budget),
            open: AtomicUsize::new(0),
            idle: Notify::new(),
        }
    }

    /// How many openers wait for an answer, or have just had one.
    pub(crate) fn waiting(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub(crate) fn gap(&self) -> Option<Gap> {
        *self.gap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until every opener that was read has been answered and closed.
    /// Nothing may read the group meanwhile.
    pub(crate) async fn drained(&self) {
        loop {
            let idle = self.idle.notified();
            if self.open.load(Ordering::Acquire) == 0 {
                return;
            }
            idle.await;
        }
    }
}

/// An opener that waits: exactly one answer goes to it, by whoever is first.
#[derive(Debug)]
pub(crate) struct Opening {
    // Fields are dropped in this order: the descriptors are closed before the
    // place that they took is given back.
    pub(crate) event: Event,
    inode: Option<InodeNumber>,
    access: Access,
    asked: Asked,
    place: Place,
    pub(crate) read_at: Instant,
    answered: AtomicBool,
}

/// By which group an opener asks, and is answered.
#[derive(Debug)]
pub(crate) enum Asked {
    /// That of its container.
    Own,
    /// That of the superblocks which containers share with the host.
    Shared(Arc<Group>),
}

/// The place of an opening in the budgets of the node and of its container.
#[derive(Debug)]
pub(crate) struct Place {
    session: Arc<Session>,
    gate: Arc<Gate>,
}

/// The budget of the node, and who waits for it.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) budget: Budget,
    /// Wakes the readers: there is room again.
    pub(crate) room: Vec<Waker>,
}

impl Place {
    /// Takes places for up to `wanted` openers of a container; returns how many.
    pub(crate) fn take(session: &Session, gate: &Gate, wanted: usize) -> usize {
        let node = gate.budget.take(wanted);
        let taken = session.budget.take(node);
        gate.budget.give_back(node - taken);
        taken
    }

    /// Gives back places that were taken and not used.
    pub(crate) fn give_back(session: &Session, gate: &Gate, count: usize) {
        session.budget.give_back(count);
        gate.budget.give_back(count);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        Self::give_back(&self.session, &self.gate, 1);
        // Any paused container may have been waiting for the node's budget.
        self.gate.room.iter().for_each(Waker::wake_if_paused);
        if self.session.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.session.idle.notify_waiters();
        }
    }
}

impl Opening {
    /// Takes over an event, for which [`Place::take`] has taken one place.
    pub(crate) fn new(session: Arc<Session>, event: Event, asked: Asked, gate: Arc<Gate>) -> Self {
        session.open.fetch_add(1, Ordering::AcqRel);
        session.events.one();
        let stat = rustix::fs::fstat(&event.file).ok();
        let inode = stat.map(|stat| (stat.st_dev, stat.st_ino));
        let runs = event.exec || inode.is_some_and(|inode| session.runs.has(event.pid, inode));
        let place = Place { session, gate };
        Self {
            event,
            inode,
            access: if runs { Access::Exec } else { Access::Open },
            asked,
            place,
            read_at: Instant::now(),
            answered: AtomicBool::new(false),
        }
    }

    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.place.session
    }

    /// Both questions of an execution count as one.
    pub(crate) fn access(&self) -> Access {
        self.access
    }

    /// It is going to be allowed: when it runs the file, the second question follows.
    pub(crate) fn expect_second(&self) {
        if let (true, Some(inode)) = (self.event.exec, self.inode) {
            self.session().runs.begin(self.event.pid, inode);
        }
    }

    /// Whether the file lies on a superblock that the host uses, too.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.asked, Asked::Shared(_))
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Acquire)
    }

    /// Claims the one answer; false when somebody else was first. Who gets true
    /// gathers what he needs of the opener, which still waits, and then calls
    /// [`Opening::respond`].
    pub(crate) fn claim(&self) -> bool {
        !self.answered.swap(true, Ordering::AcqRel)
    }

    /// Lets the opener go on, or not. Only after [`Opening::claim`].
    pub(crate) fn respond(&self, response: Response) {
        let session = self.session();
        let group = match &self.asked {
            Asked::Own => &session.group,
            Asked::Shared(group) => group,
        };
        if let Err(error) = group.respond(self.event.number(), response) {
            // An opener that was killed meanwhile is answered without error, so
            // this is our own fault and must not pass in silence.
            tracing::error!(container = %session.container.id, %error, "an answer was not taken");
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        // Reached unanswered only through a defect; the opener must not hang on it.
        if self.claim() {
            self.respond(Response::Deny);
        }
    }
}
