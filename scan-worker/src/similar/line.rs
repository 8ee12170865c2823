//! One line of a TLSH list.
//!
//! ```text
//! # what `tlsh` prints is valid; so are a severity, a distance and no name at all
//! T1A1B2...  dropper.sh
//! T1A1B2...  severity=error distance=50  Dropper of 2031
//! ```

use lazaret_types::Severity;
use tlsh::Tlsh;

/// Longest name, in bytes.
const MAX_NAME: usize = 200;

/// What an entry without a name is called.
const NO_NAME: &str = "Similar to a known bad file";

/// Similar is not the same: an entry without a severity only tells.
const DEFAULT_SEVERITY: Severity = Severity::Warning;

/// Below it, hardly any two unrelated files are found.
const DEFAULT_DISTANCE: u32 = 30;

/// Something known to be bad.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub(super) digest: Tlsh,
    /// What it is called.
    pub name: String,
    /// How bad what is similar to it is.
    pub severity: Severity,
    /// How far from it is still similar.
    pub max_distance: u32,
}

/// What is wrong with a line, and where: columns are counted in characters from 1.
#[derive(Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Where.
    pub column: usize,
    /// What.
    pub reason: String,
}

/// Reads one line without its end; `None` for an empty one or a comment.
///
/// # Errors
/// When it is neither.
pub fn parse(line: &str) -> Result<Option<Entry>, BadLine> {
    let bad = |part: &str, reason: &str| BadLine {
        column: column_of(line, part),
        reason: reason.to_owned(),
    };
    let text = line.trim();
    if text.is_empty() || text.starts_with('#') {
        return Ok(None);
    }
    let (digest, mut rest) = next_word(text);
    let mut entry = Entry {
        digest: digest
            .parse()
            .map_err(|_error| bad(digest, "not a TLSH: T1 and 70 hexadecimal digits"))?,
        name: NO_NAME.to_owned(),
        severity: DEFAULT_SEVERITY,
        max_distance: DEFAULT_DISTANCE,
    };
    while let (word, after) = next_word(rest)
        && let Some((key @ ("severity" | "distance"), value)) = word.split_once('=')
    {
        match key {
            "severity" => {
                let known = super::severity(value);
                let unknown = || bad(value, "a severity is notice, warning, error or critical");
                entry.severity = known.ok_or_else(unknown)?;
            }
            _ => {
                let number = value.parse();
                entry.max_distance = number.map_err(|_error| bad(value, "a distance is a number"))?;
            }
        }
        rest = after;
    }
    // `tlsh` writes the name of the file after the digest.
    if rest.len() > MAX_NAME || rest.chars().any(char::is_control) {
        return Err(bad(
            rest,
            "a name has at most 200 bytes and no control characters",
        ));
    }
    if !rest.is_empty() {
        rest.clone_into(&mut entry.name);
    }
    Ok(Some(entry))
}

fn next_word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()));
    (word, rest.trim_start())
}

/// Where `part`, which is a part of `line`, begins.
fn column_of(line: &str, part: &str) -> usize {
    let offset = part.as_ptr().addr().saturating_sub(line.as_ptr().addr());
    line.get(..offset).map_or(1, |before| before.chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "T1B0E0C022AEC8A280A08E0BEAB3E3B8C2A8C0E2B8E3A2C8B8E0A8E2B8C3A2E8B8C0A8E2";

    fn read(rest: &str) -> Result<(String, Severity, u32), usize> {
        match parse(&format!("{DIGEST}{rest}")) {
            Ok(Some(entry)) => Ok((entry.name, entry.severity, entry.max_distance)),
            Ok(None) => panic!("no entry"),
            Err(bad) => Err(bad.column),
        }
    }

    #[test]
    fn reads_what_people_write() {
        assert_eq!(read(""), Ok((NO_NAME.into(), Severity::Warning, 30)));
        assert_eq!(read("\t./a b.sh"), Ok(("./a b.sh".into(), Severity::Warning, 30)));
        let given = Ok(("X".into(), Severity::Critical, 7));
        assert_eq!(read("  distance=7 severity=Critical  X\r"), given);
        assert_eq!(parse("  # comment"), Ok(None));
        assert_eq!(parse(" "), Ok(None));
        // Without the version, as old programs print it.
        assert!(parse(&DIGEST[2..]).unwrap().is_some());
    }

    #[test]
    fn says_where_a_line_is_wrong() {
        assert_eq!(parse("  T1xyz  name").unwrap_err().column, 3);
        assert_eq!(read(" severity=bad"), Err(83));
        assert_eq!(read(" distance=-1"), Err(83));
        assert_eq!(read(&format!(" {}", "x".repeat(201))), Err(74));
    }
}
