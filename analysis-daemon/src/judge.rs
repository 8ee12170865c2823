//! From an opener to an answer: digest, engines, policy, incident.

use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lazaret_config::{OnUnjudged, Scan};
use lazaret_sys::fanotify::Response;
use lazaret_types::{Access, Action, Finding, Severity, Sha256, UnjudgedReason};
use lru::LruCache;

use crate::counters::Counters;
use crate::engine::{self, Engine, Failure, Input, Limits};
use crate::evidence;
use crate::incidents::IncidentLog;
use crate::session::Opening;
use crate::signatures::Signatures;

/// What is known of a content.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    Clean,
    Bad(Finding),
}

/// What came out for one opener.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// By the signature set of that version.
    Judged {
        digest: Sha256,
        verdict: Verdict,
        set: Arc<str>,
    },
    Unjudged(UnjudgedReason),
}

/// Judges openers. Shared by all threads that do.
pub(crate) struct Judge {
    engines: Vec<Box<dyn Engine>>,
    signatures: Arc<Signatures>,
    /// By content, for one signature set.
    cache: Mutex<Cache>,
    max_size: u64,
    pub(crate) timeout: Duration,
    on_unjudged: OnUnjudged,
    counters: Arc<Counters>,
    incidents: Arc<IncidentLog>,
}

struct Cache {
    set: String,
    verdicts: LruCache<Sha256, Verdict>,
}

impl Judge {
    pub(crate) fn new(
        config: &Scan,
        signatures: Arc<Signatures>,
        counters: Arc<Counters>,
        incidents: Arc<IncidentLog>,
    ) -> Self {
        let entries = NonZeroUsize::new(config.cache_entries).unwrap_or(NonZeroUsize::MIN);
        Self {
            engines: vec![Box::new(engine::HashList(Arc::clone(&signatures)))],
            signatures,
            cache: Mutex::new(Cache {
                set: String::new(),
                verdicts: LruCache::new(entries),
            }),
            max_size: config.max_file_size.as_u64(),
            timeout: config.timeout,
            on_unjudged: config.on_unjudged,
            counters,
            incidents,
        }
    }

    /// Judges an opener and answers it, unless somebody has meanwhile.
    pub(crate) fn settle(&self, opening: &Opening) {
        let session = opening.session();
        if session.ending.load(std::sync::atomic::Ordering::Acquire) {
            // The container is gone; whoever still waits is being killed.
            if opening.claim() {
                opening.respond(Response::Deny);
            }
            return;
        }
        let outcome = self.judge(
            Input::File(opening.event.file.as_fd()),
            opening.read_at + self.timeout,
        );
        self.conclude(opening, &outcome);
    }

    /// Answers an opener that waited too long.
    pub(crate) fn overdue(&self, opening: &Opening) {
        self.conclude(opening, &Outcome::Unjudged(UnjudgedReason::Timeout));
    }

    /// Finds a verdict on content.
    pub(crate) fn judge(&self, input: Input<'_>, deadline: Instant) -> Outcome {
        let limits = Limits {
            size: self.max_size,
            deadline,
        };
        match self.verdict(input, limits) {
            Ok(judged) => judged,
            Err(Failure::TooLarge) => Outcome::Unjudged(UnjudgedReason::TooLarge),
            Err(Failure::Timeout) => Outcome::Unjudged(UnjudgedReason::Timeout),
            Err(Failure::Read(error)) => {
                tracing::warn!(%error, "a file could not be read");
                Outcome::Unjudged(UnjudgedReason::ReadError)
            }
        }
    }

    fn verdict(&self, input: Input<'_>, limits: Limits) -> Result<Outcome, Failure> {
        let digest = engine::digest(input, limits)?;
        let set = self.signatures.current().version();
        if let Some(verdict) = self.remembered(&digest, &set) {
            return Ok(Outcome::Judged { digest, verdict, set });
        }
        let mut verdict = Verdict::Clean;
        for engine in &self.engines {
            if let Some(finding) = engine.judge(&digest, input, limits)? {
                verdict = Verdict::Bad(finding);
                break;
            }
        }
        self.remember(digest, verdict.clone(), &set);
        Ok(Outcome::Judged { digest, verdict, set })
    }

    fn remembered(&self, digest: &Sha256, set: &str) -> Option<Verdict> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.set != set {
            set.clone_into(&mut cache.set);
            cache.verdicts.clear();
        }
        cache.verdicts.get(digest).cloned()
    }

    /// Keeps a verdict, unless the signatures changed while it was found.
    fn remember(&self, digest: Sha256, verdict: Verdict, set: &str) {
        let current = self.signatures.current();
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.set == set && *current.version() == *set {
            cache.verdicts.put(digest, verdict);
        }
    }

    fn conclude(&self, opening: &Opening, outcome: &Outcome) {
        let action = self.action(outcome, opening.access());
        if !opening.claim() {
            return;
        }
        // While the opener waits it can be asked who it is; afterwards it may be gone.
        let draft = (action != Action::Allow).then(|| evidence::of_opening(opening, outcome, action));
        opening.respond(if action == Action::Deny {
            Response::Deny
        } else {
            Response::Allow
        });
        self.count(opening, outcome, action);
        if let Some(draft) = draft {
            if opening.session().reports.admits() {
                self.incidents.report(evidence::with_layer(draft, opening));
            } else {
                self.counters.incidents_suppressed.one();
            }
        }
    }

    /// What the default policy says: what is known bad is refused in place.
    pub(crate) fn action(&self, outcome: &Outcome, access: Access) -> Action {
        match (outcome, access) {
            (
                Outcome::Judged {
                    verdict: Verdict::Clean,
                    ..
                },
                _,
            ) => Action::Allow,
            (
                Outcome::Judged {
                    verdict: Verdict::Bad(finding),
                    ..
                },
                _,
            ) => match finding.severity {
                Severity::Error | Severity::Critical => Action::Deny,
                Severity::Notice | Severity::Warning => Action::Alert,
            },
            (Outcome::Unjudged(_), Access::Exec) => self.on_unjudged.exec,
            (Outcome::Unjudged(_), Access::Open) => self.on_unjudged.open,
        }
    }

    fn count(&self, opening: &Opening, outcome: &Outcome, action: Action) {
        let session = opening.session();
        self.counters.events.one();
        if let Outcome::Unjudged(_) = outcome {
            self.counters.unjudged.one();
            session.unjudged.one();
        }
        if action == Action::Deny {
            self.counters.denied.one();
            session.denied.one();
        } else {
            self.counters.allowed.one();
        }
        if action == Action::Alert {
            self.counters.alerts.one();
        }
    }
}
