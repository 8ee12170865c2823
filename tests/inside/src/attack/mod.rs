//! What an attacker does who has a shell in a container, knows how we work, and needs more than
//! a shell for it.

mod burst;
mod flood;
mod lease;
mod overwrite;
mod program;
mod race;
mod raw;
mod reach;
mod signals;
mod swap;
mod uring;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

const USAGE: &str = "attack ran | put FILE | overwrite [PRELUDE+]HOW FILE SIGNALS | race HOW REACH FILE SECONDS | \
    reach WAY FILE | lease read|write FILE SIGNALS | flood DIR N | grow FILE SECONDS | \
    swap HOW DIR TARGET SECONDS";

pub(crate) fn run(words: &[&str]) -> Result<ExitCode> {
    let output = match words {
        // A script's interpreter is told more, before.
        [.., "ran"] => return Ok(program::tell()),
        ["put", file] => program::Program::own()?.put(Path::new(file), program::Flavour::Good)?,
        ["overwrite", how, file, signals] => overwrite::run(how, Path::new(file), Path::new(signals))?,
        ["race", how, reach, file, time] => race::run(how, reach, Path::new(file), seconds(time)?)?,
        ["race-writer", how, file] => race::write(how, Path::new(file))?,
        ["bursts"] => burst::run()?,
        ["reach", way, file] => return reach::run(way, Path::new(file)),
        ["lease", kind, file, signals] => lease::run(kind, Path::new(file), Path::new(signals))?,
        ["flood", dir, n] => flood::run(Path::new(dir), n.parse()?)?,
        ["grow", file, time] => flood::grow(Path::new(file), seconds(time)?)?,
        ["swap", how, dir, target, time] => {
            swap::run(how, Path::new(dir), Path::new(target), seconds(time)?)?
        }
        _ => bail!("usage: {USAGE}"),
    };
    println!("{output}");
    Ok(ExitCode::SUCCESS)
}

fn seconds(word: &str) -> Result<Duration> {
    let seconds = word.parse().with_context(|| format!("{word} is no number"))?;
    Ok(Duration::from_secs(seconds))
}
