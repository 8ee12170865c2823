//! Web shells by their structure: what a request sends reaches what runs it.
//!
//! Not how it is written, which changes with every shell, but what it does: the program
//! takes something of a request, maybe through decoders, and hands it to something that runs
//! it as code or as a command. Each piece of that is worth some points, and their sum is the
//! severity; [`Found::reasons`] says what was counted.

mod flow;
mod fold;
mod language;
mod learn;
pub mod lexer;
pub mod literal;
mod names;
mod sinks;
mod value;

pub use language::Language;
use lazaret_types::Severity;

use flow::Flow;

/// Larger texts, in bytes, are no web shells: they are uploaded by hand, and stay small.
const MAX_TEXT: usize = 512 << 10;

/// Points from which somebody should look.
const SUSPICIOUS: u32 = 6;

/// Points from which it is denied.
const CERTAIN: u32 = 10;

/// A text that is a web shell, or resembles one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What it does.
    pub rule: &'static str,
    /// By its points.
    pub severity: Severity,
    /// The points, and for what.
    pub reasons: String,
}

/// Judges a text; none when it is no program, or does nothing of that.
#[must_use]
pub fn judge(content: &[u8]) -> Option<Found> {
    if content.len() > MAX_TEXT || content.is_empty() || Language::is_out_of_question(content) {
        return None;
    }
    let text = String::from_utf8_lossy(content);
    let language = Language::of(&text)?;
    if language != Language::Php && memchr::memchr(0, content).is_some() {
        return None;
    }
    let mut tokens = Vec::new();
    for part in language.code(&text) {
        tokens.append(&mut lexer::tokens(part, language));
    }
    let mut flow = Flow::new(language, &tokens);
    if !flow.has_sink() || !flow.has_source() {
        return None;
    }
    flow.learn();
    let hit = flow.hits().into_iter().max_by_key(|hit| hit.points)?;
    let severity = match hit.points {
        CERTAIN.. => Severity::Error,
        SUSPICIOUS.. => Severity::Warning,
        _ => return None,
    };
    Some(Found {
        rule: hit.rule,
        severity,
        reasons: format!("{} points: {}", hit.points, hit.reasons.join(", ")),
    })
}

#[cfg(test)]
mod tests;
