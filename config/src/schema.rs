//! What `lazaret.toml` may say.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use lazaret_types::{Action, LossPolicy};
use serde::{Deserialize, Serialize};

use crate::{Clamd, Engine, engines};

/// What a scan worker needs beside the file that it judges, in bytes.
const WORKER_BASE: u64 = 128 << 20;

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `[[engines]]`
    pub engines: Vec<Engine>,
    /// `[node]`
    pub node: Node,
    /// `[guard]`
    pub guard: Guard,
    /// `[scan]`
    pub scan: Scan,
    /// `[watchdog]`
    pub watchdog: Watchdog,
    /// `[incidents]`
    pub incidents: Incidents,
    /// `[quarantine]`
    pub quarantine: Quarantine,
    /// `[drift]`
    pub drift: Drift,
    /// `[clamd]`
    pub clamd: Clamd,
}

/// Where lazaret lives on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    /// Sockets; gone after a reboot.
    pub run_dir: PathBuf,
    /// Incidents, signatures and the node's id; kept.
    pub state_dir: PathBuf,
}

/// How containers are guarded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Guard {
    /// What happens while there is no daemon.
    pub on_daemon_loss: LossPolicy,
    /// How long a container's start may wait for the daemon.
    #[serde(with = "humantime_serde")]
    pub attach_timeout: Duration,
    /// How long a container's end may wait for the daemon.
    #[serde(with = "humantime_serde")]
    pub detach_timeout: Duration,
    /// How long a planned restart of the daemon may hold openers before
    /// `on_daemon_loss` applies.
    #[serde(with = "humantime_serde")]
    pub restart_grace: Duration,
    /// Whether clean files may be opened unasked until they change.
    pub seals: bool,
    /// Whether containers are guarded on the file systems that they share with the host.
    pub shared: bool,
    /// Whether a container with a pid namespace of its own may run files that are only memory.
    pub run_memory_files: bool,
    /// What the daemon raises `fs.fanotify.max_user_groups` to: one group a container.
    pub max_groups: u32,
}

/// How files are judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scan {
    /// Threads that judge; 0 means one for each CPU, at least 2.
    pub threads: usize,
    /// Larger files are not judged.
    pub max_file_size: ByteSize,
    /// How long an opener may wait for a verdict.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Verdicts remembered, by content.
    pub cache_entries: usize,
    /// Folders of YARA rules (`*.yar`, `*.yara`); one that is absent has none.
    pub rules: Vec<PathBuf>,
    /// The program that judges contents; a bare name is looked for beside lazaretd.
    pub worker: PathBuf,
    /// The user and group that it runs as.
    pub worker_uid: u32,
    /// Memory that one of its processes may use. More than `max_file_size`.
    pub worker_memory: ByteSize,
    /// Whether files are judged when they were written, before anybody opens them.
    pub on_write: bool,
    /// Whether running containers are scanned again when hash lists, rules, lists of similar
    /// contents or what another engine judges by have changed.
    pub on_new_signatures: bool,
    /// What all scans together read in a second; 0 means as much as they can.
    pub rate: ByteSize,
    /// The socket of the containerd whose images are scanned.
    pub containerd: PathBuf,
    /// What happens to a file without a verdict.
    pub on_unjudged: OnUnjudged,
    /// How far archives are looked into.
    pub unpack: Unpack,
}

/// How far archives are looked into. A file beyond a limit has no verdict, unless what
/// was seen until then is enough to deny it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Unpack {
    /// Archives inside each other; 0 judges them as any other file.
    pub depth: u32,
    /// Members, all depths together.
    pub members: u32,
    /// What all members together may take, unpacked.
    pub size: ByteSize,
    /// How many times its packed size a member may take. Small ones always may.
    pub ratio: u32,
}

/// What happens to a file that is too large, too slow or unreadable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OnUnjudged {
    /// To an execution: `allow`, `alert` or `deny`.
    pub exec: Action,
    /// To any other open: `allow`, `alert` or `deny`.
    pub open: Action,
}

/// When the daemon counts as hanging.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Watchdog {
    /// A daemon that leaves an event unanswered, or gives no sign of life, for
    /// this long is killed, so that the guards take over. Longer than
    /// `scan.timeout`.
    #[serde(with = "humantime_serde")]
    pub deadline: Duration,
}

/// Where incidents go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Incidents {
    /// A file of this size is rotated.
    pub max_file_size: ByteSize,
    /// Rotated files kept.
    pub keep: usize,
}

/// What happens when a container runs a file that its image does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Drift {
    /// `allow`, `alert` or `deny`.
    pub action: Action,
    /// Whether a container's annotation `lazaret.io/drift` may say otherwise.
    pub owner_decides: bool,
    /// Programs of the image that may run what the image does not have, and so may what they
    /// start: package managers. Absolute paths.
    pub programs: Vec<PathBuf>,
    /// Folders of the container from which anything may run. Absolute paths.
    pub folders: Vec<PathBuf>,
}

/// What becomes of a file that was denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quarantine {
    /// Which files are moved out of their containers.
    pub mode: QuarantineMode,
    /// What all contents in it may take; a file that does not fit stays in place.
    pub max_size: ByteSize,
    /// Files in it, at most.
    pub max_items: usize,
}

