//! The typed configuration of lazaret: `lazaret.toml`.
//!
//! One strict type per table. Every key has a default, so an absent file is a
//! valid one; an unknown key is an error that names the nearest right one.

#![forbid(unsafe_code)]

mod clamd;
mod engines;
mod keys;
mod load;
mod schema;

pub use clamd::{Clamd, OnUnavailable};
pub use engines::Engine;
pub use load::{CONFIG_ENV, ConfigError, DEFAULT_PATH};
pub use schema::{
    Config, Drift, Guard, Incidents, Node, OnUnjudged, Quarantine, QuarantineMode, Scan, Unpack, Watchdog,
};
