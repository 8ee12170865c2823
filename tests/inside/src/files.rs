//! Files that differ from one another, so that each needs a verdict of its own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

/// The file of a number. Its content is `lazaret file N` and a newline: the host knows its hash.
pub(crate) fn path(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("file-{number}"))
}

/// Makes `n` of them.
pub(crate) fn fill(dir: &Path, n: usize) -> Result<Value> {
    fs::create_dir_all(dir)?;
    for number in 0..n {
        fs::write(path(dir, number), format!("lazaret file {number}\n"))?;
    }
    Ok(json!({ "made": n }))
}
