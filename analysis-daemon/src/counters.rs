//! What the daemon counts since it started.

use std::sync::atomic::{AtomicU64, Ordering};

/// One number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn one(&self) {
        self.add(1);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// For the whole node.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Openers that were answered.
    pub(crate) events: Counter,
    /// Of these, let go on.
    pub(crate) allowed: Counter,
    /// Of these, refused.
    pub(crate) denied: Counter,
    /// Of the allowed, those with an incident.
    pub(crate) alerts: Counter,
    /// Files without a verdict: too large, too slow, unreadable.
    pub(crate) unjudged: Counter,
    /// Events that the kernel refused because we could not take them: out of
    /// descriptors, or a file that could not be opened without waiting.
    pub(crate) refused_by_kernel: Counter,
    /// Files judged after somebody wrote to them.
    pub(crate) written: Counter,
    /// Times that more files were written than could be remembered: these are judged when they
    /// are opened.
    pub(crate) writes_lost: Counter,
    /// Openers outside of guarded containers that asked, by a mount not known before, and were
    /// let through.
    pub(crate) bystanders: Counter,
    /// Incidents not written because one container made too many of them.
    pub(crate) incidents_suppressed: Counter,
}
