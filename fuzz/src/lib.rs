//! The parsers of the scan worker, by their paths: as parts of its crate they would bring
//! YARA-X with them, which takes half an hour to build with sanitizers.

#![allow(dead_code, missing_docs)]

#[path = "../../scan-worker/src/similar/mod.rs"]
pub mod similar;
#[path = "../../scan-worker/src/structure/mod.rs"]
pub mod structure;
#[path = "../../scan-worker/src/unpack/mod.rs"]
pub mod unpack;
