//! More than anybody can judge or remember: its container has less of the guard, never the
//! others, and lazaretd stays as it is.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lazaret_tests::command::LIMIT;
use lazaret_tests::malware::{EFFECT, tail};
use lazaret_tests::node::Node;
use serde::Deserialize;

use crate::arena::{Arena, DROPPED, dropped};
use crate::case::Case;
use crate::foothold::{Foothold, SOON, told, was_denied};
use crate::program::INSIDE;

pub(crate) const CASES: &[Case] = &[
    Case::new("endless::hundred_thousand_files", flood),
    Case::new("endless::file_that_grows", growing),
    Case::new("endless::sparse_file_of_a_tebibyte", sparse),
    Case::new("endless::path_as_long_as_can_be", longest_path),
];

fn flood(arena: &Arena) -> Result<()> {
    const FILES: &str = "100000";
    /// What a remembered verdict and a seal may cost, of all that are kept.
    const MORE_KIB: u64 = 96 * 1024;
    #[derive(Deserialize)]
    struct Flood {
        opened: u64,
    }
    let node = arena.own_node("")?;
    let foothold = Foothold::gain(&node, "flood")?;
    let other = Foothold::gain(&node, "neighbour")?;
    let before = node.daemon()?.pss_kib()?;
    let attack = foothold.begin(&["flood", "/opt/flood", FILES])?;
    for _ in 0..3 {
        other.is_served()?;
    }
    let flood: Flood = told(&attack.wait(LIMIT)?)?;
    ensure!(flood.opened.to_string() == FILES, "{} of {FILES}", flood.opened);
    let (sealed, most) = (foothold.sealed()?, most_seals(&node)?);
    ensure!(sealed <= most, "{sealed} seals of {most}");
    let more = node.daemon()?.pss_kib()?.saturating_sub(before);
    ensure!(more <= MORE_KIB, "lazaretd has {more} KiB more");
    other.is_served()?;
    foothold.is_served()
}

/// Of its descriptors lazaretd takes two fifths for seals, of which each needs one at least.
fn most_seals(node: &Node) -> Result<u64> {
    let pid = node.daemon()?.pid().context("lazaretd runs")?;
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3));
    Ok(soft.context("no limit")?.parse::<u64>()? * 2 / 5)
}

fn growing(arena: &Arena) -> Result<()> {
    #[derive(Debug, Deserialize)]
    struct Growth {
        answered: u64,
        longest_ms: u64,
    }
    let node = arena.node()?;
    let foothold = Foothold::gain(&node, "growing")?;
    let other = Foothold::gain(&node, "neighbour")?;
    let attack = foothold.begin(&["grow", "/opt/growing", "6"])?;
    other.is_served()?;
    let growth: Growth = told(&attack.wait(LIMIT)?)?;
    ensure!(growth.answered > 0, "{growth:?}");
    // Longer than `scan.timeout` nobody waits, but for the machine's own load.
    let longest = Duration::from_millis(growth.longest_ms);
    ensure!(longest < SOON, "{growth:?}");
    foothold.shell("rm /opt/growing")?.ok()?;
    foothold.is_served()?;
    other.leave()?;
    foothold.leave()
}

fn sparse(arena: &Arena) -> Result<()> {
    const TEBIBYTE: u64 = 1 << 40;
    let node = arena.node()?;
    let foothold = Foothold::gain(&node, "sparse")?;
    for file in ["/opt/sparse", "/tmp/sparse"] {
        let outcome = foothold.shell(&format!(
            "truncate -s {TEBIBYTE} {file} && chmod +x {file} && {file}"
        ))?;
        was_denied(&outcome)?;
        ensure!(outcome.took < SOON, "somebody read it all: {outcome:?}");
        foothold.denial(file)?;
    }
    foothold.is_served()?;
    foothold.leave()
}

fn longest_path(arena: &Arena) -> Result<()> {
    let node = arena.node()?;
    let foothold = Foothold::gain(&node, "deep")?;
    let evil = format!(
        "cp /bin/busybox sh && printf '%s' '{}' >> sh && chmod +x sh",
        tail(DROPPED)
    );
    let script = format!("{evil} && ./sh -c 'echo {EFFECT}'");
    // With the name of the file, and the end of the string, it is as long as can be told; and then longer.
    for length in ["4092", "6000"] {
        was_denied(&foothold.exec(&[INSIDE, "deep", length, &script])?)?;
    }
    let sha256 = dropped()?.sha256;
    foothold.denial_by(|incident| incident.text("/file/sha256") == sha256)?;
    foothold.leave()
}
