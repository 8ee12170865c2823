//! Making a container: mounted, created, guarded; or not there at all.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use containerd_shim_protos::api::CreateTaskRequest;
use containerd_shim_protos::events::task::{TaskCreate, TaskIO};
use containerd_shim_protos::protobuf::MessageField;
use lazaret_guard::Guard;
use lazaret_types::ContainerId;
use rustix::process::Pid;

use super::{Container, Shared};
use crate::bundle::Bundle;
use crate::cgroup::{Cgroup, OomWatch};
use crate::error::{Context, Error, Result};
use crate::guard;
use crate::mounts::{self, Rootfs};
use crate::options::Options;
use crate::process::{Process, number};
use crate::reaper::Ending;
use crate::runtime::Runtime;
use crate::stdio::{Owner, Prepared, Request, Streams};
use crate::sync::lock;

/// What `runc create` and the guard leave behind.
struct Made {
    init: Pid,
    ending: Ending,
    streams: Streams,
    guard: Guard,
}

/// How an init comes to be.
#[derive(Debug, Clone, Copy)]
enum Origin<'a> {
    /// Made, and blocked until it is started.
    New,
    /// Restored from the checkpoint in this folder, and running at once.
    Checkpoint(&'a Path),
}

/// A container whose init is to be restored when it is started.
#[derive(Debug)]
pub(super) struct Checkpointed {
    image: PathBuf,
    description: lazaret_types::Container,
}

impl Container {
    /// When this returns, init waits to be started, and its first instruction will
    /// be judged; or, with a checkpoint, there is none yet. When it fails, nothing of the
    /// container is left.
    pub(crate) async fn create(shared: Arc<Shared>, request: CreateTaskRequest) -> Result<Arc<Self>> {
        let id = ContainerId::new(&request.id).map_err(|error| Error::invalid_argument(error.to_string()))?;
        let path = PathBuf::from(&request.bundle);
        let bundle = Bundle::read(&path)?;
        let options = Options::from_any(request.options.as_ref())?.for_cgroup(bundle.cgroup.as_deref());
        let shares_pids = bundle.shares_pids();
        let layers = mounts::layers(&request.rootfs);
        let description = bundle.describe(&shared.namespace, id, layers, shared.containerd.clone())?;
        let reaper = shared.reaper.clone();
        let runtime = Runtime::new(&request.id, &shared.namespace, &path, options.clone(), reaper)?;
        options.save(&path)?;

        let stdio = Request {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        let rootfs = Rootfs::of(&path);
        rootfs.mount(request.rootfs.clone()).await?;
        let container = Arc::new(Self {
            id: request.id.clone(),
            bundle: path,
            init: Arc::new(Process::new(stdio)),
            shared,
            options,
            runtime,
            rootfs,
            checkpointed: (!request.checkpoint.is_empty()).then(|| Checkpointed {
                image: request.checkpoint.clone().into(),
                description: description.clone(),
            }),
            cgroup: OnceLock::new(),
            shares_pids,
            state: Mutex::default(),
        });
        if container.checkpointed.is_none()
            && let Err(error) = container.make_init(description, Origin::New).await
        {
            if let Err(left) = container.rootfs.unmount().await {
                tracing::error!(container = request.id, "after a failed Create: {left}");
            }
            return Err(error);
        }
        let pid = container.init.pid_number();
        container.shared.events.publish(&event(request, pid));
        Ok(container)
    }

    /// Lets the runtime restore init, which runs before it can be guarded: what it opens in
    /// between is not judged, and said so.
    pub(super) async fn restore(self: &Arc<Self>, from: &Checkpointed) -> Result<()> {
        let origin = Origin::Checkpoint(&from.image);
        self.make_init(from.description.clone(), origin).await?;
        tracing::warn!(
            container = self.id,
            "restored from a checkpoint: what it opened in its first moments was not judged"
        );
        Ok(())
    }

    async fn make_init(
        self: &Arc<Self>,
        description: lazaret_types::Container,
        origin: Origin<'_>,
    ) -> Result<()> {
        let made = make(
            &self.shared,
            &self.runtime,
            description,
            &self.init.stdio,
            &self.options,
            origin,
        )
        .await?;
        self.init.born(made.init, made.streams);
        let (cgroup, oom) = cgroup_of(made.init, &self.id);
        if let Some(cgroup) = cgroup {
            self.cgroup.get_or_init(|| cgroup);
        }
        lock(&self.state).guard = Some(made.guard);
        tokio::spawn(self.clone().watch_init(made.ending, oom));
        Ok(())
    }
}

async fn make(
    shared: &Shared,
    runtime: &Runtime,
    description: lazaret_types::Container,
    stdio: &Request,
    options: &Options,
    origin: Origin<'_>,
) -> Result<Made> {
    let owner = Owner {
        id: description.id.as_str(),
        namespace: &shared.namespace,
        options,
        reaper: &shared.reaper,
    };
    let (streams, ends) = Prepared::open(stdio, owner).await?;
    let recording = shared.reaper.record();
    // If this fails, the runtime has cleaned up. A container of that id that it may
    // know all the same is another one: not ours to delete.
    let init = match origin {
        Origin::New => runtime.create(ends).await?,
        Origin::Checkpoint(image) => runtime.restore(image, &ends).await?,
    };
    let id = description.id.clone();
    let guarding = async {
        let ending = recording.ending_of(init).ok_or_else(|| {
            let pid = number(init);
            Error::failed_precondition(format!(
                "the init of container {id} (pid {pid}) is not the shim's child"
            ))
        })?;
        let guard = guard::attach(description, init, shared.config.clone(), &shared.reaper).await?;
        Ok(Made {
            init,
            ending,
            streams: streams.start().await.context(|| format!("container {id}"))?,
            guard,
        })
    };
    let made = guarding.await;
    if made.is_err()
        && let Err(left) = runtime.delete(true).await
        && !left.is_not_found()
    {
        tracing::error!(container = %id, "after a failed Create: {left}");
    }
    made
}

/// The container's cgroup, and a watch on its memory. It runs without them, too.
fn cgroup_of(init: Pid, id: &str) -> (Option<Cgroup>, Option<OomWatch>) {
    let cgroup = Cgroup::of(init)
        .inspect_err(|error| tracing::warn!(container = id, "there will be no statistics: {error}"))
        .ok();
    let arm = |cgroup| {
        OomWatch::arm(cgroup)
            .inspect_err(|error| tracing::warn!(container = id, "no end of memory will be told: {error}"))
            .ok()
    };
    let oom = cgroup.as_ref().and_then(arm);
    (cgroup, oom)
}

fn event(request: CreateTaskRequest, pid: u32) -> TaskCreate {
    TaskCreate {
        container_id: request.id,
        bundle: request.bundle,
        rootfs: request.rootfs,
        io: MessageField::some(TaskIO {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
            ..Default::default()
        }),
        checkpoint: request.checkpoint,
        pid,
        ..Default::default()
    }
}
