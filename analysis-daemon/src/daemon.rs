//! Puts the daemon together and runs it.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use lazaret_config::Config;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::allow::AllowList;
use crate::budget;
use crate::changes::Changes;
use crate::clamd::Clamd;
use crate::counters::Counters;
use crate::drift::Drift;
use crate::engine::{Contents, Input, Priority};
use crate::external::External;
use crate::graces::Graces;
use crate::incidents::IncidentLog;
use crate::judge::{self, Judge};
use crate::liveness::Pulse;
use crate::lock::Lock;
use crate::others::{Others, Reloads};
use crate::pool::{self, Pool};
use crate::quarantine::Quarantine;
use crate::reader::{self, Readers};
use crate::registry::Registry;
use crate::scan::{self, Renewal, Scans};
use crate::seals::{self, Seals};
use crate::shared::{self, SharedGuard};
use crate::signatures::Signatures;
use crate::waker::Waker;
use crate::workers::{self, By, Rules, Workers, ZygoteError};
use crate::writes::{self, Writes};
use crate::{control, handover, node_id, watchdog};

/// How long a daemon that leaves may keep its successor waiting.
const SUCCESSION: Duration = Duration::from_secs(10);

/// How long scans may take to write down how far they are.
const SCANS: Duration = Duration::from_secs(2);

/// What all parts of a running daemon share.
pub(crate) struct Daemon {
    pub(crate) node: String,
    pub(crate) started_at: SystemTime,
    pub(crate) judge: Arc<Judge>,
    pub(crate) readers: Readers,
    pub(crate) shared: Arc<SharedGuard>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) incidents: Arc<IncidentLog>,
    pub(crate) signatures: Arc<Signatures>,
    pub(crate) workers: Arc<Workers>,
    pub(crate) others: Arc<Others>,
    pub(crate) allow: Arc<AllowList>,
    pub(crate) quarantine: Arc<Quarantine>,
    pub(crate) seals: Arc<Seals>,
    /// None when nothing is judged before it is opened.
    pub(crate) writes: Option<Arc<Writes>>,
    pub(crate) scans: Arc<Scans>,
    /// What is done about drift where the owner says nothing.
    pub(crate) drift: lazaret_config::Drift,
    /// The socket of the containerd that knows the images.
    pub(crate) containerd: PathBuf,
    /// Openers of one container under judgement at once, at most.
    pub(crate) container_budget: usize,
    /// No descriptor has a number of this size.
    pub(crate) event_fd_limit: u32,
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// When it cannot start; a running daemon only ends on a signal.
pub(crate) fn run(config: &Config) -> Result<()> {
    let _lock = claim_node(config)?;
    let nofile = raise_nofile()?;
    raise_max_groups(config.guard.max_groups);
    let daemon = assemble(config, nofile)?;
    // Threads have been started from here on: no fork without exec, no set_var.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(config, daemon))
}

fn claim_node(config: &Config) -> Result<Lock> {
    private_folder(&config.node.run_dir)?;
    private_folder(&config.node.state_dir)?;
    let run_dir = config.node.run_dir.display();
    Lock::take(&config.node.run_dir, SUCCESSION)
        .with_context(|| format!("another lazaretd serves {run_dir}; stop it, or set node.run_dir"))
}

/// Makes a folder that only root enters.
fn private_folder(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("cannot create {}", path.display()))?;
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() || metadata.uid() != rustix::process::geteuid().as_raw() {
        bail!(
            "{} must be a folder that belongs to the user of lazaretd",
            path.display()
        );
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        .with_context(|| format!("cannot close {} to others", path.display()))
}

/// As many descriptors as we may have: each opener under judgement takes two.
fn raise_nofile() -> Result<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )
    .context("cannot raise RLIMIT_NOFILE")?;
    // Unlimited is still bounded by fs.nr_open, whose default this is.
    Ok(maximum.unwrap_or(1 << 20))
}

