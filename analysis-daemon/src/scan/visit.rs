//! What is done with each file.

use std::ops::ControlFlow::{self, Break, Continue};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lazaret_types::UnjudgedReason;
use lazaret_walk::{Regular, Skip, Visitor};

use super::lanes::{Ahead, Front, Lanes};
use super::record::{Cause, Cursor};
use super::report::{incident, shown};
use super::{Found, Job, Scans};
use crate::judge::{Outcome, Verdict};
use crate::rate::Rate;
use crate::session::Session;

/// For one file. Nobody waits for it, and an idle thread may be slow to get the disk.
const DEADLINE: Duration = Duration::from_secs(30);

/// How often the record is saved.
const SAVE: Duration = Duration::from_secs(3);

/// Longest sleep without a look at whether to go on.
const NAP: Duration = Duration::from_millis(20);

/// Why a walk is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// The daemon stops; the next one goes on.
    Stopping,
    Cancelled,
    ContainerEnded,
    /// It begins anew.
    Superseded,
}

/// A scan that runs.
#[derive(Clone, Copy)]
pub(super) struct Running<'a> {
    pub(super) scans: &'a Scans,
    pub(super) job: &'a Job,
    pub(super) session: Option<&'a Arc<Session>>,
}

impl Running<'_> {
    /// Why not to go on.
    pub(super) fn leave(&self) -> Option<Leave> {
        let ending = |session: &Arc<Session>| session.ending.load(Ordering::Acquire);
        if self.scans.is_stopping() {
            Some(Leave::Stopping)
        } else if self.session.is_some_and(ending) {
            Some(Leave::ContainerEnded)
        } else if self.job.is_cancelled() {
            Some(Leave::Cancelled)
        } else if self.job.is_superseded() {
            Some(Leave::Superseded)
        } else {
            None
        }
    }

    pub(super) fn goes_on(&self) -> bool {
        self.leave().is_none()
    }

    /// Judges a file, if it needs to be.
    pub(super) fn look(&self, file: BorrowedFd<'_>) -> Seen {
        let means = &self.scans.means;
        let renewed = self.session.filter(|_| self.job.cause == Cause::NewSignatures);
        // Seals do not outlive a change of the signatures.
        if renewed.is_some_and(|session| (means.is_sealed)(session, file)) {
            return Seen::Sealed;
        }
        let outcome = (means.judge)(file, self.session, Instant::now() + DEADLINE);
        if let Some(session) = renewed {
            (means.quarantine)(session, file, &outcome);
        }
        Seen::Judged(outcome)
    }
}

/// What came of a file.
pub(super) enum Seen {
    /// It was found clean since the signatures changed, and has not changed since.
    Sealed,
    Judged(Outcome),
}

pub(super) struct Judging<'a> {
    running: Running<'a>,
    lanes: Lanes<Seen>,
    reports: Rate,
    saved_at: Instant,
}

impl<'a> Judging<'a> {
    pub(super) fn new(running: Running<'a>, lanes: Lanes<Seen>) -> Self {
        Self {
            running,
            lanes,
            reports: Rate::new(),
            saved_at: Instant::now(),
        }
    }

    fn go_on(&self) -> ControlFlow<()> {
        if self.running.goes_on() {
            Continue(())
        } else {
            Break(())
        }
    }

    /// Takes what is still on its way, as far as it was begun.
    pub(super) fn finish(&mut self) -> ControlFlow<()> {
        while let Some(front) = self.lanes.last() {
            self.came(front)?;
        }
        Continue(())
    }

    fn came(&mut self, front: Front<Seen>) -> ControlFlow<()> {
        let (file, seen) = match front {
            Front::Done(file, seen) => (file, seen),
            Front::Left => return Break(()),
        };
        match seen {
            Seen::Sealed => self.running.job.count(|record| record.counts.current += 1),
            Seen::Judged(outcome) => self.judged(&file, outcome),
        }
        self.passed(&file);
        Continue(())
    }

    fn judged(&self, file: &Ahead<Seen>, outcome: Outcome) {
        let Running { job, .. } = self.running;
        match outcome {
            Outcome::Judged {
                digest,
                verdict,
                set,
                known,
            } => {
                job.count(|record| {
                    record.mixed |= record.basis.as_ref().is_none_or(|basis| *basis.set != *set);
                    record.counts.current += u64::from(known);
                });
                if let Verdict::Bad(finding) = verdict {
                    let found = Found {
                        path: shown(&job.target, &file.path),
                        rule: finding.rule,
                        severity: finding.severity,
                        sha256: digest,
                        size: file.size,
                    };
                    self.found(found, &set);
                }
            }
            Outcome::Unjudged(UnjudgedReason::Timeout) => self.problem(&file.path, "not judged in time"),
            Outcome::Unjudged(reason) => self.problem(&file.path, &reason.to_string()),
        }
    }

    fn found(&self, found: Found, set: &Arc<str>) {
        let Running { scans, job, session } = self.running;
        if self.reports.admits() {
            let incident = incident(job, session, &found, set);
            scans.means.incidents.report(incident);
        } else {
            scans.means.counters.incidents_suppressed.one();
        }
        job.count(|record| record.add_found(found));
        job.tell();
    }

    fn problem(&self, path: &Path, why: &str) {
        let job = self.running.job;
        let path = shown(&job.target, path);
        job.count(|record| record.add_problem(&path, why));
    }

    /// From now on, this file would not be judged again after a restart.
    fn passed(&mut self, file: &Ahead<Seen>) {
        let Running { scans, job, .. } = self.running;
        job.count(|record| {
            record.counts.files += 1;
            record.counts.bytes += file.size;
            record.cursor = Some(Cursor(file.path.clone()));
        });
        if self.saved_at.elapsed() >= SAVE {
            self.saved_at = Instant::now();
            scans.save(job);
        }
    }

    fn wait_until(&self, until: Instant) -> ControlFlow<()> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Continue(());
            }
            self.go_on()?;
            std::thread::sleep(left.min(NAP));
        }
    }
}

impl Visitor for Judging<'_> {
    fn file(&mut self, file: &Regular<'_>) -> ControlFlow<()> {
        match file.file.try_clone_to_owned() {
            Ok(own) => self.lanes.enter(file.path.to_owned(), file.size, own),
            Err(error) => self.problem(file.path, &error.to_string()),
        }
        while let Some(front) = self.lanes.front() {
            self.came(front)?;
        }
        // What is too large is not read.
        let read = file.size.min(self.running.scans.max_size);
        self.wait_until(self.running.scans.throttle.pay(read))
    }

    fn skipped(&mut self, path: &Path, why: Skip) -> ControlFlow<()> {
        // Other mounts are not part of the target.
        if !matches!(why, Skip::OtherMount | Skip::Cycle) {
            self.problem(path, &why.to_string());
        }
        self.go_on()
    }

    fn next(&mut self, path: &Path) -> ControlFlow<()> {
        self.running.job.at(path);
        self.go_on()
    }
}
