//! One container, from its creation to its removal.

mod create;
mod exec;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use containerd_shim_protos::api::Status;
use containerd_shim_protos::events::task::{
    TaskCheckpointed, TaskDelete, TaskExit, TaskOOM, TaskPaused, TaskResumed, TaskStart,
};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::shim::oci::CheckpointOptions;
use lazaret_config::Config;
use lazaret_guard::Guard;

use crate::cgroup::{Cgroup, OomWatch};
use crate::error::{Context, Error, Result};
use crate::events::{Events, timestamp};
use crate::guard;
use crate::mounts::Rootfs;
use crate::options::Options;
use crate::process::{Phase, Process};
use crate::reaper::{Ending, Exit, Reaper};
use crate::runtime::Runtime;
use crate::sync::lock;

use create::Checkpointed;
pub(crate) use exec::Exec;

/// How long a container that is deleted before it was started may take to die.
const DEATH: Duration = Duration::from_secs(10);

/// What all containers of a shim share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) namespace: String,
    /// containerd's gRPC socket.
    pub(crate) containerd: Option<PathBuf>,
    pub(crate) config: Arc<Config>,
    pub(crate) reaper: Reaper,
    pub(crate) events: Events,
}

/// A container that the runtime has created and that is guarded.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) init: Arc<Process>,
    shared: Arc<Shared>,
    options: Options,
    runtime: Runtime,
    rootfs: Rootfs,
    /// Set when its init is restored rather than started.
    checkpointed: Option<Checkpointed>,
    /// Empty if it could not be found, which is logged, and before there is an init.
    cgroup: OnceLock<Cgroup>,
    /// Its processes outlive its init.
    shares_pids: bool,
    state: Mutex<State>,
}

/// What changes while a container lives. Locked for single steps, and never while
/// the runtime is called.
#[derive(Debug, Default)]
struct State {
    /// Its init has ended, whether told or not: nothing is started in it any more.
    dead: bool,
    deleting: bool,
    freezer: Freezer,
    execs: HashMap<String, Arc<Exec>>,
    guard: Option<Guard>,
}

/// Whether the container's processes are frozen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Freezer {
    #[default]
    Thawed,
    Freezing,
    Frozen,
}

impl Container {
    /// Lets init run.
    pub(crate) async fn start(self: &Arc<Self>) -> Result<u32> {
        self.refuse_if_dead(&lock(&self.state))?;
        self.init.begin_start(&self.name())?;
        let started = match &self.checkpointed {
            Some(checkpointed) => self.restore(checkpointed).await,
            None => self.runtime.start().await,
        };
        let pid = self.init.pid_number();
        if started.is_ok() {
            let event = TaskStart {
                container_id: self.id.clone(),
                pid,
                ..Default::default()
            };
            self.shared.events.publish(&event);
        }
        // Only now may its exit be told.
        self.init.end_start(started.is_ok());
        started.map(|()| pid)
    }

    /// Signals init, or with `all` every process in the container.
    pub(crate) async fn kill(&self, signal: u32, all: bool) -> Result<()> {
        match self.init.phase() {
            Phase::Stopped(_) => Err(Error::not_found(format!("{} has ended already", self.name()))),
            _ => self.runtime.kill(signal, all).await,
        }
    }

    /// Changes the container's limits.
    pub(crate) async fn update(&self, resources: &[u8]) -> Result<()> {
        self.refuse_if_dead(&lock(&self.state))?;
        self.runtime.update(resources).await
    }

    /// What the container uses now.
    pub(crate) async fn stats(&self) -> Result<Any> {
        let gone = || Error::not_found(format!("{} has no cgroup (any more)", self.name()));
        let cgroup = self.cgroup.get().cloned().ok_or_else(gone)?;
        // The kernel may have to add up the counters of many processors first.
        let stats = tokio::task::spawn_blocking(move || cgroup.exists().then(|| cgroup.metrics()));
        let stats = stats.await.context(|| "reading statistics was interrupted")?;
        stats
            .ok_or_else(gone)?
            .context(|| format!("cannot tell the statistics of {}", self.name()))
    }

    /// Writes the container's processes to disk, from which they can be restored; by what `options`
    /// says they end then.
    pub(crate) async fn checkpoint(&self, image: &Path, options: &CheckpointOptions) -> Result<()> {
        self.refuse_if_dead(&lock(&self.state))?;
        if self.init.phase() != Phase::Running {
            return Err(Error::failed_precondition(format!(
                "{} does not run",
                self.name()
            )));
        }
        self.runtime.checkpoint(image, options).await?;
        self.shared.events.publish(&TaskCheckpointed {
            container_id: self.id.clone(),
            checkpoint: image.to_string_lossy().into_owned(),
            ..Default::default()
        });
        Ok(())
    }

    /// Freezes all processes of the container.
    pub(crate) async fn pause(&self) -> Result<()> {
        self.claim_freezer(Freezer::Thawed, Freezer::Freezing)?;
        let paused = self.runtime.pause().await;
        lock(&self.state).freezer = if paused.is_ok() {
            Freezer::Frozen
        } else {
            Freezer::Thawed
        };
        paused?;
        self.shared.events.publish(&TaskPaused {
            container_id: self.id.clone(),
            ..Default::default()
        });
        Ok(())
    }

    /// Thaws them.
    pub(crate) async fn resume(&self) -> Result<()> {
        self.claim_freezer(Freezer::Frozen, Freezer::Frozen)?;
        self.runtime.resume().await?;
        lock(&self.state).freezer = Freezer::Thawed;
        self.shared.events.publish(&TaskResumed {
            container_id: self.id.clone(),
            ..Default::default()
        });
        Ok(())
    }

