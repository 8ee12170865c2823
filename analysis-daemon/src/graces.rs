//! What keeps a lease after its file was sealed no more: somebody may be about to run it.
//!
//! The kernel forbids writing to a program only when whoever runs it has woken up and gone on
//! (`exe_file_deny_write_access()`, fs/exec.c). Until then nothing but the lease keeps a writer
//! off. So a lease is given back after a grace period, as RCU has it: when every thread of the
//! container that could be on its way then has been seen to go on. One that sleeps is not on its
//! way; one that has had a processor for [`ON_ITS_WAY`] has arrived.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use lazaret_sys::cgroup;
use lazaret_sys::thread::{State, Thread};
use lazaret_types::{Action, Container, Severity};

use crate::incidents::{Draft, IncidentLog};
use crate::seals::Held;
use crate::session::Session;

/// Far more than the way takes on a processor: some microseconds.
const ON_ITS_WAY: Duration = Duration::from_millis(5);

/// How often threads are looked at.
const POLL: Duration = Duration::from_millis(2);

/// For so long a writer waits for a thread that gets no processor; then it is killed. Less than
/// `fs.lease-break-time` (45 s), after which the kernel lets the writer go on.
const PATIENCE: Duration = Duration::from_secs(30);

/// So many leases may be kept for each container, however many are kept for others.
const RESERVED: usize = 16;

/// Leases that are given back when nobody can be about to run their files any more.
#[derive(Debug)]
pub(crate) struct Graces {
    /// How many may be kept.
    limit: usize,
    book: Mutex<Book>,
    /// There is something to give back.
    some: Condvar,
    incidents: Arc<IncidentLog>,
}

#[derive(Debug, Default)]
struct Book {
    /// By the address of the session.
    containers: HashMap<usize, Kept>,
    count: usize,
}

/// What is kept of one container's files.
#[derive(Debug)]
struct Kept {
    who: Who,
    /// Until the end of the period.
    leaving: Vec<Held>,
    /// Came when it had begun: they need one of their own.
    waiting: Vec<Held>,
}

/// Whose threads are looked at.
#[derive(Debug, Clone)]
struct Who {
    /// As long as it is referred to, no other session has its address.
    session: Weak<Session>,
    container: Arc<Container>,
    cgroup: Option<PathBuf>,
}

/// Until all threads that could be on their way when it began have gone on.
#[derive(Debug)]
struct Period {
    who: Who,
    began: Instant,
    still: Vec<Passing>,
}

/// A thread that may be on its way, and how long it had run by then.
#[derive(Debug)]
struct Passing {
    thread: Thread,
    ran_for: Duration,
}

impl Graces {
    /// Starts the thread that looks at others. About `limit` leases are kept at most.
    ///
    /// # Errors
    /// When the kernel gives no thread.
    pub(crate) fn start(limit: usize, incidents: Arc<IncidentLog>) -> io::Result<Arc<Self>> {
        let graces = Arc::new(Self {
            limit,
            book: Mutex::default(),
            some: Condvar::new(),
            incidents,
        });
        let keeper = Arc::clone(&graces);
        thread::Builder::new()
            .name("graces".into())
            .spawn(move || keeper.keep_all())?;
        Ok(graces)
    }

    /// Whether a container may run another file whose lease would have to be kept. One that fills
    /// its quarter, or all of them together, take nothing from the others.
    pub(crate) fn has_room(&self, session: &Arc<Session>) -> bool {
        let book = self.lock();
        let own = book.containers.get(&key(session)).map_or(0, Kept::len);
        own < RESERVED || (own < self.limit / 4 && book.count < self.limit)
    }

    /// Keeps a lease until nobody can be about to run the file who was let through by now.
    pub(crate) fn keep(&self, session: &Arc<Session>, held: Held) {
        let mut book = self.lock();
        book.count += 1;
        let kept = book.containers.entry(key(session)).or_insert_with(|| Kept {
            who: Who::of(session),
            leaving: Vec::new(),
            waiting: Vec::new(),
        });
        kept.waiting.push(held);
        self.some.notify_one();
    }

