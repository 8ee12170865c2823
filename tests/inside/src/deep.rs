//! Folders within folders, further down than any path can tell.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

/// The longest name of a file, in bytes.
const NAME_MAX: usize = 255;

/// Makes folders below the root until the path of the last one has `length` bytes, and runs a
/// shell script in there. No path is ever passed: each step is from one folder to the next.
pub(crate) fn run(length: usize, script: &str) -> Result<ExitCode> {
    env::set_current_dir("/")?;
    let mut left = length;
    while left > 1 {
        let name = "d".repeat(next(left));
        if !Path::new(&name).is_dir() {
            fs::create_dir(&name)?;
        }
        env::set_current_dir(&name)?;
        left -= 1 + name.len();
    }
    let status = Command::new("/bin/sh").args(["-c", script]).status()?;
    let code = status.code().context("the script was killed")?;
    Ok(ExitCode::from(u8::try_from(code)?))
}

/// The length of the next name: after it there is nothing left, or enough for one more.
fn next(left: usize) -> usize {
    let longest = NAME_MAX.min(left - 1);
    if left - 1 - longest == 1 {
        longest - 1
    } else {
        longest
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_length_is_reached() {
        for length in 2..2_000 {
            let mut left = length;
            while left > 1 {
                let name = super::next(left);
                assert!((1..=super::NAME_MAX).contains(&name));
                left -= 1 + name;
            }
            assert_eq!(left, 0, "{length}");
        }
    }
}
