//! An attack: its name, what it needs, and how it is to end.

use std::sync::Arc;

use anyhow::Result;
use lazaret_tests::interrupt;
use lazaret_tests::needs::Need;
use libtest_mimic::{Failed, Trial};

use crate::arena::Arena;

const NEEDS: &[Need] = &[Need::Root, Need::Fanotify, Need::Cgroup, Need::Overlay];

#[derive(Clone, Copy)]
pub(crate) struct Case {
    name: &'static str,
    run: fn(&Arena) -> Result<()>,
    /// What else the machine must have: why it cannot be run, if so.
    missing: fn() -> Option<&'static str>,
}

impl Case {
    pub(crate) const fn new(name: &'static str, run: fn(&Arena) -> Result<()>) -> Self {
        Self {
            name,
            run,
            missing: || None,
        }
    }

    /// The same, where `missing` gives no reason not to.
    pub(crate) const fn unless(self, missing: fn() -> Option<&'static str>) -> Self {
        Self { missing, ..self }
    }

    /// As a test; without an arena it is only listed.
    pub(crate) fn trial(self, arena: Option<&Arc<Arena>>) -> Trial {
        let ignored = |why: &str, trial: Trial| trial.with_kind(why).with_ignored_flag(true);
        let Some(arena) = arena.cloned() else {
            let trial = Trial::test(self.name, || Ok(()));
            return ignored("runs by `cargo xtask test attacks`", trial);
        };
        let trial = Trial::test(self.name, move || self.judge(&arena));
        // Listed as not run with its reason: what cannot run must not look as if it passed.
        let missing = NEEDS.iter().find_map(|need| need.missing());
        match missing.or_else(self.missing) {
            Some(why) => ignored(why, trial),
            None => trial,
        }
    }

    fn judge(self, arena: &Arena) -> Result<(), Failed> {
        let result = (self.run)(arena);
        interrupt::yield_to_cleanup();
        result.map_err(|error| Failed::from(format!("{error:#}")))
    }
}
