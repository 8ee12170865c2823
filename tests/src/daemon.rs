//! A private lazaretd and the command line that talks to it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::binaries::Binaries;
use crate::command;
use crate::incident::Incident;
use crate::procs::{self, Server};
use crate::scratch::{MARK, Places};
use crate::wait;

const READY: Duration = Duration::from_secs(20);
const STOP: Duration = Duration::from_secs(30);

/// A lazaretd with its own folders; it can be killed and started again.
#[derive(Debug)]
pub struct Daemon {
    binaries: Binaries,
    places: Places,
    server: Option<Server>,
}

/// `lazaret.toml` for these places; `extra` is laid over it, table by table.
fn configuration(places: &Places, extra: &toml::Table) -> Result<String> {
    let mut node = toml::Table::new();
    node.insert(
        "run_dir".into(),
        places.run().join("lazaret").display().to_string().into(),
    );
    node.insert(
        "state_dir".into(),
        places.disk().join("lazaret").display().to_string().into(),
    );
    let mut table = extra.clone();
    table.insert("node".into(), node.into());
    let scan = table.entry("scan").or_insert_with(|| toml::Table::new().into());
    let scan = scan.as_table_mut().context("[scan] is a table")?;
    // The set that ships, from where it lies in the repository.
    let signatures = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/signatures");
    scan.entry("rules").or_insert_with(|| vec![signatures].into());
    // Each case adds signatures, and others count what is told of their containers.
    scan.entry("on_new_signatures").or_insert(false.into());
    Ok(toml::to_string(&table)?)
}

/// Where the configuration of these places is.
#[must_use]
pub fn config_path(places: &Places) -> PathBuf {
    places.disk().join("lazaret.toml")
}

impl Daemon {
    /// Writes its configuration and starts it.
    ///
    /// # Errors
    /// When it does not answer in time: the end of its log is in the error.
    pub fn start(places: &Places, binaries: &Binaries, extra: &toml::Table) -> Result<Self> {
        fs::write(config_path(places), configuration(places, extra)?)?;
        let (binaries, places) = (binaries.clone(), places.clone());
        let mut daemon = Self {
            binaries,
            places,
            server: None,
        };
        daemon.resume()?;
        Ok(daemon)
    }

    /// Starts it again after it ended.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn resume(&mut self) -> Result<()> {
        self.spawn()?;
        self.wait_ready()
    }

    /// Starts it again and does not wait for it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&mut self) -> Result<()> {
        let log = File::options().append(true).create(true).open(self.log_path())?;
        let mut command = Command::new(self.binaries.daemon());
        command
            .arg("--config")
            .arg(config_path(&self.places))
            .env(MARK, self.places.name());
        command
            .stdin(File::open("/dev/null")?)
            .stdout(log.try_clone()?)
            .stderr(log);
        self.server = Some(Server::start(&mut command)?);
        Ok(())
    }

    /// Waits until it answers.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait_ready(&mut self) -> Result<()> {
        let answered = wait::until_true("lazaretd to answer", READY, || {
            !self.alive() || self.status().is_ok()
        });
        answered.with_context(|| self.log_tail())?;
        anyhow::ensure!(self.alive(), "lazaretd ended at once: {}", self.log_tail());
        Ok(())
    }

    /// Whether its process runs.
    pub fn alive(&mut self) -> bool {
        self.server.as_mut().is_some_and(Server::alive)
    }

    /// Its process id, when it was started.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        self.server.as_ref().map(Server::pid)
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it was never started.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.server
            .as_mut()
            .context("lazaretd does not run")?
            .signal(signal)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end within `limit`.
    pub fn wait_end(&mut self, limit: Duration) -> Result<()> {
        wait::until_true("lazaretd to end", limit, || !self.alive())
    }

    /// The planned stop.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop(&mut self) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        self.wait_end(STOP).with_context(|| self.log_tail())
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When it was never started.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.wait_end(STOP)
    }

    /// Proportional set size of its process alone, in KiB.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pss_kib(&self) -> Result<u64> {
        procs::pss_kib(self.server.as_ref().context("lazaretd does not run")?.pid())
    }

    /// `lazaret` with these words.
    #[must_use]
    pub fn cli(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.binaries.cli());
        command
            .arg("--config")
            .arg(config_path(&self.places))
            .args(args)
            .env(MARK, self.places.name());
        command
    }

    /// `lazaret status --json`.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn status(&self) -> Result<serde_json::Value> {
        Ok(serde_json::from_str(&command::check(
            &mut self.cli(&["status", "--json"]),
        )?)?)
    }

    /// Every incident so far.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn incidents(&self) -> Result<Vec<Incident>> {
        Incident::parse_all(&command::check(&mut self.cli(&["events", "--json"]))?)
    }

    /// Puts a hash on the bad list.
    ///
    /// # Errors
    /// When the daemon refuses it.
    pub fn add_signature(&self, sha256: &str, name: &str) -> Result<()> {
        command::check(&mut self.cli(&["signatures", "add", sha256, "--name", name]))?;
        Ok(())
    }

    /// Its sockets are in here.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.places.run().join("lazaret")
    }

    /// Its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.places.disk().join("lazaretd.log")
    }

    fn log_tail(&self) -> String {
        tail("lazaretd", &self.log_path())
    }
}

/// The end of a log, for an error.
#[must_use]
pub fn tail(who: &str, log: &Path) -> String {
    let log = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = log.lines().collect();
    let end = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default();
    format!("{who} said:\n{}", end.join("\n"))
}
