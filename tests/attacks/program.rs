//! The program that attackers make good or evil, as `lazaret-inside attack` has it, and what came
//! of running it.

use anyhow::{Result, bail, ensure};
use lazaret_tests::malware::sha256;
use serde::Deserialize;

/// Where it is in the image.
pub(crate) const INSIDE: &str = "/opt/inside";

/// How the program tells that it ran.
pub(crate) const GOOD_RAN: i32 = 42;
pub(crate) const EVIL_RAN: i32 = 66;
/// How the helper tells that what it was to become was denied.
pub(crate) const DENIED: i32 = 13;

const GOOD: &[u8] = b"lazaret-attack:good";
const EVIL: &[u8] = b"lazaret-attack:evil";
const PAGE: usize = 4096;

/// The hashes of all that is evil of it: another word, and a hole instead.
pub(crate) fn evil(program: &[u8]) -> Result<[String; 2]> {
    let hole = with(program, &[0; PAGE])?;
    Ok([sha256(&make_evil(program)?), sha256(&hole)])
}

/// The evil one of it.
pub(crate) fn make_evil(program: &[u8]) -> Result<Vec<u8>> {
    with(program, EVIL)
}

/// It with other bytes in place of its flavour.
fn with(program: &[u8], bytes: &[u8]) -> Result<Vec<u8>> {
    let windows = program.windows(GOOD.len()).enumerate();
    let at: Vec<_> = windows
        .filter(|(_, window)| *window == GOOD)
        .map(|(at, _)| at)
        .collect();
    let [at] = at.as_slice() else {
        bail!("the helper has its flavour in {} places", at.len());
    };
    ensure!(at % PAGE == 0, "its flavour has no page of its own");
    let mut program = program.to_owned();
    program.splice(*at..at + bytes.len(), bytes.iter().copied());
    Ok(program)
}

/// What came of running a file before and after it was overwritten.
#[derive(Debug, Deserialize)]
pub(crate) struct Runs {
    pub(crate) before: Tally,
    pub(crate) after: Tally,
}

/// What came of running it again and again.
#[derive(Debug, Deserialize)]
pub(crate) struct Tally {
    pub(crate) good: u32,
    pub(crate) evil: u32,
    pub(crate) denied: u32,
    /// Nothing ran: it was open for writing, or no program at that moment.
    pub(crate) idle: u32,
    pub(crate) failed: Vec<String>,
}

impl Tally {
    /// Whatever else happened, the evil one never ran, and somebody said no to it.
    pub(crate) fn was_held(&self) -> Result<()> {
        ensure!(self.evil == 0, "what is evil ran: {self:?}");
        ensure!(self.denied > 0, "nobody was denied anything: {self:?}");
        ensure!(self.failed.is_empty(), "{self:?}");
        Ok(())
    }

    /// It ran each time, and it was good.
    pub(crate) fn was_good(&self) -> Result<()> {
        let other = self.evil + self.denied + self.idle;
        ensure!(self.good > 0 && other == 0 && self.failed.is_empty(), "{self:?}");
        Ok(())
    }
}
