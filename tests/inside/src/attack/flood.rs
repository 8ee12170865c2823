//! More to judge than anybody can remember, and a file without an end.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

/// Makes `n` files, each of its own content, and opens each once it is made.
pub(super) fn run(dir: &Path, n: usize) -> Result<Value> {
    const THREADS: usize = 4;
    fs::create_dir_all(dir)?;
    let opened = thread::scope(|scope| {
        let part = |first: usize| {
            let numbers = (first..n).step_by(THREADS);
            scope.spawn(move || numbers.filter(|number| make_and_open(dir, *number)).count())
        };
        let parts: Vec<_> = (0..THREADS).map(part).collect();
        let opened = parts.into_iter().map(|part| part.join().unwrap_or_default());
        opened.sum::<usize>()
    });
    Ok(json!({ "opened": opened }))
}

fn make_and_open(dir: &Path, number: usize) -> bool {
    let path = dir.join(number.to_string());
    fs::write(&path, format!("flood {number}\n")).is_ok() && File::open(path).is_ok()
}

/// Appends to `file` all the time; opens it for reading and tries to run it again and again.
pub(super) fn grow(file: &Path, time: Duration) -> Result<Value> {
    static PIECE: [u8; 64 * 1024] = [b'#'; 64 * 1024];
    const MOST: u64 = 256 << 20;
    let end = Instant::now() + time;
    let mut options = OpenOptions::new();
    let mut growing = options.append(true).create(true).mode(0o755).open(file)?;
    growing.write_all(b"#!/bin/sh\n")?;
    thread::scope(|scope| {
        let reader = scope.spawn(|| open_until(end, file));
        while Instant::now() < end {
            growing.write_all(&PIECE)?;
            // The end is never seen, and the disk is not filled.
            if growing.metadata()?.len() > MOST {
                growing.set_len(MOST / 2)?;
            }
        }
        let (answered, longest) = reader.join().unwrap_or_default();
        Ok(json!({ "answered": answered, "longest_ms": longest.as_millis() }))
    })
}

/// How many opens had an answer, whichever, and the longest wait for one.
fn open_until(end: Instant, file: &Path) -> (u32, Duration) {
    let (mut answered, mut longest) = (0, Duration::ZERO);
    while Instant::now() < end {
        let started = Instant::now();
        // Allowed or denied: what matters is when.
        drop(File::open(file));
        longest = longest.max(started.elapsed());
        answered += 1;
    }
    (answered, longest)
}
