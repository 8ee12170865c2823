//! The workers that wait, and where new ones come from.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use lazaret_api::scan::v1::{Problem, Unpack};

use crate::changes::Changes;
use crate::content::Bytes;
use crate::engine::{Limits, Priority};

use super::answer::{Answer, Member};
use super::worker::{Worker, WorkerError};
use super::zygote::{By, Settings, Zygote, ZygoteError};

/// The rules that judge now.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// How many there are.
    pub(crate) count: u32,
    /// Another one whenever a rule changes.
    pub(crate) version: String,
    /// What is wrong with the rule files.
    pub(crate) problems: Vec<Problem>,
}

/// A fixed number of workers, forked as they are needed. Those that openers wait for are never
/// lent to work that nobody waits for, which has some of its own.
#[derive(Debug)]
pub(crate) struct Workers {
    settings: Settings,
    rules: RwLock<Arc<Rules>>,
    state: Mutex<State>,
    /// One for each of [`State`]'s.
    free: PerPriority<Condvar>,
    /// Held while rules are loaded: one load at a time.
    loading: Mutex<()>,
    pub(crate) changes: Changes,
}

/// How many workers judge at once, at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) openers: usize,
    pub(crate) background: usize,
}

#[derive(Debug)]
struct State {
    zygote: Zygote,
    /// Counts the zygotes: a worker of an earlier one has old rules.
    generation: u64,
    lots: PerPriority<Lot>,
}

#[derive(Debug, Default)]
struct Lot {
    waiting: Vec<Worker>,
    /// Workers that may still be taken.
    left: usize,
}

#[derive(Debug, Default)]
struct PerPriority<T> {
    opener: T,
    background: T,
}

impl<T> PerPriority<T> {
    fn of(&self, priority: Priority) -> &T {
        match priority {
            Priority::Opener => &self.opener,
            Priority::Background => &self.background,
        }
    }

    fn of_mut(&mut self, priority: Priority) -> &mut T {
        match priority {
            Priority::Opener => &mut self.opener,
            Priority::Background => &mut self.background,
        }
    }
}

impl Lot {
    fn new(count: usize) -> Self {
        Self {
            waiting: Vec::with_capacity(count),
            left: count,
        }
    }
}

impl Workers {
    /// Starts the zygote.
    ///
    /// # Errors
    /// When the worker program cannot be started or sandboxed.
    pub(crate) fn start(settings: Settings, counts: Counts) -> Result<Self, ZygoteError> {
        let (zygote, ready) = Zygote::start(&settings)?;
        let state = State {
            zygote,
            generation: 0,
            lots: PerPriority {
                opener: Lot::new(counts.openers),
                background: Lot::new(counts.background),
            },
        };
        let workers = Self {
            settings,
            rules: RwLock::default(),
            state: Mutex::new(state),
            free: PerPriority::default(),
            loading: Mutex::new(()),
            changes: Changes::default(),
        };
        workers.publish(ready);
        Ok(workers)
    }

    /// The rules that judge now.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Loads the rules anew. Until they are loaded the old ones judge.
    ///
    /// # Errors
    /// When they cannot be loaded; the old ones stay.
    pub(crate) fn reload(&self) -> Result<Arc<Rules>, ZygoteError> {
        let _one = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        let (zygote, ready) = Zygote::start(&self.settings)?;
        let mut state = self.state();
        // Workers that judge just now finish with the old rules and are dropped.
        state.generation += 1;
        let old = (
            std::mem::replace(&mut state.zygote, zygote),
            std::mem::take(&mut state.lots.opener.waiting),
            std::mem::take(&mut state.lots.background.waiting),
        );
        drop(state);
        drop(old);
        let rules = self.publish(ready);
        self.changes.tell();
        Ok(rules)
    }

    fn publish(&self, ready: lazaret_api::scan::v1::Ready) -> Arc<Rules> {
        let rules = Rules {
            count: ready.rules,
            version: ready.version,
            problems: ready.problems,
        };
        for problem in &rules.problems {
            let Problem {
                file,
                line,
                column,
                message,
                ..
            } = problem;
            tracing::warn!("{file}:{line}:{column}: {message}");
        }
        let similar = ready.similar;
        let (count, version) = (rules.count, &rules.version);
        match &self.settings.by {
            By::Rules { .. } => tracing::info!(count, similar, version, "rules loaded"),
            By::Program { command, .. } => {
                tracing::info!(program = %command.display(), version, "engine of others ready");
            }
        }
        let rules = Arc::new(rules);
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&rules);
        rules
    }

    /// Has a content judged by a worker; `inside` is told of what is in it, if it is an
    /// archive, as far as the worker gets.
    ///
    /// # Errors
    /// When there is no verdict by the deadline.
    pub(crate) fn scan(
        &self,
        bytes: &Bytes,
        limits: Limits,
        inside: &mut dyn FnMut(Member),
    ) -> Result<Answer, WorkerError> {
        let Limits {
            deadline, priority, ..
        } = limits;
        let (mut worker, generation) = self.take(priority, deadline)?;
        let unpack = unpack(&self.settings.unpack, deadline);
        let answer = worker.scan(bytes, unpack, deadline, inside);
        let survived = answer.as_ref().err().is_none_or(WorkerError::is_survived);
        if let (Err(error), false) = (&answer, survived) {
            tracing::error!(%error, "a scan worker is replaced");
        }
        self.put_back(survived.then_some(worker), priority, generation);
        answer
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, priority: Priority, deadline: Instant) -> Result<(Worker, u64), WorkerError> {
        let mut state = self.state();
        while state.lots.of(priority).left == 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(WorkerError::Late);
            }
            state = self
                .free
                .of(priority)
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        let worker = match state.lots.of_mut(priority).waiting.pop() {
            Some(worker) => worker,
            None => self.fork(&mut state, priority)?,
        };
        state.lots.of_mut(priority).left -= 1;
        Ok((worker, state.generation))
    }

    /// Forks a worker, from a new zygote if the old one is gone.
    fn fork(&self, state: &mut State, priority: Priority) -> Result<Worker, WorkerError> {
        let died = |error: ZygoteError| WorkerError::Died(std::io::Error::other(error));
        match state.zygote.fork(priority) {
            Ok(worker) => Ok(worker),
            Err(error) => {
                tracing::error!(%error, "the zygote of the scan workers is replaced");
                let (zygote, ready) = Zygote::start(&self.settings).map_err(died)?;
                state.zygote = zygote;
                // The files may have changed since the rules were loaded last.
                let before = self.rules();
                if self.publish(ready).version != before.version {
                    self.changes.tell();
                }
                state.zygote.fork(priority).map_err(died)
            }
        }
    }

    fn put_back(&self, worker: Option<Worker>, priority: Priority, generation: u64) {
        let mut state = self.state();
        let is_current = generation == state.generation;
        let lot = state.lots.of_mut(priority);
        lot.left += 1;
        let old = match worker {
            Some(worker) if is_current => {
                lot.waiting.push(worker);
                None
            }
            old => old,
        };
        drop(state);
        drop(old);
        self.free.of(priority).notify_one();
    }
}

/// The limits of one content; none when archives are not looked into. A worker is given less time
/// than it has, so that it says what it found instead of being ended.
fn unpack(limits: &lazaret_config::Unpack, deadline: Instant) -> Option<Unpack> {
    let left = deadline.saturating_duration_since(Instant::now()) * 3 / 4;
    (limits.depth > 0).then(|| Unpack {
        depth: limits.depth,
        members: limits.members,
        size: limits.size.as_u64(),
        ratio: limits.ratio,
        time_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
    })
}
