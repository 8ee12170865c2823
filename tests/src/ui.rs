//! What a person at the terminal sees while something takes long.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

/// What is happening right now.
pub const STEP: Style = AnsiColor::Cyan.on_default().bold();
/// What went as it should.
pub const GOOD: Style = AnsiColor::Green.on_default().bold();
/// What was stopped or failed.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// What can be read past.
pub const DIM: Style = Style::new().dimmed();

/// Says on stderr what is done and why.
pub fn note(text: &str) {
    anstream::eprintln!("{STEP}=>{STEP:#} {text}");
}

/// Runs `work` under a spinner; where there is no terminal, two plain lines tell the same.
///
/// # Errors
/// What `work` returns.
pub fn step<T>(text: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let spinner = spinner(text);
    let result = work();
    if let Some(spinner) = spinner {
        spinner.finish_and_clear();
    }
    let took = started.elapsed().as_secs_f64();
    match &result {
        Ok(_) => anstream::eprintln!("{GOOD}=>{GOOD:#} {text} {DIM}{took:.1} s{DIM:#}"),
        Err(_) => anstream::eprintln!("{BAD}=>{BAD:#} {text}: failed after {took:.1} s"),
    }
    result
}

fn spinner(text: &str) -> Option<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        note(text);
        return None;
    }
    let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}").ok()?;
    let spinner = ProgressBar::new_spinner()
        .with_style(style)
        .with_message(text.to_owned());
    spinner.enable_steady_tick(Duration::from_millis(100));
    Some(spinner)
}

/// A bar for `total` equal pieces of work; hidden where there is no terminal.
#[must_use]
pub fn bar(total: u64, text: &str) -> ProgressBar {
    let bar = ProgressBar::new(total).with_message(text.to_owned());
    match ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