    fn claim_freezer(&self, from: Freezer, to: Freezer) -> Result<()> {
        let mut state = lock(&self.state);
        self.refuse_if_dead(&state)?;
        if self.init.phase() != Phase::Running || state.freezer != from {
            let (phase, freezer) = (self.init.status(), state.freezer);
            return Err(Error::failed_precondition(format!(
                "{} is {phase:?} and {freezer:?}",
                self.name()
            )));
        }
        state.freezer = to;
        Ok(())
    }

    /// Removes a container that does not run, and all that was made for it.
    pub(crate) async fn delete(&self) -> Result<Exit> {
        if self.init.status() == Status::RUNNING {
            let name = self.name();
            return Err(Error::failed_precondition(format!(
                "{name} still runs; kill it before it is deleted"
            )));
        }
        if std::mem::replace(&mut lock(&self.state).deleting, true) {
            return Err(Error::failed_precondition(format!(
                "{} is being deleted",
                self.name()
            )));
        }
        let removed = self.remove().await;
        lock(&self.state).deleting = false;
        let exit = removed?;
        self.forget_execs(exit);
        self.shared.events.publish(&TaskDelete {
            container_id: self.id.clone(),
            pid: self.init.pid_number(),
            exit_status: exit.status,
            exited_at: timestamp(exit.at),
            ..Default::default()
        });
        Ok(exit)
    }

    async fn remove(&self) -> Result<Exit> {
        let exit = match self.init.phase() {
            Phase::Stopped(exit) => {
                self.init.drain().await;
                self.remove_stopped().await?;
                exit
            }
            // To be restored, and it never was.
            _ if self.init.pid().is_none() => Exit {
                status: 0,
                at: SystemTime::now(),
            },
            // Created and never started.
            _ => {
                self.runtime.delete(true).await?;
                let killed = tokio::time::timeout(DEATH, self.init.exited()).await;
                killed.map_err(|_late| Error::internal(format!("{} does not die", self.name())))?
            }
        };
        let guard = lock(&self.state).guard.take();
        if let Some(guard) = guard {
            guard::detach(guard, &self.id).await;
        }
        self.rootfs.unmount().await?;
        Ok(exit)
    }

    async fn remove_stopped(&self) -> Result<()> {
        match self.runtime.delete(false).await {
            Err(error) if !error.is_not_found() => {
                tracing::warn!(container = self.id, "it is deleted by force: {error}");
                self.runtime.delete(true).await
            }
            _ => Ok(()),
        }
    }

    /// Lets nobody wait any longer for execs that were never started.
    fn forget_execs(&self, exit: Exit) {
        for (_, exec) in lock(&self.state).execs.drain() {
            if exec.process.phase() == Phase::Created {
                exec.process.stop(exit);
            }
        }
    }

    /// The state of one of its processes: a frozen container freezes them all.
    pub(crate) fn status_of(&self, process: &Process) -> Status {
        match (process.status(), lock(&self.state).freezer) {
            (Status::RUNNING, Freezer::Freezing) => Status::PAUSING,
            (Status::RUNNING, Freezer::Frozen) => Status::PAUSED,
            (status, _) => status,
        }
    }

    /// Tells whenever memory runs out, and init's exit as the last of the container's.
    async fn watch_init(self: Arc<Self>, mut ending: Ending, oom: Option<OomWatch>) {
        let ended = loop {
            let out_of_memory = async {
                match &oom {
                    Some(watch) => watch.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ended = &mut ending => break ended,
                () = out_of_memory => self.tell_oom(),
            }
        };
        let Ok(exit) = ended else { return };
        let execs: Vec<_> = {
            let mut state = lock(&self.state);
            state.dead = true;
            state.execs.values().cloned().collect()
        };
        self.init.settled().await; // TaskStart goes before TaskExit.
        if self.shares_pids {
            self.kill_the_rest().await;
        }
        for exec in execs {
            exec.process.at_rest().await;
        }
        if oom.is_some_and(|watch| watch.happened()) {
            self.tell_oom();
        }
        self.tell_exit(&self.id, &self.init, exit);
    }

    /// Kills what init leaves behind where the kernel does not do it.
    async fn kill_the_rest(&self) {
        const KILL: u32 = 9;
        if lock(&self.state).freezer != Freezer::Thawed
            && let Err(error) = self.runtime.resume().await
        {
            tracing::warn!(container = self.id, "frozen processes may not die: {error}");
        }
        match self.runtime.kill(KILL, true).await {
            Err(error) if !error.is_not_found() => {
                tracing::warn!(container = self.id, "processes may be left: {error}");
            }
            _ => {}
        }
    }

    fn tell_oom(&self) {
        self.shared.events.publish(&TaskOOM {
            container_id: self.id.clone(),
            ..Default::default()
        });
    }

    /// Tells containerd first, and then those who wait here: what happens after an
    /// exit is told after it.
    fn tell_exit(&self, id: &str, process: &Process, exit: Exit) {
        self.shared.events.publish(&TaskExit {
            container_id: self.id.clone(),
            id: id.to_owned(),
            pid: process.pid_number(),
            exit_status: exit.status,
            exited_at: timestamp(exit.at),
            ..Default::default()
        });
        process.stop(exit);
    }

    fn refuse_if_dead(&self, state: &State) -> Result<()> {
        match state.dead {
            true => Err(Error::failed_precondition(format!("{} has ended", self.name()))),
            false => Ok(()),
        }
    }

    fn name(&self) -> String {
        format!("container {}", self.id)
    }
}
