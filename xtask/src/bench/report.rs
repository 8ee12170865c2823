//! A bench's result: a table for people, JSON for everything else.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use lazaret_tests::binaries::target_dir;
use lazaret_tests::ui::{BAD, GOOD};
use serde::Serialize;

use super::stats::Summary;

/// One thing measured on both sides.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) ours: f64,
    pub(crate) peer: f64,
    pub(crate) peer_name: &'static str,
    /// Ours by the peer's.
    pub(crate) ratio: f64,
    /// The ratio to reach.
    pub(crate) target: f64,
    /// Which side of the target is good: always "lower" so far.
    pub(crate) better: &'static str,
    pub(crate) met: bool,
    pub(crate) spread: Spread,
}

/// Beneath the medians.
#[derive(Debug, Serialize)]
pub(crate) struct Spread {
    ours: Summary,
    peer: Summary,
}

impl Row {
    /// A row where less is better and `target` is the largest ratio that will do.
    pub(crate) fn lower(
        name: impl Into<String>,
        unit: &'static str,
        (ours, peer): (Summary, Summary),
        peer_name: &'static str,
        target: f64,
    ) -> Self {
        let ratio = ours.median / peer.median;
        Self {
            name: name.into(),
            unit,
            ours: ours.median,
            peer: peer.median,
            peer_name,
            ratio,
            target,
            better: "lower",
            met: ratio <= target,
            spread: Spread { ours, peer },
        }
    }
}

/// Where it was measured: without it a number means little.
#[derive(Debug, Serialize)]
struct Machine {
    kernel: String,
    cpus: usize,
    memory_kib: u64,
    containerd: String,
    date: String,
}

#[derive(Serialize)]
struct Report<'a> {
    bench: &'static str,
    machine: Machine,
    rows: &'a [Row],
}

/// Prints the table and writes `bench/NAME.json` into cargo's target folder.
pub(crate) fn publish(bench: &'static str, containerd: &str, rows: &[Row]) -> Result<()> {
    let report = Report {
        bench,
        machine: Machine::this(containerd)?,
        rows,
    };
    print(&report);
    let path = path(bench)?;
    fs::write(&path, serde_json::to_vec_pretty(&report)?)?;
    anstream::println!("\nwritten to {}", path.display());
    Ok(())
}

fn path(bench: &str) -> Result<PathBuf> {
    let dir = target_dir()?.join("bench");
    fs::create_dir_all(&dir)?;
    Ok(dir.join(format!("{bench}.json")))
}

impl Machine {
    fn this(containerd: &str) -> Result<Self> {
        let meminfo = fs::read_to_string("/proc/meminfo")?;
        let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let total = total
            .and_then(|line| line.split_whitespace().next())
            .context("no MemTotal")?;
        Ok(Self {
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?
                .trim()
                .to_owned(),
            cpus: std::thread::available_parallelism()?.get(),
            memory_kib: total.parse()?,
            containerd: containerd.to_owned(),
            date: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        })
    }
}

fn print(report: &Report<'_>) {
    let machine = &report.machine;
    anstream::println!(
        "\n{}: kernel {}, {} cpus, {} MiB, containerd {}, {}\n",
        report.bench,
        machine.kernel,
        machine.cpus,
        machine.memory_kib / 1024,
        machine.containerd,
        machine.date
    );
    anstream::println!(
        "{:<38} {:>28} {:>28} {:>7} {:>7}",
        "median (min-max)",
        "lazaret",
        report.rows.first().map_or("peer", |row| row.peer_name),
        "ratio",
        "target"
    );
    for row in report.rows {
        let (style, word) = if row.met { (GOOD, "met") } else { (BAD, "missed") };
        anstream::println!(
            "{:<38} {:>28} {:>28} {:>6.2}x {:>6.2}x {style}{word}{style:#}",
            row.name,
            cell(&row.spread.ours, row.unit),
            cell(&row.spread.peer, row.unit),
            row.ratio,
            row.target
        );
    }
}

fn cell(summary: &Summary, unit: &str) -> String {
    format!(
        "{:.1} {unit} ({:.1}-{:.1})",
        summary.median, summary.min, summary.max
    )
}
