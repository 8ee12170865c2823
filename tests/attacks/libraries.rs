//! Evil code that is no program to the kernel: what the loader of dynamic programs opens.

use anyhow::{Context, Result, ensure};
use lazaret_tests::command::Outcome;
use lazaret_tests::malware::EFFECT;

use crate::arena::{
    Arena, DYNAMIC, EVIL_DYNAMIC, EVIL_LIBRARIES, GOOD_LIBRARIES, LIBRARY, evil_dynamic, evil_library, loader,
};
use crate::case::Case;
use crate::foothold::{Foothold, was_denied};

pub(crate) const CASES: &[Case] = &[
    Case::new("library::program_as_an_argument_of_the_loader", through_loader),
    Case::new("library::preloaded", |arena| loaded(arena, preload)),
    Case::new("library::instead_of_another", |arena| loaded(arena, instead)),
];

fn through_loader(arena: &Arena) -> Result<()> {
    let (node, loader) = (arena.node()?, loader()?);
    let foothold = Foothold::gain(&node, "loader")?;
    let clean = foothold.shell(&format!("{loader} {DYNAMIC} -c 'echo clean'"))?;
    ensure!(clean.out() == "clean", "the way itself must work: {clean:?}");
    let evil = foothold.shell(&format!("{loader} {EVIL_DYNAMIC} -c 'echo {EFFECT}'"))?;
    was_denied(&evil)?;
    is_told(&foothold, &evil_dynamic()?.sha256)?;
    foothold.leave()
}

fn preload(folder: &str) -> String {
    format!("LD_PRELOAD={folder}/{LIBRARY}")
}

fn instead(folder: &str) -> String {
    format!("LD_LIBRARY_PATH={folder}")
}

/// What a program has mapped tells whether a library of a folder is in it.
fn loaded(arena: &Arena, by: fn(&str) -> String) -> Result<()> {
    let node = arena.node()?;
    let foothold = Foothold::gain(&node, "library")?;
    let run = |folder: &str| -> Result<(bool, Outcome)> {
        let list = "while read line; do echo \"$line\"; done < /proc/self/maps";
        let outcome = foothold.shell(&format!("{} {DYNAMIC} -c '{list}'", by(folder)))?;
        Ok((outcome.out().contains(&format!("{folder}/{LIBRARY}")), outcome))
    };
    let (good, outcome) = run(GOOD_LIBRARIES)?;
    ensure!(good, "the way itself must work: {outcome:?}");
    let (evil, outcome) = run(EVIL_LIBRARIES)?;
    ensure!(!evil, "what is evil was loaded: {outcome:?}");
    is_told(&foothold, &evil_library()?.sha256)?;
    foothold.leave()
}

fn is_told(foothold: &Foothold<'_>, sha256: &str) -> Result<()> {
    foothold
        .denial_by(|incident| incident.text("/file/sha256") == sha256)
        .map(drop)
        .with_context(|| sha256.to_owned())
}
