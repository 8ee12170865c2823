//! How many openers may be under judgement at once.
//!
//! What is over the budget waits in the kernel's queue: that costs nothing here,
//! and its time to be judged has not begun. So a flood makes openers wait, but
//! does not make verdicts late.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Descriptors that one opener under judgement holds.
const FDS_EACH: u64 = 2;

/// A bound on how much is taken at once.
#[derive(Debug)]
pub(crate) struct Budget {
    free: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(size: usize) -> Self {
        Self {
            free: AtomicUsize::new(size),
        }
    }

    /// Takes up to `wanted`; returns how many.
    pub(crate) fn take(&self, wanted: usize) -> usize {
        let taken = self
            .free
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| {
                Some(free.saturating_sub(wanted))
            });
        taken.map_or(0, |free| free.min(wanted))
    }

    pub(crate) fn give_back(&self, count: usize) {
        self.free.fetch_add(count, Ordering::AcqRel);
    }
}

/// Enough to keep every thread busy between two rounds of a reader.
const EACH_CONTAINER: usize = 64;

/// For all containers together.
const NODE: usize = 1024;

/// The budgets of the node and of each container, for a process that may have
/// `nofile` descriptors: at most 40 % of these are for openers, the rest is for
/// leases and containers.
pub(crate) fn sizes(nofile: u64) -> (usize, usize) {
    let fds = usize::try_from(nofile * 40 / 100 / FDS_EACH).unwrap_or(usize::MAX);
    let node = fds.clamp(4, NODE);
    (node, EACH_CONTAINER.min(node / 4))
}

/// Openers that may wait beyond the budgets because nobody else may wait behind them, in all and
/// of one container: another 10 % of the descriptors.
pub(crate) fn backlog(nofile: u64) -> (usize, usize) {
    const MOST: usize = 4096;
    let fds = usize::try_from(nofile * 10 / 100 / FDS_EACH).unwrap_or(usize::MAX);
    let node = fds.clamp(4, MOST);
    (node, node / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_no_more_than_it_has() {
        let budget = Budget::new(5);
        assert_eq!(budget.take(3), 3);
        assert_eq!(budget.take(3), 2);
        assert_eq!(budget.take(3), 0);
        budget.give_back(4);
        assert_eq!(budget.take(9), 4);
    }

    #[test]
    fn leaves_descriptors_for_everything_else() {
        assert_eq!(sizes(20_000), (1024, 64));
        assert_eq!(sizes(1024), (204, 51));
        assert_eq!(sizes(0), (4, 1));
        assert_eq!(backlog(20_000), (1000, 250));
        assert_eq!(backlog(0), (4, 1));
    }
}
