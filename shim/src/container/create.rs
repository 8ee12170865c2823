//! Making a container: mounted, created, guarded; or not there at all.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use containerd_shim_protos::api::CreateTaskRequest;
use containerd_shim_protos::events::task::{TaskCreate, TaskIO};
use containerd_shim_protos::protobuf::MessageField;
use lazaret_guard::Guard;
use lazaret_types::ContainerId;
use rustix::process::Pid;

use super::{Container, Shared, State};
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

/// What `runc create` and the guard leave behind.
struct Made {
    init: Pid,
    ending: Ending,
    streams: Streams,
    guard: Guard,
}

impl Container {
    /// When this returns, init waits to be started, and its first instruction will
    /// be judged. When it fails, nothing of the container is left.
    pub(crate) async fn create(shared: Arc<Shared>, request: CreateTaskRequest) -> Result<Arc<Self>> {
        if !request.checkpoint.is_empty() {
            return Err(Error::unimplemented(
                "restoring from a checkpoint is not supported yet",
            ));
        }
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
        let made = match make(&shared, &runtime, description, &stdio, &options).await {
            Ok(made) => made,
            Err(error) => {
                if let Err(left) = rootfs.unmount().await {
                    tracing::error!(container = request.id, "after a failed Create: {left}");
                }
                return Err(error);
            }
        };

        let init = Process::new(stdio);
        init.born(made.init, made.streams);
        let (cgroup, oom) = cgroup_of(made.init, &request.id);
        let container = Arc::new(Self {
            id: request.id.clone(),
            bundle: path,
            init: Arc::new(init),
            shared,
            options,
            runtime,
            rootfs,
            cgroup,
            shares_pids,
            state: Mutex::new(State {
                guard: Some(made.guard),
                ..State::default()
            }),
        });
        container
            .shared
            .events
            .publish(&event(request, number(made.init)));
        tokio::spawn(container.clone().watch_init(made.ending, oom));
        Ok(container)
    }
}

async fn make(
    shared: &Shared,
    runtime: &Runtime,
    description: lazaret_types::Container,
    stdio: &Request,
    options: &Options,
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
    let init = runtime.create(ends).await?;
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
