//! Scans: files judged before anybody opens them, on demand.
//!
//! A scan judges one target ([`Target`]). A few run at once, at low priority; the
//! others wait. Each has a record on disk from the beginning on ([`Store`]), so
//! that it outlives the daemon: it goes on behind the file that was judged last.
//! The record of an image answers for it until the signatures change.

mod bytes;
mod job;
mod lanes;
mod record;
mod renewal;
mod report;
mod run;
mod store;
mod target;
#[cfg(test)]
mod tests;
mod throttle;
mod tree;
mod visit;

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lazaret_types::Sha256;
use sha2::Digest;
use thiserror::Error;

pub(crate) use job::{Job, Snapshot, Watching};
pub(crate) use lanes::LANES;
pub(crate) use record::{Cause, Found, Record, State};
pub(crate) use renewal::Renewal;
pub(crate) use target::{ImageTarget, Target};

use crate::allow::AllowList;
use crate::counters::Counters;
use crate::incidents::IncidentLog;
use crate::judge::Outcome;
use crate::registry::Registry;
use crate::session::Session;
use record::Basis;
use store::Store;
use throttle::Throttle;

/// Scans that run at once: one that hangs on a dead network file system must not
/// keep all others waiting.
pub(crate) const MAX_RUNNING: usize = 2;

/// Scans that run or wait.
const MAX_LIVE: usize = 4096;

