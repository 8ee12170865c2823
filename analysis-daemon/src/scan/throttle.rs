//! A bound on how much all scans together read.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What a file costs at least, in bytes: also an empty one is opened and judged.
const EACH: u64 = 4096;

#[derive(Debug)]
pub(super) struct Throttle {
    /// Bytes a second; 0 without a bound.
    rate: u64,
    /// When what was read so far will have been paid for.
    paid_at: Mutex<Instant>,
}

impl Throttle {
    pub(super) fn new(rate: u64) -> Self {
        Self {
            rate,
            paid_at: Mutex::new(Instant::now()),
        }
    }

    /// Accounts for a file; returns until when its reader must wait.
    pub(super) fn pay(&self, bytes: u64) -> Instant {
        let now = Instant::now();
        if self.rate == 0 {
            return now;
        }
        let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        // Time that nobody used is not saved up.
        *paid_at = now.max(*paid_at) + self.price(bytes.max(EACH));
        *paid_at
    }

    fn price(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX >> 4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_readers_share_the_rate() {
        let throttle = Throttle::new(1 << 20);
        let began = Instant::now();
        throttle.pay(1 << 20);
        let wait = throttle.pay(2 << 20) - began;
        assert!((2_900..3_100).contains(&wait.as_millis()), "{wait:?}");
    }

    #[test]
    fn no_rate_is_no_wait() {
        let throttle = Throttle::new(0);
        assert!(throttle.pay(u64::MAX) <= Instant::now());
    }
}
