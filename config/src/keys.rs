//! Finds unknown keys and the nearest known one.
//!
//! serde refuses unknown keys too, but lists all right ones. Every key has a
//! default, so the serialized default configuration *is* the list of keys.

use toml::de::{DeTable, DeValue};

use crate::Config;

/// How alike two keys must be for one to be suggested (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.75;

/// Refuses a text with a key that no default has.
pub(crate) fn check(text: &str) -> Result<(), String> {
    let parsed = DeTable::parse(text).map_err(|error| error.to_string())?;
    let known = toml::Table::try_from(Config::default()).map_err(|error| error.to_string())?;
    check_table(text, parsed.get_ref(), &known, "")
}

fn check_table(text: &str, table: &DeTable<'_>, known: &toml::Table, prefix: &str) -> Result<(), String> {
    for (key, value) in table {
        let name = key.get_ref();
        match (known.get(name.as_ref()), value.get_ref()) {
            (None, _) => return Err(unknown(text, key.span().start, name, known, prefix)),
            (Some(toml::Value::Table(known)), DeValue::Table(table)) => {
                check_table(text, table, known, &format!("{prefix}{name}."))?;
            }
            // A value of the wrong type is serde's to refuse.
            (Some(_), _) => {}
        }
    }
    Ok(())
}

fn unknown(text: &str, offset: usize, name: &str, known: &toml::Table, prefix: &str) -> String {
    let before = text.get(..offset).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    let nearest = known
        .keys()
        .map(|key| (strsim::jaro_winkler(key, name), key))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(alike, _)| *alike >= ALIKE);
    let hint = match nearest {
        Some((_, key)) => format!("did you mean {prefix}{key}?"),
        None => {
            let keys: Vec<_> = known.keys().map(String::as_str).collect();
            format!("known here: {}", keys.join(", "))
        }
    };
    format!("line {line}, column {column}: unknown key {prefix}{name}; {hint}")
}
