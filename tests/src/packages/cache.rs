//! One folder a package and suite; complete when it is there.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};

use super::apt;
use crate::command;
use crate::ui;

/// `$LAZARET_CACHE`, or `lazaret` in the user's cache folder.
///
/// # Errors
/// When neither is known.
pub fn root() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("LAZARET_CACHE") {
        return Ok(PathBuf::from(dir));
    }
    let base = env::var_os("XDG_CACHE_HOME")
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from);
    let base = base.or_else(|| Some(env::home_dir()?.join(".cache")));
    Ok(base
        .context("set LAZARET_CACHE: there is no home folder")?
        .join("lazaret"))
}

/// The unpacked package, downloaded first when it is not there.
pub(super) fn ensure(name: &str, suite: &str) -> Result<PathBuf> {
    let root = root()?;
    let unpacked = root.join("packages").join(format!("{name}-{suite}"));
    if unpacked.is_dir() {
        return Ok(unpacked);
    }
    // Of two runs at once the second waits, and then finds it.
    let _one = lock(&root)?;
    if !unpacked.is_dir() {
        let text = format!("downloading {name} of Debian {suite} into the cache");
        ui::step(&text, || fetch(&root, name, suite, &unpacked))?;
    }
    Ok(unpacked)
}

fn fetch(root: &Path, name: &str, suite: &str, unpacked: &Path) -> Result<()> {
    let work = root.join("packages").join(format!(".{name}-{suite}.new"));
    // From a run that was killed: the lock says that it is nobody's.
    drop(fs::remove_dir_all(&work));
    fs::create_dir_all(&work)?;
    let deb = apt::download(&root.join("apt").join(suite), name, suite, &work)?;
    let tree = work.join("tree");
    command::check(Command::new("dpkg").arg("-x").arg(&deb).arg(&tree))?;
    // Whole or not at all: a folder under its final name is complete.
    fs::rename(&tree, unpacked)?;
    fs::remove_dir_all(&work)?;
    Ok(())
}

fn lock(root: &Path) -> Result<Flock<File>> {
    fs::create_dir_all(root).with_context(|| format!("making {}", root.display()))?;
    let file = File::create(root.join("lock"))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .context("locking the cache")
}
