//! What the tests run inside a container when a shell is not precise enough: opens at a known
//! rate, waits measured one by one, thousands of openers at once. Prints one line of JSON.

mod burst;
mod files;
mod storm;

use std::env;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

const USAGE: &str = "fill DIR N | burst DIR N | opens DIR SECONDS THREADS | execs FILE SECONDS THREADS";

fn main() -> Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let output = match words.as_slice() {
        ["fill", dir, n] => files::fill(Path::new(dir), number(n)?)?,
        ["burst", dir, n] => burst::run(Path::new(dir), number(n)?)?,
        ["burst-part", dir, from, to] => burst::part(Path::new(dir), number(from)?..number(to)?)?,
        ["opens", dir, time, threads] => storm::opens(Path::new(dir), seconds(time)?, number(threads)?),
        ["execs", file, time, threads] => storm::execs(Path::new(file), seconds(time)?, number(threads)?),
        _ => bail!("usage: {USAGE}"),
    };
    println!("{output}");
    Ok(())
}

fn number(word: &str) -> Result<usize> {
    word.parse().with_context(|| format!("{word} is no number"))
}

fn seconds(word: &str) -> Result<Duration> {
    Ok(Duration::from_secs(
        word.parse().with_context(|| format!("{word} is no number"))?,
    ))
}
