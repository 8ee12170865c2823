//! Who may ask clamd just now: a bounded number at once, and nobody while it is away.
//!
//! Half of the places are never lent to work that nobody waits for, so that a scan of large files
//! keeps no opener from asking.
//!
//! That nobody asks is up to a circuit breaker. It opens after some failures in a row. While it is open
//! nobody asks, so nobody waits. It is closed again by whoever probes clamd meanwhile, never
//! by an opener's question.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::engine::Priority;

#[derive(Debug)]
pub(super) struct Gate {
    /// Failures in a row that open it.
    most_failures: u32,
    /// How long it stays open at least.
    retry: Duration,
    /// Places for openers alone.
    reserved: usize,
    state: Mutex<State>,
    /// A place is free, or there is nothing to wait for any more.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// In a row.
    failures: u32,
    away: Option<Away>,
}

/// Since when clamd is away, and why.
#[derive(Debug, Clone)]
pub(super) struct Away {
    pub(super) since: SystemTime,
    pub(super) why: String,
    probe_at: Instant,
}

/// Why somebody may not ask.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Too many do.
    Busy,
    /// clamd is away.
    Away,
}

/// Leave to ask once.
#[derive(Debug)]
pub(super) struct Leave<'a>(&'a Gate);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.lock().free += 1;
        self.0.changed.notify_all();
    }
}

impl Gate {
    /// A gate that is open for `places` at once, as if clamd answered.
    pub(super) fn new(places: usize, most_failures: u32, retry: Duration) -> Self {
        Self {
            most_failures,
            retry,
            reserved: places / 2,
            state: Mutex::new(State {
                free: places,
                failures: 0,
                away: None,
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for leave to ask, until the deadline.
    pub(super) fn enter(&self, priority: Priority, deadline: Instant) -> Result<Leave<'_>, Refused> {
        let reserved = match priority {
            Priority::Opener => 0,
            Priority::Background => self.reserved,
        };
        let mut state = self.lock();
        loop {
            if state.away.is_some() {
                return Err(Refused::Away);
            }
            if state.free > reserved {
                state.free -= 1;
                return Ok(Leave(self));
            }
            state = self.wait(state, deadline).ok_or(Refused::Busy)?;
        }
    }

    /// None when the deadline came first.
    fn wait<'a>(&self, state: MutexGuard<'a, State>, deadline: Instant) -> Option<MutexGuard<'a, State>> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        let waited = self.changed.wait_timeout(state, left);
        Some(waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    /// clamd was heard. True when it was away until now.
    pub(super) fn heard(&self) -> bool {
        let mut state = self.lock();
        state.failures = 0;
        state.away.take().is_some()
    }

    /// As [`Gate::heard`], by who asked about a file: that alone does not bring it back.
    pub(super) fn answered(&self) {
        self.lock().failures = 0;
    }

    /// clamd failed. True when this opens the gate's breaker.
    pub(super) fn failed(&self, why: &str) -> bool {
        let mut state = self.lock();
        state.failures = state.failures.saturating_add(1);
        let probe_at = Instant::now() + self.retry;
        if let Some(away) = &mut state.away {
            away.probe_at = probe_at;
            return false;
        }
        if state.failures < self.most_failures {
            return false;
        }
        state.away = Some(Away {
            since: SystemTime::now(),
            why: why.to_owned(),
            probe_at,
        });
        drop(state);
        self.changed.notify_all();
        true
    }

    /// Whether clamd is away.
    pub(super) fn away(&self) -> Option<Away> {
        self.lock().away.clone()
    }

    /// Waits until it is time to look after clamd: every `poll` while it answers, and when its
    /// time is over while it is away.
    pub(super) fn wait_for_probe(&self, poll: Duration) {
        let mut poll_at = Instant::now() + poll;
        let mut state = self.lock();
        loop {
            if let Some(away) = &state.away {
                poll_at = away.probe_at;
            }
            match self.wait(state, poll_at) {
                Some(woken) => state = woken,
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    const OPENER: Priority = Priority::Opener;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(20)
    }

    #[test]
    fn what_nobody_waits_for_leaves_openers_their_places() {
        let gate = Gate::new(3, 3, LONG);
        let enter = |priority| gate.enter(priority, soon());
        let _scans = [Priority::Background; 2].map(|priority| enter(priority).unwrap());
        assert_eq!(enter(Priority::Background).unwrap_err(), Refused::Busy);
        assert!(enter(OPENER).is_ok());
        let only = Gate::new(1, 3, LONG);
        assert!(
            only.enter(Priority::Background, soon()).is_ok(),
            "where there is one, it is for both"
        );
    }

    #[test]
    fn no_more_ask_at_once_than_may() {
        let gate = Gate::new(2, 3, LONG);
        let (first, _second) = (
            gate.enter(OPENER, soon()).unwrap(),
            gate.enter(OPENER, soon()).unwrap(),
        );
        assert_eq!(gate.enter(OPENER, soon()).unwrap_err(), Refused::Busy);
        drop(first);
        assert!(gate.enter(OPENER, soon()).is_ok());
    }

    #[test]
    fn only_failures_in_a_row_open_it_and_only_a_probe_closes_it() {
        let gate = Gate::new(1, 3, LONG);
        assert!(!gate.failed("a") && !gate.failed("b"));
        gate.answered();
        assert!(!gate.failed("c") && !gate.failed("d"));
        assert!(gate.failed("e"), "the third in a row");
        assert!(!gate.failed("f"), "it is told once");
        assert_eq!(gate.away().unwrap().why, "e");
        // Of a question that was asked before.
        gate.answered();
        assert_eq!(gate.enter(OPENER, soon()).unwrap_err(), Refused::Away);
        assert!(gate.heard());
        assert!(!gate.heard(), "it is told once");
        assert!(gate.enter(OPENER, soon()).is_ok());
    }

    #[test]
    fn who_waits_for_a_place_is_told_when_there_is_none_to_come() {
        let gate = Gate::new(1, 1, LONG);
        let asking = gate.enter(OPENER, soon()).unwrap();
        let begun = Instant::now();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| gate.enter(OPENER, Instant::now() + LONG).map(drop));
            thread::sleep(Duration::from_millis(20));
            gate.failed("gone");
            assert_eq!(waiting.join().unwrap(), Err(Refused::Away));
        });
        drop(asking);
        assert!(begun.elapsed() < LONG / 2);
    }

    #[test]
    fn it_is_probed_when_its_time_is_over() {
        let retry = Duration::from_millis(30);
        let gate = Gate::new(1, 1, retry);
        let begun = Instant::now();
        thread::scope(|scope| {
            scope.spawn(|| gate.wait_for_probe(LONG));
            thread::sleep(Duration::from_millis(10));
            gate.failed("gone");
        });
        assert!(begun.elapsed() >= retry && begun.elapsed() < LONG / 2);
    }
}
