//! Whether a thread that works gets anywhere.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The pulse of one thread: since when it has been at its present piece of work.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    /// Milliseconds since [`start`], plus 1; 0 while it waits for work.
    busy_since: AtomicU64,
}

fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

fn now() -> u64 {
    u64::try_from(start().elapsed().as_millis()).unwrap_or(u64::MAX - 1)
}

impl Pulse {
    /// The thread has something to do.
    pub(crate) fn work(&self) {
        self.busy_since.store(now() + 1, Ordering::Release);
    }

    /// The thread waits.
    pub(crate) fn rest(&self) {
        self.busy_since.store(0, Ordering::Release);
    }

    /// For how long the thread has been at it.
    pub(crate) fn busy_for(&self) -> Duration {
        match self.busy_since.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            since => Duration::from_millis(now().saturating_sub(since - 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_only_while_it_works() {
        let pulse = Pulse::default();
        pulse.work();
        std::thread::sleep(Duration::from_millis(20));
        assert!(pulse.busy_for() >= Duration::from_millis(15));
        pulse.rest();
        assert_eq!(pulse.busy_for(), Duration::ZERO);
    }
}
