//! A program is evil at some moments and good at others. It is run thousands of times, by every
//! name that it can have: whenever it is evil it must not run.

use anyhow::{Context, Result};

use crate::arena::{Arena, VICTIM};
use crate::case::Case;
use crate::foothold::{Foothold, told};
use crate::program::Tally;
use crate::reach::no_namespaces;

pub(crate) const CASES: &[Case] = &[
    Case::new("race::write", |arena| held(arena, "write", "path")),
    Case::new("race::short_mapping", |arena| held(arena, "remap", "path")),
    Case::new("race::long_mapping", |arena| held(arena, "mapping", "path")),
    Case::new("race::write_to_a_deleted_file", |arena| {
        held(arena, "write", "deleted")
    }),
    Case::new("race::short_mapping_of_a_deleted_file", |arena| {
        held(arena, "remap", "deleted")
    }),
    Case::new("race::long_mapping_of_a_deleted_file", |arena| {
        held(arena, "mapping", "deleted")
    }),
    Case::new("race::write_to_a_nameless_file", |arena| {
        held(arena, "write", "nameless")
    }),
    Case::new("race::short_mapping_of_a_nameless_file", |arena| {
        held(arena, "remap", "nameless")
    }),
    Case::new("race::write_to_a_bound_file", |arena| {
        held(arena, "write", "bound")
    })
    .unless(no_namespaces),
    Case::new("race::long_mapping_of_a_bound_file", |arena| {
        held(arena, "mapping", "bound")
    })
    .unless(no_namespaces),
    Case::new("race::opener_that_gets_no_processor", |arena| {
        held(arena, "strike", "starved")
    }),
];

/// How long one may take that does not see both outcomes often enough.
const SECONDS: &str = "8";

fn held(arena: &Arena, how: &str, reach: &str) -> Result<()> {
    let node = arena.node()?;
    let foothold = Foothold::gain(&node, "race")?;
    // Of the image's files overlayfs makes no copy to write to once they are deleted.
    let image = (reach != "deleted").then_some(VICTIM);
    for file in ["/opt/file", "/tmp/file"].into_iter().chain(image) {
        run(&foothold, how, reach, file)?.was_held().context(file)?;
    }
    foothold.denial_by(|_| true)?;
    foothold.leave()
}

/// Runs the race until it is lost, or was won often enough.
pub(crate) fn run(foothold: &Foothold<'_>, how: &str, reach: &str, file: &str) -> Result<Tally> {
    told(&foothold.attack(&["race", how, reach, file, SECONDS])?)
}
