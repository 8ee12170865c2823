//! What takes part.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use lazaret_tests::command::{self, Outcome, Running};
use lazaret_tests::scratch::{MARK, Places};

use super::tree::Tree;

/// The rules by which everybody scans who knows YARA rules.
pub(super) const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/signatures");

/// Longest time for a tree.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// Scans a tree to its end.
pub(super) trait Scanner {
    fn name(&self) -> String;

    /// How long it took. That the bad file was not found is an error: who does not look is fast.
    fn scan(&self, tree: &Tree) -> Result<Duration>;
}

/// A program of this run: it is found again, and ended, by the run's name. It runs behind all
/// others, as a scan of lazaretd does: else the figures of a machine that has something else to do
/// would say who has the higher priority.
pub(super) fn program(path: &Path, places: &Places) -> Command {
    let mut command = Command::new("nice");
    command.args(["-n", "19"]).arg(path);
    command.env(MARK, places.name());
    command
}

/// Runs a scan that says by `code` and in its output that the bad file was found.
pub(super) fn run(command: &mut Command, tree: &Tree, code: i32) -> Result<Outcome> {
    let outcome = Running::start(command)?.wait(LIMIT)?;
    let found = outcome.out().contains(&tree.bad.display().to_string());
    ensure!(
        outcome.code == code && found,
        "{command:?} did not find {}: {outcome:?}",
        tree.bad.display()
    );
    Ok(outcome)
}

/// The last word of what a program says of its version.
pub(super) fn version(program: &Path) -> Result<String> {
    let text = command::check(Command::new(program).arg("--version"))?;
    Ok(text.split_whitespace().next_back().unwrap_or_default().to_owned())
}
