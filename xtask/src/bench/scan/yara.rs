//! `yara`, the engine before YARA-X, from Debian.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use lazaret_tests::command;
use lazaret_tests::machine::{self, Wanted};
use lazaret_tests::scratch::Places;

use super::scanner::{self, RULES, Scanner};
use super::tree::Tree;

pub(super) const NAME: &str = "yara --threads=1";

const WANTED: &[Wanted] = &[Wanted {
    name: "yara",
    why: "it scans the same files by the same rules",
}];

pub(super) fn install() -> Result<()> {
    machine::ensure_all(WANTED)
}

pub(super) fn version() -> Result<String> {
    scanner::version(Path::new("yara"))
}

/// `yara` with rules that `yarac` has compiled before.
pub(super) struct Yara {
    places: Places,
    rules: PathBuf,
}

impl Yara {
    pub(super) fn new(places: &Places) -> Result<Self> {
        let rules = places.disk().join("rules.yac");
        let mut compile = scanner::program(Path::new("yarac"), places);
        compile.arg("--no-warnings");
        for entry in fs::read_dir(RULES)? {
            compile.arg(entry?.path());
        }
        let outcome = command::run(compile.arg(&rules))?;
        ensure!(
            outcome.code == 0,
            "the rules are none for the older engine: {outcome:?}"
        );
        Ok(Self {
            places: places.clone(),
            rules,
        })
    }
}

impl Scanner for Yara {
    fn name(&self) -> String {
        NAME.to_owned()
    }

    fn scan(&self, tree: &Tree) -> Result<Duration> {
        let mut scan = scanner::program(Path::new("yara"), &self.places);
        scan.args(["--compiled-rules", "--recursive", "--no-warnings", "--threads=1"]);
        Ok(scanner::run(scan.args([&self.rules, &tree.root]), tree, 0)?.took)
    }
}
