//! From an opener to an answer: digest, engines, policy, incident.

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lazaret_config::{OnUnjudged, Scan};
use lazaret_sys::fanotify::{Response, Unasked};
use lazaret_types::{Access, Action, Finding, Severity, Sha256, UnjudgedReason};

use crate::allow::AllowList;
use crate::content::Content;
use crate::counters::Counters;
use crate::digests::{Digests, KnownAs};
use crate::drift::{Drift, Opinion};
use crate::engine::{self, Engine, Failure, Input, Limits, Priority};
use crate::evidence;
use crate::incidents::{Draft, IncidentLog};
use crate::origin::{self, Below, Inode, Origin};
use crate::quarantine::Quarantine;
use crate::seals::{Held, NotHeld, Seals};
use crate::session::{Opening, Session};
use crate::set::Set;
use crate::signatures::Signatures;
use crate::verdicts::{Known, Verdicts};
use crate::workers::Workers;

/// How often a file that changes while it is judged is looked at again.
const TRIES: usize = 3;

/// How long an answer may wait for others.
const TOGETHER: Duration = Duration::from_millis(2);

/// A file of this size, in bytes, takes so long that no answer waits for it.
const LARGE: i64 = 1 << 20;

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
        /// From before: nothing was judged for it.
        known: bool,
    },
    Unjudged(UnjudgedReason),
}

/// What a [`Judge`] works with.
pub(crate) struct Means {
    pub(crate) signatures: Arc<Signatures>,
    pub(crate) workers: Arc<Workers>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) incidents: Arc<IncidentLog>,
    pub(crate) allow: Arc<AllowList>,
    pub(crate) quarantine: Arc<Quarantine>,
    pub(crate) seals: Arc<Seals>,
    pub(crate) drift: Drift,
    /// Engines that are not a part of lazaret, asked after its own.
    pub(crate) others: Vec<Arc<dyn Engine>>,
}

/// Judges openers. Shared by all threads that do.
pub(crate) struct Judge {
    engines: Vec<Arc<dyn Engine>>,
    set: Set,
    verdicts: Verdicts,
    digests: Digests,
    seals: Arc<Seals>,
    drift: Drift,
    max_size: u64,
    pub(crate) timeout: Duration,
    on_unjudged: OnUnjudged,
    counters: Arc<Counters>,
    incidents: Arc<IncidentLog>,
    allow: Arc<AllowList>,
    quarantine: Arc<Quarantine>,
}

/// The answer to an opener, which is nobody else's to give any more.
struct Decision<'a> {
    opening: &'a Opening,
    /// None when nobody judged.
    examined: Option<Examined>,
    action: Action,
    draft: Option<Draft>,
}

/// What was found out for an opener.
struct Examined {
    outcome: Outcome,
    /// About where the file comes from.
    drift: Opinion,
    /// The file cannot change unnoticed.
    held: Option<Held>,
}

/// What was found out of a content so far.
struct Looked {
    digest: Sha256,
    /// None when it was known by its file.
    content: Option<Content>,
}

impl Judge {
    pub(crate) fn new(config: &Scan, means: Means) -> Self {
        let Means {
            signatures,
            workers,
            counters,
            incidents,
            allow,
            quarantine,
            seals,
            drift,
            others,
        } = means;
        let own: [Arc<dyn Engine>; 2] = [
            Arc::new(engine::HashList(Arc::clone(&signatures))),
            Arc::new(engine::Contents {
                workers: Arc::clone(&workers),
                signatures: Arc::clone(&signatures),
                allow: Arc::clone(&allow),
            }),
        ];
        let entries = NonZeroUsize::new(config.cache_entries).unwrap_or(NonZeroUsize::MIN);
        Self {
            engines: own.into_iter().chain(others.iter().cloned()).collect(),
            set: Set::new(signatures, workers, others),
            verdicts: Verdicts::new(entries),
            digests: Digests::new(entries),
            seals,
            drift,
            max_size: config.max_file_size.as_u64(),
            timeout: config.timeout,
            on_unjudged: config.on_unjudged,
            counters,
            incidents,
            allow,
            quarantine,
        }
    }

    /// Judges openers of one container and answers those that nobody has meanwhile.
    ///
    /// Each answer wakes every opener that waits for the same group, and all but
    /// one go back to sleep. So in a flood answers are given together, which makes
    /// one round of it; but none waits for a slow judgement of another.
    pub(crate) fn settle(&self, openings: &[Arc<Opening>]) {
        let mut decided = Vec::with_capacity(openings.len());
        let mut answered_at = Instant::now();
        for opening in openings.iter().filter(|opening| !opening.is_answered()) {
            if answered_at.elapsed() > TOGETHER || is_large(opening) {
                self.answer(std::mem::take(&mut decided));
                answered_at = Instant::now();
            }
            decided.extend(self.decide(opening, self.examine(opening)));
        }
        self.answer(decided);
    }

