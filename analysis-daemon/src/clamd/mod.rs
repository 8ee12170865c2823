//! clamd, ClamAV's daemon, as one more engine: it is handed the content that was digested, in
//! memory that nobody can change, as our workers are.
//!
//! clamd parses hostile bytes in a process of its own, which is none of ours; what comes back is
//! one short line ([`reply`]). It may be slow, stopped, gone or full, and none of that may hold
//! openers up: [`gate`] says who may ask, and a thread of ours looks after clamd meanwhile.
//!
//! Who is to blame for a missing answer decides what becomes of the file. A file that clamd took
//! and did not answer for has no verdict, so that neither a slow file nor one that ends clamd is
//! a key. Only what clamd could not be asked about is left to the other engines, and only if the
//! configuration says so.

mod gate;
mod reply;
mod talk;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use lazaret_config::OnUnavailable;
use lazaret_types::{Action, Engine as Name, Finding, Severity, Sha256, UnjudgedReason};
use sha2::Digest;

use crate::changes::Changes;
use crate::content::{self, Content};
use crate::counters::Counter;
use crate::engine::{Engine, Failure, Found, Limits, Status};
use crate::incidents::{Draft, IncidentLog};
use gate::{Gate, Refused};
use reply::Reply;
use talk::TalkError;

/// How long clamd may take for what it answers from memory, whatever else it is doing.
const AT_ONCE: Duration = Duration::from_millis(250);

/// What it is asked about to see whether it judges at all.
const PROBE: &[u8] = b"lazaret asks whether you judge\n";

/// What an incident is called that is about an engine.
const LOST: &str = "Engine lost";
/// Its counterpart.
const BACK: &str = "Engine back";

/// Begin the names of what is suspicious and not a signature: clamd.conf(5), `Alert...` and
/// `DetectPUA`.
const SUSPICIOUS: [&str; 2] = ["Heuristics.", "PUA."];

/// The engine. Its thread goes on as long as the process.
#[derive(Debug)]
pub(crate) struct Clamd {
    socket: PathBuf,
    timeout: Duration,
    poll: Duration,
    severity: Severity,
    heuristics: Severity,
    on_unavailable: OnUnavailable,
    gate: Gate,
    version: Mutex<Version>,
    incidents: Arc<IncidentLog>,
    counts: Counts,
    pub(crate) changes: Changes,
}

/// What judges now. It stays when clamd goes away: what it has judged is known, and what is not
/// is remembered by nobody until it is back.
#[derive(Debug)]
struct Version {
    /// As clamd says it; empty until it was heard.
    text: String,
    /// As [`Clamd::forget`] was told.
    reloads: u64,
    /// Made of both whenever one of them changes.
    set: Arc<str>,
}

#[derive(Debug, Default)]
struct Counts {
    asked: Counter,
    found: Counter,
    failed: Counter,
    left_out: Counter,
    lost: Counter,
}

impl Clamd {
    /// Asks clamd who it is, and goes on doing so. None when the configuration does not want it.
    /// `reloads` is what [`Clamd::forget`] was told last, in all the node's life.
    ///
    /// # Errors
    /// When the kernel gives no thread. A clamd that does not answer is no error.
    pub(crate) fn start(
        config: &lazaret_config::Clamd,
        incidents: &Arc<IncidentLog>,
        reloads: u64,
    ) -> io::Result<Option<Arc<Self>>> {
        if !config.enabled {
            return Ok(None);
        }
        let clamd = Arc::new(Self::new(config, incidents, reloads));
        // Before the first file: what is judged without clamd is judged again. Nobody has heard
        // it yet, so that one failure is enough.
        if let Err(why) = clamd.look_after() {
            clamd.lose(&why);
        }
        let looking = Arc::clone(&clamd);
        thread::Builder::new().name("clamd".into()).spawn(move || {
            loop {
                looking.gate.wait_for_probe(looking.poll);
                if let Err(why) = looking.look_after() {
                    looking.fail(&why);
                }
            }
        })?;
        Ok(Some(clamd))
    }

    fn new(config: &lazaret_config::Clamd, incidents: &Arc<IncidentLog>, reloads: u64) -> Self {
        Self {
            socket: config.socket.clone(),
            timeout: config.timeout,
            poll: config.poll,
            severity: config.severity,
            heuristics: config.heuristics,
            on_unavailable: config.on_unavailable,
            gate: Gate::new(config.connections, config.failures, config.retry),
            version: Mutex::new(Version::new(String::new(), reloads)),
            incidents: Arc::clone(incidents),
            counts: Counts::default(),
            changes: Changes::default(),
        }
    }

    /// Has everything asked about again that clamd judged. `reloads` counts how often that was
    /// asked for.
    pub(crate) fn forget(&self, reloads: u64) {
        let mut version = self.version();
        let reloads = version.reloads.max(reloads);
        *version = Version::new(std::mem::take(&mut version.text), reloads);
        drop(version);
        self.changes.tell();
    }

    /// Asks clamd who it is and whether it judges.
    fn look_after(&self) -> Result<(), String> {
        let text =
            talk::version(&self.socket, Instant::now() + AT_ONCE).map_err(|error| error.to_string())?;
        let probe = content::in_memory(PROBE).map_err(|error| format!("nothing to try it with: {error}"))?;
        match talk::scan(&self.socket, probe.as_fd(), Instant::now() + self.timeout) {
            // All its threads are busy; but it is there.
            Ok(Reply::Clean | Reply::Found(_) | Reply::Limit) | Err(TalkError::Late) => {}
            Ok(Reply::Failed(why)) => return Err(format!("it cannot judge: {why}")),
            Err(error) => return Err(error.to_string()),
        }
        self.heard(text);
        Ok(())
    }

