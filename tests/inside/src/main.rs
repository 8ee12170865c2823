//! What the tests run inside a container when a shell is not precise enough: opens at a known
//! rate, waits measured one by one, thousands of openers at once, files that change under
//! whoever opens them. Prints one line of JSON.

mod attack;
mod burst;
mod cost;
mod deep;
mod files;
mod flip;
mod nest;
mod shrink;
mod storm;

use std::env;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

const USAGE: &str = "fill DIR N | burst DIR N | opens DIR SECONDS THREADS | execs FILE SECONDS THREADS | \
    cost-opens PATH N | cost-execs FILE N | cost-first-opens DIR N BYTES | cost-reads DIR | \
    flip rename|write FILE SECONDS | flavour | shrink FILE MIB SECONDS | zip FILE LEVELS | deep LENGTH SCRIPT";

fn main() -> Result<ExitCode> {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let output = match words.as_slice() {
        ["fill", dir, n] => files::fill(Path::new(dir), number(n)?)?,
        ["burst", dir, n] => burst::run(Path::new(dir), number(n)?)?,
        ["burst-part", dir, from, to] => burst::part(Path::new(dir), number(from)?..number(to)?)?,
        ["opens", dir, time, threads] => storm::opens(Path::new(dir), seconds(time)?, number(threads)?),
        ["execs", file, time, threads] => storm::execs(Path::new(file), seconds(time)?, number(threads)?),
        ["cost-opens", path, n] => cost::opens(Path::new(path), number(n)?)?,
        ["cost-execs", file, n] => cost::execs(Path::new(file), number(n)?)?,
        ["cost-first-opens", dir, n, size] => cost::first_opens(Path::new(dir), number(n)?, number(size)?)?,
        ["cost-reads", dir] => cost::reads(Path::new(dir))?,
        ["flip", how, file, time] => flip::run(how, Path::new(file), seconds(time)?)?,
        ["flip-writer", how, file] => flip::write(how, Path::new(file))?,
        ["shrink", file, mib, time] => shrink::run(Path::new(file), number(mib)?, seconds(time)?)?,
        ["zip", file, levels] => nest::zip(Path::new(file), number(levels)?)?,
        ["flavour"] => return Ok(flip::flavour()),
        ["deep", length, script] => return deep::run(number(length)?, script),
        ["attack", words @ ..] => return attack::run(words),
        _ => bail!("usage: {USAGE}"),
    };
    println!("{output}");
    Ok(ExitCode::SUCCESS)
}

fn number(word: &str) -> Result<usize> {
    word.parse().with_context(|| format!("{word} is no number"))
}

fn seconds(word: &str) -> Result<Duration> {
    Ok(Duration::from_secs(
        word.parse().with_context(|| format!("{word} is no number"))?,
    ))
}
