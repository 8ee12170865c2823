//! What the end-to-end tests, the demo and the benchmarks run on: a private containerd and a
//! private lazaretd, with everything they need made or downloaded on the spot.
//!
//! Nothing here touches the machine's own containerd, lazaretd or apt configuration. All that a
//! run leaves in the system carries the name of its [`scratch::Scratch`], and one function,
//! [`sweep::sweep`], takes it away again: at the end, on Ctrl-C, after a panic, and at the next
//! start when a run was killed.

pub mod binaries;
pub mod clamav;
pub mod command;
pub mod containerd;
pub mod daemon;
pub mod herd;
pub mod image;
pub mod incident;
pub mod interrupt;
pub mod machine;
pub mod malware;
pub mod mounts;
pub mod needs;
pub mod node;
pub mod packages;
pub mod procs;
pub mod run;
pub mod scratch;
pub mod sweep;
pub mod ui;
pub mod wait;
