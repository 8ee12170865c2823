//! A folder that is a folder, then a link, then a folder again, while somebody else works on what
//! is in it by its path.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::program::{Flavour, Program};

/// Swaps `dir` with a link to `target` all the time. `how` says what is done in between: a
/// program that is evil is made and run there, or nothing.
pub(super) fn run(how: &str, dir: &Path, target: &Path, time: Duration) -> Result<Value> {
    let program = Program::own()?;
    let (kept, end) = (dir.with_extension("kept"), Instant::now() + time);
    fs::create_dir_all(dir)?;
    let mut rounds = 0_u32;
    while Instant::now() < end {
        match how {
            "run" => try_to_run(&program, &dir.join("program")),
            "idle" => {}
            other => bail!("{other} is nothing to do"),
        }
        fs::rename(dir, &kept)?;
        symlink(target, dir)?;
        std::thread::sleep(pause(rounds));
        fs::remove_file(dir)?;
        fs::rename(&kept, dir)?;
        rounds += 1;
    }
    Ok(json!({ "rounds": rounds }))
}

/// Another moment of what is done about it each time.
fn pause(round: u32) -> Duration {
    Duration::from_micros(u64::from(round) * 37 % 5_000)
}

fn try_to_run(program: &Program, file: &Path) {
    // It may be on its way out of here, or still be there.
    if program.put(file, Flavour::Evil).is_ok() {
        let quiet = Command::new(file)
            .args(["attack", "ran"])
            .stderr(Stdio::null())
            .status();
        assert!(quiet.is_err(), "what is evil ran");
    }
}
