//! What is done with each file.

use std::ops::ControlFlow::{self, Break, Continue};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lazaret_types::UnjudgedReason;
use lazaret_walk::{Regular, Skip, Visitor};

use super::record::Cursor;
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
}

pub(super) struct Judging<'a> {
    pub(super) scans: &'a Scans,
    pub(super) job: &'a Job,
    pub(super) session: Option<&'a Arc<Session>>,
    reports: Rate,
    saved_at: Instant,
}

impl<'a> Judging<'a> {
    pub(super) fn new(scans: &'a Scans, job: &'a Job, session: Option<&'a Arc<Session>>) -> Self {
        Self {
            scans,
            job,
            session,
            reports: Rate::new(),
            saved_at: Instant::now(),
        }
    }

    /// Why not to go on.
    pub(super) fn leave(&self) -> Option<Leave> {
        let ending = |session: &Arc<Session>| session.ending.load(Ordering::Acquire);
        if self.scans.is_stopping() {
            Some(Leave::Stopping)
        } else if self.session.is_some_and(ending) {
            Some(Leave::ContainerEnded)
        } else if self.job.is_cancelled() {
            Some(Leave::Cancelled)
        } else {
            None
        }
    }

    fn go_on(&self) -> ControlFlow<()> {
        if self.leave().is_some() {
            Break(())
        } else {
            Continue(())
        }
    }

    fn found(&self, found: Found, set: &Arc<str>) {
        if self.reports.admits() {
            let incident = incident(&self.job.target, self.session, &found, set);
            self.scans.means.incidents.report(incident);
        } else {
            self.scans.means.counters.incidents_suppressed.one();
        }
        self.job.count(|record| record.add_found(found));
        self.job.tell();
    }

    fn problem(&self, path: &Path, why: &str) {
        let path = shown(&self.job.target, path);
        self.job.count(|record| record.add_problem(&path, why));
    }

    /// From now on, this file would not be judged again after a restart.
    fn passed(&mut self, file: &Regular<'_>) {
        self.job.count(|record| {
            record.counts.files += 1;
            record.counts.bytes += file.size;
            record.cursor = Some(Cursor(file.path.to_owned()));
        });
        if self.saved_at.elapsed() >= SAVE {
            self.saved_at = Instant::now();
            self.scans.save(self.job);
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
        match (self.scans.means.judge)(file.file, Instant::now() + DEADLINE) {
            Outcome::Judged { digest, verdict, set } => {
                self.job.count(|record| {
                    record.mixed |= record.basis.as_ref().is_none_or(|basis| *basis.set != *set);
                });
                if let Verdict::Bad(finding) = verdict {
                    let found = Found {
                        path: shown(&self.job.target, file.path),
                        rule: finding.rule,
                        severity: finding.severity,
                        sha256: digest,
                        size: file.size,
                    };
                    self.found(found, &set);
                }
            }
            Outcome::Unjudged(UnjudgedReason::Timeout) => self.problem(file.path, "not judged in time"),
            Outcome::Unjudged(reason) => self.problem(file.path, &reason.to_string()),
        }
        self.passed(file);
        // What is too large was not read.
        let read = file.size.min(self.scans.max_size);
        self.wait_until(self.scans.throttle.pay(read))
    }

    fn skipped(&mut self, path: &Path, why: Skip) -> ControlFlow<()> {
        // Other mounts are not part of the target.
        if !matches!(why, Skip::OtherMount | Skip::Cycle) {
            self.problem(path, &why.to_string());
        }
        self.go_on()
    }

    fn next(&mut self, path: &Path) -> ControlFlow<()> {
        self.job.at(path);
        self.go_on()
    }
}
