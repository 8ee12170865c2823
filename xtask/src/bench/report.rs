//! A bench's result: a table for people, JSON for everything else.

use std::collections::BTreeMap;
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
    pub(crate) peer_name: String,
    /// Ours by the peer's.
    pub(crate) ratio: f64,
    /// The ratio to reach; none for a peer that only stands beside.
    pub(crate) target: Option<f64>,
    pub(crate) better: Better,
    pub(crate) met: Option<bool>,
    pub(crate) spread: Spread,
}

/// Which side of the target is good.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    Lower,
    Higher,
}

/// Beneath the medians.
#[derive(Debug, Serialize)]
pub(crate) struct Spread {
    ours: Summary,
    peer: Summary,
}

impl Row {
    /// Two measurements side by side, `ours` first, without a target.
    pub(crate) fn beside(
        name: impl Into<String>,
        unit: &'static str,
        (ours, peer): (Summary, Summary),
        peer_name: impl Into<String>,
        better: Better,
    ) -> Self {
        Self {
            name: name.into(),
            unit,
            ours: ours.median,
            peer: peer.median,
            peer_name: peer_name.into(),
            ratio: ours.median / peer.median,
            target: None,
            better,
            met: None,
            spread: Spread { ours, peer },
        }
    }

    /// With the last ratio that will do, if there is one.
    pub(crate) fn target(mut self, target: impl Into<Option<f64>>) -> Self {
        self.target = target.into();
        self.met = self.target.map(|target| match self.better {
            Better::Lower => self.ratio <= target,
            Better::Higher => self.ratio >= target,
        });
        self
    }
}

/// Where it was measured: without it a number means little.
#[derive(Debug, Serialize)]
struct Machine {
    kernel: String,
    cpus: usize,
    memory_kib: u64,
    /// Versions of what took part.
    #[serde(flatten)]
    software: Software,
    date: String,
}

/// Programs by name, and their versions.
pub(crate) type Software = BTreeMap<&'static str, String>;

#[derive(Serialize)]
struct Report<'a> {
    bench: &'static str,
    machine: Machine,
    rows: &'a [Row],
}

/// Prints the table and writes `bench/NAME.json` into cargo's target folder.
pub(crate) fn publish(bench: &'static str, software: Software, rows: &[Row]) -> Result<()> {
    let report = Report {
        bench,
        machine: Machine::this(software)?,
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
    fn this(software: Software) -> Result<Self> {
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
            software,
            date: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        })
    }
}

fn print(report: &Report<'_>) {
    let machine = &report.machine;
    anstream::print!(
        "\n{}: kernel {}, {} cpus, {} MiB",
        report.bench,
        machine.kernel,
        machine.cpus,
        machine.memory_kib / 1024
    );
    for (name, version) in &machine.software {
        anstream::print!(", {name} {version}");
    }
    anstream::println!(", {}", machine.date);
    // One table a peer: its name is a column's head.
    for rows in report.rows.chunk_by(|row, next| row.peer_name == next.peer_name) {
        let peer = rows.first().map_or("", |row| &row.peer_name);
        anstream::println!(
            "\n{:<38} {:>34} {:>34} {:>7} {:>7}",
            "median (min-max)",
            "lazaret",
            peer,
            "ratio",
            "target"
        );
        rows.iter().for_each(print_row);
    }
}

fn print_row(row: &Row) {
    anstream::print!(
        "{:<38} {:>34} {:>34} {:>6.2}x",
        row.name,
        cell(&row.spread.ours, row.unit),
        cell(&row.spread.peer, row.unit),
        row.ratio
    );
    if let Some((target, met)) = row.target.zip(row.met) {
        let (style, word) = if met { (GOOD, "met") } else { (BAD, "missed") };
        anstream::print!(" {target:>6.2}x {style}{word}{style:#}");
    }
    anstream::println!();
}

fn cell(summary: &Summary, unit: &str) -> String {
    format!(
        "{:.1} {unit} ({:.1}-{:.1})",
        summary.median, summary.min, summary.max
    )
}