    /// Gives all back of a container that is over.
    pub(crate) fn forget(&self, session: &Arc<Session>) {
        let mut book = self.lock();
        let kept = book.containers.remove(&key(session));
        book.count -= kept.as_ref().map_or(0, Kept::len);
        // Closing a file that was deleted can take the disk a while.
        drop(book);
        drop(kept);
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep_all(&self) {
        let mut periods = HashMap::new();
        loop {
            for (key, who) in self.next(periods.is_empty()) {
                periods.insert(key, Period::begin(who));
            }
            periods.retain(|key, period: &mut Period| {
                let goes_on = period.goes_on(|| self.is_waited_for(*key), &self.incidents);
                if !goes_on {
                    self.end(*key);
                }
                goes_on
            });
            if !periods.is_empty() {
                thread::sleep(POLL);
            }
        }
    }

    /// For whom a period is to begin; if there is nothing else to do, when there is one.
    fn next(&self, idle: bool) -> Vec<(usize, Who)> {
        let mut book = self.lock();
        while idle && book.containers.is_empty() {
            book = self.some.wait(book).unwrap_or_else(PoisonError::into_inner);
        }
        let begins = book.containers.iter_mut().filter_map(|(key, kept)| {
            let begins = kept.leaving.is_empty();
            begins.then(|| {
                kept.leaving = std::mem::take(&mut kept.waiting);
                (*key, kept.who.clone())
            })
        });
        begins.collect()
    }

    /// Whether somebody waits to write to what is kept in this period.
    fn is_waited_for(&self, key: usize) -> bool {
        let book = self.lock();
        let kept = book.containers.get(&key);
        kept.is_some_and(|kept| !kept.leaving.iter().all(Held::is_whole))
    }

    fn end(&self, key: usize) {
        let mut book = self.lock();
        let Some(kept) = book.containers.get_mut(&key) else {
            return;
        };
        let left = std::mem::take(&mut kept.leaving);
        if kept.waiting.is_empty() {
            book.containers.remove(&key);
        }
        book.count -= left.len();
        drop(book);
        drop(left);
    }
}

impl Kept {
    fn len(&self) -> usize {
        self.leaving.len() + self.waiting.len()
    }
}

impl Who {
    fn of(session: &Arc<Session>) -> Self {
        Self {
            session: Arc::downgrade(session),
            container: Arc::clone(&session.container),
            cgroup: session.cgroup.as_ref().map(|(folder, _)| folder.clone()),
        }
    }

    /// The container's threads; without cgroup v2, all that there are.
    fn threads(&self) -> io::Result<Vec<i32>> {
        match &self.cgroup {
            Some(folder) => match cgroup::threads(folder) {
                // Nobody is left.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
                threads => threads,
            },
            None => lazaret_sys::thread::all(),
        }
    }
}

impl Period {
    /// Looks who may be on his way now.
    fn begin(who: Who) -> Self {
        let threads = who.threads().unwrap_or_else(|error| {
            let container = &who.container.id;
            tracing::error!(%container, %error, "cannot tell who runs what in the container");
            Vec::new()
        });
        Self {
            who,
            began: Instant::now(),
            still: threads.into_iter().filter_map(Passing::of).collect(),
        }
    }

    /// Whether it is to go on.
    fn goes_on(&mut self, is_waited_for: impl Fn() -> bool, incidents: &IncidentLog) -> bool {
        if self.who.session.strong_count() == 0 {
            return false;
        }
        self.still.retain(|one| !one.has_gone_on());
        if self.still.is_empty() {
            return false;
        }
        let enough = self.began.elapsed() > PATIENCE && is_waited_for();
        if enough {
            self.still.iter().for_each(|one| one.end(&self.who, incidents));
        }
        !enough
    }
}

impl Passing {
    /// None for a thread that is not on its way, or has ended.
    fn of(id: i32) -> Option<Self> {
        let thread = Thread::of(id).ok()?;
        (thread.state != State::Resting).then(|| Self {
            ran_for: thread.ran_for().unwrap_or(Duration::MAX),
            thread,
        })
    }

    fn has_gone_on(&self) -> bool {
        match Thread::of(self.thread.id) {
            Err(error) => error.kind() == io::ErrorKind::NotFound,
            Ok(now) => {
                let ran_for = now.ran_for().unwrap_or_default();
                now.started != self.thread.started
                    || now.state == State::Resting
                    || ran_for.saturating_sub(self.ran_for) >= ON_ITS_WAY
            }
        }
    }

    /// Ends a thread that did not go on for as long as a writer can wait. One that waits in the
    /// kernel is not: it may be paused, and wait for something else altogether.
    fn end(&self, who: &Who, incidents: &IncidentLog) {
        let starves = Thread::of(self.thread.id).is_ok_and(|now| now.state == State::Runnable);
        let killed = starves && self.thread.kill_process().is_ok();
        let (action, what) = if killed {
            (Action::Kill, "it was killed")
        } else {
            (Action::Alert, "the writer goes on")
        };
        let output = format!(
            "{action}: thread {} of container {} did not go on for {} s while somebody waits to write to a file \
            that it may be about to run: {what}",
            self.thread.id,
            who.container.id,
            PATIENCE.as_secs(),
        );
        incidents.report(Draft {
            tags: vec!["process".into()],
            container: Some(Arc::clone(&who.container)),
            ..Draft::new("Starved opener", Severity::Warning, action, output)
        });
    }
}

fn key(session: &Arc<Session>) -> usize {
    Arc::as_ptr(session).addr()
}