    /// Answers an opener of a file that an image has, that was read before and is clean. False
    /// when more is to be found out: then nothing has happened. Never waits.
    pub(crate) fn settle_at_once(&self, opening: &Opening) -> bool {
        let ending = opening.session().ending.load(Ordering::Acquire);
        let examined = (!ending && !opening.is_shared()).then(|| self.examine_known(opening));
        let Some(examined) = examined.flatten() else {
            return false;
        };
        self.answer(self.decide(opening, Some(examined)).into_iter().collect());
        true
    }

    fn examine_known(&self, opening: &Opening) -> Option<Examined> {
        let file = opening.event.file.as_fd();
        let mut may_be = Inode::in_layers(file, &opening.session().layer_devices).ok()?;
        let (inode, digest) = may_be.find_map(|inode| Some((inode, self.digests.of_image(inode)?)))?;
        let set = self.set();
        let clean = self.verdicts.get(&digest, &set) == Some(Known::Verdict(Verdict::Clean));
        if !clean || self.allow.allows(&digest) {
            return None;
        }
        // Whoever has just copied it up has changed what it is.
        let held = self.seals.try_hold(opening, &Origin::Image(inode)).ok()?;
        let verdict = Verdict::Clean;
        held.is_whole().then_some(Examined {
            outcome: Outcome::Judged {
                digest,
                verdict,
                set,
                known: true,
            },
            drift: Opinion::INDIFFERENT,
            held: Some(held),
        })
    }

    fn examine(&self, opening: &Opening) -> Option<Examined> {
        let session = opening.session();
        // When the container is gone, whoever still waits is being killed.
        if session.ending.load(Ordering::Acquire) {
            return None;
        }
        let file = opening.event.file.as_fd();
        let origin = Origin::of(file, opening.event.pid, session);
        // A lease on a file of the host makes its writers wait: only for what is about to run.
        let spared = opening.is_shared() && opening.access() == Access::Open;
        let hold = || self.seals.hold(opening, &origin);
        let held = match (!spared).then(hold).transpose() {
            // Nor can what has no name be held: somebody may have it mapped for writing.
            Err(NotHeld::Written | NotHeld::Nameless | NotHeld::Crowded)
                if opening.access() == Access::Exec =>
            {
                return Some(Examined::changing());
            }
            held => held.ok().flatten(),
        };
        let limits = self.limits(opening.read_at + self.timeout, Priority::Opener);
        let image = held.as_ref().and_then(|held| held.image);
        let settled = || self.settled(file, &origin, held.as_ref());
        let known_as = image.map(KnownAs::in_image).or_else(settled);
        let outcome = self.judge_as(Input::File(file), known_as, limits);
        // Whoever wants to write waits for the lease; but what is about to run is not what he
        // means it to be.
        match &held {
            Some(held) if opening.access() == Access::Exec && !held.is_whole() => Some(Examined::changing()),
            _ => Some(Examined {
                drift: self.drift.examine(opening, &origin, |image| {
                    self.is_unchanged(image, &outcome, limits)
                }),
                outcome,
                held,
            }),
        }
    }

    /// The inode of a file without layers, if its digest is known by it or can be from now on:
    /// when nobody can write to it at this moment, whoever does so later changes its change time,
    /// by a store through a mapping too (`file_update_time()`, mm/memory.c: a mapping that is
    /// made later has to dirty its pages first).
    fn settled(&self, file: BorrowedFd<'_>, origin: &Origin, held: Option<&Held>) -> Option<KnownAs> {
        if !matches!(origin, Origin::Plain) {
            return None;
        }
        let unwritten = || held.is_some() || self.seals.nobody_writes(file);
        let inode = Inode::of(file).ok()?;
        // Looked at again after it was sure that nobody writes.
        let settles = || inode.is_settled() && unwritten() && Inode::of(file).is_ok_and(|now| now == inode);
        (self.digests.get(inode).is_some() || settles()).then_some(KnownAs {
            inode,
            in_image: false,
        })
    }

    /// Whether what was judged has the content that it has in the image.
    fn is_unchanged(&self, image: &Below, outcome: &Outcome, limits: Limits) -> bool {
        let Outcome::Judged { digest, .. } = outcome else {
            return false;
        };
        let file = origin::reopen(&image.file).map_err(Failure::Read);
        let known_as = Some(KnownAs::in_image(image.inode));
        let below = file.and_then(|file| self.look(Input::File(file.as_fd()), known_as, limits));
        below.is_ok_and(|image| image.digest == *digest)
    }

