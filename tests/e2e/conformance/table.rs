//! What all cases told, as a table for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use lazaret_tests::packages::RELEASES;
use lazaret_tests::ui;

use super::cases;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/conformance.md");

const HEAD: &str = "# What lazaret's shim does like containerd's own, and what not

Written by `cargo xtask test conformance`, which tries every case under `io.containerd.runc.v2` and under
`io.containerd.lazaret.v1`, guarded, with the containerds named, and compares what a client sees: answers with their
codes, events in their order, exit codes, bytes, limits, and what is left in the system. The names of codes are gRPC's.
A case that differs for no reason that is given here fails the test.
";

/// What was told in one case under one release.
#[derive(Clone)]
struct Row {
    series: &'static str,
    stock: String,
    ours: String,
    why: Option<&'static str>,
}

static ROWS: Mutex<BTreeMap<&'static str, Vec<Row>>> = Mutex::new(BTreeMap::new());

pub(super) fn add(
    name: &'static str,
    series: &'static str,
    stock: &str,
    ours: &str,
    why: Option<&'static str>,
) {
    let row = Row {
        series,
        stock: stock.to_owned(),
        ours: ours.to_owned(),
        why,
    };
    let mut rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
    rows.entry(name).or_default().push(row);
}

/// Writes the table if every case was tried under every release.
pub(crate) fn publish() -> Result<()> {
    let rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
    let names: Vec<_> = cases().map(|case| case.name()).collect();
    let complete = |name: &&str| rows.get(*name).is_some_and(|rows| rows.len() == RELEASES.len());
    if !names.iter().all(complete) {
        return Ok(());
    }
    let mut text = HEAD.to_owned();
    write!(text, "\n{} cases, each with containerd ", names.len())?;
    let series: Vec<_> = RELEASES.iter().map(|release| release.series).collect();
    writeln!(text, "{}.\n", series.join(", "))?;
    text.push_str("| case | containerd | runc-v2 | lazaret | |\n|---|---|---|---|---|\n");
    for name in names {
        for row in merged(rows.get(name).map(Vec::as_slice).unwrap_or_default()) {
            let Row {
                series,
                stock,
                ours,
                why,
            } = row.1;
            let verdict = match why {
                Some(why) => format!("differs: {why}"),
                None if stock == ours => "same".to_owned(),
                None => "differs, and nobody knows why".to_owned(),
            };
            let (case, all) = (name.trim_start_matches("conformance::"), row.0);
            let all = if all.is_empty() { series.to_owned() } else { all };
            writeln!(
                text,
                "| {case} | {all} | {} | {} | {verdict} |",
                cell(&stock),
                cell(&ours)
            )?;
        }
    }
    fs::write(FILE, text)?;
    ui::note("docs/conformance.md is written");
    Ok(())
}

/// Releases that told the same are one row, which names them.
fn merged(rows: &[Row]) -> Vec<(String, Row)> {
    let mut merged: Vec<(String, Row)> = Vec::new();
    let mut ordered = rows.to_vec();
    ordered.sort_by_key(|row| row.series);
    for row in ordered {
        let like =
            |it: &&mut (String, Row)| (&it.1.stock, &it.1.ours, it.1.why) == (&row.stock, &row.ours, row.why);
        match merged.iter_mut().find(like) {
            Some((series, _)) => {
                series.push_str(", ");
                series.push_str(row.series);
            }
            None => merged.push((row.series.to_owned(), row)),
        }
    }
    merged
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
