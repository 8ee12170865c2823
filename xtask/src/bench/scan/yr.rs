//! `yr`, the engine's own command line.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use lazaret_tests::command::{self, Running};
use lazaret_tests::packages;
use lazaret_tests::scratch::Places;
use lazaret_tests::ui;

use super::scanner::{self, RULES, Scanner};
use super::tree::Tree;

/// Building it takes minutes.
const BUILD: Duration = Duration::from_secs(2 * 60 * 60);

/// Builds `yr` from crates.io into the cache, in the version of the engine that we are built with.
pub(super) fn install() -> Result<()> {
    let root = root()?;
    if program()?.is_file() {
        return Ok(());
    }
    let version = engine_version()?;
    ui::note(&format!(
        "installing yara-x-cli {version} from crates.io: what we are measured against"
    ));
    let build = root.join("build");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args([
        "install",
        "yara-x-cli",
        "--version",
        &format!("={version}"),
        "--locked",
        "--root",
    ]);
    cargo.arg(&root).env("CARGO_TARGET_DIR", &build);
    // As our own release is built.
    cargo.env("CARGO_PROFILE_RELEASE_LTO", "fat");
    cargo.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1");
    cargo.env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
    ui::step("cargo install yara-x-cli (some minutes)", || {
        Running::start(&mut cargo)?.wait(BUILD)?.ok()
    })?;
    // Left by a build that was interrupted, so that the next one goes on there.
    Ok(fs::remove_dir_all(build)?)
}

fn root() -> Result<PathBuf> {
    Ok(packages::cache_root()?.join(format!("yara-x-cli-{}", engine_version()?)))
}

fn program() -> Result<PathBuf> {
    Ok(root()?.join("bin/yr"))
}

/// Of the crate `yara-x` in our lock file.
fn engine_version() -> Result<String> {
    let lock: toml::Table = toml::from_str(include_str!("../../../../Cargo.lock"))?;
    let packages = lock.get("package").and_then(toml::Value::as_array);
    let engine = packages
        .into_iter()
        .flatten()
        .find(|package| package.get("name").and_then(toml::Value::as_str) == Some("yara-x"));
    let version = engine.and_then(|engine| engine.get("version")?.as_str());
    Ok(version.context("Cargo.lock has no yara-x")?.to_owned())
}

pub(super) fn version() -> Result<String> {
    scanner::version(&program()?)
}

/// `yr` with rules that it has compiled before.
pub(super) struct Yr {
    places: Places,
    rules: PathBuf,
    threads: usize,
}

pub(super) fn name(threads: usize) -> String {
    format!("yr --threads {threads}")
}

impl Yr {
    pub(super) fn new(places: &Places, threads: usize) -> Result<Self> {
        let rules = places.disk().join("rules.yarc");
        let mut compile = scanner::program(&program()?, places);
        // As the scan worker compiles them.
        compile.args(["compile", "--relaxed-re-syntax", "--path-as-namespace", "-o"]);
        command::check(compile.arg(&rules).arg(RULES))?;
        Ok(Self {
            places: places.clone(),
            rules,
            threads,
        })
    }
}

impl Scanner for Yr {
    fn name(&self) -> String {
        name(self.threads)
    }

    fn scan(&self, tree: &Tree) -> Result<Duration> {
        let mut scan = scanner::program(&program()?, &self.places);
        scan.args(["scan", "--compiled-rules", "--recursive", "--threads"]);
        scan.arg(self.threads.to_string()).args([&self.rules, &tree.root]);
        Ok(scanner::run(&mut scan, tree, 0)?.took)
    }
}
