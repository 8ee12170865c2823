//! What is under test, built in release as it ships.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use cargo_metadata::MetadataCommand;

use crate::ui;

/// Names a folder with everything built already: nothing is built then.
pub const BIN_DIR: &str = "LAZARET_BIN_DIR";

const SHIPPED: &[&str] = &[
    "containerd-shim-lazaret-v1",
    "lazaretd",
    "lazaret-scan-worker",
    "lazaret",
];
const INSIDE: &str = "lazaret-inside";

/// A folder with all that is built for a run, and nothing else: it goes first in a `PATH`.
#[derive(Debug, Clone)]
pub struct Binaries {
    dir: PathBuf,
}

impl Binaries {
    /// Builds what is not up to date.
    ///
    /// # Errors
    /// When cargo fails; its own output tells why.
    pub fn build() -> Result<Self> {
        if let Some(dir) = env::var_os(BIN_DIR) {
            return Ok(Self {
                dir: PathBuf::from(dir),
            });
        }
        let target = target_dir()?;
        let staged = Self {
            dir: target.join("staged"),
        };
        let shipped = build_shipped(&target)?;
        let inside = build_inside(&target)?;
        fs::create_dir_all(&staged.dir)?;
        shipped
            .iter()
            .chain([&inside])
            .try_for_each(|file| staged.take(file))?;
        Ok(staged)
    }

    /// The folder itself.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The daemon.
    #[must_use]
    pub fn daemon(&self) -> PathBuf {
        self.dir.join("lazaretd")
    }

    /// The command line.
    #[must_use]
    pub fn cli(&self) -> PathBuf {
        self.dir.join("lazaret")
    }

    /// The static helper that runs inside containers.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn inside(&self) -> Result<Vec<u8>> {
        let path = self.dir.join(INSIDE);
        fs::read(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// Copies beside and renames: another run may be executing the file that is there.
    fn take(&self, file: &Path) -> Result<()> {
        let name = file.file_name().context("a binary has a name")?;
        let new = self
            .dir
            .join(format!(".{}.{}", name.display(), std::process::id()));
        fs::copy(file, &new).with_context(|| format!("copying {}", file.display()))?;
        Ok(fs::rename(new, self.dir.join(name))?)
    }
}

/// Where cargo puts what it builds.
///
/// # Errors
/// When `cargo metadata` fails.
pub fn target_dir() -> Result<PathBuf> {
    // Staged by the user who built; root below sudo may have no cargo to ask.
    if let Some(staged) = env::var_os(BIN_DIR).map(PathBuf::from) {
        return Ok(staged
            .parent()
            .context("a staged folder has a parent")?
            .to_owned());
    }
    let metadata = MetadataCommand::new()
        .no_deps()
        .exec()
        .context("cargo metadata")?;
    Ok(metadata.target_directory.into_std_path_buf())
}

fn build_shipped(target: &Path) -> Result<Vec<PathBuf>> {
    cargo("the shim, the daemon, its worker and the command line", |cargo| {
        cargo.args(["-p", "lazaret-shim", "-p", "lazaretd", "-p", "lazaret"]);
        cargo.args(["-p", "lazaret-scan-worker"]);
    })?;
    Ok(SHIPPED
        .iter()
        .map(|name| target.join("release").join(name))
        .collect())
}

/// Static: an image of busybox has no C library. Naming the target keeps the flags away from
/// build scripts and procedural macros.
fn build_inside(target: &Path) -> Result<PathBuf> {
    let triple = host_triple()?;
    let flags = format!(
        "CARGO_TARGET_{}_RUSTFLAGS",
        triple.to_uppercase().replace('-', "_")
    );
    cargo("the helper that runs inside containers", |cargo| {
        cargo.env(&flags, "-C target-feature=+crt-static");
        cargo.args(["-p", INSIDE, "--target", &triple]);
    })?;
    Ok(target.join(&triple).join("release").join(INSIDE))
}

fn host_triple() -> Result<String> {
    let output = Command::new("rustc")
        .args(["-vV"])
        .output()
        .context("rustc -vV")?;
    let text = String::from_utf8(output.stdout)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc told no host")?.to_owned())
}

fn cargo(what: &str, describe: impl Fn(&mut Command)) -> Result<()> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--release", "--quiet"]);
    describe(&mut command);
    ui::step(&format!("building {what}"), || {
        if !command.status().context("starting cargo")?.success() {
            bail!("cargo build failed");
        }
        Ok(())
    })
}
