//! Waiting for a condition, always with a deadline.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const PAUSE: Duration = Duration::from_millis(10);

/// Polls `check` until it gives a value.
///
/// # Errors
/// When `limit` passes first; the message names `what` was waited for.
pub fn until<T>(what: &str, limit: Duration, mut check: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = check() {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("waited {limit:?} in vain for {what}");
        }
        sleep(PAUSE);
    }
}

/// Polls `check` until it is true.
///
/// # Errors
/// As [`until`].
pub fn until_true(what: &str, limit: Duration, mut check: impl FnMut() -> bool) -> Result<()> {
    until(what, limit, || check().then_some(()))
}
