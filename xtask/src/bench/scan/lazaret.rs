//! `lazaret scan`, as everybody runs it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lazaret_tests::binaries::Binaries;
use lazaret_tests::daemon::Daemon;
use lazaret_tests::scratch::Places;
use serde::Deserialize;

use super::scanner::{self, Scanner};
use super::tree::Tree;

pub(super) const NAME: &str = "lazaret scan";

/// What a scan may read in a second is not bounded, and no verdict is remembered: a second scan
/// of a tree would judge nothing.
const CONFIGURATION: &str = "
    [scan]
    rate = 0
    cache_entries = 1
    # Nobody else looks into archives.
    unpack = { depth = 0 }
";

/// Through the command line, its daemon, which walks and digests, and a worker.
pub(super) struct Lazaret(Daemon);

/// The last line of a scan's output.
#[derive(Debug, Deserialize)]
struct Ended {
    files: usize,
    unjudged: u64,
}

impl Lazaret {
    pub(super) fn start(places: &Places, binaries: &Binaries) -> Result<Self> {
        Ok(Self(Daemon::start(
            places,
            binaries,
            &toml::from_str(CONFIGURATION)?,
        )?))
    }
}

impl Scanner for Lazaret {
    fn name(&self) -> String {
        NAME.to_owned()
    }

    fn scan(&self, tree: &Tree) -> Result<Duration> {
        /// Something bad was found.
        const FOUND: i32 = 3;
        let root = tree.root.to_str().context("a path of ours is text")?;
        let outcome = scanner::run(&mut self.0.cli(&["scan", "--json", root]), tree, FOUND)?;
        let output = outcome.out();
        let ended: Ended = serde_json::from_str(output.lines().last().unwrap_or_default())?;
        ensure!(
            ended.files == tree.files.len() && ended.unjudged == 0,
            "not everything was judged: {ended:?}"
        );
        Ok(outcome.took)
    }
}
