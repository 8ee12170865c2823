//! The threads that judge, and the one that keeps their deadlines.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::judge::Judge;
use crate::queue::FairQueue;
use crate::session::{Opening, Session};

/// When no more openers of a container wait than this, those that need no thread do not wait for
/// one.
const FEW: usize = 8;

/// How many threads judge, when the configuration says `configured`.
pub(crate) fn threads(configured: usize) -> usize {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    if configured == 0 { cpus.max(2) } else { configured }
}

/// Takes openers from the readers.
pub(crate) struct Pool {
    /// A container is its session's address: unique while any of its openers is here.
    queue: FairQueue<usize, Arc<Opening>>,
    deadlines: Deadlines,
    judge: Arc<Judge>,
}

/// The openers under judgement, oldest first: they all have the same time.
#[derive(Default)]
struct Deadlines {
    waiting: Mutex<VecDeque<(Instant, Weak<Opening>)>>,
    filled: Condvar,
}

impl Pool {
    /// Starts `count` threads that judge.
    ///
    /// # Errors
    /// When the kernel gives no thread.
    pub(crate) fn start(count: usize, judge: Arc<Judge>) -> io::Result<Arc<Self>> {
        let pool = Arc::new(Self {
            queue: FairQueue::new(),
            deadlines: Deadlines::default(),
            judge,
        });
        for index in 0..count {
            let pool = Arc::clone(&pool);
            thread::Builder::new()
                .name(format!("judge-{index}"))
                .spawn(move || pool.work())?;
        }
        let keeper = Arc::clone(&pool);
        thread::Builder::new()
            .name("deadlines".into())
            .spawn(move || keeper.keep_deadlines())?;
        Ok(pool)
    }

    /// Takes an opener. What is known is answered at once, on the caller's thread, which is not
    /// made to wait.
    pub(crate) fn submit(&self, opening: Opening) {
        let opening = Arc::new(opening);
        // In a flood answers are to be given together.
        let few = opening.session().waiting() <= FEW;
        if few && self.judge.settle_at_once(&opening) {
            return;
        }
        self.deadlines.push(&opening);
        let container: *const Session = Arc::as_ptr(opening.session());
        self.queue.push(container.addr(), opening);
    }

    fn work(&self) {
        loop {
            self.judge.settle(&self.queue.pop());
        }
    }

    fn keep_deadlines(&self) {
        loop {
            let opening = self.deadlines.next_overdue(self.judge.timeout);
            self.judge.overdue(&opening);
        }
    }

    /// For how long the longest-waiting opener has been without an answer.
    pub(crate) fn longest_wait(&self) -> Duration {
        let waiting = self
            .deadlines
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let oldest = waiting.iter().find(|(_, opening)| is_waiting(opening));
        oldest.map_or(Duration::ZERO, |(read_at, _)| read_at.elapsed())
    }
}

fn is_waiting(opening: &Weak<Opening>) -> bool {
    opening.upgrade().is_some_and(|opening| !opening.is_answered())
}

impl Deadlines {
    fn push(&self, opening: &Arc<Opening>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = waiting.is_empty();
        // Two off for one on: what is answered does not pile up until its time comes.
        for _ in 0..2 {
            if waiting.front().is_some_and(|(_, opening)| !is_waiting(opening)) {
                waiting.pop_front();
            }
        }
        waiting.push_back((opening.read_at, Arc::downgrade(opening)));
        drop(waiting);
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Waits until an opener is due that nobody has answered.
    fn next_overdue(&self, timeout: Duration) -> Arc<Opening> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            while waiting.front().is_some_and(|(_, opening)| !is_waiting(opening)) {
                waiting.pop_front();
            }
            let Some((read_at, opening)) = waiting.front() else {
                waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = (*read_at + timeout).saturating_duration_since(Instant::now());
            if left.is_zero() {
                let opening = opening.upgrade();
                waiting.pop_front();
                match opening {
                    Some(opening) => return opening,
                    None => continue,
                }
            }
            let wait = self.filled.wait_timeout(waiting, left);
            waiting = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
