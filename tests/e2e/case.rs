//! A test case: its name, what it needs, and whether it wants the machine for itself.

use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Result;
use lazaret_tests::interrupt;
use lazaret_tests::needs::Need;
use libtest_mimic::{Failed, Trial};

use crate::conformance::{self, Side};
use crate::world::World;

/// Held for writing by a case that measures time or counts what is left in the system.
static MACHINE: RwLock<()> = RwLock::new(());

const NEEDS: &[Need] = &[Need::Root, Need::Fanotify, Need::Cgroup, Need::Overlay];

#[derive(Clone, Copy)]
pub(crate) struct Case {
    name: &'static str,
    alone: bool,
    run: Run,
}

#[derive(Clone, Copy)]
enum Run {
    /// It says by itself what is right.
    Judged(fn(&World) -> Result<()>),
    /// Under either runtime; what is told of both must be the same.
    Compared(fn(&Side<'_>) -> Result<String>),
}

impl Case {
    /// A case on the shared node, beside others.
    pub(crate) const fn shared(name: &'static str, run: fn(&World) -> Result<()>) -> Self {
        Self {
            name,
            alone: false,
            run: Run::Judged(run),
        }
    }

    /// A case that runs while no other does.
    pub(crate) const fn alone(name: &'static str, run: fn(&World) -> Result<()>) -> Self {
        Self {
            name,
            alone: true,
            run: Run::Judged(run),
        }
    }

    /// A case of the table that compares lazaret with the stock runtime, beside others.
    pub(crate) const fn compared(name: &'static str, run: fn(&Side<'_>) -> Result<String>) -> Self {
        Self {
            name,
            alone: false,
            run: Run::Compared(run),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn trial(self, world: &Arc<World>) -> Trial {
        let name = format!("containerd-{}::{}", world.release().series, self.name);
        let judged = Arc::clone(world);
        let trial = Trial::test(name, move || self.judge(&judged));
        // Listed as not run with its reason: what cannot run must not look as if it passed.
        let missing = NEEDS.iter().find_map(|need| need.missing());
        match world.not_prepared().or(missing) {
            Some(why) => trial.with_kind(why).with_ignored_flag(true),
            None => trial,
        }
    }

    fn judge(self, world: &World) -> Result<(), Failed> {
        let run = || match self.run {
            Run::Judged(run) => run(world),
            Run::Compared(run) => conformance::compare(world, self.name, run),
        };
        let result = if self.alone {
            let _machine = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
            run()
        } else {
            let _machine = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
            run()
        };
        interrupt::yield_to_cleanup();
        result.map_err(|error| Failed::from(format!("{error:#}")))
    }
}
