//! Known limits: attacks that succeed, and why. Each asserts that it does: whoever closes one
//! finds the case failing, and moves it to where attacks are denied.

use anyhow::{Result, ensure};

use crate::arena::Arena;
use crate::case::Case;
use crate::foothold::Foothold;
use crate::program::EVIL_RAN;
use crate::race;
use crate::reach::no_namespaces;

pub(crate) const CASES: &[Case] = &[
    // Only what is mounted when a container starts is marked; nobody can forbid a mount by fanotify.
    Case::new("limit::file_system_mounted_later", |arena| {
        runs(arena, "new-tmpfs", "/opt/reached/program")
    })
    .unless(no_namespaces),
    // The kernel asks when a file is opened. What the opener maps or reads later is what is in
    // the file then.
    Case::new("limit::library_overwritten_after_it_was_opened", |arena| {
        runs(arena, "old-descriptor", "/opt/reached/program")
    }),
    // Whoever may mount may as well show a file through an overlay of his own. The file below is
    // opened as if it was to be read, and the kernel does not forbid to write to it meanwhile.
    Case::new("limit::program_written_below_an_overlay", below_overlay).unless(no_namespaces),
];

fn runs(arena: &Arena, way: &str, file: &str) -> Result<()> {
    let node = arena.node()?;
    let foothold = Foothold::gain(&node, "limit")?;
    let outcome = foothold.attack(&["reach", way, file])?;
    ensure!(outcome.code == EVIL_RAN, "is this limit closed? {outcome:?}");
    foothold.leave()
}

fn below_overlay(arena: &Arena) -> Result<()> {
    let node = arena.node()?;
    let foothold = Foothold::gain(&node, "limit")?;
    let tally = race::run(&foothold, "mapping", "overlay", "/opt/file")?;
    ensure!(tally.evil > 0, "is this limit closed? {tally:?}");
    foothold.leave()
}
