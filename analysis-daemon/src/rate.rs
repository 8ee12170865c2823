//! A bound on how often something is told.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_to_the_burst() {
        let rate = Rate::new();
        let admitted = (0..10_000).filter(|_| rate.admits()).count();
        assert!((100..200).contains(&admitted), "{admitted}");
    }
}