/// Each container has a fanotify group, made by its shim as the same user.
fn raise_max_groups(wanted: u32) {
    const SYSCTL: &str = "/proc/sys/fs/fanotify/max_user_groups";
    let current = fs::read_to_string(SYSCTL)
        .ok()
        .and_then(|text| text.trim().parse::<u32>().ok());
    if current.is_some_and(|current| current >= wanted) {
        return;
    }
    if let Err(error) = fs::write(SYSCTL, wanted.to_string()) {
        tracing::warn!(%error, ?current, wanted, "fs.fanotify.max_user_groups could not be raised: \
            no more containers than that can be guarded at once");
    }
}

fn assemble(config: &Config, nofile: u64) -> Result<Arc<Daemon>> {
    let state_dir = &config.node.state_dir;
    let node = node_id::load_or_create(state_dir)?;
    let signatures = Arc::new(Signatures::open(state_dir.join("signatures"))?);
    let counters = Arc::new(Counters::default());
    let incidents = open_incidents(config, node, &signatures)?;
    let allow = Arc::new(AllowList::open(state_dir.join("allow"))?);
    let quarantine = open_quarantine(config, &allow, &incidents, &counters)?;
    let threads = pool::threads(config.scan.threads);
    let counts = worker_counts(threads);
    let workers = Arc::new(Workers::start(worker_settings(config)?, counts)?);
    let mut pulses = Vec::new();
    let graces = Graces::start(seals::graces(nofile), Arc::clone(&incidents))?;
    let seals = start_seals(config, nofile, graces, &mut pulses)?;
    let others = Arc::new(start_others(config, counts, &incidents, &signatures, &allow)?);
    let changes: Vec<&Changes> = [&signatures.changes, &workers.changes]
        .into_iter()
        .chain(others.changes())
        .collect();
    lift_on_changes(&seals, &changes);
    let means = judge::Means {
        signatures: Arc::clone(&signatures),
        workers: Arc::clone(&workers),
        counters: Arc::clone(&counters),
        incidents: Arc::clone(&incidents),
        allow: Arc::clone(&allow),
        quarantine: Arc::clone(&quarantine),
        seals: Arc::clone(&seals),
        drift: Drift::new(&config.drift),
        others: others.engines(),
    };
    let judge = Arc::new(Judge::new(&config.scan, means));
    let registry = Arc::new(Registry::default());
    let (judging, versions) = (Arc::clone(&judge), Arc::clone(&judge));
    let (moving, sealed) = (Arc::clone(&quarantine), Arc::clone(&seals));
    let means = scan::Means {
        judge: Box::new(move |file, session, deadline| match session {
            Some(session) => judging.judge_in(session, file, deadline),
            None => judging.judge(Input::File(file), deadline, Priority::Background),
        }),
        quarantine: Box::new(move |session, file, outcome| moving.consider(session, file, outcome)),
        is_sealed: Box::new(move |session, file| sealed.covers(session, file)),
        set: Box::new(move || versions.set()),
        allow: Arc::clone(&allow),
        incidents: Arc::clone(&incidents),
        counters: Arc::clone(&counters),
        registry: Arc::clone(&registry),
    };
    let scans = open_scans(config, means, &changes)?;
    let writes = start_writes(config, &judge, &counters, &incidents, &quarantine)?;
    let pool = Pool::start(threads, Arc::clone(&judge))?;
    let (node_budget, container_budget) = budget::sizes(nofile);
    let sink = Arc::clone(&pool);
    let sink: reader::Sink = Arc::new(move |opening| sink.submit(opening));
    let waker = Waker::new()?;
    let readers = Readers::start(
        node_budget,
        waker.clone(),
        &counters,
        &mut pulses,
        Arc::clone(&sink),
    )?;
    let means = shared::Means {
        gate: Arc::clone(readers.gate()),
        sink,
        counters: Arc::clone(&counters),
        incidents: Arc::clone(&incidents),
        backlog: budget::backlog(nofile),
    };
    let shared = SharedGuard::start(&config.guard, means, waker, &mut pulses)
        .context("cannot guard what is shared with the host")?;
    watchdog::start(config.watchdog.deadline, pool, pulses).context("cannot start the watchdog")?;
    Ok(Arc::new(Daemon {
        node: node.to_string(),
        started_at: SystemTime::now(),
        judge,
        readers,
        shared: Arc::new(shared),
        registry,
        counters,
        incidents,
        signatures,
        workers,
        others,
        allow,
        quarantine,
        seals,
        writes,
        scans,
        drift: config.drift.clone(),
        containerd: config.scan.containerd.clone(),
        container_budget,
        event_fd_limit: u32::try_from(nofile).unwrap_or(u32::MAX),
    }))
}

