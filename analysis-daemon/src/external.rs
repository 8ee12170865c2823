//! Engines of others: programs that speak the worker's side of `scan.proto`, in sandboxes that
//! are made by the scan worker. `docs/engines.md` is for who writes one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lazaret_config::OnUnavailable;
use lazaret_types::{Engine as Kind, Finding};

use crate::changes::Changes;
use crate::content::Content;
use crate::counters::Counter;
use crate::engine::{Contents, Engine, Failure, Found, Limits, Status};
use crate::workers::{Rules, ZygoteError};

/// One of them.
pub(crate) struct External {
    name: String,
    timeout: Duration,
    on_failure: OnUnavailable,
    contents: Contents,
    /// As [`External::reload`] was told: what it judges by may be another one though the program is
    /// the same.
    reloads: AtomicU64,
    named: Mutex<Named>,
    asked: Counter,
    found: Counter,
    failed: Counter,
}

/// What it judges by was called so last.
struct Named {
    rules: Arc<Rules>,
    reloads: u64,
    set: Arc<str>,
}

impl Named {
    fn new(rules: Arc<Rules>, reloads: u64) -> Self {
        let set = match reloads {
            0 => rules.version.as_str().into(),
            reloads => format!("{}.{reloads}", rules.version).into(),
        };
        Self { rules, reloads, set }
    }
}

impl External {
    /// An engine whose processes are the workers of `contents`. `reloads` is what
    /// [`External::reload`] was told last, in all the node's life.
    pub(crate) fn new(config: &lazaret_config::Engine, contents: Contents, reloads: u64) -> Self {
        Self {
            name: config.name.clone(),
            timeout: config.timeout,
            on_failure: config.on_failure,
            named: Mutex::new(Named::new(contents.workers.rules(), reloads)),
            contents,
            reloads: AtomicU64::new(reloads),
            asked: Counter::default(),
            found: Counter::default(),
            failed: Counter::default(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Told of when it judges anew.
    pub(crate) fn changes(&self) -> &Changes {
        &self.contents.workers.changes
    }

    /// Starts it anew, and has everything asked about again that it judged. `reloads` counts how
    /// often that was asked for.
    ///
    /// # Errors
    /// When it cannot be started; the old one stays.
    pub(crate) fn reload(&self, reloads: u64) -> Result<(), ZygoteError> {
        self.contents.workers.reload()?;
        self.reloads.fetch_max(reloads, Ordering::Relaxed);
        // Again: what was judged and sealed since has the set of before.
        self.contents.workers.changes.tell();
        Ok(())
    }

    fn named(&self, found: Found) -> Found {
        let named = |finding: Finding| Finding {
            rule: format!("{}: {}", self.name, finding.rule),
            engine: Kind::External,
            ..finding
        };
        Found {
            worst: found.worst.map(named),
            ..found
        }
    }
}

impl Engine for External {
    fn judge(&self, content: &Content, limits: Limits) -> Result<Found, Failure> {
        let deadline = limits.deadline.min(Instant::now() + self.timeout);
        self.asked.one();
        match self.contents.judge(content, Limits { deadline, ..limits }) {
            Ok(found) => {
                if found.worst.is_some() {
                    self.found.one();
                }
                Ok(self.named(found))
            }
            Err(failure @ (Failure::Timeout | Failure::Engine(_))) => {
                self.failed.one();
                match self.on_failure {
                    OnUnavailable::Unjudged => Err(failure),
                    OnUnavailable::Others => Ok(Found {
                        left_out: true,
                        ..Found::default()
                    }),
                }
            }
            Err(failure) => Err(failure),
        }
    }

    fn set(&self) -> Option<Arc<str>> {
        let rules = self.contents.workers.rules();
        let reloads = self.reloads.load(Ordering::Relaxed);
        let mut last = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&last.rules, &rules) || last.reloads != reloads {
            *last = Named::new(rules, reloads);
        }
        Some(Arc::clone(&last.set))
    }

    fn status(&self) -> Option<Status> {
        Some(Status {
            name: self.name.clone(),
            version: self.contents.workers.rules().version.clone(),
            asked: self.asked.get(),
            found: self.found.get(),
            failed: self.failed.get(),
            ..Status::default()
        })
    }
}