    fn limits(&self, deadline: Instant, priority: Priority) -> Limits {
        Limits {
            size: self.max_size,
            deadline,
            priority,
        }
    }

    /// Answers an opener that waited too long.
    pub(crate) fn overdue(&self, opening: &Opening) {
        let late = Examined::unjudged(UnjudgedReason::Timeout);
        self.answer(self.decide(opening, Some(late)).into_iter().collect());
    }

    /// Finds a verdict on content.
    pub(crate) fn judge(&self, input: Input<'_>, deadline: Instant, priority: Priority) -> Outcome {
        self.judge_as(input, None, self.limits(deadline, priority))
    }

    /// The same for a file of a container that nobody opens. No lease is taken, which would hold
    /// its writers up; a file of the image is known to be still that when it was read, because one
    /// that was copied up never is again.
    pub(crate) fn judge_in(&self, session: &Session, file: BorrowedFd<'_>, deadline: Instant) -> Outcome {
        let image = match Origin::of(file, session.init_pid, session) {
            Origin::Image(inode) => Some(KnownAs::in_image(inode)),
            _ => None,
        };
        let limits = self.limits(deadline, Priority::Background);
        self.judge_as(Input::File(file), image, limits)
    }

    /// The same for a file whose digest may be known by its inode.
    fn judge_as(&self, input: Input<'_>, known_as: Option<KnownAs>, limits: Limits) -> Outcome {
        for _ in 0..TRIES {
            match self.verdict(input, known_as, limits) {
                Ok(judged) => return judged,
                Err(Failure::Changed) => known_as.iter().for_each(|known| self.digests.forget(known.inode)),
                Err(failure) => return Outcome::Unjudged(unjudged(failure)),
            }
        }
        Outcome::Unjudged(UnjudgedReason::Changing)
    }

    fn verdict(
        &self,
        input: Input<'_>,
        known_as: Option<KnownAs>,
        limits: Limits,
    ) -> Result<Outcome, Failure> {
        let looked = self.look(input, known_as, limits)?;
        let digest = looked.digest;
        let mut set = self.set();
        let known = |verdict, set| Outcome::Judged {
            digest,
            verdict,
            set,
            known: true,
        };
        // Before the cache, and never in it: a change of the list counts at once.
        if self.allow.allows(&digest) {
            return Ok(known(Verdict::Clean, set));
        }
        match self.verdicts.get(&digest, &set) {
            Some(Known::Verdict(verdict)) => return Ok(known(verdict, set)),
            Some(Known::Limit(reason)) => return Err(Failure::Limit(reason)),
            None => {}
        }
        let content = looked.read(input, limits)?;
        let found = engine::ask_all(&self.engines, &content, limits)?;
        // No set is one of these, so that it is neither remembered nor sealed.
        if found.by_allow_list {
            set = format!("{set}+allow-list").into();
        } else if found.left_out {
            set = format!("{set}+once").into();
        }
        if let Some(reason) = found.limit {
            self.remember(digest, Known::limit(reason), &set);
            return Err(Failure::Limit(reason));
        }
        let verdict = found.worst.map_or(Verdict::Clean, Verdict::Bad);
        self.remember(digest, Some(Known::Verdict(verdict.clone())), &set);
        Ok(Outcome::Judged {
            digest,
            verdict,
            set,
            known: false,
        })
    }

    /// The identity of a content. An image's file is read once for all its containers, any other
    /// once until it changes.
    fn look(&self, input: Input<'_>, known_as: Option<KnownAs>, limits: Limits) -> Result<Looked, Failure> {
        if let Some(digest) = known_as.and_then(|known_as| self.digests.get(known_as.inode)) {
            let content = None;
            return Ok(Looked { digest, content });
        }
        let content = input.read(limits)?;
        let digest = content.digest;
        if let (Some(known_as), Input::File(file)) = (known_as, input) {
            self.digests.put(known_as, file, digest);
        }
        Ok(Looked {
            digest,
            content: Some(content),
        })
    }

    /// The version of all that judges: hash lists, rules, and other engines.
    pub(crate) fn set(&self) -> Arc<str> {
        self.set.version()
    }

    /// How the engines get on that are not a part of lazaret.
    pub(crate) fn engines(&self) -> Vec<engine::Status> {
        self.engines.iter().filter_map(|engine| engine.status()).collect()
    }

    /// Keeps what is known, unless the signatures changed while it was found.
    fn remember(&self, digest: Sha256, known: Option<Known>, set: &str) {
        if let (Some(known), true) = (known, *self.set() == *set) {
            self.verdicts.put(digest, known, set);
        }
    }

