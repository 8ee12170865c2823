//! One line of a signature list.
//!
//! ```text
//! # what `sha256sum` prints is valid; so are a severity and no name at all
//! e3b0c442...b855  dropper.sh
//! 2c26b46b...66e7  severity=warning  Test tool
//! fcde2b2e...8ee3
//! ```

use lazaret_types::{Severity, Sha256};

/// Longest name, in bytes.
pub(crate) const MAX_NAME: usize = 256;

/// What a signature without a name is called.
const NO_NAME: &str = "Known bad file";

/// A line without a severity is a conviction.
const DEFAULT_SEVERITY: Severity = Severity::Critical;

const SEVERITY_KEY: &str = "severity=";

/// One known bad content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signature {
    pub(crate) sha256: Sha256,
    /// Becomes the incident's `rule`.
    pub(crate) name: String,
    pub(crate) severity: Severity,
}

/// What is wrong with a line, and where: columns are counted in characters from 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadLine {
    pub(super) column: usize,
    pub(super) reason: String,
}

impl Signature {
    /// Puts a signature together from what a person gave; `""` and `None` mean
    /// the defaults.
    ///
    /// # Errors
    /// When the name is not one.
    pub(crate) fn new(sha256: Sha256, name: &str, severity: Option<Severity>) -> Result<Self, String> {
        let name = name.trim();
        // On its line the name would be read as something else.
        if name.starts_with('*') || name.starts_with(SEVERITY_KEY) {
            return Err(format!("a name does not begin with '*' or '{SEVERITY_KEY}'"));
        }
        check_name(name)?;
        let name = if name.is_empty() { NO_NAME } else { name }.to_owned();
        Ok(Self {
            sha256,
            name,
            severity: severity.unwrap_or(DEFAULT_SEVERITY),
        })
    }

    /// The line that [`parse`] reads back.
    pub(super) fn to_line(&self) -> String {
        let mut line = self.sha256.to_string();
        if self.severity != DEFAULT_SEVERITY {
            line += &format!("  {SEVERITY_KEY}{}", self.severity.to_string().to_lowercase());
        }
        if self.name != NO_NAME {
            line += &format!("  {}", self.name);
        }
        line
    }
}

/// Reads one line without its end; `None` for an empty one or a comment.
pub(super) fn parse(line: &str) -> Result<Option<Signature>, BadLine> {
    let bad = |rest: &str, reason: String| BadLine {
        column: column_of(line, rest),
        reason,
    };

    let text = line.trim();
    if text.is_empty() || text.starts_with('#') {
        return Ok(None);
    }
    let (digest, mut rest) = next_word(text);
    let sha256 = parse_digest(digest).map_err(|(at, reason)| bad(at, reason))?;
    let mut severity = None;
    if let Some(value) = next_word(rest).0.strip_prefix(SEVERITY_KEY) {
        severity = Some(parse_severity(value).map_err(|reason| bad(value, reason))?);
        rest = next_word(rest).1;
    }
    // `sha256sum --binary` marks names with an asterisk.
    let name = rest.strip_prefix('*').unwrap_or(rest);
    Signature::new(sha256, name, severity)
        .map(Some)
        .map_err(|reason| bad(name, reason))
}

fn next_word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()));
    (word, rest.trim_start())
}

/// On error also where in `word` it is.
fn parse_digest(word: &str) -> Result<Sha256, (&str, String)> {
    if let Some(at) = word.find(|c: char| !c.is_ascii_hexdigit()) {
        let (_, rest) = word.split_at(at);
        return Err((
            rest,
            "not a hexadecimal digit; a line begins with a SHA-256".into(),
        ));
    }
    word.parse().map_err(|_wrong_length| {
        (
            word,
            format!("a SHA-256 has 64 hexadecimal digits, this has {}", word.len()),
        )
    })
}

fn parse_severity(word: &str) -> Result<Severity, String> {
    [
        Severity::Notice,
        Severity::Warning,
        Severity::Error,
        Severity::Critical,
    ]
    .into_iter()
    .find(|severity| severity.to_string().eq_ignore_ascii_case(word))
    .ok_or_else(|| "a severity is notice, warning, error or critical".into())
}

fn check_name(name: &str) -> Result<(), String> {
    if name.len() > MAX_NAME {
        return Err(format!(
            "a name has at most {MAX_NAME} bytes, this has {}",
            name.len()
        ));
    }
    if name.chars().any(char::is_control) {
        return Err("a name has no control characters".into());
    }
    Ok(())
}

/// Where `part`, which is a part of `line`, begins.
fn column_of(line: &str, part: &str) -> usize {
    let offset = part.as_ptr().addr().saturating_sub(line.as_ptr().addr());
    line.get(..offset).map_or(1, |before| before.chars().count() + 1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test is a panic")]
mod tests {
    use super::*;

    const DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn signature(name: &str, severity: Severity) -> Option<Signature> {
        Some(Signature {
            sha256: DIGEST.parse().unwrap(),
            name: name.into(),
            severity,
        })
    }

    #[test]
    fn reads_what_people_write() {
        for (line, expected) in [
            ("", None),
            ("   \t", None),
            ("  # a comment", None),
            (DIGEST, signature(NO_NAME, Severity::Critical)),
            (
                &format!("{DIGEST}  a name"),
                signature("a name", Severity::Critical),
            ),
            (
                &format!("{DIGEST} *binary.bin"),
                signature("binary.bin", Severity::Critical),
            ),
            (
                &format!("\t{}  x\r", DIGEST.to_uppercase()),
                signature("x", Severity::Critical),
            ),
            (
                &format!("{DIGEST} severity=Warning  a name"),
                signature("a name", Severity::Warning),
            ),
            (
                &format!("{DIGEST} severity=notice"),
                signature(NO_NAME, Severity::Notice),
            ),
        ] {
            assert_eq!(parse(line), Ok(expected), "{line:?}");
        }
    }

    #[test]
    fn says_where_a_line_is_wrong() {
        for (line, column) in [
            ("  abc  name", 3),
            (&format!(" é{DIGEST}"), 2),
            (&DIGEST.replace("98", "xy"), 9),
            (&format!("{DIGEST}0"), 1),
            (&format!("{DIGEST}  severity=bad  x"), 76),
            (&format!("{DIGEST}  a\u{1b}[2Jb"), 67),
            (&format!("{DIGEST}  {}", "x".repeat(MAX_NAME + 1)), 67),
        ] {
            assert_eq!(parse(line).unwrap_err().column, column, "{line:?}");
        }
    }

    #[test]
    fn writes_what_it_reads() {
        for (name, severity) in [
            ("", None),
            ("a  b", None),
            ("x", Some(Severity::Error)),
            ("", Some(Severity::Notice)),
        ] {
            let made = Signature::new(DIGEST.parse().unwrap(), name, severity).unwrap();
            assert_eq!(parse(&made.to_line()), Ok(Some(made)));
        }
    }

    #[test]
    fn refuses_names_that_would_be_another_line() {
        for name in ["a\nb", "severity=notice", "*x", &"é".repeat(200)] {
            assert!(
                Signature::new(DIGEST.parse().unwrap(), name, None).is_err(),
                "{name:?}"
            );
        }
    }
}
