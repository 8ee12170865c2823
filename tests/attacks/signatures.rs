//! What is clean today is known tomorrow to be evil.

use anyhow::{Result, ensure};
use lazaret_tests::malware::sha256;

use crate::arena::Arena;
use crate::case::Case;
use crate::foothold::{Foothold, was_denied};
use crate::program::{GOOD_RAN, INSIDE};

const LATE: &str = "known-since-today";

pub(crate) const CASES: &[Case] = &[Case::new("signature::for_a_sealed_content", late)];

fn late(arena: &Arena) -> Result<()> {
    // Signatures break every seal of a node.
    let node = arena.own_node("")?;
    let foothold = Foothold::gain(&node, "late")?;
    let files = ["/opt/late", "/tmp/late"];
    for file in files {
        let sealed = foothold.sealed()?;
        foothold
            .shell(&format!("cp {INSIDE} {file} && printf {LATE} >> {file}"))?
            .ok()?;
        for _ in 0..2 {
            let outcome = foothold.exec(&[file, "attack", "ran"])?;
            ensure!(outcome.code == GOOD_RAN, "{outcome:?}");
        }
        foothold.wait_sealed(sealed)?;
    }
    let content = [arena.program()?, LATE.into()].concat();
    node.daemon()?.add_signature(&sha256(&content), "late")?;
    for file in files {
        was_denied(&foothold.shell(&format!("{file} attack ran"))?)?;
        foothold.denial(file)?;
    }
    foothold.leave()
}
