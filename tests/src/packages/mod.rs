//! Debian packages of other releases, unpacked into a cache: the system stays as it is.

mod apt;
mod cache;

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::machine;
pub use cache::root as cache_root;

/// A containerd release that we test against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Release {
    /// Its series, as in "1.6".
    pub series: &'static str,
    /// The Debian suite that carries it.
    suite: &'static str,
}

/// Every release that we test against, oldest first.
pub const RELEASES: &[Release] = &[
    Release {
        series: "1.6",
        suite: "bookworm",
    },
    Release {
        series: "1.7",
        suite: "trixie",
    },
    Release {
        series: "2.1",
        suite: "sid",
    },
];

impl Release {
    /// The release of a series.
    ///
    /// # Errors
    /// When we do not test against it.
    pub fn find(series: &str) -> Result<Self> {
        let Some(release) = RELEASES.iter().find(|release| release.series == series) else {
            let known: Vec<_> = RELEASES.iter().map(|release| release.series).collect();
            bail!("containerd {series} is not among {}", known.join(", "));
        };
        Ok(*release)
    }

    /// The newest one.
    #[must_use]
    pub fn newest() -> Self {
        RELEASES.last().copied().unwrap_or(Self {
            series: "1.6",
            suite: "bookworm",
        })
    }

    /// The folder with its `containerd`, `ctr` and `containerd-shim-runc-v2`.
    ///
    /// # Errors
    /// When it is not in the cache and cannot be downloaded.
    pub fn bin(self) -> Result<PathBuf> {
        Ok(cache::ensure("containerd", self.suite)?.join("usr/bin"))
    }
}

/// The folder with a `runc` that runs on this machine.
///
/// # Errors
/// As [`Release::bin`].
pub fn runc_bin() -> Result<PathBuf> {
    Ok(unpacked("runc")?.join("usr/sbin"))
}

/// A package as a folder tree, of a suite whose programs run on this machine. Nothing of it is
/// installed: a package of a service would start it.
///
/// # Errors
/// As [`Release::bin`].
pub fn unpacked(name: &str) -> Result<PathBuf> {
    // A program wants the C library it was built on, or a newer one.
    let suite = match machine::debian_version() {
        Some(..=12) => "bookworm",
        _ => "trixie",
    };
    cache::ensure(name, suite)
}