/// Which files are moved out of their containers. All others are denied in place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuarantineMode {
    /// None.
    #[default]
    Off,
    /// Those with a finding of critical severity.
    Critical,
    /// Those that are denied because of a finding.
    All,
}

impl fmt::Display for QuarantineMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Critical => "critical",
            Self::All => "all",
        })
    }
}

impl Default for Node {
    fn default() -> Self {
        Self {
            run_dir: "/run/lazaret".into(),
            state_dir: "/var/lib/lazaret".into(),
        }
    }
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            on_daemon_loss: LossPolicy::Closed,
            attach_timeout: Duration::from_secs(5),
            detach_timeout: Duration::from_secs(1),
            restart_grace: Duration::from_secs(10),
            seals: true,
            shared: true,
            run_memory_files: false,
            max_groups: 16_384,
        }
    }
}

impl Default for Scan {
    fn default() -> Self {
        Self {
            threads: 0,
            max_file_size: ByteSize::mib(256),
            timeout: Duration::from_secs(2),
            cache_entries: 65_536,
            rules: vec![
                "/usr/share/lazaret/signatures".into(),
                "/etc/lazaret/rules.d".into(),
            ],
            worker: "lazaret-scan-worker".into(),
            worker_uid: 65_534,
            worker_memory: ByteSize::gib(1),
            on_write: true,
            on_new_signatures: true,
            rate: ByteSize::mib(64),
            containerd: "/run/containerd/containerd.sock".into(),
            on_unjudged: OnUnjudged::default(),
            unpack: Unpack::default(),
        }
    }
}

impl Default for Unpack {
    fn default() -> Self {
        Self {
            depth: 6,
            members: 50_000,
            size: ByteSize::mib(256),
            ratio: 500,
        }
    }
}

impl Default for OnUnjudged {
    fn default() -> Self {
        Self {
            exec: Action::Deny,
            open: Action::Alert,
        }
    }
}

impl Default for Watchdog {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(5),
        }
    }
}

impl Default for Incidents {
    fn default() -> Self {
        Self {
            max_file_size: ByteSize::mib(64),
            keep: 4,
        }
    }
}

impl Default for Drift {
    fn default() -> Self {
        Self {
            action: Action::Alert,
            owner_decides: true,
            programs: Vec::new(),
            folders: Vec::new(),
        }
    }
}

impl Default for Quarantine {
    fn default() -> Self {
        Self {
            mode: QuarantineMode::Off,
            max_size: ByteSize::gib(1),
            max_items: 10_000,
        }
    }
}

impl Node {
    /// The hand-over socket: shims and hooks connect here.
    #[must_use]
    pub fn guard_socket(&self) -> PathBuf {
        self.run_dir.join("guard.sock")
    }

    /// The control API's socket.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.run_dir.join("control.sock")
    }
}

impl Config {
    /// What the types cannot express.
    pub(crate) fn check(&self) -> Result<(), String> {
        let positive = [
            ("guard.attach_timeout", self.guard.attach_timeout),
            ("guard.detach_timeout", self.guard.detach_timeout),
            ("scan.timeout", self.scan.timeout),
            ("watchdog.deadline", self.watchdog.deadline),
        ];
        for (key, value) in positive {
            if value.is_zero() {
                return Err(format!("{key} must be longer than 0s"));
            }
        }
        for (key, path) in [
            ("node.run_dir", &self.node.run_dir),
            ("node.state_dir", &self.node.state_dir),
            ("scan.containerd", &self.scan.containerd),
        ] {
            if !path.is_absolute() {
                return Err(format!("{key} must be an absolute path, not {}", path.display()));
            }
        }
        if self.watchdog.deadline <= self.scan.timeout {
            return Err("watchdog.deadline must be longer than scan.timeout".into());
        }
        for (key, action) in [
            ("scan.on_unjudged.exec", self.scan.on_unjudged.exec),
            ("scan.on_unjudged.open", self.scan.on_unjudged.open),
            ("drift.action", self.drift.action),
        ] {
            if matches!(action, Action::Quarantine | Action::Kill) {
                return Err(format!("{key} is one of allow, alert, deny"));
            }
        }
        for (key, paths) in [
            ("drift.programs", &self.drift.programs),
            ("drift.folders", &self.drift.folders),
        ] {
            if let Some(path) = paths.iter().find(|path| !path.is_absolute()) {
                return Err(format!("{key}: {} is not an absolute path", path.display()));
            }
        }
        if self.scan.worker_memory.as_u64() < self.scan.max_file_size.as_u64() + WORKER_BASE {
            return Err("scan.worker_memory must be at least scan.max_file_size + 128MiB".into());
        }
        if self.scan.worker_uid == 0 {
            return Err("scan.worker_uid must not be 0: workers parse what containers wrote".into());
        }
        if self.scan.cache_entries == 0 {
            return Err("scan.cache_entries must be at least 1".into());
        }
        self.clamd.check(self.scan.timeout)?;
        engines::check(&self.engines, self.scan.timeout)
    }
}
