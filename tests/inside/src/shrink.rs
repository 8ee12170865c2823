//! A large file that is cut to nothing and grows again while others open and execute it.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use serde_json::{Value, json};

const MIB: usize = 1 << 20;
const OPENERS: usize = 3;

#[derive(Default)]
struct Tally {
    allowed: u32,
    denied: u32,
    failed: Vec<String>,
}

/// Opens and executes `file` while it is between 0 and `mib` MiB large.
pub(crate) fn run(file: &Path, mib: usize, time: Duration) -> Result<Value> {
    // Before anybody executes it: afterwards it could not be opened for writing any more.
    let mut written = File::options().append(true).create(true).open(file)?;
    written.set_permissions(fs::Permissions::from_mode(0o755))?;
    let end = Instant::now() + time;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let rounds = shrink_and_grow(&mut written, mib, &over);
            // An early end is a failure, and the others need not go on.
            over.store(true, Ordering::Relaxed);
            rounds
        });
        let user = |number| {
            let over = &over;
            scope.spawn(move || {
                let mut tally = Tally::default();
                while Instant::now() < end && !over.load(Ordering::Relaxed) {
                    tally.add(if number == 0 { execute(file) } else { open(file) });
                }
                tally
            })
        };
        let users: Vec<_> = (0..=OPENERS).map(user).collect();
        let mut sum = Tally::default();
        for user in users {
            sum.merge(user.join().unwrap_or_default());
        }
        over.store(true, Ordering::Relaxed);
        let rounds = writer.join().ok().context("the writer panicked")??;
        Ok(json!({
            "rounds": rounds,
            "allowed": sum.allowed,
            "denied": sum.denied,
            "failed": sum.failed,
        }))
    })
}

/// Once with content and once sparse, in turn. Returns how often.
fn shrink_and_grow(file: &mut File, mib: usize, over: &AtomicBool) -> Result<u32> {
    let mut rounds = 0_u32;
    while !over.load(Ordering::Relaxed) {
        // Another content each time: no verdict is remembered.
        let chunk = rounds.to_le_bytes().repeat(MIB / 4);
        for _ in 0..mib {
            file.write_all(&chunk)?;
        }
        file.set_len(0)?;
        file.set_len((mib * MIB) as u64)?;
        file.set_len(0)?;
        rounds += 1;
    }
    Ok(rounds)
}

fn open(file: &Path) -> std::io::Result<()> {
    File::open(file).map(drop)
}

fn execute(file: &Path) -> std::io::Result<()> {
    Command::new(file).status().map(drop)
}

impl Tally {
    fn add(&mut self, result: std::io::Result<()>) {
        match result {
            Ok(()) => self.allowed += 1,
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EPERM) => self.denied += 1,
                // It is open for writing and no program, which the kernel finds out afterwards.
                Some(Errno::ETXTBSY | Errno::ENOEXEC) => self.allowed += 1,
                _ => self.failed.push(error.to_string()),
            },
        }
    }

    fn merge(&mut self, other: Self) {
        self.allowed += other.allowed;
        self.denied += other.denied;
        self.failed.extend(other.failed);
        self.failed.truncate(5);
    }
}
