//! Incidents as `lazaret events --json` prints them.

use anyhow::{Context, Result};
use serde_json::Value;

/// One line of the output.
#[derive(Debug, Clone, PartialEq)]
pub struct Incident(pub Value);

impl Incident {
    /// Every incident in `lines`.
    ///
    /// # Errors
    /// When a line is not JSON.
    pub fn parse_all(lines: &str) -> Result<Vec<Self>> {
        let lines = lines.lines().filter(|line| !line.trim().is_empty());
        lines
            .map(|line| Ok(Self(serde_json::from_str(line).with_context(|| line.to_owned())?)))
            .collect()
    }

    /// The text at a JSON pointer, as `/file/sha256`; empty when there is none.
    #[must_use]
    pub fn text(&self, pointer: &str) -> &str {
        self.0
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// The number at a JSON pointer.
    #[must_use]
    pub fn number(&self, pointer: &str) -> Option<u64> {
        self.0.pointer(pointer)?.as_u64()
    }

    /// Whether it is about this container.
    #[must_use]
    pub fn is_of(&self, container: &str) -> bool {
        self.text("/container/id") == container
    }

    /// Whether a file was denied, and not only reported.
    #[must_use]
    pub fn denied(&self) -> bool {
        self.text("/action") == "deny"
    }
}
