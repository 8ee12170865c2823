//! Building is the user's business, running containers is root's.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use lazaret_tests::binaries::{BIN_DIR, Binaries};
use lazaret_tests::{machine, packages, scratch, ui};
use nix::unistd::geteuid;

/// Builds everything, then does `task` as root; below sudo, this same command once more.
pub(crate) fn with_root(task: impl FnOnce(&Binaries) -> Result<ExitCode>) -> Result<ExitCode> {
    if !geteuid().is_root() {
        return again_as_root(&Binaries::build()?);
    }
    scratch::sweep_dead();
    machine::ensure()?;
    task(&Binaries::build()?)
}

/// A command that runs `program` as root, by sudo if need be, and builds nothing.
pub(crate) fn as_root(program: &Path, binaries: &Binaries) -> Result<Command> {
    let mut command = if geteuid().is_root() {
        Command::new("env")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg("env");
        sudo
    };
    // sudo resets the environment: what matters is named again.
    command.arg(assign("PATH", env::var_os("PATH").unwrap_or_default()));
    command.arg(assign("LAZARET_CACHE", packages::cache_root()?));
    command.arg(assign(BIN_DIR, binaries.dir()));
    command.arg(program);
    Ok(command)
}

fn again_as_root(binaries: &Binaries) -> Result<ExitCode> {
    ui::note("going on as root, through sudo: containers need it");
    let mut command = as_root(&env::current_exe()?, binaries)?;
    let status = command.args(env::args_os().skip(1)).status();
    let code = status.context("starting sudo (or run this as root)")?.code();
    Ok(ExitCode::from(
        code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1),
    ))
}

fn assign(name: &str, value: impl AsRef<OsStr>) -> OsString {
    let mut assignment = OsString::from(name);
    assignment.push("=");
    assignment.push(value);
    assignment
}
