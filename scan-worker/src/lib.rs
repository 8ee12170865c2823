//! What judges file contents for lazaretd: everything that parses what a container wrote.
//!
//! A library only so that tests, benchmarks and fuzzers reach the parsers; the program is
//! `main.rs`, which shows how they are put together and sandboxed.

#![forbid(unsafe_code)]

mod includes;
pub mod judge;
pub mod rules;
pub mod similar;
pub mod structure;
pub mod unpack;
