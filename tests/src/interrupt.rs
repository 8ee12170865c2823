//! Ctrl-C, SIGTERM and SIGHUP: clean up, then go.

use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::Result;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::scratch::Places;
use crate::sweep::sweep;
use crate::ui;

static LIVE: Mutex<Vec<Places>> = Mutex::new(Vec::new());
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on a signal sweeps every living run before the process ends.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn install() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            INTERRUPTED.store(true, Ordering::SeqCst);
            ui::note("interrupted: cleaning up");
            let mut live = live();
            live.drain(..).for_each(|places| sweep(&places));
            process::exit(128 + signal);
        }
    });
    Ok(())
}

/// Whether a signal has come: errors from here on are its echo, and the process is about to end.
#[must_use]
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Blocks for good once a signal has come: the thread that cleans up ends the process.
pub fn yield_to_cleanup() {
    while interrupted() {
        thread::park();
    }
}

/// A run that a signal must sweep.
pub(crate) fn register(places: &Places) {
    live().push(places.clone());
}

/// Ends a run: swept here, unless the signal thread was first. The lock is held over the sweep,
/// so that neither side ends the process while the other still sweeps.
pub(crate) fn release(places: &Places) {
    let mut live = live();
    if let Some(index) = live.iter().position(|other| other == places) {
        live.swap_remove(index);
        sweep(places);
    }
}

fn live() -> MutexGuard<'static, Vec<Places>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}
