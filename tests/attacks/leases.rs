//! Leases of the container's own: whoever opens its evil file would have to wait for it.

use anyhow::{Result, ensure};

use crate::arena::Arena;
use crate::case::Case;
use crate::foothold::{Foothold, SIGNALS};
use crate::program::{EVIL_RAN, GOOD_RAN};

pub(crate) const CASES: &[Case] = &[
    Case::new("lease::for_reading", |arena| held(arena, "read")),
    Case::new("lease::for_writing", |arena| held(arena, "write")),
];

fn held(arena: &Arena, kind: &str) -> Result<()> {
    let node = arena.node()?;
    let foothold = Foothold::gain(&node, "lease")?;
    let other = Foothold::gain(&node, "neighbour")?;
    for file in ["/opt/leased", "/tmp/leased"] {
        let attack = foothold.begin(&["lease", kind, file, SIGNALS])?;
        foothold.wait_ready()?;
        for _ in 0..3 {
            let outcome = foothold.shell(&format!("{file} attack ran"))?;
            ensure!(
                ![GOOD_RAN, EVIL_RAN].contains(&outcome.code),
                "{file} ran: {outcome:?}"
            );
            let denied = outcome.err().contains("Operation not permitted");
            ensure!(denied, "{file} was not denied: {outcome:?}");
        }
        // Nobody else waits for it.
        other.is_served()?;
        foothold.is_served()?;
        foothold.go(attack)?.ok()?;
    }
    other.leave()?;
    foothold.leave()
}
