//! Very many different files opened in the same moment.

use std::env;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::files;

/// An open that waits holds a file descriptor, and a container may have 1,024 a process.
const PER_PROCESS: usize = 500;
/// Ten thousand of the usual stacks would be 20 GB of address space.
const STACK: usize = 64 * 1024;

#[derive(Default, Serialize, Deserialize)]
struct Tally {
    opened: usize,
    /// Numbers of the files that were denied.
    denied: Vec<usize>,
    /// What else came of an open.
    failed: Vec<String>,
    longest_ms: u128,
}

/// Opens `n` files at once from as many threads in several processes.
pub(crate) fn run(dir: &Path, n: usize) -> Result<Value> {
    let mut parts = Vec::new();
    for from in (0..n).step_by(PER_PROCESS) {
        parts.push(spawn_part(dir, from..n.min(from + PER_PROCESS))?);
    }
    // Each part says that its threads stand ready.
    for part in &mut parts {
        let ready = part.stdout.as_mut().context("a part's output")?;
        ready.read_exact(&mut [0; 1])?;
    }
    // The start signal: end of file on every standard input, one right after the other.
    parts.iter_mut().for_each(|part| drop(part.stdin.take()));
    let mut sum = Tally::default();
    for part in parts {
        let output = part.wait_with_output()?;
        sum.add(serde_json::from_slice(&output.stdout)?);
    }
    Ok(serde_json::to_value(sum)?)
}

/// One process of the burst.
pub(crate) fn part(dir: &Path, numbers: Range<usize>) -> Result<Value> {
    let start = Barrier::new(numbers.len() + 1);
    let results = thread::scope(|scope| {
        let threads: Vec<_> = numbers
            .map(|number| {
                let start = &start;
                let open = move || {
                    start.wait();
                    open(dir, number)
                };
                thread::Builder::new().stack_size(STACK).spawn_scoped(scope, open)
            })
            .collect::<std::io::Result<_>>()?;
        print!(".");
        std::io::Write::flush(&mut std::io::stdout())?;
        std::io::stdin().read_to_end(&mut Vec::new())?;
        start.wait();
        let tallies = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_default());
        anyhow::Ok(tallies.collect::<Vec<_>>())
    })?;
    let mut sum = Tally::default();
    results.into_iter().for_each(|tally| sum.add(tally));
    Ok(serde_json::to_value(sum)?)
}

fn spawn_part(dir: &Path, numbers: Range<usize>) -> Result<Child> {
    let mut command = Command::new(env::current_exe()?);
    command.arg("burst-part").arg(dir);
    command
        .arg(numbers.start.to_string())
        .arg(numbers.end.to_string());
    Ok(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?)
}

fn open(dir: &Path, number: usize) -> Tally {
    let started = Instant::now();
    let result = File::open(files::path(dir, number));
    let mut tally = Tally {
        longest_ms: started.elapsed().as_millis(),
        ..Tally::default()
    };
    match result {
        Ok(_) => tally.opened = 1,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => tally.denied.push(number),
        Err(error) => tally.failed.push(format!("{number}: {error}")),
    }
    tally
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.opened += other.opened;
        self.denied.extend(other.denied);
        self.failed.extend(other.failed);
        self.longest_ms = self.longest_ms.max(other.longest_ms);
    }
}
