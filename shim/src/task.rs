//! containerd's task service: requests in, answers out.
//!
//! ttrpc drops the handler of a request when its deadline passes or containerd goes
//! away. Half a Create would leak a container, so whatever changes something runs
//! in a task of its own, to its end.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use containerd_shim_protos::api;
use containerd_shim_protos::api::Empty;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{EnumOrUnknown, Message, MessageField};
use containerd_shim_protos::shim::oci::{CheckpointOptions, ProcessDetails};
use containerd_shim_protos::shim_async::Task;
use containerd_shim_protos::ttrpc;
use containerd_shim_protos::ttrpc::r#async::TtrpcContext;
use containerd_shim_protos::types::task::ProcessInfo;
use tokio::sync::Notify;

use crate::container::{Container, Exec, Shared};
use crate::error::{Context, Error, Result};
use crate::events::timestamp;
use crate::process::{Phase, Process};
use crate::sync::lock;

/// All containers of one shim.
#[derive(Clone)]
pub(crate) struct Service {
    shared: Arc<Shared>,
    /// None for an id whose container is being made.
    containers: Arc<Mutex<HashMap<String, Option<Arc<Container>>>>>,
    end: Arc<Notify>,
}

/// A process of a container: its init, or an exec.
enum Which {
    Init(Arc<Container>),
    Exec(Arc<Container>, Arc<Exec>),
}

impl Which {
    fn container(&self) -> &Arc<Container> {
        match self {
            Self::Init(container) | Self::Exec(container, _) => container,
        }
    }

    fn id(&self) -> &str {
        match self {
            Self::Init(container) => &container.id,
            Self::Exec(_, exec) => &exec.id,
        }
    }

    fn process(&self) -> &Process {
        match self {
            Self::Init(container) => &container.init,
            Self::Exec(_, exec) => &exec.process,
        }
    }
}

impl Service {
    /// `end` is notified when containerd asks the shim to end.
    pub(crate) fn new(shared: Arc<Shared>, end: Arc<Notify>) -> Self {
        Self {
            shared,
            containers: Arc::default(),
            end,
        }
    }

    fn find(&self, id: &str) -> Result<Arc<Container>> {
        let container = lock(&self.containers).get(id).cloned().flatten();
        container.ok_or_else(|| Error::not_found(format!("no container {id} in this shim")))
    }

    fn find_process(&self, id: &str, exec_id: &str) -> Result<Which> {
        let container = self.find(id)?;
        if exec_id.is_empty() {
            return Ok(Which::Init(container));
        }
        let exec = container.exec(exec_id)?;
        Ok(Which::Exec(container, exec))
    }

    async fn create_container(self, request: api::CreateTaskRequest) -> Result<api::CreateTaskResponse> {
        let id = request.id.clone();
        match lock(&self.containers).entry(id.clone()) {
            Entry::Vacant(free) => drop(free.insert(None)),
            Entry::Occupied(_) => {
                return Err(Error::already_exists(format!("container {id} already exists")));
            }
        }
        let created = Container::create(self.shared.clone(), request).await;
        let mut containers = lock(&self.containers);
        match created {
            Ok(container) => {
                let pid = container.init.pid_number();
                containers.insert(id, Some(container));
                Ok(api::CreateTaskResponse {
                    pid,
                    ..Default::default()
                })
            }
            Err(error) => {
                containers.remove(&id);
                tracing::error!(container = id, "not created: {error}");
                Err(error)
            }
        }
    }

    async fn delete_process(self, request: api::DeleteRequest) -> Result<api::DeleteResponse> {
        let container = self.find(&request.id)?;
        let (pid, exit) = if request.exec_id.is_empty() {
            let exit = container.delete().await?;
            lock(&self.containers).remove(&request.id);
            (container.init.pid_number(), exit)
        } else {
            container.delete_exec(&request.exec_id).await?
        };
        Ok(api::DeleteResponse {
            pid,
            exit_status: exit.status,
            exited_at: timestamp(exit.at),
            ..Default::default()
        })
    }

