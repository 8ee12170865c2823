//! A private containerd: own root, state, socket, configuration, log and `PATH`.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::command;
use crate::image::Image;
use crate::packages::{self, Release};
use crate::procs::Server;
use crate::scratch::{MARK, Places};
use crate::wait;

const READY: Duration = Duration::from_secs(60);

/// Not needed, slow to start, or about to look at the machine's own files.
const DISABLED: &[&str] = &[
    "io.containerd.grpc.v1.cri",
    "io.containerd.cri.v1.images",
    "io.containerd.cri.v1.runtime",
    "io.containerd.nri.v1.nri",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.erofs",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
    "io.containerd.internal.v1.tracing",
];

/// How to start one.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which release.
    pub release: Release,
    /// Searched first for shims, before those of the release.
    pub shims: Option<PathBuf>,
    /// `LAZARET_CONFIG` for the shims.
    pub lazaret_config: Option<PathBuf>,
}

/// A running containerd, killed when dropped. What it ran is left to the sweep of its places.
#[derive(Debug)]
pub struct Containerd {
    bin: PathBuf,
    places: Places,
    options: Options,
    server: Server,
}

impl Containerd {
    /// Starts it in `places` and waits until it answers.
    ///
    /// # Errors
    /// When a package cannot be had, or it does not come up: the end of its log is in the error.
    pub fn start(places: &Places, options: Options) -> Result<Self> {
        let bin = options.release.bin()?;
        fs::create_dir_all(override_dir(places))?;
        fs::write(config_path(places), configuration(places)?)?;
        let server = launch(places, &bin, &options)?;
        let places = places.clone();
        let mut started = Self {
            bin,
            places,
            options,
            server,
        };
        started.wait_ready().with_context(|| started.log_tail())?;
        Ok(started)
    }

    /// Ends it as an administrator does; its containers go on.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop(&mut self) -> Result<()> {
        self.server.signal(Signal::SIGTERM)?;
        wait::until_true("containerd to end", READY, || !self.server.alive())
    }

    /// Starts it again after it was stopped.
    ///
    /// # Errors
    /// As [`Containerd::start`].
    pub fn resume(&mut self) -> Result<()> {
        self.server = launch(&self.places, &self.bin, &self.options)?;
        self.wait_ready().with_context(|| self.log_tail())
    }

    /// Where this containerd and its shims look for programs.
    ///
    /// # Errors
    /// When runc cannot be had.
    pub fn search_path(&self) -> Result<OsString> {
        search_path(&self.places, &self.bin, self.options.shims.as_deref())
    }

    /// `ctr`, pointed at this containerd and its namespace.
    #[must_use]
    pub fn ctr(&self) -> Command {
        use std::os::unix::process::CommandExt as _;
        let mut command = Command::new(self.bin.join("ctr"));
        command.arg("--address").arg(socket(&self.places));
        command.args(["--namespace", self.places.name()]);
        // Its own group: a Ctrl-C is ours to act on. The mark: a sweep ends it, too.
        command.process_group(0).env(MARK, self.places.name());
        command
    }

    /// Imports an image.
    ///
    /// # Errors
    /// When it cannot be written or imported.
    pub fn import(&self, image: &Image) -> Result<()> {
        let archive = self.places.disk().join("image.tar");
        image.write(&archive)?;
        command::check(self.ctr().args(["image", "import"]).arg(&archive))
            .with_context(|| format!("importing {}", image.name()))?;
        fs::remove_file(archive)?;
        Ok(())
    }

    /// Which release it is.
    #[must_use]
    pub fn release(&self) -> Release {
        self.options.release
    }

    /// Its exact version.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn version(&self) -> Result<String> {
        let text = command::check(self.ctr().arg("version"))?;
        let mut versions = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Version:"));
        Ok(versions
            .next_back()
            .context("ctr told no version")?
            .trim()
            .to_owned())
    }

    /// A container's bundle: its `config.json` and what its shim writes.
    #[must_use]
    pub fn bundle(&self, id: &str) -> PathBuf {
        let tasks = self.places.run().join("state/io.containerd.runtime.v2.task");
        tasks.join(self.places.name()).join(id)
    }

    /// Its log so far; the shims write into it, too.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(log_path(&self.places)).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default();
        format!("containerd {} said:\n{}", self.release().series, tail.join("\n"))
    }

    fn wait_ready(&mut self) -> Result<()> {
        let socket = socket(&self.places);
        wait::until("containerd's socket", READY, || {
            (!self.server.alive() || socket.exists()).then_some(())
        })?;
        wait::until_true("containerd to answer", READY, || {
            !self.server.alive() || command::check(self.ctr().arg("version")).is_ok()
        })?;
        anyhow::ensure!(self.server.alive(), "containerd ended at once");
        Ok(())
    }
}

fn launch(places: &Places, bin: &Path, options: &Options) -> Result<Server> {
    let log = File::options().append(true).create(true).open(log_path(places))?;
    let mut command = Command::new(bin.join("containerd"));
    command
        .arg("--config")
        .arg(config_path(places))
        .env(MARK, places.name());
    command.env("PATH", search_path(places, bin, options.shims.as_deref())?);
    if let Some(config) = &options.lazaret_config {
        command.env("LAZARET_CONFIG", config);
    }
    command.stdin(File::open("/dev/null")?);
    Server::start(command.stdout(log.try_clone()?).stderr(log))
}

fn config_path(places: &Places) -> PathBuf {
    places.disk().join("containerd.toml")
}

fn socket(places: &Places) -> PathBuf {
    places.run().join("containerd.sock")
}

fn log_path(places: &Places) -> PathBuf {
    places.disk().join("containerd.log")
}

/// First in the search path, and empty: what a test puts there, as a runc of its own, is used.
#[must_use]
pub fn override_dir(places: &Places) -> PathBuf {
    places.disk().join("bin")
}

fn search_path(places: &Places, bin: &Path, shims: Option<&Path>) -> Result<OsString> {
    let first = [Some(override_dir(places)), shims.map(Path::to_owned)];
    let then = [bin.to_owned(), packages::runc_bin()?];
    let rest = env::var_os("PATH").unwrap_or_default();
    let all = first
        .into_iter()
        .flatten()
        .chain(then)
        .chain(env::split_paths(&rest));
    Ok(env::join_paths(all)?)
}

/// Version 2 of the format: 1.6 knows no newer one, and 2.x still reads it.
fn configuration(places: &Places) -> Result<String> {
    let disabled: toml::Value = DISABLED.to_vec().into();
    let opt = one("path", text(&places.disk().join("opt")));
    let mut table = toml::Table::new();
    table.insert("version".into(), 2.into());
    table.insert("root".into(), text(&places.disk().join("root")));
    table.insert("state".into(), text(&places.run().join("state")));
    table.insert("temp".into(), text(&places.disk().join("tmp")));
    table.insert("disabled_plugins".into(), disabled);
    table.insert("grpc".into(), one("address", text(&socket(places))));
    table.insert("plugins".into(), one("io.containerd.internal.v1.opt", opt));
    Ok(toml::to_string(&table)?)
}

fn one(key: &str, value: toml::Value) -> toml::Value {
    toml::Table::from_iter([(key.to_owned(), value)]).into()
}

fn text(path: &Path) -> toml::Value {
    path.display().to_string().into()
}
