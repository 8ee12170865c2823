//! ClamAV, with a database of ours that holds two signatures, and unlike its own no millions.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use lazaret_tests::clamav::{self, Clamd};
use lazaret_tests::command;
use lazaret_tests::malware::Malware;
use lazaret_tests::packages;
use lazaret_tests::scratch::Places;

use super::scanner::{self, Scanner};
use super::tree::Tree;

pub(super) const CLAMDSCAN: &str = "clamdscan --fdpass";
pub(super) const CLAMSCAN: &str = "clamscan";

/// Something bad was found.
const FOUND: i32 = 1;

/// No file of ours is too large for it.
const MAX_SIZE: &str = "1024M";

pub(super) fn install() -> Result<()> {
    clamav::install()?;
    for program in [clamdscan, clamscan] {
        program()?;
    }
    Ok(())
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
    let folder = clamav::database(places);
    fs::create_dir_all(&folder)?;
    let bad = Malware::eicar();
    let bytes = clamav::bytes_signature("Bench.Bytes", &bad.content);
    fs::write(folder.join("bench.ndb"), bytes)?;
    let hash = format!("{}:{}:Bench.Hash:73\n", bad.sha256, bad.content.len());
    fs::write(folder.join("bench.hsb"), hash)?;
    Ok(folder)
}

/// A clamd of our own, and the client that passes it one file after the other.
pub(super) struct Clamdscan {
    places: Places,
    _clamd: Clamd,
}

impl Clamdscan {
    pub(super) fn start(places: &Places) -> Result<Self> {
        database(places)?;
        let limits = format!(
            "MaxFileSize {MAX_SIZE}\nMaxScanSize {MAX_SIZE}\nStreamMaxLength {MAX_SIZE}\n\
             MaxDirectoryRecursion 64\nMaxScanTime 0\n"
        );
        Ok(Self {
            places: places.clone(),
            _clamd: Clamd::start(places, &limits)?,
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
        Ok(scanner::run(
            scan.args([&clamav::configuration(&self.places), &tree.root]),
            tree,
            FOUND,
        )?
        .took)
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
