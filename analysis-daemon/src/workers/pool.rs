//! The workers that wait, and where new ones come from.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::time::Instant;

use lazaret_api::scan::v1::{Problem, Scan, Unpack};

use crate::changes::Changes;

use super::answer::{Answer, Member};
use super::worker::{Worker, WorkerError};
use super::zygote::{Settings, Zygote, ZygoteError};

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

/// A fixed number of workers, forked as they are needed.
#[derive(Debug)]
pub(crate) struct Workers {
    settings: Settings,
    rules: RwLock<Arc<Rules>>,
    state: Mutex<State>,
    free: Condvar,
    /// Held while rules are loaded: one load at a time.
    loading: Mutex<()>,
    pub(crate) changes: Changes,
}

#[derive(Debug)]
struct State {
    zygote: Zygote,
    /// Counts the zygotes: a worker of an earlier one has old rules.
    generation: u64,
    waiting: Vec<Worker>,
    /// Workers that may still be taken.
    left: usize,
}

impl Workers {
    /// Starts the zygote; at most `count` workers will judge at once.
    ///
    /// # Errors
    /// When the worker program cannot be started or sandboxed.
    pub(crate) fn start(settings: Settings, count: usize) -> Result<Self, ZygoteError> {
        let (zygote, ready) = Zygote::start(&settings)?;
        let state = State {
            zygote,
            generation: 0,
            waiting: Vec::with_capacity(count),
            left: count,
        };
        let workers = Self {
            settings,
            rules: RwLock::default(),
            state: Mutex::new(state),
            free: Condvar::new(),
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
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Workers that judge just now finish with the old rules and are dropped.
        state.generation += 1;
        let old = (
            std::mem::replace(&mut state.zygote, zygote),
            std::mem::take(&mut state.waiting),
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
        tracing::info!(
            count = rules.count,
            similar,
            version = rules.version,
            "rules loaded"
        );
        let rules = Arc::new(rules);
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&rules);
        rules
    }

    /// Has a file judged by a worker; `inside` is told of what is in it, if it is an
    /// archive, as far as the worker gets.
    ///
    /// # Errors
    /// When there is no verdict by the deadline.
    pub(crate) fn scan(
        &self,
        file: BorrowedFd<'_>,
        max_size: u64,
        deadline: Instant,
        inside: &mut dyn FnMut(Member),
    ) -> Result<Answer, WorkerError> {
        let (worker, generation) = self.take(deadline)?;
        let unpack = Some(unpack(&self.settings.unpack, deadline));
        let answer = worker.scan(file, Scan { max_size, unpack }, deadline, inside);
        let survived = answer.as_ref().err().is_none_or(WorkerError::is_survived);
        if let (Err(error), false) = (&answer, survived) {
            tracing::error!(%error, "a scan worker is replaced");
        }
        self.put_back(survived.then_some(worker), generation);
        answer
    }

    fn take(&self, deadline: Instant) -> Result<(Worker, u64), WorkerError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.left == 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(WorkerError::Late);
            }
            state = self
                .free
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        let worker = match state.waiting.pop() {
            Some(worker) => worker,
            None => self.fork(&mut state)?,
        };
        state.left -= 1;
        Ok((worker, state.generation))
    }

    /// Forks a worker, from a new zygote if the old one is gone.
    fn fork(&self, state: &mut State) -> Result<Worker, WorkerError> {
        let died = |error: ZygoteError| WorkerError::Died(std::io::Error::other(error));
        match state.zygote.fork() {
            Ok(worker) => Ok(worker),
            Err(error) => {
                tracing::error!(%error, "the zygote of the scan workers is replaced");
                let (zygote, ready) = Zygote::start(&self.settings).map_err(died)?;
                state.zygote = zygote;
                // The files may have changed since the rules were loaded last.
                let old = self.rules();
                if self.publish(ready).version != old.version {
                    self.changes.tell();
                }
                state.zygote.fork().map_err(died)
            }
        }
    }

    fn put_back(&self, worker: Option<Worker>, generation: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.left += 1;
        let old = match worker {
            Some(worker) if generation == state.generation => {
                state.waiting.push(worker);
                None
            }
            old => old,
        };
        drop(state);
        drop(old);
        self.free.notify_one();
    }
}

/// The limits of one file. A worker is given less time than it has, so that it says
/// what it found instead of being ended.
fn unpack(limits: &lazaret_config::Unpack, deadline: Instant) -> Unpack {
    let left = deadline.saturating_duration_since(Instant::now()) * 3 / 4;
    Unpack {
        depth: limits.depth,
        members: limits.members,
        size: limits.size.as_u64(),
        ratio: limits.ratio,
        time_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
    }
}
