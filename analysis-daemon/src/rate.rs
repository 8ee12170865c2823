//! A bound on how often something is told.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use lazaret_types::Severity;

/// Kept ready for a burst.
const BURST: f64 = 100.0;

/// Regained each second.
const PER_SECOND: f64 = 20.0;

/// A token bucket.
#[derive(Debug)]
pub(crate) struct Rate(Mutex<(f64, Instant)>);

impl Rate {
    pub(crate) fn new() -> Self {
        Self(Mutex::new((BURST, Instant::now())))
    }

    /// Whether it may be told now.
    pub(crate) fn admits(&self) -> bool {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (tokens, last) = &mut *bucket;
        *tokens = (*tokens + last.elapsed().as_secs_f64() * PER_SECOND).min(BURST);
        *last = Instant::now();
        let admitted = *tokens >= 1.0;
        if admitted {
            *tokens -= 1.0;
        }
        admitted
    }
}

/// Bounds what is told of one container. What is grave has a bound of its own: else a container
/// could hide it behind a flood of trifles.
#[derive(Debug)]
pub(crate) struct Reports {
    grave: Rate,
    minor: Rate,
}

impl Reports {
    pub(crate) fn new() -> Self {
        Self {
            grave: Rate::new(),
            minor: Rate::new(),
        }
    }

    /// Whether something of that severity may be told now.
    pub(crate) fn admits(&self, severity: Severity) -> bool {
        match severity {
            Severity::Error | Severity::Critical => self.grave.admits(),
            Severity::Notice | Severity::Warning => self.minor.admits(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trifles_do_not_hide_what_is_grave() {
        let reports = Reports::new();
        let trifles = (0..10_000).filter(|_| reports.admits(Severity::Warning)).count();
        assert!((100..200).contains(&trifles), "{trifles}");
        assert!(reports.admits(Severity::Critical));
    }

    #[test]
    fn a_flood_is_cut_to_the_burst() {
        let rate = Rate::new();
        let admitted = (0..10_000).filter(|_| rate.admits()).count();
        assert!((100..200).contains(&admitted), "{admitted}");
    }
}
