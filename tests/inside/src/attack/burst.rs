//! Every now and then somebody else takes a whole processor, by the clock, so that processes agree
//! on when without a word. Whoever was just answered there goes on only when the burst is over.

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::Value;

/// From the start of one burst to the start of the next one, and how much of it is the burst.
const PERIOD_MS: u128 = 500;
const BURST_MS: u128 = 300;

/// Each takes a turn before an idle process has the next one of its own.
const THREADS: usize = 64;

/// Where in a period we are.
fn phase() -> u128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_millis() % PERIOD_MS
}

fn sleep(milliseconds: u128) {
    thread::sleep(Duration::from_millis(
        u64::try_from(milliseconds).unwrap_or_default(),
    ));
}

/// Waits until a burst is about to start, or, for 0, has just started; others say how much before.
pub(super) fn wait_for_next(before: u32) {
    /// As long as it takes to start a program, and have it judged.
    const MOST_MS: u128 = 10;
    let at = PERIOD_MS - u128::from(before) % MOST_MS;
    sleep((at + PERIOD_MS - phase()) % PERIOD_MS);
}

pub(super) fn wait_for_end() {
    sleep(BURST_MS.saturating_sub(phase()) + 20);
}

/// From now on this process and its children share one processor.
pub(super) fn pin() -> Result<()> {
    let this = Pid::from_raw(0);
    let all = sched_getaffinity(this)?;
    let first = (0..CpuSet::count()).find(|cpu| all.is_set(*cpu).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(first.unwrap_or_default())?;
    Ok(sched_setaffinity(this, &one)?)
}

/// Bursts for ever.
pub(super) fn run() -> Result<Value> {
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    while phase() < BURST_MS {
                        std::hint::spin_loop();
                    }
                    sleep(PERIOD_MS - phase());
                }
            });
        }
    });
    bail!("it never ends")
}
