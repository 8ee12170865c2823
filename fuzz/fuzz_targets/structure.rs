//! The heuristics: any text, in each language.

#![no_main]

use lazaret_fuzz::structure::{self, Language, lexer};
use libfuzzer_sys::fuzz_target;

const LANGUAGES: [Language; 7] = [
    Language::Php,
    Language::Jsp,
    Language::Net,
    Language::Visual,
    Language::Python,
    Language::Perl,
    Language::Node,
];

fuzz_target!(|bytes: &[u8]| {
    let _found = structure::judge(bytes);
    let text = String::from_utf8_lossy(bytes);
    for language in LANGUAGES {
        for part in language.code(&text) {
            let _tokens = lexer::tokens(part, language).len();
        }
    }
});
