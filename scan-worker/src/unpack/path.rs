//! Where a member is.

use std::fmt::Write;

/// Stands between an archive and what is in it.
const INSIDE: &str = "!/";

/// Longest name of one member that is told, in bytes.
const MAX_NAME: usize = 160;

/// Longest path that is told, in bytes: beyond it, names are left out.
const MAX_PATH: usize = 600;

/// The path of a member from the outside in, for a person: `b.tar!/c.php`.
///
/// A control character, a backslash and a byte that is not UTF-8 are escaped as in Rust.
#[derive(Debug, Default)]
pub(super) struct MemberPath(String);

impl MemberPath {
    /// Goes inside; returns what leads out again.
    pub(super) fn push(&mut self, name: &[u8]) -> usize {
        let outside = self.0.len();
        if outside > 0 {
            self.0.push_str(INSIDE);
        }
        let most = MAX_NAME.min(MAX_PATH.saturating_sub(self.0.len()));
        self.0.push_str(&shown(name, most));
        outside
    }

    pub(super) fn truncate(&mut self, outside: usize) {
        self.0.truncate(outside);
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

fn shown(name: &[u8], most: usize) -> String {
    let mut text = String::new();
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '\\' {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            // A `String` takes everything.
            let _never = write!(text, "\\x{byte:02x}").is_err();
        }
        if text.len() > most {
            text.truncate(text.floor_char_boundary(most));
            text.push('…');
            break;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leads_in_and_out() {
        let mut path = MemberPath::default();
        let top = path.push(b"b.tar");
        let tar = path.push(b"d/c.php");
        assert_eq!(path.as_str(), "b.tar!/d/c.php");
        path.truncate(tar);
        assert_eq!(path.as_str(), "b.tar");
        path.truncate(top);
        assert_eq!(path.as_str(), "");
    }

    #[test]
    fn is_one_line_of_a_bounded_length() {
        assert_eq!(shown(b"a\n\x1b[2J\\\xff", 99), "a\\n\\u{1b}[2J\\\\\\xff");
        let mut path = MemberPath::default();
        for _ in 0..1_000 {
            path.push("é\0".repeat(5_000).as_bytes());
        }
        assert!(path.as_str().len() < MAX_PATH + 1_000 * (INSIDE.len() + '…'.len_utf8()) + 9);
        assert!(!path.as_str().contains(char::is_control));
    }
}
