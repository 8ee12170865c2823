//! Scan workers: the sandboxed processes that parse what containers wrote.
//!
//! Each judging thread uses one worker at a time. One that dies or is late is
//! replaced; the content that it was at has no verdict, and lazaretd goes on.

mod answer;
mod pool;
mod worker;
mod zygote;

pub(crate) use answer::Member;
pub(crate) use pool::{Counts, Rules, Workers};
pub(crate) use worker::WorkerError;
pub(crate) use zygote::{By, Settings, ZygoteError};
