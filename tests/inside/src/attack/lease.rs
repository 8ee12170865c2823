//! A container that takes leases of its own, so that whoever opens its file has to wait.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::libc;
use serde_json::{Value, json};

use super::program::{Flavour, Program};
use super::{raw, signals};

const SOON: Duration = Duration::from_secs(10);

/// Makes an evil program, and holds a lease on it until the test says go. Whoever opens it sees
/// to the lease by no more than waiting for it.
pub(super) fn run(kind: &str, file: &Path, signals: &Path) -> Result<Value> {
    let kind = match kind {
        "read" => libc::F_RDLCK,
        "write" => libc::F_WRLCK,
        other => bail!("{other} is no lease"),
    };
    let program = Program::own()?;
    program.put(file, Flavour::Good)?;
    // From before it is evil: later nobody gets a descriptor.
    let opened = File::open(file)?;
    nix::unistd::truncate(file, 0)?;
    OpenOptions::new()
        .write(true)
        .open(file)?
        .write_all(&program.evil)?;
    raw::ignore_lease_breaks()?;
    take(&opened, kind)?;
    signals::ready_then_go(signals)?;
    drop(opened);
    fs::remove_file(file)?;
    Ok(json!({}))
}

/// Whoever judged the good content may have the file open for a moment.
fn take(file: &File, kind: libc::c_int) -> Result<()> {
    let end = Instant::now() + SOON;
    loop {
        match raw::take_lease(file, kind) {
            Err(_) if Instant::now() < end => thread::sleep(Duration::from_millis(5)),
            taken => return taken,
        }
    }
}
