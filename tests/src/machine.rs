//! What the machine must have installed; apt adds what it lacks.

use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

use crate::command;
use crate::ui;

/// A Debian package and why it is wanted.
#[derive(Debug)]
pub struct Wanted {
    /// As apt knows it.
    pub name: &'static str,
    /// Ends the sentence "installing NAME: ".
    pub why: &'static str,
}

const WANTED: &[Wanted] = &[
    Wanted {
        name: "busybox-static",
        why: "the test images are made of it",
    },
    Wanted {
        name: "libseccomp2",
        why: "runc is linked against it",
    },
    Wanted {
        name: "python3",
        why: "an engine of others is written in it",
    },
    Wanted {
        name: "libc6-dev",
        why: "a static helper runs inside the containers",
    },
];

/// Installs what every run needs and is missing.
///
/// # Errors
/// As [`ensure_all`].
pub fn ensure() -> Result<()> {
    ensure_all(WANTED)
}

/// Installs what is missing, says what and why, asks nothing.
///
/// # Errors
/// When apt is not there or fails, or without root.
pub fn ensure_all(wanted: &[Wanted]) -> Result<()> {
    let missing: Vec<_> = wanted
        .iter()
        .filter(|wanted| !is_installed(wanted.name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    for wanted in &missing {
        ui::note(&format!("installing {}: {}", wanted.name, wanted.why));
    }
    if !geteuid().is_root() {
        bail!("installing packages needs root");
    }
    let names: Vec<_> = missing.iter().map(|wanted| wanted.name).collect();
    if install(&names).is_err() {
        // Most often the lists are missing or name versions that are gone.
        ui::step("refreshing apt's lists", || apt(&["update"]))?;
        install(&names)?;
    }
    Ok(())
}

fn install(names: &[&str]) -> Result<String> {
    let mut args = vec!["install", "-y", "--no-install-recommends"];
    args.extend(names);
    ui::step(&format!("apt-get install {}", names.join(" ")), || apt(&args))
}

fn apt(args: &[&str]) -> Result<String> {
    command::check(
        Command::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(args),
    )
    .context("apt-get is how what is missing gets here; on another system install it by hand")
}

fn is_installed(name: &str) -> bool {
    let query = Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Status}", name])
        .output();
    query.is_ok_and(|output| output.stdout == b"installed")
}

/// The version number of the machine's Debian, when it is one.
#[must_use]
pub fn debian_version() -> Option<u32> {
    let text = std::fs::read_to_string("/etc/os-release").ok()?;
    let field = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
        Some(line.trim_matches('"').to_owned())
    };
    (field("ID")? == "debian")
        .then(|| field("VERSION_ID")?.parse().ok())
        .flatten()
}
