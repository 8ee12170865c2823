//! A bound on how often something is done.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use lazaret_types::Severity;

/// How many times something is told at once, and how many times it may be told again each second.
const TOLD: (f64, f64) = (100.0, 20.0);

/// A token bucket.
#[derive(Debug)]
pub(crate) struct Rate {
    burst: f64,
    per_second: f64,
    tokens: Mutex<(f64, Instant)>,
}

impl Rate {
    /// For what is told.
    pub(crate) fn new() -> Self {
        Self::of(TOLD)
    }

    /// For so many in a burst, and so many regained each second.
    pub(crate) fn of((burst, per_second): (f64, f64)) -> Self {
        Self {
            burst,
            per_second,
            tokens: Mutex::new((burst, Instant::now())),
        }
    }

    /// Whether it may be done now.
    pub(crate) fn admits(&self) -> bool {
        let mut bucket = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let (tokens, last) = &mut *bucket;
        *tokens = (*tokens + last.elapsed().as_secs_f64() * self.per_second).min(self.burst);
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
