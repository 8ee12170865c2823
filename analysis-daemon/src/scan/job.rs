//! A scan that runs or waits, and who watches it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lazaret_walk::image::Size;
use tokio::sync::watch;

use super::record::{Basis, Cause};
use super::{Record, State, Target};

/// How often watchers hear of progress.
const TELL: Duration = Duration::from_millis(100);

pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) target: Target,
    pub(super) cause: Cause,
    live: Mutex<Live>,
    /// Grows when watchers should look.
    told: watch::Sender<u64>,
    watchers: AtomicUsize,
    cancelled: AtomicBool,
}

struct Live {
    now: Snapshot,
    told_at: Instant,
    /// It is to begin anew.
    superseded: bool,
}

/// A scan at one moment.
#[derive(Clone)]
pub(crate) struct Snapshot {
    pub(crate) record: Record,
    /// What is judged now, from the root of the target.
    pub(crate) path: PathBuf,
    /// About how much there is, when somebody knows.
    pub(crate) total: Option<Size>,
    /// The record is of an earlier scan, which answers for this one.
    pub(crate) is_answer: bool,
}

impl Job {
    pub(super) fn new(record: Record) -> Self {
        let (id, target, cause) = (record.id.clone(), record.target.clone(), record.cause);
        let now = Snapshot {
            record,
            path: PathBuf::new(),
            total: None,
            is_answer: false,
        };
        Self {
            id,
            target,
            cause,
            live: Mutex::new(Live {
                now,
                told_at: Instant::now(),
                superseded: false,
            }),
            told: watch::Sender::new(0),
            watchers: AtomicUsize::new(0),
            cancelled: AtomicBool::new(false),
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.live().now.clone()
    }

    /// Changes the record and returns it as it is then.
    pub(super) fn change(&self, change: impl FnOnce(&mut Snapshot)) -> Record {
        let mut live = self.live();
        change(&mut live.now);
        live.now.record.clone()
    }

    /// As [`Job::change`] for what happens often: nothing is copied.
    pub(super) fn count(&self, change: impl FnOnce(&mut Record)) {
        change(&mut self.live().now.record);
    }

    /// Tells watchers that `path` is judged now, not more often than they can see.
    pub(super) fn at(&self, path: &Path) {
        let mut live = self.live();
        if live.told_at.elapsed() >= TELL {
            live.told_at = Instant::now();
            path.clone_into(&mut live.now.path);
            drop(live);
            self.tell();
        }
    }

    /// Makes watchers look.
    pub(super) fn tell(&self) {
        self.told.send_modify(|told| *told = told.wrapping_add(1));
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Whether it will come to an end that somebody may wait for.
    pub(super) fn goes_on(&self) -> bool {
        !self.is_cancelled() && !self.live().now.record.is_over()
    }

    /// Has it begin anew if it judges by anything but this set; false when it is over.
    pub(super) fn supersede(&self, set: &str) -> bool {
        let mut live = self.live();
        let record = &live.now.record;
        let goes_on = !record.is_over();
        let is_old =
            record.state == State::Running && record.basis.as_ref().is_some_and(|basis| basis.set != set);
        live.superseded |= goes_on && is_old;
        goes_on
    }

    pub(super) fn is_superseded(&self) -> bool {
        self.live().superseded
    }

    /// Begins, or begins anew, by what decides now: what other signatures found is found again,
    /// or not.
    pub(super) fn begin(&self, basis: Basis) {
        let mut live = self.live();
        live.superseded = false;
        let record = &mut live.now.record;
        record.state = State::Running;
        let basis = Some(basis);
        if record.basis != basis {
            record.restart();
            record.basis = basis;
        }
    }

    /// Ends it; false when it is to begin anew instead.
    pub(super) fn end(&self, state: State, error: Option<String>) -> bool {
        let mut live = self.live();
        let ends = !(live.superseded && state == State::Done);
        if ends {
            live.now.record.end(state, error);
        }
        ends
    }

    /// Lets it go on when nobody watches any more.
    pub(super) fn detach(&self) {
        self.count(|record| record.detached = true);
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who watches a scan. When the last one leaves, it is cancelled, unless
/// it was begun to go on alone.
pub(crate) struct Watching {
    job: Arc<Job>,
    told: watch::Receiver<u64>,
}

impl Watching {
    pub(super) fn new(job: Arc<Job>) -> Self {
        job.watchers.fetch_add(1, Ordering::AcqRel);
        let told = job.told.subscribe();
        Self { job, told }
    }

    /// Of the scan that was begun, also when an earlier one answers for it.
    pub(crate) fn id(&self) -> &str {
        &self.job.id
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.job.snapshot()
    }

    /// Waits until there is something new to see. Safe to abandon.
    pub(crate) async fn changed(&mut self) {
        // The sender lives in the job that we hold.
        drop(self.told.changed().await);
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let is_last = self.job.watchers.fetch_sub(1, Ordering::AcqRel) == 1;
        if is_last && !self.job.live().now.record.detached {
            self.job.cancelled.store(true, Ordering::Release);
        }
    }
}
