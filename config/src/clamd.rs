//! `[clamd]`: ClamAV's daemon as one more engine.

use std::path::PathBuf;
use std::time::Duration;

use lazaret_types::Severity;
use serde::{Deserialize, Serialize};

/// The most that may be asked of clamd at once: its own default is 10 threads, and a queue of
/// 100 (`MaxThreads`, `MaxQueue` in clamd.conf(5)).
const MOST_CONNECTIONS: usize = 100;

/// How often its database is looked after, at most.
const SHORTEST_POLL: Duration = Duration::from_secs(1);

/// How clamd is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Clamd {
    /// Whether it is asked at all.
    pub enabled: bool,
    /// `LocalSocket` of its configuration.
    pub socket: PathBuf,
    /// How long it may take for one file. Shorter than `scan.timeout`.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Files that it is asked about at once; half of them by openers alone.
    pub connections: usize,
    /// After so many failures in a row it is left out.
    pub failures: u32,
    /// For so long; then it is tried again.
    #[serde(with = "humantime_serde")]
    pub retry: Duration,
    /// How often it is asked for the version of its database.
    #[serde(with = "humantime_serde")]
    pub poll: Duration,
    /// How bad a signature of its is.
    pub severity: Severity,
    /// How bad a name is that begins with `Heuristics.` or `PUA.`.
    pub heuristics: Severity,
    /// What becomes of files while it is away.
    pub on_unavailable: OnUnavailable,
}

/// What becomes of files while an engine is away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUnavailable {
    /// What the other engines say counts.
    #[default]
    Others,
    /// What the other engines find nothing in has no verdict.
    Unjudged,
}

impl Default for Clamd {
    fn default() -> Self {
        Self {
            enabled: false,
            socket: "/run/clamav/clamd.ctl".into(),
            timeout: Duration::from_secs(1),
            connections: 8,
            failures: 3,
            retry: Duration::from_secs(30),
            poll: Duration::from_secs(10),
            severity: Severity::Critical,
            heuristics: Severity::Warning,
            on_unavailable: OnUnavailable::default(),
        }
    }
}

impl Clamd {
    /// What the types cannot express; `patience` is `scan.timeout`.
    pub(crate) fn check(&self, patience: Duration) -> Result<(), String> {
        if !self.enabled {
            return Ok(());
        }
        if !self.socket.is_absolute() {
            let socket = self.socket.display();
            return Err(format!("clamd.socket must be an absolute path, not {socket}"));
        }
        if self.timeout.is_zero() || self.timeout >= patience {
            return Err("clamd.timeout must be longer than 0s and shorter than scan.timeout".into());
        }
        if !(1..=MOST_CONNECTIONS).contains(&self.connections) {
            return Err(format!("clamd.connections must be 1 to {MOST_CONNECTIONS}"));
        }
        if self.failures == 0 {
            return Err("clamd.failures must be at least 1".into());
        }
        for (key, value) in [("clamd.retry", self.retry), ("clamd.poll", self.poll)] {
            if value < SHORTEST_POLL {
                return Err(format!("{key} must be at least 1s"));
            }
        }
        Ok(())
    }
}
