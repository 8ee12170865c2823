//! `cargo xtask ci`: what a change must pass. Cheap checks come first.

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use lazaret_tests::ui;

use crate::test;

/// Builds of cargo-deny differ little; any that knows our options will do.
const CHECKS: &[&[&str]] = &[
    &["fmt", "--all", "--check"],
    &[
        "clippy",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ],
    // Its advisory database needs a network that a build machine may not have.
    &[
        "deny",
        "--log-level",
        "error",
        "check",
        "bans",
        "licenses",
        "sources",
    ],
];

pub(crate) fn run() -> Result<ExitCode> {
    ensure_cargo_deny()?;
    for check in CHECKS {
        ui::note(&format!("cargo {}", check.join(" ")));
        cargo(check)?;
    }
    test::run(&test::Args::all())
}

fn ensure_cargo_deny() -> Result<()> {
    let found = cargo_command(&["deny", "--version"]).output();
    if found.is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    ui::note("installing cargo-deny: it checks bans, licences and sources");
    cargo(&["install", "cargo-deny", "--locked", "--quiet"])
}

fn cargo(args: &[&str]) -> Result<()> {
    if !cargo_command(args).status().context("starting cargo")?.success() {
        bail!("cargo {} failed", args.join(" "));
    }
    Ok(())
}

fn cargo_command(args: &[&str]) -> Command {
    let cargo = env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
    let mut command = Command::new(cargo);
    command.args(args);
    command
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, Result};
    use toml::Table;

    fn lints(manifest: &str) -> Result<toml::Value> {
        let manifest: Table = manifest.parse()?;
        let workspace = manifest.get("workspace").context("no [workspace]")?;
        Ok(workspace.get("lints").context("no lints")?.clone())
    }

    #[test]
    fn the_fuzz_targets_have_the_lints_of_all_else() -> Result<()> {
        let ours = lints(include_str!("../../Cargo.toml"))?;
        assert_eq!(lints(include_str!("../../fuzz/Cargo.toml"))?, ours);
        Ok(())
    }
}
