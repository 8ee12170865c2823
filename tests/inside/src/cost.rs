//! What opening and running files costs, in nanoseconds each.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// Opens and closes the files of a folder in turn, or one file, `n` times in all.
pub(crate) fn opens(path: &Path, n: usize) -> Result<Value> {
    let files = files(path)?;
    let mut files = files.iter().cycle();
    each(n, || {
        let file = files.next().context("no file")?;
        File::open(file)?;
        Ok(())
    })
}

/// Runs a program that ends at once, `n` times.
pub(crate) fn execs(program: &Path, n: usize) -> Result<Value> {
    each(n, || {
        // `vfork` and `execve`, as the standard library does it.
        let status = Command::new(program).status()?;
        if status.success() {
            Ok(())
        } else {
            bail!("{} failed: {status}", program.display())
        }
    })
}

/// Opens each of `n` new files of `size` bytes for the first time.
pub(crate) fn first_opens(folder: &Path, n: usize, size: usize) -> Result<Value> {
    fs::create_dir_all(folder)?;
    let files: Vec<PathBuf> = (0..n).map(|index| folder.join(index.to_string())).collect();
    for (index, file) in files.iter().enumerate() {
        // No two are alike, whoever makes them.
        let salt = format!("{index} {:?}", Instant::now());
        fs::write(file, salt.bytes().cycle().take(size).collect::<Vec<u8>>())?;
    }
    let mut next = files.iter();
    let cost = each(n, || {
        File::open(next.next().context("no file")?)?;
        Ok(())
    });
    fs::remove_dir_all(folder)?;
    cost
}

/// Reads all files of a folder, as a program does that starts.
pub(crate) fn reads(folder: &Path) -> Result<Value> {
    let mut buffer = vec![0; 128 << 10];
    let mut bytes = 0;
    for file in files(folder)? {
        let mut file = File::open(file)?;
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                length => bytes += length,
            }
        }
    }
    Ok(json!({ "bytes": bytes }))
}

fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path)?.map(|entry| Ok(entry?.path()));
    entries.collect()
}

fn each(n: usize, mut act: impl FnMut() -> Result<()>) -> Result<Value> {
    let begun = Instant::now();
    for _ in 0..n {
        act()?;
    }
    Ok(json!({ "ns": begun.elapsed().as_nanos() as f64 / n as f64 }))
}
