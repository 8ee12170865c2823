//! Running containers are scanned again when what judges has changed: hash lists, rules, lists of
//! similar contents, or what another engine judges by.
//!
//! What a container opens is judged by the new ones anyway. This finds what lies in it that
//! nobody opens, and what is open already.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::run::RETURN;
use super::{Scans, Target};
use crate::durable;

/// Changes within this time make one scan: signatures come in lists.
const SETTLE: Duration = Duration::from_secs(2);

/// The set that containers were last scanned by; beside the records.
const FILE: &str = "renewed-by";

/// Begins these scans.
pub(crate) struct Renewal {
    scans: Arc<Scans>,
    file: PathBuf,
    is_due: Mutex<bool>,
    woken: Condvar,
}

impl Renewal {
    /// Starts the thread that does. A change that happened while there was no daemon counts.
    ///
    /// # Errors
    /// When the kernel gives no thread, or the disk takes no file.
    pub(crate) fn start(scans: Arc<Scans>) -> io::Result<Arc<Self>> {
        let file = scans.store.beside(FILE);
        let known = match fs::read_to_string(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            read => Some(read?),
        };
        let renewal = Arc::new(Self {
            scans,
            file,
            is_due: Mutex::new(known.is_some()),
            woken: Condvar::new(),
        });
        let (last, patience) = match known {
            // The keepers need a moment to offer their containers again.
            Some(known) => (known, RETURN),
            // The first daemon of this node.
            None => (renewal.keep(renewal.set())?, SETTLE),
        };
        let worker = Arc::clone(&renewal);
        thread::Builder::new()
            .name("renewals".into())
            .spawn(move || worker.work(last, patience))?;
        Ok(renewal)
    }

    /// To be called when what judges may have changed. Never waits.
    pub(crate) fn note(&self) {
        *self.lock() = true;
        self.woken.notify_one();
    }

    /// The first scans begin after `patience`.
    fn work(&self, mut last: String, mut patience: Duration) {
        loop {
            let is_idle = |is_due: &mut bool| !*is_due;
            let due = self.woken.wait_while(self.lock(), is_idle);
            drop(due);
            thread::sleep(std::mem::replace(&mut patience, SETTLE));
            *self.lock() = false;
            let set = self.set();
            // Lists may be read again and be the same.
            if set == last {
                continue;
            }
            let containers = self.scans.means.registry.snapshot();
            let targets = containers
                .iter()
                .map(|status| Target::of_container(&status.container));
            let targets: Vec<_> = targets.collect();
            tracing::info!(
                set,
                containers = targets.len(),
                "scanning again by new signatures"
            );
            self.scans.renew(targets, &set);
            last = self.keep(set.clone()).unwrap_or_else(|error| {
                tracing::warn!(%error, "containers will be scanned again after a restart");
                set
            });
        }
    }

    fn set(&self) -> String {
        (self.scans.means.set)().to_string()
    }

    fn keep(&self, set: String) -> io::Result<String> {
        durable::replace(&self.file, set.as_bytes(), 0o600)?;
        Ok(set)
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.is_due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
