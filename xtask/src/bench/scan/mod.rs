//! `cargo xtask bench scan`: how fast files are scanned, beside YARA-X's own command line.
//!
//! All scan the same files, in turn, from the page cache, and all that know YARA rules by the
//! same ones. What a scanner takes for a tree of one file is taken off: starting a program and
//! loading rules is no scanning.

mod clam;
mod lazaret;
mod scanner;
mod tree;
mod worker;
mod yara;
mod yr;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::thread::available_parallelism;

use anyhow::{Context, Result};
use lazaret_tests::binaries::Binaries;
use lazaret_tests::scratch::{Places, Scratch};
use lazaret_tests::{interrupt, ui};

use self::clam::{Clamdscan, Clamscan};
use self::lazaret::Lazaret;
use self::scanner::Scanner;
use self::tree::Tree;
use self::worker::Workers;
use self::yara::Yara;
use self::yr::Yr;
use super::report::{self, Better, Row, Software};
use super::stats::Summary;
use crate::elevate;

/// The engine's own program has no sandbox, and digests nothing.
const NEARLY_AS_FAST: f64 = 0.95;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rounds; in each, everybody scans every tree
    #[arg(short, default_value_t = 5)]
    n: u32,
    /// Size of the tree of programs and libraries, in MiB
    #[arg(long, default_value_t = 128)]
    mib: u64,
    /// Files in the tree of small files
    #[arg(long, default_value_t = 5_000)]
    files: u32,
}

/// Of each scanner, by its name.
type Rates = BTreeMap<String, Summary>;

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    // By whoever has the tool chain; root below sudo then finds it in the cache.
    yr::install()?;
    elevate::with_root(|binaries| measure(args, binaries))
}

fn measure(args: &Args, binaries: &Binaries) -> Result<ExitCode> {
    clam::install()?;
    yara::install()?;
    let scratch = Scratch::new()?;
    let places = scratch.places();
    let trees = ui::step("laying out what is scanned", || {
        let home = places.disk().join("trees");
        Ok([
            Tree::of_programs(&home.join("programs"), args.mib << 20)?,
            Tree::of_small_files(&home.join("small"), args.files)?,
        ])
    })?;
    let one = Tree::of_one_file(&places.disk().join("trees/one"))?;
    let cpus = available_parallelism()?.get();
    let scanners = scanners(places, binaries, cpus)?;
    let mut measured = Vec::new();
    for tree in &trees {
        ui::note(&tree.to_string());
        measured.push((tree, rates(&scanners, tree, &one, args.n)?));
    }
    report::publish("scan", software()?, &rows(&measured, cpus)?)?;
    Ok(ExitCode::SUCCESS)
}

fn scanners(places: &Places, binaries: &Binaries, cpus: usize) -> Result<Vec<Box<dyn Scanner>>> {
    Ok(vec![
        Box::new(Lazaret::start(places, binaries)?),
        Box::new(Yr::new(places, 1)?),
        Box::new(Workers::start(places, binaries, 1)?),
        Box::new(Yr::new(places, cpus)?),
        Box::new(Workers::start(places, binaries, cpus)?),
        Box::new(Clamdscan::start(places)?),
        Box::new(Clamscan::new(places)?),
        Box::new(Yara::new(places)?),
    ])
}

/// Everybody in turn, beginning with another one each round: drift of the machine hits all alike.
fn rates(scanners: &[Box<dyn Scanner>], tree: &Tree, one: &Tree, n: u32) -> Result<Rates> {
    let bar = ui::bar(u64::from(n), "scanning");
    let mut samples = BTreeMap::<_, Vec<f64>>::new();
    let mut order: Vec<_> = scanners.iter().collect();
    // The first round fills caches and does not count.
    for round in 0..=n {
        for scanner in &order {
            let took = scanner.scan(tree)?.saturating_sub(scanner.scan(one)?);
            interrupt::yield_to_cleanup();
            if round > 0 {
                samples.entry(scanner.name()).or_default().push(tree.rate(took));
            }
        }
        order.rotate_left(1);
        bar.set_position(u64::from(round));
    }
    bar.finish_and_clear();
    let summaries = samples
        .into_iter()
        .map(|(name, rates)| Some((name, Summary::of(rates)?)));
    summaries.collect::<Option<_>>().context("nothing was measured")
}

/// Who is held against whom. `lazaret scan` has two files under judgement at a time, each in a
/// worker, and digests them beside; those that it is held against take one after the other. What
/// one worker does is in the rows below.
fn rows(measured: &[(&Tree, Rates)], cpus: usize) -> Result<Vec<Row>> {
    let pairs = [
        (lazaret::NAME.to_owned(), yr::name(1), Some(NEARLY_AS_FAST)),
        (worker::name(1), yr::name(1), Some(NEARLY_AS_FAST)),
        (worker::name(cpus), yr::name(cpus), Some(NEARLY_AS_FAST)),
        (lazaret::NAME.to_owned(), clam::CLAMDSCAN.to_owned(), None),
        (lazaret::NAME.to_owned(), clam::CLAMSCAN.to_owned(), None),
        (lazaret::NAME.to_owned(), yara::NAME.to_owned(), None),
    ];
    let mut rows = Vec::new();
    for (ours, peer, target) in &pairs {
        for (tree, rates) in measured {
            let of = |name| rates.get(name).copied().context("a scanner was not measured");
            let name = format!("{ours}, {}", tree.name);
            let row = Row::beside(
                name,
                tree.unit.of_rate(),
                (of(ours)?, of(peer)?),
                peer,
                Better::Higher,
            );
            rows.push(row.target(*target));
        }
    }
    Ok(rows)
}

fn software() -> Result<Software> {
    Ok(Software::from([
        ("yr", yr::version()?),
        ("clamav", clam::version()?),
        ("yara", yara::version()?),
    ]))
}
