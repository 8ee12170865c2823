//! A line of a list of TLSH digests.

#![no_main]

use lazaret_fuzz::similar::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match parse(text) {
        Ok(Some(entry)) => assert!(!entry.name.is_empty() && !entry.name.contains(char::is_control)),
        Ok(None) => {}
        Err(bad) => assert!(bad.column >= 1 && bad.column <= text.chars().count() + 1),
    }
});