type Judge = Box<dyn Fn(BorrowedFd<'_>, Option<&Arc<Session>>, Instant) -> Outcome + Send + Sync>;

type IsSealed = Box<dyn Fn(&Arc<Session>, BorrowedFd<'_>) -> bool + Send + Sync>;

type Mover = Box<dyn Fn(&Arc<Session>, BorrowedFd<'_>, &Outcome) + Send + Sync>;

/// What a scan uses of the daemon.
pub(crate) struct Means {
    /// Finds a verdict on a file, maybe of a container, until then.
    pub(crate) judge: Judge,
    /// Considers to move a file out of a container.
    pub(crate) quarantine: Mover,
    /// Whether a file was found clean since the signatures changed, and has not changed since.
    pub(crate) is_sealed: IsSealed,
    /// The version of the signatures that it judges by now.
    pub(crate) set: Box<dyn Fn() -> Arc<str> + Send + Sync>,
    /// What is clean whatever the signatures say.
    pub(crate) allow: Arc<AllowList>,
    pub(crate) incidents: Arc<IncidentLog>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) registry: Arc<Registry>,
}

/// All scans of this node.
pub(crate) struct Scans {
    means: Means,
    store: Store,
    throttle: Throttle,
    /// Larger files are not judged; bytes.
    max_size: u64,
    jobs: Mutex<Jobs>,
    idle: Condvar,
    stopping: AtomicBool,
    opened_at: Instant,
}

#[derive(Default)]
struct Jobs {
    /// Those that run, and those that wait in the order in which they came.
    live: Vec<Arc<Job>>,
    waiting: VecDeque<Arc<Job>>,
    /// Those that nobody asked for, which wait behind all others.
    renewals: VecDeque<Arc<Job>>,
    /// One of them runs: whoever asks for a scan finds a thread for it.
    is_renewing: bool,
    threads: usize,
}

impl Jobs {
    fn queue(&mut self, job: Arc<Job>) {
        self.live.push(Arc::clone(&job));
        match job.cause {
            Cause::Asked => self.waiting.push_back(job),
            Cause::NewSignatures => self.renewals.push_back(job),
        }
    }

    fn next(&mut self) -> Option<Arc<Job>> {
        if let Some(job) = self.waiting.pop_front() {
            return Some(job);
        }
        if self.is_renewing {
            return None;
        }
        let job = self.renewals.pop_front();
        self.is_renewing = job.is_some();
        job
    }

    fn done(&mut self, job: &Arc<Job>) {
        self.live.retain(|live| !Arc::ptr_eq(live, job));
        if job.cause == Cause::NewSignatures {
            self.is_renewing = false;
        }
    }
}

/// A scan cannot begin.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    #[error("{MAX_LIVE} scans are waiting already")]
    Busy,
    #[error("lazaretd is stopping")]
    Stopping,
    #[error("its record cannot be written: {0}")]
    Record(io::Error),
    #[error("no thread for it: {0}")]
    Thread(io::Error),
}

impl Scans {
    /// The records are kept in `folder`, which need not exist.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub(crate) fn open(
        folder: PathBuf,
        config: &lazaret_config::Scan,
        means: Means,
    ) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            means,
            store: Store::open(folder)?,
            throttle: Throttle::new(config.rate.as_u64()),
            max_size: config.max_file_size.as_u64(),
            jobs: Mutex::default(),
            idle: Condvar::new(),
            stopping: AtomicBool::new(false),
            opened_at: Instant::now(),
        }))
    }

    /// Goes on with what an earlier daemon had not finished. Blocks on the disk.
    pub(crate) fn resume(self: &Arc<Self>) {
        for mut record in self.store.list() {
            if record.is_over() {
                continue;
            }
            record.resumed = record.resumed.saturating_add(1);
            tracing::info!(scan = record.id, target = %record.target, "going on with a scan");
            if let Err(error) = self.enqueue(&mut self.jobs(), Arc::new(Job::new(record))) {
                tracing::error!(%error, "a scan cannot go on");
            }
        }
    }

    /// Begins a scan, or joins the one that the target has already. Blocks on the disk.
    ///
    /// # Errors
    /// When nothing was begun.
    pub(crate) fn start(
        self: &Arc<Self>,
        target: Target,
        force: bool,
        detach: bool,
    ) -> Result<Watching, StartError> {
        let mut jobs = self.jobs();
        let job = match jobs.live.iter().find(|job| job.target == target && job.goes_on()) {
            Some(job) => Arc::clone(job),
            None => {
                let record = Record::new(target, force);
                self.store.save(&record).map_err(StartError::Record)?;
                let job = Arc::new(Job::new(record));
                self.enqueue(&mut jobs, Arc::clone(&job))?;
                job
            }
        };
        if detach {
            job.detach();
        }
        Ok(Watching::new(job))
    }

    /// Scans containers again by this set; who is being scanned so begins anew, if need be. Blocks
    /// on the disk.
    fn renew(self: &Arc<Self>, targets: Vec<Target>, set: &str) {
        let earlier = self.store.list();
        for target in targets {
            let is_renewal = |job: &&Arc<Job>| job.cause == Cause::NewSignatures && job.target == target;
            let mut jobs = self.jobs();
            let running = jobs.live.iter().find(is_renewal);
            if running.is_some_and(|job| job.supersede(set)) {
                continue;
            }
            let record = Record::renewal(target.clone());
            let saved = self.store.save(&record).map_err(StartError::Record);
            if let Err(error) = saved.and_then(|()| self.enqueue(&mut jobs, Arc::new(Job::new(record)))) {
                tracing::error!(%error, %target, "not scanned by the new signatures");
                continue;
            }
            drop(jobs);
            // The newest says it all, and those of images are to be kept.
            for old in &earlier {
                if old.target == target && old.cause == Cause::NewSignatures && old.is_over() {
                    // Pruned meanwhile, it is gone as well.
                    let _gone = self.store.remove(old);
                }
            }
        }
    }

    /// Joins a scan by its id, also one that is over. Blocks on the disk.
    pub(crate) fn join(&self, id: &str) -> Option<Watching> {
        if let Some(job) = self.jobs().live.iter().find(|job| job.id == id) {
            return Some(Watching::new(Arc::clone(job)));
        }
        let record = self.store.list().into_iter().find(|record| record.id == id)?;
        Some(Watching::new(Arc::new(Job::new(record))))
    }

    /// Every record, oldest first; live ones as they are now. Blocks on the disk.
    pub(crate) fn list(&self) -> Vec<Record> {
        let mut records = self.store.list();
        for job in &self.jobs().live {
            let now = job.snapshot().record;
            match records.iter_mut().find(|record| record.id == now.id) {
                Some(record) => *record = now,
                None => records.push(now),
            }
        }
        records
    }

    /// Lets every scan save how far it is and end; the next daemon goes on.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Waits until all have, after [`Scans::stop`], for at most `patience`.
    pub(crate) fn wait(&self, patience: Duration) {
        let running = |jobs: &mut Jobs| jobs.threads > 0;
        drop(self.idle.wait_timeout_while(self.jobs(), patience, running));
    }

    /// Writes down how far a scan is. A disk that takes nothing costs no more than
    /// the way that a later daemon goes again.
    fn save(&self, job: &Job) {
        let record = job.snapshot().record;
        if let Err(error) = self.store.save(&record) {
            tracing::warn!(%error, scan = record.id, "the record of a scan cannot be written");
        }
    }

    /// Names what decides now: equal texts, equal verdicts.
    fn basis(&self) -> Basis {
        let mut allowed = sha2::Sha256::new();
        for entry in self.means.allow.list() {
            allowed.update(entry.sha256.as_bytes());
        }
        Basis {
            set: (self.means.set)().to_string(),
            allowed: Sha256::new(allowed.finalize().into()),
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enqueue(self: &Arc<Self>, jobs: &mut Jobs, job: Arc<Job>) -> Result<(), StartError> {
        if self.is_stopping() {
            return Err(StartError::Stopping);
        }
        if jobs.live.len() >= MAX_LIVE {
            return Err(StartError::Busy);
        }
        if jobs.threads < MAX_RUNNING {
            let scans = Arc::clone(self);
            let thread = std::thread::Builder::new().name("scan".into());
            thread.spawn(move || scans.work()).map_err(StartError::Thread)?;
            jobs.threads += 1;
        }
        jobs.queue(job);
        Ok(())
    }

    /// Runs scans until none waits.
    fn work(&self) {
        if let Err(error) = lazaret_sys::priority::lower_thread() {
            tracing::warn!(%error, "scans run at normal priority");
        }
        loop {
            let mut jobs = self.jobs();
            let next = if self.is_stopping() { None } else { jobs.next() };
            let Some(job) = next else {
                jobs.threads -= 1;
                self.idle.notify_all();
                return;
            };
            drop(jobs);
            run::run(self, &job);
            self.jobs().done(&job);
        }
    }
}
