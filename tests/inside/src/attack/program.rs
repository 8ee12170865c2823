//! A program that is good or evil by what is in its file, and tells which by its exit code: what
//! the kernel mapped is what ran.

use std::env;
use std::fs;
use std::hint::black_box;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use nix::errno::Errno;
use serde::Serialize;
use serde_json::{Value, json};

/// Its page in the file is its own, so that a hole can be punched there.
#[repr(C, align(4096))]
struct Page {
    marker: [u8; 19],
    rest: [u8; PAGE - 19],
}

pub(super) const PAGE: usize = 4096;

/// The host lists the program that ends in [`EVIL`] here, and the one without this page.
#[used]
static FLAVOUR: Page = Page {
    marker: *b"lazaret-attack:good",
    rest: [b'.'; PAGE - 19],
};

pub(super) const GOOD: &[u8] = b"good";
pub(super) const EVIL: &[u8] = b"evil";

/// By these exit codes a program tells what it is.
const GOOD_RAN: u8 = 42;
pub(super) const EVIL_RAN: u8 = 66;

#[derive(Clone, Copy)]
pub(super) enum Flavour {
    Good,
    Evil,
}

/// Tells what this program is.
pub(super) fn tell() -> ExitCode {
    let page = black_box(&FLAVOUR);
    let punched = page.rest.iter().all(|byte| *byte == 0);
    let evil = punched || page.marker.ends_with(EVIL);
    ExitCode::from(if evil { EVIL_RAN } else { GOOD_RAN })
}

/// Both contents, and where they differ.
pub(super) struct Program {
    pub(super) good: Vec<u8>,
    pub(super) evil: Vec<u8>,
    /// Where [`GOOD`] or [`EVIL`] begins.
    pub(super) at: usize,
    /// Where the page of the flavour begins.
    pub(super) page: usize,
}

impl Program {
    pub(super) fn own() -> Result<Self> {
        let good = fs::read(env::current_exe()?)?;
        let marker = black_box(&FLAVOUR).marker;
        let page = good.windows(marker.len()).position(|bytes| bytes == marker);
        let page = page.context("this program has no flavour")?;
        let at = page + marker.len() - EVIL.len();
        let mut evil = good.clone();
        evil.splice(at..at + EVIL.len(), EVIL.iter().copied());
        Ok(Self { good, evil, at, page })
    }

    pub(super) fn content(&self, flavour: Flavour) -> &[u8] {
        match flavour {
            Flavour::Good => &self.good,
            Flavour::Evil => &self.evil,
        }
    }

    /// Makes a file of it that can be run.
    pub(super) fn put(&self, file: &Path, flavour: Flavour) -> Result<Value> {
        fs::write(file, self.content(flavour))?;
        fs::set_permissions(file, fs::Permissions::from_mode(0o755))?;
        Ok(json!({}))
    }
}

/// What came of running a file.
#[derive(Default, Serialize)]
pub(super) struct Tally {
    pub(super) good: u32,
    pub(super) evil: u32,
    pub(super) denied: u32,
    /// Nothing ran: it was open for writing, or no program at that moment.
    pub(super) idle: u32,
    pub(super) failed: Vec<String>,
}

impl Tally {
    /// Runs `file` `times` times.
    pub(super) fn of(file: &Path, times: u32) -> Self {
        let mut tally = Self::default();
        (0..times).for_each(|_| tally.run(file));
        tally
    }

    /// How often it was tried.
    pub(super) fn runs(&self) -> u32 {
        self.good + self.evil + self.denied + self.idle
    }

    pub(super) fn run(&mut self, file: &Path) {
        let status = Command::new(file).args(["attack", "ran"]).status();
        match status.map(|status| (status.code(), status)) {
            Ok((Some(code), _)) if code == i32::from(GOOD_RAN) => self.good += 1,
            Ok((Some(code), _)) if code == i32::from(EVIL_RAN) => self.evil += 1,
            Ok((_, status)) => self.fail(status.to_string()),
            Err(error) => self.not_started(&error),
        }
    }

    fn not_started(&mut self, error: &io::Error) {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EPERM) => self.denied += 1,
            Some(Errno::ETXTBSY | Errno::ENOEXEC | Errno::ENOENT) => self.idle += 1,
            _ => self.fail(error.to_string()),
        }
    }

    fn fail(&mut self, why: String) {
        const TOLD: usize = 5;
        if self.failed.len() < TOLD {
            self.failed.push(why);
        }
    }
}
