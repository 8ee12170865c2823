//! apt with a configuration of its own: sources, lists and cache of one suite, nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const FALLBACK: &str = "http://deb.debian.org/debian";

/// Downloads the newest package `name` of `suite` into the folder `into`.
pub(super) fn download(home: &Path, name: &str, suite: &str, into: &Path) -> Result<PathBuf> {
    let mirrors = [machine_mirror(), Some(FALLBACK.to_owned())];
    let mut result = Err(anyhow::anyhow!("no mirror"));
    for mirror in mirrors.into_iter().flatten() {
        result = download_from(&mirror, home, name, suite, into);
        if result.is_ok() {
            break;
        }
    }
    result.with_context(|| format!("downloading {name} of Debian {suite}"))
}

fn download_from(mirror: &str, home: &Path, name: &str, suite: &str, into: &Path) -> Result<PathBuf> {
    for dir in ["lists/partial", "cache/archives/partial", "parts"] {
        fs::create_dir_all(home.join(dir))?;
    }
    let source = format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
    fs::write(home.join("sources.list"), source)?;
    command::check(apt_get(home).arg("update"))?;
    command::check(apt_get(home).arg("download").arg(name).current_dir(into))?;
    let mut entries = fs::read_dir(into)?.flatten().map(|entry| entry.path());
    entries
        .find(|path| path.extension().is_some_and(|ext| ext == "deb"))
        .context("no .deb came")
}

/// Keeps the machine's proxy and its like, and replaces all that names repositories or folders.
fn apt_get(home: &Path) -> Command {
    let home = home.display();
    let mut command = Command::new("apt-get");
    for option in [
        format!("Dir::Etc::sourcelist={home}/sources.list"),
        format!("Dir::Etc::sourceparts={home}/parts"),
        format!("Dir::Etc::preferences={home}/preferences"),
        format!("Dir::Etc::preferencesparts={home}/parts"),
        format!("Dir::State::lists={home}/lists"),
        format!("Dir::Cache={home}/cache"),
        "Acquire::Languages=none".to_owned(),
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
        // A cache below a home folder cannot be reached by apt's own user. Signatures are
        // checked all the same.
        "APT::Sandbox::User=root".to_owned(),
        "APT::Update::Error-Mode=any".to_owned(),
    ] {
        command.arg("-o").arg(option);
    }
    command.arg("--quiet");
    command
}

/// The mirror that the machine's own apt uses, if it is one for all of Debian.
fn machine_mirror() -> Option<String> {
    let mut query = Command::new("apt-get");
    query.args(["indextargets", "--format", "$(SITE)", "Created-By: Packages"]);
    let sites = command::check(&mut query).ok()?;
    let is_debian = |site: &&str| site.starts_with("http") && site.trim_end_matches('/').ends_with("/debian");
    sites.lines().find(is_debian).map(str::to_owned)
}
