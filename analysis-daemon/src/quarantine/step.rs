//! The steps between which a crash must leave the store whole.
//!
//! A test names one in the environment of a child, which then dies there as by
//! `kill -9`. In a build that is not a test's, a step is nothing at all.

/// A moment between two changes on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    PartOfObjectWritten,
    ObjectWritten,
    ObjectNamed,
    ItemRecorded,
    TakenAway,
    Unlinked,
    StateRecorded,
    Allowed,
    AttributesRestored,
    Restored,
    OriginalWritten,
    OriginalNamed,
    ItemForgotten,
}

#[cfg(not(test))]
#[inline]
pub(super) const fn passed(_: Step) {}

#[cfg(test)]
pub(super) use dying::{ALL, DIE_AT, passed};

#[cfg(test)]
mod dying {
    use rustix::process::{Signal, getpid, kill_process};

    use super::Step;

    /// The variable that names the step.
    pub(in crate::quarantine) const DIE_AT: &str = "LAZARET_TEST_DIE_AT";

    pub(in crate::quarantine) const ALL: [Step; 13] = [
        Step::PartOfObjectWritten,
        Step::ObjectWritten,
        Step::ObjectNamed,
        Step::ItemRecorded,
        Step::TakenAway,
        Step::Unlinked,
        Step::StateRecorded,
        Step::Allowed,
        Step::AttributesRestored,
        Step::Restored,
        Step::OriginalWritten,
        Step::OriginalNamed,
        Step::ItemForgotten,
    ];

    pub(in crate::quarantine) fn passed(step: Step) {
        if std::env::var(DIE_AT).is_ok_and(|named| named == format!("{step:?}")) {
            kill_process(getpid(), Signal::KILL).unwrap();
            unreachable!("killed");
        }
    }
}
