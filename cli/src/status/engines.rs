//! Engines that are not a part of lazaret.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lazaret_api::control::v1::Engine;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::print::{BAD, ODD, Printer, Styled};
use crate::text::{self, Safe, count};

/// One line about each, and one more when it is away.
pub(super) fn show(engines: &[Engine], printer: &mut Printer) -> Result<(), Failure> {
    for engine in engines {
        let name = Safe(&engine.name);
        let version = match engine.version.as_str() {
            "" => "never heard",
            version => version,
        };
        printer.line(format_args!(
            "  {name}: {}; {} asked about, {} found, {} without a verdict",
            Safe(version),
            count(engine.asked, "file"),
            engine.found,
            engine.failed
        ))?;
        if !engine.trouble.is_empty() {
            let (age, why) = (text::duration(away_for(engine).as_secs()), Safe(&engine.trouble));
            printer.line(format_args!("    {} for {age}: {why}", Styled(BAD, "away")))?;
        }
        if engine.left_out > 0 {
            let files = count(engine.left_out, "file");
            printer.line(format_args!(
                "    {} {files} came while it was away",
                Styled(ODD, "left out")
            ))?;
        }
    }
    Ok(())
}

/// The same for programs.
pub(super) fn json(engine: &Engine) -> Value {
    let is_away = !engine.trouble.is_empty();
    json!({
        "name": engine.name,
        "version": engine.version,
        "state": if is_away { "away" } else { "answering" },
        "trouble": is_away.then_some(&engine.trouble),
        "away_since_unix_ms": is_away.then_some(engine.away_since_unix_ms),
        "asked": engine.asked,
        "found": engine.found,
        "failed": engine.failed,
        "left_out": engine.left_out,
        "lost": engine.lost,
    })
}

fn away_for(engine: &Engine) -> Duration {
    let since = UNIX_EPOCH.checked_add(Duration::from_millis(engine.away_since_unix_ms));
    let elapsed = since.and_then(|since| SystemTime::now().duration_since(since).ok());
    elapsed.unwrap_or_default()
}
