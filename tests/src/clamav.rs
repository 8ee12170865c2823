//! A private clamd with a small database of ours: ClamAV's own has millions of signatures and
//! comes from servers.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use crate::daemon;
use crate::machine::{self, Wanted};
use crate::malware;
use crate::packages;
use crate::procs::Server;
use crate::scratch::{MARK, Places};
use crate::wait;

/// The library alone. Its programs are unpacked into the cache: installed they would start a
/// service, and another one that downloads databases.
const WANTED: &[Wanted] = &[Wanted {
    name: "libclamav12",
    why: "ClamAV scans the same files",
}];

const READY: Duration = Duration::from_secs(60);
const END: Duration = Duration::from_secs(20);

/// A database that says which version it is: clamd tells that of no other.
const DATABASE: &str = "daily.cud";

/// Installs and downloads what clamd needs.
///
/// # Errors
/// When apt fails.
pub fn install() -> Result<()> {
    machine::ensure_all(WANTED)?;
    program().map(drop)
}

/// clamd itself.
///
/// # Errors
/// When it is not in the cache and cannot be downloaded.
pub fn program() -> Result<PathBuf> {
    Ok(packages::unpacked("clamav-daemon")?.join("usr/sbin/clamd"))
}

/// A running clamd; it can be stopped, killed and started again.
#[derive(Debug)]
pub struct Clamd {
    places: Places,
    server: Option<Server>,
}

impl Clamd {
    /// Starts it with the databases that are in [`database`], and `settings` beside ours.
    ///
    /// # Errors
    /// When it does not listen in time: the end of its log is in the error.
    pub fn start(places: &Places, settings: &str) -> Result<Self> {
        let text = format!(
            "Foreground yes\nLocalSocket {}\nDatabaseDirectory {}\nTemporaryDirectory {}\n{settings}",
            socket(places).display(),
            database(places).display(),
            places.disk().display()
        );
        fs::write(configuration(places), text)?;
        let mut clamd = Self {
            places: places.clone(),
            server: None,
        };
        clamd.resume()?;
        Ok(clamd)
    }

    /// Starts it again after it ended.
    ///
    /// # Errors
    /// As [`Clamd::start`].
    pub fn resume(&mut self) -> Result<()> {
        let log_path = self.places.disk().join("clamd.log");
        let log = File::options().append(true).create(true).open(&log_path)?;
        let mut command = Command::new(program()?);
        command
            .arg("--config-file")
            .arg(configuration(&self.places))
            .env(MARK, self.places.name())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.server = Some(Server::start(&mut command)?);
        wait::until_true("clamd to answer", READY, || self.ask("PING").is_ok())
            .with_context(|| daemon::tail("clamd", &log_path))
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.server.as_mut().context("clamd does not run")?.signal(signal)
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        wait::until_true("clamd to end", END, || {
            !self.server.as_mut().is_some_and(Server::alive)
        })
    }

    /// Has it load its databases again, and waits until it has.
    ///
    /// # Errors
    /// When it does not say that it judges by another version.
    pub fn reload(&self) -> Result<()> {
        let before = self.ask("VERSION")?;
        ensure!(self.ask("RELOAD")? == "RELOADING", "clamd does not reload");
        wait::until_true("clamd to judge by another database", END, || {
            self.ask("VERSION").is_ok_and(|now| now != before)
        })
    }

    /// What it answers to a command, as clamd(8) has them.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn ask(&self, command: &str) -> Result<String> {
        let mut connection = UnixStream::connect(socket(&self.places))?;
        connection.set_read_timeout(Some(END))?;
        write!(connection, "z{command}\0")?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        ensure!(!answer.is_empty(), "clamd hung up");
        Ok(answer.trim_end_matches('\0').to_owned())
    }
}

/// Where it listens.
#[must_use]
pub fn socket(places: &Places) -> PathBuf {
    places.run().join("clamd.sock")
}

/// Where its configuration lies.
#[must_use]
pub fn configuration(places: &Places) -> PathBuf {
    places.disk().join("clamd.conf")
}

/// The folder of its databases.
#[must_use]
pub fn database(places: &Places) -> PathBuf {
    places.disk().join("clamav")
}

/// A signature that is met by these bytes, wherever they are in a file: one line of an `.ndb`.
#[must_use]
pub fn bytes_signature(name: &str, bytes: &[u8]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{name}:0:*:{hex}\n")
}

/// Writes a database of this version that finds the markers, each under its name. clamd calls
/// them `NAME.UNOFFICIAL`, because nobody has signed it.
///
/// # Errors
/// When it cannot be written.
pub fn write_database(places: &Places, version: u32, markers: &[(&str, &str)]) -> Result<()> {
    let folder = database(places);
    fs::create_dir_all(&folder)?;
    let signatures: String = markers
        .iter()
        .map(|(name, marker)| bytes_signature(name, marker.as_bytes()))
        .collect();
    // As libclamav reads it: a header of 512 bytes, and a tar with a table of contents.
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let count = markers.len();
    let header = format!("ClamAV-VDB:01 Jan 2026 00-00 +0000:{version}:{count}:90:X:X:lazaret:{now}");
    let (size, digest) = (signatures.len(), malware::sha256(signatures.as_bytes()));
    let contents = format!("{header}\ndaily.ndb:{size}:{digest}\n");
    let mut tar = tar::Builder::new(format!("{header:512}").into_bytes());
    for (name, content) in [
        ("COPYING", "Inert test data.\n"),
        ("daily.info", contents.as_str()),
        ("daily.ndb", signatures.as_str()),
    ] {
        let mut entry = tar::Header::new_ustar();
        entry.set_size(content.len() as u64);
        entry.set_mode(0o644);
        tar.append_data(&mut entry, name, content.as_bytes())?;
    }
    replace(&folder.join(DATABASE), &tar.into_inner()?)
}

/// Whole or not at all: clamd may read it at any time.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, bytes)?;
    Ok(fs::rename(new, path)?)
}