    fn heard(&self, text: String) {
        let is_back = self.gate.heard();
        let is_new = self.is_new(&text);
        if is_back {
            let output = format!("clamd answers again ({text})");
            self.tell(BACK, Severity::Notice, output);
        } else if is_new {
            tracing::info!(version = text, "clamd judges");
        }
        if is_new {
            self.changes.tell();
        }
    }

    fn is_new(&self, text: &str) -> bool {
        let mut version = self.version();
        let is_new = version.text != text;
        if is_new {
            *version = Version::new(text.to_owned(), version.reloads);
        }
        is_new
    }

    /// A failure that is clamd's and not a file's.
    fn fail(&self, why: &str) {
        if !self.gate.failed(why) {
            return;
        }
        self.counts.lost.one();
        let meaning = match self.on_unavailable {
            OnUnavailable::Others => "what it has not judged yet is judged without it",
            OnUnavailable::Unjudged => {
                "what it has not judged yet has no verdict, unless it is denied anyway"
            }
        };
        self.tell(LOST, Severity::Error, format!("clamd is away: {why}; {meaning}"));
    }

    /// It is away at once, however many failures it usually takes.
    fn lose(&self, why: &str) {
        while self.gate.away().is_none() {
            self.fail(why);
        }
    }

    fn tell(&self, rule: &str, severity: Severity, output: String) {
        tracing::warn!("{output}");
        let tags = vec!["engine".into()];
        let draft = Draft::new(rule, severity, Action::Alert, output);
        self.incidents.report(Draft {
            tags,
            engine: Some(Name::Clamd),
            ..draft
        });
    }

    fn version(&self) -> MutexGuard<'_, Version> {
        self.version.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn understand(&self, reply: Reply) -> Result<Found, Failure> {
        self.gate.answered();
        let rule = match reply {
            Reply::Clean => return Ok(Found::default()),
            Reply::Found(rule) => rule,
            Reply::Limit => return Ok(Found::default().limited(Some(UnjudgedReason::EngineLimit))),
            Reply::Failed(why) => {
                self.counts.failed.one();
                return Err(Failure::Engine(format!("clamd: {why}")));
            }
        };
        self.counts.found.one();
        let suspicious = SUSPICIOUS.iter().any(|begin| rule.starts_with(begin));
        Ok(Found::worst(Some(Finding {
            severity: if suspicious {
                self.heuristics
            } else {
                self.severity
            },
            rule,
            engine: Name::Clamd,
        })))
    }

    /// What it means for one file that there was no answer.
    fn no_answer(&self, error: &TalkError) -> Result<Found, Failure> {
        self.counts.failed.one();
        match error {
            // Another question tells whether it is the file's doing.
            TalkError::Late if talk::version(&self.socket, Instant::now() + AT_ONCE).is_ok() => {
                self.gate.answered();
                Err(Failure::Timeout)
            }
            TalkError::Late | TalkError::Unreachable(_) => {
                self.fail(&error.to_string());
                self.without()
            }
            TalkError::Broken(_) => {
                self.fail(&error.to_string());
                Err(Failure::Engine(format!("clamd: {error}")))
            }
        }
    }

    /// A file that clamd was not asked about.
    fn without(&self) -> Result<Found, Failure> {
        self.counts.left_out.one();
        match self.on_unavailable {
            OnUnavailable::Others => Ok(Found {
                // As long as it was never heard, no set has it.
                left_out: !self.version().text.is_empty(),
                ..Found::default()
            }),
            OnUnavailable::Unjudged => Err(Failure::Away),
        }
    }
}

impl Engine for Clamd {
    fn judge(&self, content: &Content, limits: Limits) -> Result<Found, Failure> {
        let now = Instant::now();
        // Time is kept for the question whose fault it is that there is no answer.
        let latest = limits.deadline.checked_sub(AT_ONCE).unwrap_or(now);
        let deadline = latest.min(now + self.timeout);
        let leave = match self.gate.enter(limits.priority, deadline) {
            Ok(leave) => leave,
            Err(Refused::Away) => return self.without(),
            // Others' files may be made to be slow: this one goes nowhere for it.
            Err(Refused::Busy) => return Err(Failure::Timeout),
        };
        let no_memory = |error| Failure::Engine(format!("no memory for a content: {error}"));
        let memory = content.bytes.memory().map_err(no_memory)?;
        self.counts.asked.one();
        let answer = self.ask(memory.as_fd(), deadline);
        drop(leave);
        answer
    }

    fn set(&self) -> Option<Arc<str>> {
        Some(Arc::clone(&self.version().set))
    }

    fn status(&self) -> Option<Status> {
        let away = self.gate.away();
        Some(Status {
            name: Name::Clamd.to_string(),
            version: self.version().text.clone(),
            away: away.map(|away| (away.since, away.why)),
            asked: self.counts.asked.get(),
            found: self.counts.found.get(),
            failed: self.counts.failed.get(),
            left_out: self.counts.left_out.get(),
            lost: self.counts.lost.get(),
        })
    }
}

impl Clamd {
    fn ask(&self, memory: BorrowedFd<'_>, deadline: Instant) -> Result<Found, Failure> {
        match talk::scan(&self.socket, memory, deadline) {
            Ok(reply) => self.understand(reply),
            Err(error) => self.no_answer(&error),
        }
    }
}

impl Version {
    fn new(text: String, reloads: u64) -> Self {
        let mut set = if text.is_empty() {
            "none".to_owned()
        } else {
            let digest = sha2::Sha256::digest(text.as_bytes());
            Sha256::new(digest.into()).to_string().chars().take(12).collect()
        };
        if reloads > 0 {
            set.push_str(&format!(".{reloads}"));
        }
        let set = set.into();
        Self { text, reloads, set }
    }
}
