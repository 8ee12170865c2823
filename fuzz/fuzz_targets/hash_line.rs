//! A line of a list of SHA-256 digests: what is read is written so that it is read again.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, unreachable_pub)]
#[path = "../../analysis-daemon/src/signatures/line.rs"]
mod line;

fuzz_target!(|text: &str| {
    match line::parse(text) {
        Ok(Some(signature)) => {
            let again = line::parse(&signature.to_line());
            assert_eq!(again, Ok(Some(signature)));
        }
        Ok(None) => {}
        Err(bad) => assert!(bad.column >= 1 && bad.column <= text.chars().count() + 1),
    }
});