fn open_incidents(
    config: &Config,
    node: ulid::Ulid,
    signatures: &Arc<Signatures>,
) -> Result<Arc<IncidentLog>> {
    let folder = config.node.state_dir.join("incidents");
    let log = IncidentLog::open(folder, &config.incidents, node, Arc::clone(signatures))?;
    Ok(Arc::new(log))
}

fn open_quarantine(
    config: &Config,
    allow: &Arc<AllowList>,
    incidents: &Arc<IncidentLog>,
    counters: &Arc<Counters>,
) -> Result<Arc<Quarantine>> {
    Quarantine::start(
        &config.node.state_dir.join("quarantine"),
        &config.quarantine,
        Arc::clone(allow),
        Arc::clone(incidents),
        Arc::clone(counters),
    )
    .context("cannot open the quarantine")
}

/// How many workers so many threads need that judge openers, and what nobody waits for.
fn worker_counts(threads: usize) -> workers::Counts {
    workers::Counts {
        // One for what runs already when a container comes back.
        openers: threads + 1,
        // For scans, and one for what is written.
        background: scan::MAX_RUNNING * scan::LANES + 1,
    }
}

fn start_seals(
    config: &Config,
    nofile: u64,
    graces: Arc<Graces>,
    pulses: &mut Vec<Arc<Pulse>>,
) -> Result<Arc<Seals>> {
    let capacity = if config.guard.seals {
        seals::capacity(nofile)
    } else {
        0
    };
    Seals::start(capacity, graces, pulses).context("cannot watch over leases")
}

/// Whenever something else judges, nothing is clean any more.
fn lift_on_changes(seals: &Arc<Seals>, changes: &[&Changes]) {
    for changes in changes {
        let seals = Arc::clone(seals);
        changes.follow(move || seals.clear());
    }
}

fn start_writes(
    config: &Config,
    judge: &Arc<Judge>,
    counters: &Arc<Counters>,
    incidents: &Arc<IncidentLog>,
    quarantine: &Arc<Quarantine>,
) -> std::io::Result<Option<Arc<Writes>>> {
    let means = writes::Means {
        judge: Arc::clone(judge),
        counters: Arc::clone(counters),
        incidents: Arc::clone(incidents),
        quarantine: Arc::clone(quarantine),
    };
    config.scan.on_write.then(|| Writes::start(means)).transpose()
}

/// `changes` are those of what judges.
fn open_scans(config: &Config, means: scan::Means, changes: &[&Changes]) -> Result<Arc<Scans>> {
    let folder = config.node.state_dir.join("scans");
    let scans = Scans::open(folder, &config.scan, means).context("cannot open the scans")?;
    if config.scan.on_new_signatures {
        let renewal = Renewal::start(Arc::clone(&scans)).context("cannot watch for new signatures")?;
        for changes in changes {
            let renewal = Arc::clone(&renewal);
            changes.follow(move || renewal.note());
        }
    }
    Ok(scans)
}

impl Daemon {
    /// Loads the rules anew, and has everything asked about again that other engines judged:
    /// what they judge by may have changed without their telling.
    ///
    /// # Errors
    /// When the rules cannot be loaded; the old ones stay.
    pub(crate) fn reload_rules(&self) -> Result<Arc<Rules>, ZygoteError> {
        let rules = self.workers.reload();
        self.others.reload();
        rules
    }
}