    fn describe(&self, request: &api::StateRequest) -> Result<api::StateResponse> {
        let which = self.find_process(&request.id, &request.exec_id)?;
        let (container, process) = (which.container(), which.process());
        let (exit_status, exited_at) = match process.phase() {
            Phase::Stopped(exit) => (exit.status, timestamp(exit.at)),
            _ => (0, MessageField::none()),
        };
        Ok(api::StateResponse {
            // As containerd's own shim has it: whose state it is, be it an exec's.
            id: which.id().to_owned(),
            bundle: container.bundle.to_string_lossy().into_owned(),
            pid: process.pid_number(),
            status: EnumOrUnknown::new(container.status_of(process)),
            stdin: process.stdio.stdin.clone(),
            stdout: process.stdio.stdout.clone(),
            stderr: process.stdio.stderr.clone(),
            terminal: process.stdio.terminal,
            exit_status,
            exited_at,
            ..Default::default()
        })
    }
}

/// Runs a change to its end, whether or not anybody still waits for the answer.
async fn to_the_end<T: Send + 'static>(
    change: impl Future<Output = Result<T>> + Send + 'static,
) -> ttrpc::Result<T> {
    let done = tokio::spawn(change).await.context(|| "the shim is ending");
    Ok(done.and_then(|done| done)?)
}

/// The options of a checkpoint; none are the defaults.
fn checkpoint_options(sent: Option<&Any>) -> Result<CheckpointOptions> {
    const NAME: &str = "containerd.runc.v1.CheckpointOptions";
    // Of clients of 1.x; it differs in what the request has a field for, too, and in where criu works.
    const OLD: &str = "containerd.linux.runc.CheckpointOptions";
    let Some(any) = sent.filter(|any| !any.type_url.is_empty()) else {
        return Ok(CheckpointOptions::default());
    };
    let options = CheckpointOptions::parse_from_bytes(&any.value).map_err(|error| {
        Error::invalid_argument(format!("the options of the checkpoint are broken: {error}"))
    })?;
    match any.type_url.rsplit('/').next() {
        Some(NAME) => Ok(options),
        Some(OLD) => Ok(CheckpointOptions {
            work_path: options.image_path,
            image_path: options.work_path,
            ..options
        }),
        _ => Err(Error::invalid_argument(format!(
            "options of type {:?} are not known; use {NAME}",
            any.type_url
        ))),
    }
}

fn process_info((pid, exec_id): (u32, Option<String>)) -> ProcessInfo {
    let details = exec_id.map(|exec_id| ProcessDetails {
        exec_id,
        ..Default::default()
    });
    let info = details
        .and_then(|details| details.write_to_bytes().ok())
        .map(|value| Any {
            type_url: "containerd.runc.v1.ProcessDetails".into(),
            value,
            ..Default::default()
        });
    ProcessInfo {
        pid,
        info: info.into(),
        ..Default::default()
    }
}

#[async_trait]
impl Task for Service {
    async fn create(
        &self,
        _: &TtrpcContext,
        request: api::CreateTaskRequest,
    ) -> ttrpc::Result<api::CreateTaskResponse> {
        to_the_end(self.clone().create_container(request)).await
    }

    async fn start(&self, _: &TtrpcContext, request: api::StartRequest) -> ttrpc::Result<api::StartResponse> {
        let container = self.find(&request.id)?;
        to_the_end(async move {
            let pid = match request.exec_id.as_str() {
                "" => container.start().await?,
                exec_id => container.start_exec(exec_id).await?,
            };
            Ok(api::StartResponse {
                pid,
                ..Default::default()
            })
        })
        .await
    }

    async fn delete(
        &self,
        _: &TtrpcContext,
        request: api::DeleteRequest,
    ) -> ttrpc::Result<api::DeleteResponse> {
        to_the_end(self.clone().delete_process(request)).await
    }

    async fn exec(&self, _: &TtrpcContext, request: api::ExecProcessRequest) -> ttrpc::Result<Empty> {
        self.find(&request.id)?.add_exec(request)?;
        Ok(Empty::new())
    }

    async fn kill(&self, _: &TtrpcContext, request: api::KillRequest) -> ttrpc::Result<Empty> {
        let container = self.find(&request.id)?;
        to_the_end(async move {
            match request.exec_id.as_str() {
                "" => container.kill(request.signal, request.all).await?,
                exec_id => container.kill_exec(exec_id, request.signal)?,
            }
            Ok(Empty::new())
        })
        .await
    }

