//! ClamAV, with a database of ours that holds two signatures, and unlike its own no millions.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use lazaret_tests::command;
use lazaret_tests::machine::{self, Wanted};
use lazaret_tests::malware::Malware;
use lazaret_tests::packages;
use lazaret_tests::procs::Server;
use lazaret_tests::scratch::Places;
use lazaret_tests::wait;

use super::scanner::{self, Scanner};
use super::tree::Tree;

pub(super) const CLAMDSCAN: &str = "clamdscan --fdpass";
pub(super) const CLAMSCAN: &str = "clamscan";

/// The library alone. Its programs are unpacked into the cache: installed they would start a
/// service, and another one that downloads databases.
const WANTED: &[Wanted] = &[Wanted {
    name: "libclamav12",
    why: "ClamAV scans the same files",
}];

/// Something bad was found.
const FOUND: i32 = 1;

const READY: Duration = Duration::from_secs(60);

/// No file of ours is too large for it.
const MAX_SIZE: &str = "1024M";

pub(super) fn install() -> Result<()> {
    machine::ensure_all(WANTED)?;
    for program in [clamd, clamdscan, clamscan] {
        program()?;
    }
    Ok(())
}

fn clamd() -> Result<PathBuf> {
    Ok(packages::unpacked("clamav-daemon")?.join("usr/sbin/clamd"))
}

fn clamdscan() -> Result<PathBuf> {
    Ok(packages::unpacked("clamdscan")?.join("usr/bin/clamdscan"))
}

fn clamscan() -> Result<PathBuf> {
    Ok(packages::unpacked("clamav")?.join("usr/bin/clamscan"))
}

/// As in "ClamAV 1.4.3".
pub(super) fn version() -> Result<String> {
    let text = command::check(Command::new(clamscan()?).arg("--version"))?;
    let word = text.split(['/', ' ']).nth(1);
    Ok(word.unwrap_or_default().to_owned())
}

/// Signatures of the bad file: one by its bytes, one by its hash.
fn database(places: &Places) -> Result<PathBuf> {
    let folder = places.disk().join("clamav");
    fs::create_dir_all(&folder)?;
    let bad = Malware::eicar();
    let hex: String = bad.content.iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(folder.join("bench.ndb"), format!("Bench.Bytes:0:*:{hex}\n"))?;
    let hash = format!("{}:{}:Bench.Hash:73\n", bad.sha256, bad.content.len());
    fs::write(folder.join("bench.hsb"), hash)?;
    Ok(folder)
}

/// A clamd of our own, and the client that passes it one file after the other.
pub(super) struct Clamdscan {
    places: Places,
    configuration: PathBuf,
    _clamd: Server,
}

impl Clamdscan {
    pub(super) fn start(places: &Places) -> Result<Self> {
        let socket = places.run().join("clamd.sock");
        let configuration = places.disk().join("clamd.conf");
        let text = format!(
            "Foreground yes\nLocalSocket {}\nDatabaseDirectory {}\nTemporaryDirectory {}\n\
             MaxFileSize {MAX_SIZE}\nMaxScanSize {MAX_SIZE}\nStreamMaxLength {MAX_SIZE}\n\
             MaxDirectoryRecursion 64\nMaxScanTime 0\n",
            socket.display(),
            database(places)?.display(),
            places.disk().display()
        );
        fs::write(&configuration, text)?;
        let log = fs::File::create(places.disk().join("clamd.log"))?;
        let mut clamd = scanner::program(&clamd()?, places);
        clamd.arg("--config-file").arg(&configuration);
        let clamd = Server::start(clamd.stdout(log.try_clone()?).stderr(log))?;
        wait::until_true("clamd to listen", READY, || UnixStream::connect(&socket).is_ok())?;
        Ok(Self {
            places: places.clone(),
            configuration,
            _clamd: clamd,
        })
    }
}

impl Scanner for Clamdscan {
    fn name(&self) -> String {
        CLAMDSCAN.to_owned()
    }

    fn scan(&self, tree: &Tree) -> Result<Duration> {
        let mut scan = scanner::program(&clamdscan()?, &self.places);
        scan.args(["--fdpass", "--infected", "--no-summary", "--config-file"]);
        Ok(scanner::run(scan.args([&self.configuration, &tree.root]), tree, FOUND)?.took)
    }
}

/// The same engine without a daemon.
pub(super) struct Clamscan {
    places: Places,
    database: PathBuf,
}

impl Clamscan {
    pub(super) fn new(places: &Places) -> Result<Self> {
        Ok(Self {
            places: places.clone(),
            database: database(places)?,
        })
    }
}

impl Scanner for Clamscan {
    fn name(&self) -> String {
        CLAMSCAN.to_owned()
    }

    fn scan(&self, tree: &Tree) -> Result<Duration> {
        let mut scan = scanner::program(&clamscan()?, &self.places);
        scan.args(["--recursive", "--infected", "--no-summary", "--max-scantime=0"]);
        scan.args([
            &format!("--max-filesize={MAX_SIZE}"),
            &format!("--max-scansize={MAX_SIZE}"),
        ]);
        scan.arg("--database").args([&self.database, &tree.root]);
        Ok(scanner::run(&mut scan, tree, FOUND)?.took)
    }
}
