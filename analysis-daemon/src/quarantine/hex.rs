//! Bytes as text in a record: exact, whatever they are.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    serializer.serialize_str(&text)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| D::Error::custom("not pairs of hexadecimal digits"))
}

fn parse(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| {
            let digits = std::str::from_utf8(pair).ok()?;
            let whole = pair.len() == 2 && pair.iter().all(u8::is_ascii_hexdigit);
            whole.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_pairs_only() {
        assert_eq!(parse("00ff7F"), Some(vec![0, 255, 127]));
        for text in ["0", "0g", "+1", "é"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