    async fn state(&self, _: &TtrpcContext, request: api::StateRequest) -> ttrpc::Result<api::StateResponse> {
        Ok(self.describe(&request)?)
    }

    async fn wait(&self, _: &TtrpcContext, request: api::WaitRequest) -> ttrpc::Result<api::WaitResponse> {
        let exit = self
            .find_process(&request.id, &request.exec_id)?
            .process()
            .exited()
            .await;
        let (exit_status, exited_at) = (exit.status, timestamp(exit.at));
        Ok(api::WaitResponse {
            exit_status,
            exited_at,
            ..Default::default()
        })
    }

    async fn pids(&self, _: &TtrpcContext, request: api::PidsRequest) -> ttrpc::Result<api::PidsResponse> {
        let container = self.find(&request.id)?;
        let pids = to_the_end(async move { container.pids().await }).await?;
        let processes = pids.into_iter().map(process_info).collect();
        Ok(api::PidsResponse {
            processes,
            ..Default::default()
        })
    }

    async fn pause(&self, _: &TtrpcContext, request: api::PauseRequest) -> ttrpc::Result<Empty> {
        let container = self.find(&request.id)?;
        to_the_end(async move { container.pause().await.map(|()| Empty::new()) }).await
    }

    async fn resume(&self, _: &TtrpcContext, request: api::ResumeRequest) -> ttrpc::Result<Empty> {
        let container = self.find(&request.id)?;
        to_the_end(async move { container.resume().await.map(|()| Empty::new()) }).await
    }

    async fn update(&self, _: &TtrpcContext, request: api::UpdateTaskRequest) -> ttrpc::Result<Empty> {
        let container = self.find(&request.id)?;
        let resources = request
            .resources
            .into_option()
            .map(|any| any.value)
            .unwrap_or_default();
        to_the_end(async move { container.update(&resources).await.map(|()| Empty::new()) }).await
    }

    async fn close_io(&self, _: &TtrpcContext, request: api::CloseIORequest) -> ttrpc::Result<Empty> {
        let which = self.find_process(&request.id, &request.exec_id)?;
        if request.stdin {
            which.process().close_stdin();
        }
        Ok(Empty::new())
    }

    /// A process without a terminal has no size to change, which is no error.
    async fn resize_pty(&self, _: &TtrpcContext, request: api::ResizePtyRequest) -> ttrpc::Result<Empty> {
        let which = self.find_process(&request.id, &request.exec_id)?;
        let (Ok(columns), Ok(rows)) = (request.width.try_into(), request.height.try_into()) else {
            let (width, height) = (request.width, request.height);
            let message = format!("no terminal can have {width} columns and {height} rows");
            return Err(Error::invalid_argument(message).into());
        };
        which.process().resize(columns, rows)?;
        Ok(Empty::new())
    }

    async fn checkpoint(
        &self,
        _: &TtrpcContext,
        request: api::CheckpointTaskRequest,
    ) -> ttrpc::Result<Empty> {
        let container = self.find(&request.id)?;
        let options = checkpoint_options(request.options.as_ref())?;
        to_the_end(async move {
            container.checkpoint(Path::new(&request.path), &options).await?;
            Ok(Empty::new())
        })
        .await
    }

    async fn stats(&self, _: &TtrpcContext, request: api::StatsRequest) -> ttrpc::Result<api::StatsResponse> {
        let stats = self.find(&request.id)?.stats().await?;
        Ok(api::StatsResponse {
            stats: MessageField::some(stats),
            ..Default::default()
        })
    }

    async fn connect(
        &self,
        _: &TtrpcContext,
        request: api::ConnectRequest,
    ) -> ttrpc::Result<api::ConnectResponse> {
        let task_pid = self
            .find(&request.id)
            .map_or(0, |container| container.init.pid_number());
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(api::ConnectResponse {
            shim_pid: std::process::id(),
            task_pid,
            version,
            ..Default::default()
        })
    }

    /// containerd asks after each container; the shim ends after the pod's last.
    async fn shutdown(&self, _: &TtrpcContext, _: api::ShutdownRequest) -> ttrpc::Result<Empty> {
        if lock(&self.containers).is_empty() {
            self.end.notify_one();
        }
        Ok(Empty::new())
    }
}