/// Loads the rules in a thread of its own; how it went is logged.
fn reload_rules(daemon: &Arc<Daemon>) {
    let daemon = Arc::clone(daemon);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = daemon.reload_rules() {
            tracing::error!(%error, "rules were not reloaded; the old ones stay");
        }
    });
}

/// Engines of others have as many processes as our own.
fn start_others(
    config: &Config,
    counts: workers::Counts,
    incidents: &Arc<IncidentLog>,
    signatures: &Arc<Signatures>,
    allow: &Arc<AllowList>,
) -> Result<Others> {
    let file = config.node.state_dir.join("engines-reloaded");
    let reloads = Reloads::open(file.clone()).with_context(|| format!("cannot read {}", file.display()))?;
    let clamd = Clamd::start(&config.clamd, incidents, reloads.count());
    let start = |engine: &lazaret_config::Engine| {
        let settings = workers::Settings {
            by: By::Program {
                command: engine.command.clone(),
                args: engine.args.clone(),
                paths: engine.paths.clone(),
            },
            memory: engine.memory.as_u64(),
            ..worker_settings(config)?
        };
        let workers = Workers::start(settings, counts).with_context(|| format!("engine {}", engine.name))?;
        let contents = Contents {
            workers: Arc::new(workers),
            signatures: Arc::clone(signatures),
            allow: Arc::clone(allow),
        };
        Ok(Arc::new(External::new(engine, contents, reloads.count())))
    };
    let external = config.engines.iter().map(start).collect::<Result<_>>()?;
    Ok(Others {
        clamd: clamd.context("cannot look after clamd")?,
        external,
        reloads,
    })
}

fn worker_settings(config: &Config) -> Result<workers::Settings> {
    let scan = &config.scan;
    let beside = std::env::current_exe()?;
    Ok(workers::Settings {
        program: beside.parent().unwrap_or(Path::new("/")).join(&scan.worker),
        by: By::Rules {
            rules: scan.rules.clone(),
            lists: config.node.state_dir.join("signatures"),
            cache: config.node.state_dir.join("cache"),
        },
        uid: scan.worker_uid,
        memory: scan.worker_memory.as_u64(),
        unpack: scan.unpack,
    })
}

async fn serve(config: &Config, daemon: Arc<Daemon>) -> Result<()> {
    let socket = config.node.guard_socket();
    // We hold the lock: whatever lies there is of a daemon that is gone.
    match fs::remove_file(&socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let listener = lazaret_sys::seqpacket::listen(&socket)
        .with_context(|| format!("cannot listen on {}", socket.display()))?;
    let (stop, stopped) = watch::channel(false);
    let keepers = tokio::spawn(handover::serve(Arc::clone(&daemon), listener, stopped.clone()));
    let control = tokio::spawn(control::serve(
        config.node.control_socket(),
        Arc::clone(&daemon),
        stopped,
    ));
    tracing::info!(node = %daemon.node, socket = %socket.display(), "lazaretd is ready");

    let resumed = Arc::clone(&daemon.scans);
    tokio::task::spawn_blocking(move || resumed.resume());

    wait_for_stop(&daemon).await?;
    tracing::info!("handing every container back to its keeper");
    // First: a scan that is left because its watcher is must not count as cancelled.
    daemon.scans.stop();
    stop.send_replace(true);
    keepers.await??;
    control.await??;
    daemon.scans.wait(SCANS);
    daemon.incidents.flush();
    Ok(())
}

/// Reloads on SIGHUP; returns on SIGTERM or SIGINT.
async fn wait_for_stop(daemon: &Arc<Daemon>) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => match daemon.signatures.reload() {
                Ok(_told) => reload_rules(daemon),
                Err(error) => tracing::error!(%error, "signatures were not reloaded; the old ones stay"),
            },
        }
    }
}
