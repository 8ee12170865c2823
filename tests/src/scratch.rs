//! A run's own places in the system, all found again by one name.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::mkdtemp;

use crate::{interrupt, sweep};

/// Every folder, containerd namespace and cgroup of a run begins with this.
pub const PREFIX: &str = "lazaret-test.";
/// In the environment of all that a run starts, so that it is found again.
pub const MARK: &str = "LAZARET_TEST_RUN";

/// Where sockets go: a unix socket's path must be short.
const RUN: &str = "/run";
/// Where bulk goes: `/run` is memory on most machines.
const DISK: &str = "/var/tmp";

/// The places of one run, by its name alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    name: String,
}

impl Places {
    /// The places of the run called `name`, whether they exist or not.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self {
            name: name.to_owned(),
        }
    }

    /// The run's name: containerd namespace, cgroup and value of [`MARK`].
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sockets and state, locked while the run lives.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        Path::new(RUN).join(&self.name)
    }

    /// Fifos of containers' output; `ctr` would put them among those of the machine's own.
    #[must_use]
    pub fn fifos(&self) -> PathBuf {
        self.run().join("fifo")
    }

    /// Images, snapshots, logs.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        Path::new(DISK).join(&self.name)
    }
}

/// The places of a living run: swept when dropped.
#[derive(Debug)]
pub struct Scratch {
    places: Places,
    /// Tells other runs' sweeps that this one lives; closed on exec, so no child keeps it.
    _alive: Flock<File>,
}

impl Scratch {
    /// Makes the places of a new run.
    ///
    /// # Errors
    /// When a folder cannot be made, as without root.
    pub fn new() -> Result<Self> {
        // Locked before it gets the name that sweeps look for: none sees it unlocked.
        let hidden = mkdtemp(&Path::new(RUN).join(format!(".{PREFIX}XXXXXX")))
            .context("making a folder under /run (are you root?)")?;
        // The root of a container in a user namespace has to get through, as with containerd's own.
        fs::set_permissions(&hidden, fs::Permissions::from_mode(0o711))?;
        let alive = lock(&hidden).context("locking a new folder")?;
        let name = hidden
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let places = Places::of(name.trim_start_matches('.'));
        interrupt::register(&places);
        fs::rename(&hidden, places.run())?;
        fs::DirBuilder::new().mode(0o711).create(places.disk())?;
        Ok(Self {
            places,
            _alive: alive,
        })
    }

    /// Where everything is.
    #[must_use]
    pub fn places(&self) -> &Places {
        &self.places
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        interrupt::release(&self.places);
    }
}

/// Sweeps what killed runs left behind.
pub fn sweep_dead() {
    for entry in fs::read_dir(RUN).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with(PREFIX) {
            continue;
        }
        // A lock that can be had is nobody's.
        if let Ok(_dead) = lock(&entry.path()) {
            crate::ui::note(&format!("removing what the killed run {name} left behind"));
            sweep::sweep(&Places::of(&name));
        }
    }
}

fn lock(dir: &Path) -> Result<Flock<File>> {
    let file = File::open(dir)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno.into())
}