    /// Claims the answer, and gathers what will be told: while the opener waits it
    /// can be asked who it is, afterwards it may be gone. Without an outcome it is
    /// refused and nothing is told.
    fn decide<'a>(&self, opening: &'a Opening, examined: Option<Examined>) -> Option<Decision<'a>> {
        let content = examined.as_ref().map_or(Action::Deny, |examined| {
            self.action(&examined.outcome, opening.access())
        });
        let drift = examined
            .as_ref()
            .map_or(Action::Allow, |examined| examined.drift.action);
        if !opening.claim() {
            return None;
        }
        let action = content.max(drift);
        let told = examined.as_ref().filter(|_| action != Action::Allow);
        let draft = told.map(|examined| {
            // What is known bad says more than where it comes from.
            if content == action {
                evidence::of_opening(opening, &examined.outcome, action)
            } else {
                evidence::of_drift(opening, &examined.outcome, action)
            }
        });
        Some(Decision {
            opening,
            examined,
            action,
            draft,
        })
    }

    /// Answers all, and only then does what takes longer.
    fn answer(&self, decided: Vec<Decision<'_>>) {
        for Decision { opening, action, .. } in &decided {
            let denied = *action == Action::Deny;
            if !denied {
                opening.expect_second();
            }
            opening.respond(if denied { Response::Deny } else { Response::Allow });
        }
        for decision in decided {
            self.follow_up(decision);
        }
    }

    fn follow_up(&self, decision: Decision<'_>) {
        let Decision {
            opening,
            examined: Some(examined),
            action,
            draft,
        } = decision
        else {
            return;
        };
        let Examined { outcome, drift, held } = examined;
        match held {
            Some(held) if action != Action::Deny => self.let_go(opening, held, drift.unasked, &outcome),
            // Whoever was refused does not care what becomes of it.
            Some(_) | None => {}
        }
        let session = opening.session();
        self.count(opening, &outcome, action);
        match draft {
            Some(draft) if session.reports.admits(draft.severity) => {
                self.incidents.report(evidence::with_layer(draft, opening));
            }
            Some(_) => self.counters.incidents_suppressed.one(),
            None => {}
        }
        if action == Action::Deny {
            self.quarantine
                .consider(session, opening.event.file.as_fd(), &outcome);
        }
    }

    /// Seals a clean file, or lets writers at it again. A file that is shared with the host is never
    /// sealed: an ignore mark in the node's group would speak for all containers, whatever their
    /// policies, and its lease would hold up the host.
    fn let_go(&self, opening: &Opening, held: Held, unasked: Unasked, outcome: &Outcome) {
        match outcome {
            // What is only allowed is asked about each time, so that it can be forbidden again.
            Outcome::Judged {
                digest,
                verdict: Verdict::Clean,
                set,
                ..
            } if !opening.is_shared() && !self.allow.allows(digest) => {
                self.seals.seal(opening, held, unasked, || *self.set() == **set);
            }
            _ => self.seals.release(opening, held),
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
            // Whoever opens it is asked about.
            (Outcome::Unjudged(_), Access::Write) => Action::Allow,
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

impl Looked {
    /// The content itself, which may turn out to be another one.
    fn read(self, input: Input<'_>, limits: Limits) -> Result<Content, Failure> {
        if let Some(content) = self.content {
            return Ok(content);
        }
        let content = input.read(limits)?;
        if content.digest == self.digest {
            Ok(content)
        } else {
            Err(Failure::Changed)
        }
    }
}

impl Examined {
    fn unjudged(reason: UnjudgedReason) -> Self {
        Self {
            outcome: Outcome::Unjudged(reason),
            drift: Opinion::INDIFFERENT,
            held: None,
        }
    }

    fn changing() -> Self {
        Self::unjudged(UnjudgedReason::Changing)
    }
}

fn is_large(opening: &Opening) -> bool {
    rustix::fs::fstat(&opening.event.file).is_ok_and(|stat| stat.st_size >= LARGE)
}

fn unjudged(failure: Failure) -> UnjudgedReason {
    match failure {
        Failure::TooLarge => UnjudgedReason::TooLarge,
        Failure::Timeout => UnjudgedReason::Timeout,
        Failure::Changed => UnjudgedReason::Changing,
        Failure::Limit(reason) => reason,
        Failure::Read(error) => {
            tracing::warn!(%error, "a file could not be read");
            UnjudgedReason::ReadError
        }
        Failure::Away => UnjudgedReason::EngineFailed,
        Failure::Engine(error) => {
            tracing::error!(error, "an engine failed");
            UnjudgedReason::EngineFailed
        }
    }
}
