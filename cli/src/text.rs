//! Text that strangers chose, made safe to show, and numbers made easy to read.
//!
//! A container chooses its paths and process names. Escape sequences in them
//! could rewrite what the administrator sees, and characters that change the
//! direction of writing could make a path look like another one.

use std::fmt::{self, Write};

/// Shows `text` without any character that a terminal obeys instead of showing.
pub(crate) struct Safe<'a>(pub(crate) &'a str);

impl fmt::Display for Safe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| {
            if is_obeyed(c) {
                write!(f, "{}", c.escape_default())
            } else {
                f.write_char(c)
            }
        })
    }
}

/// The same JSON, with the characters that [`Safe`] replaces escaped. They only
/// occur within strings, and JSON escapes none above U+001F by itself.
pub(crate) fn safe_json(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        if is_obeyed(c) {
            let mut units = [0; 2];
            safe.extend(
                c.encode_utf16(&mut units)
                    .iter()
                    .map(|unit| format!("\\u{unit:04x}")),
            );
        } else {
            safe.push(c);
        }
    }
    safe
}

/// A path that may not be UTF-8, with `\xNN` for each byte that does not fit.
pub(crate) fn path(bytes: &[u8]) -> String {
    bytes.utf8_chunks().fold(String::new(), |mut text, chunk| {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
        text
    })
}

fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A duration as a person says it: the two largest units.
pub(crate) fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// `1 open`, `2 opens`.
pub(crate) fn count(n: u64, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test is a panic")]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\u{1b}[2J\r\n\u{9b}31m\u{7f}\u{202e}txt.\u{2066}é\u{e0041}\u{1f600}";

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through() {
        let safe = Safe(HOSTILE).to_string();
        assert_eq!(
            safe,
            "a\\u{1b}[2J\\r\\n\\u{9b}31m\\u{7f}\\u{202e}txt.\\u{2066}é\\u{e0041}\u{1f600}"
        );
    }

    #[test]
    fn safe_json_says_the_same() {
        let json = serde_json::to_string(HOSTILE).unwrap();
        let safe = safe_json(&json);
        assert!(!safe.chars().any(is_obeyed), "{safe}");
        assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), HOSTILE);
    }

    #[test]
    fn durations_read_well() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (61, "1 min 1 s"),
            (3_600, "1 h 0 min"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn paths_need_not_be_utf8() {
        assert_eq!(path(b"/a\xff/\xc3\xa9"), "/a\\xff/é");
    }
}
