//! Shims started as containerd starts them, so that a test can ask what no client of containerd
//! can, hear every answer with its code, and see every event in its order.

pub(crate) mod bundle;
mod events;
mod stdio;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use containerd_shim_protos::api;
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::ttrpc::{self, Client};
use lazaret_tests::command::{self, Outcome, Running};
use lazaret_tests::node::Node;
use lazaret_tests::run::LAZARET;
use lazaret_tests::scratch::MARK;
use lazaret_tests::wait;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

use crate::world::{World, config_of};
use bundle::Spec;
pub(crate) use events::Events;
pub(crate) use stdio::{Output, Stdio, text};

/// How long a shim may take for one answer.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Signals, by their numbers.
pub(crate) const KILL: u32 = 9;
pub(crate) const TERM: u32 = 15;

/// What a shim answers instead of what it was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    /// The code's name, as in gRPC.
    pub(crate) code: String,
    pub(crate) message: String,
}

/// An answer of a shim. What is no answer, as a broken connection, is another error.
pub(crate) type Answer<T> = std::result::Result<T, Refusal>;

/// How a shim is started.
#[derive(Debug, Clone, Default)]
pub(crate) struct Start {
    /// The runtime options on its standard input.
    pub(crate) options: Option<Any>,
    /// As containerd 2.3 does it, with a change to the message that it sends.
    pub(crate) bootstrap: Option<fn(&mut BootstrapParams)>,
}

/// A running shim, and the pod that it serves.
pub(crate) struct Shim<'a> {
    world: &'a World,
    node: &'a Node,
    runtime: &'a str,
    pub(crate) events: Events,
    client: Client,
    /// Of the task service, as the shim told it.
    pub(crate) version: i64,
    pub(crate) address: String,
    containers: Mutex<Vec<String>>,
    /// What it logs; nobody reads it, and it never gets so much that it would have to wait.
    _log: File,
}

impl<'a> Shim<'a> {
    /// Starts the shim of the container `spec`, and leaves its creation to the caller.
    pub(crate) fn start(world: &'a World, node: &'a Node, runtime: &'a str, spec: &Spec) -> Result<Self> {
        Self::start_as(world, node, runtime, spec, &Start::default())
    }

    pub(crate) fn start_as(
        world: &'a World,
        node: &'a Node,
        runtime: &'a str,
        spec: &Spec,
        how: &Start,
    ) -> Result<Self> {
        let bundle = spec.write(node)?;
        let events = Events::listen(&bundle)?;
        let log = log(&bundle)?;
        let mut start = command(world, node, runtime, spec.id(), &bundle, events.address())?;
        let (address, version) = match how.bootstrap {
            Some(change) => bootstrap(&mut start, spec, node, &events, change)?,
            None => answer(&run(&mut start, how.options.as_ref())?)?,
        };
        let client = Client::connect(&address).context("connecting to the shim")?;
        Ok(Self {
            world,
            node,
            runtime,
            events,
            client,
            version,
            address,
            containers: Mutex::default(),
            _log: log,
        })
    }

    /// The address that a further container of the pod gets.
    pub(crate) fn join(&self, spec: &Spec) -> Result<String> {
        let bundle = spec.write(self.node)?;
        let events = self.events.address();
        let mut join = command(self.world, self.node, self.runtime, spec.id(), &bundle, events)?;
        Ok(answer(&run(&mut join, None)?)?.0)
    }

    /// Calls the task service.
    pub(crate) fn call<T: Message>(&self, method: &str, request: &impl Message) -> Result<Answer<T>> {
        let call = ttrpc::Request {
            service: format!("containerd.task.v{}.Task", self.version),
            method: method.to_owned(),
            timeout_nano: i64::try_from(SOON.as_nanos())?,
            payload: request.write_to_bytes()?,
            ..Default::default()
        };
        match self.client.request(call) {
            Ok(response) => Ok(Ok(T::parse_from_bytes(&response.payload)?)),
            Err(ttrpc::Error::RpcStatus(status)) => Ok(Err(Refusal {
                code: format!("{:?}", status.code()),
                message: status.message,
            })),
            Err(error) => Err(error).with_context(|| format!("{method} got no answer")),
        }
    }

    /// Creates the container; its pid.
    pub(crate) fn create(&self, spec: &Spec, stdio: &Stdio) -> Result<Answer<u32>> {
        self.create_as(spec, stdio, |_| {})
    }

    /// As [`Shim::create`], with a change to the request.
    pub(crate) fn create_as(
        &self,
        spec: &Spec,
        stdio: &Stdio,
        change: impl FnOnce(&mut api::CreateTaskRequest),
    ) -> Result<Answer<u32>> {
        let mut request = api::CreateTaskRequest {
            id: spec.id().to_owned(),
            bundle: bundle::path(self.node, spec.id()).display().to_string(),
            rootfs: spec.rootfs(self.world, self.node)?,
            stdin: stdio.stdin.clone(),
            stdout: stdio.stdout.clone(),
            stderr: stdio.stderr.clone(),
            terminal: stdio.terminal,
            ..Default::default()
        };
        change(&mut request);
        let created = self.call::<api::CreateTaskResponse>("Create", &request)?;
        if created.is_ok() {
            let mut containers = self.containers.lock().unwrap_or_else(PoisonError::into_inner);
            containers.push(spec.id().to_owned());
        }
        Ok(created.map(|created| created.pid))
    }

    /// Starts an init, or an exec.
    pub(crate) fn start_process(&self, id: &str, exec_id: &str) -> Result<Answer<u32>> {
        let request = api::StartRequest {
            id: id.to_owned(),
            exec_id: exec_id.to_owned(),
            ..Default::default()
        };
        Ok(self
            .call::<api::StartResponse>("Start", &request)?
            .map(|started| started.pid))
    }

    /// Adds an exec: the JSON of its process as it is.
    pub(crate) fn exec_raw(
        &self,
        id: &str,
        exec_id: &str,
        process: &[u8],
        stdio: &Stdio,
    ) -> Result<Answer<()>> {
        let request = api::ExecProcessRequest {
            id: id.to_owned(),
            exec_id: exec_id.to_owned(),
            stdin: stdio.stdin.clone(),
            stdout: stdio.stdout.clone(),
            stderr: stdio.stderr.clone(),
            terminal: stdio.terminal,
            spec: MessageField::some(Any {
                type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".into(),
                value: process.to_vec(),
                ..Default::default()
            }),
            ..Default::default()
        };
        Ok(self.call::<api::Empty>("Exec", &request)?.map(drop))
    }

    /// Adds an exec that runs `args`.
    pub(crate) fn exec(&self, id: &str, exec_id: &str, args: &[&str], stdio: &Stdio) -> Result<Answer<()>> {
        let process = bundle::process(args, stdio.terminal).to_string();
        self.exec_raw(id, exec_id, process.as_bytes(), stdio)
    }

    /// Adds an exec, starts it and waits for it; its exit code.
    pub(crate) fn exec_to_end(&self, id: &str, exec_id: &str, args: &[&str]) -> Result<u32> {
        expect(self.exec(id, exec_id, args, &Stdio::null())?)?;
        expect(self.start_process(id, exec_id)?)?;
        let exit = expect(self.wait(id, exec_id)?)?.exit_status;
        expect(self.delete(id, exec_id)?)?;
        Ok(exit)
    }

    pub(crate) fn kill(&self, id: &str, exec_id: &str, signal: u32, all: bool) -> Result<Answer<()>> {
        let request = api::KillRequest {
            id: id.to_owned(),
            exec_id: exec_id.to_owned(),
            signal,
            all,
            ..Default::default()
        };
        Ok(self.call::<api::Empty>("Kill", &request)?.map(drop))
    }

    pub(crate) fn wait(&self, id: &str, exec_id: &str) -> Result<Answer<api::WaitResponse>> {
        self.call(
            "Wait",
            &api::WaitRequest {
                id: id.to_owned(),
                exec_id: exec_id.to_owned(),
                ..Default::default()
            },
        )
    }

    pub(crate) fn state(&self, id: &str, exec_id: &str) -> Result<Answer<api::StateResponse>> {
        self.call(
            "State",
            &api::StateRequest {
                id: id.to_owned(),
                exec_id: exec_id.to_owned(),
                ..Default::default()
            },
        )
    }

    pub(crate) fn delete(&self, id: &str, exec_id: &str) -> Result<Answer<api::DeleteResponse>> {
        self.call(
            "Delete",
            &api::DeleteRequest {
                id: id.to_owned(),
                exec_id: exec_id.to_owned(),
                ..Default::default()
            },
        )
    }

    pub(crate) fn pause(&self, id: &str) -> Result<Answer<()>> {
        let request = api::PauseRequest {
            id: id.to_owned(),
            ..Default::default()
        };
        Ok(self.call::<api::Empty>("Pause", &request)?.map(drop))
    }

    pub(crate) fn resume(&self, id: &str) -> Result<Answer<()>> {
        let request = api::ResumeRequest {
            id: id.to_owned(),
            ..Default::default()
        };
        Ok(self.call::<api::Empty>("Resume", &request)?.map(drop))
    }

    pub(crate) fn close_stdin(&self, id: &str, exec_id: &str) -> Result<Answer<()>> {
        let request = api::CloseIORequest {
            id: id.to_owned(),
            exec_id: exec_id.to_owned(),
            stdin: true,
            ..Default::default()
        };
        Ok(self.call::<api::Empty>("CloseIO", &request)?.map(drop))
    }

    pub(crate) fn resize(&self, id: &str, exec_id: &str, (width, height): (u32, u32)) -> Result<Answer<()>> {
        let request = api::ResizePtyRequest {
            id: id.to_owned(),
            exec_id: exec_id.to_owned(),
            width,
            height,
            ..Default::default()
        };
        Ok(self.call::<api::Empty>("ResizePty", &request)?.map(drop))
    }

    pub(crate) fn shutdown(&self, id: &str) -> Result<()> {
        let request = api::ShutdownRequest {
            id: id.to_owned(),
            ..Default::default()
        };
        // The connection may close before the answer.
        drop(self.call::<api::Empty>("Shutdown", &request));
        Ok(())
    }

    /// The shim's own pid, as it tells it.
    pub(crate) fn pid(&self) -> Result<Pid> {
        let connected = self.call::<api::ConnectResponse>("Connect", &api::ConnectRequest::new())?;
        Ok(Pid::from_raw(expect(connected)?.shim_pid.cast_signed()))
    }

    /// Kills a container and waits for its exit.
    pub(crate) fn end(&self, id: &str) -> Result<u32> {
        // One that has ended cannot be killed.
        drop(self.kill(id, "", KILL, true)?);
        Ok(expect(self.wait(id, "")?)?.exit_status)
    }

    /// Calls the binary's `delete` action for a container, as containerd does after a crash.
    pub(crate) fn delete_action(&self, id: &str) -> Result<Outcome> {
        let bundle = bundle::path(self.node, id);
        let events = self.events.address();
        let mut command = base(self.world, self.node, self.runtime, id, events)?;
        // containerd runs it from the folder above: the bundle is going.
        command
            .arg("-bundle")
            .arg(&bundle)
            .arg("delete")
            .current_dir(&bundle);
        command::run(&mut command)
    }
}

impl Drop for Shim<'_> {
    /// Nothing of a case that failed half-way may be in the way of the next one.
    fn drop(&mut self) {
        let containers = self.containers.get_mut().map(std::mem::take).unwrap_or_default();
        for id in containers {
            // No answer: the shim has ended.
            let Ok(Ok(_)) = self.state(&id, "") else { continue };
            drop(self.resume(&id));
            drop(self.kill(&id, "", KILL, true));
            let ended = wait::until_true("the container to end", SOON, || {
                self.delete(&id, "").is_ok_and(|deleted| deleted.is_ok())
            });
            drop(ended);
        }
        drop(self.shutdown(""));
    }
}

/// The fifo for its log, which containerd makes: the stock shim ends without one.
fn log(bundle: &Path) -> Result<File> {
    let path = bundle.join("log");
    mkfifo(&path, Mode::S_IRWXU).with_context(|| path.display().to_string())?;
    Ok(File::options().read(true).write(true).open(path)?)
}

/// What a shim says to a bundle with this `config.json`, be it at its start or at Create.
///
/// An error here means that it took the bundle, or crashed.
pub(crate) fn refusal(world: &World, node: &Node, id: &str, config: Option<&str>) -> Result<String> {
    let spec = Spec::broken(id, config);
    match Shim::start(world, node, LAZARET, &spec) {
        Ok(shim) => match shim.create(&spec, &Stdio::null())? {
            Ok(pid) => bail!("created pid {pid} of a broken bundle"),
            Err(refusal) => Ok(refusal.message),
        },
        Err(error) => Ok(error.to_string()),
    }
}

/// An answer that must not be a refusal.
pub(crate) fn expect<T>(answer: Answer<T>) -> Result<T> {
    answer.map_err(|refusal| anyhow::anyhow!("{}: {}", refusal.code, refusal.message))
}

/// The answer's code, `OK` for none.
pub(crate) fn code<T>(answer: &Answer<T>) -> &str {
    answer
        .as_ref()
        .map_or_else(|refusal| refusal.code.as_str(), |_| "OK")
}

/// Where a runtime's shim is.
pub(crate) fn binary(world: &World, node: &Node, runtime: &str) -> Result<PathBuf> {
    Ok(if runtime == LAZARET {
        world.binaries()?.dir().join("containerd-shim-lazaret-v1")
    } else {
        node.containerd().release().bin()?.join("containerd-shim-runc-v2")
    })
}

/// The command line and the environment that containerd gives a shim.
fn base(world: &World, node: &Node, runtime: &str, id: &str, events: &str) -> Result<Command> {
    let places = node.scratch().places();
    let socket = places.run().join("containerd.sock");
    let mut base = Command::new(binary(world, node, runtime)?);
    base.args(["-namespace", places.name(), "-id", id, "-address"])
        .arg(&socket)
        .args(["-publish-binary", "/bin/true"]);
    base.env(MARK, places.name())
        .env("LAZARET_CONFIG", config_of(node))
        .env("TTRPC_ADDRESS", events)
        .env("PATH", node.containerd().search_path()?);
    // 1.6 tells neither.
    if node.containerd().release().series != "1.6" {
        base.env("GRPC_ADDRESS", &socket).env("MAX_SHIM_VERSION", "2");
    }
    Ok(base)
}

fn command(
    world: &World,
    node: &Node,
    runtime: &str,
    id: &str,
    bundle: &Path,
    events: &str,
) -> Result<Command> {
    let mut start = base(world, node, runtime, id, events)?;
    start.arg("start").current_dir(bundle);
    Ok(start)
}

fn run(start: &mut Command, options: Option<&Any>) -> Result<Outcome> {
    let input = options.map(Message::write_to_bytes).transpose()?;
    ended_well(start, input.unwrap_or_default())
}

fn ended_well(start: &mut Command, input: Vec<u8>) -> Result<Outcome> {
    let outcome = Running::start_with(start, input)?.wait(SOON)?;
    ensure!(outcome.code == 0, "{}", outcome.err());
    Ok(outcome)
}

/// The exchange of containerd 2.3 and later: messages both ways, and nothing in the environment.
fn bootstrap(
    start: &mut Command,
    spec: &Spec,
    node: &Node,
    events: &Events,
    change: fn(&mut BootstrapParams),
) -> Result<(String, i64)> {
    let places = node.scratch().places();
    let mut params = BootstrapParams {
        instance_id: spec.id().to_owned(),
        namespace: places.name().to_owned(),
        containerd_ttrpc_address: events.address().to_owned(),
        containerd_grpc_address: places.run().join("containerd.sock").display().to_string(),
        containerd_binary: "/bin/true".to_owned(),
        ..Default::default()
    };
    change(&mut params);
    for name in ["TTRPC_ADDRESS", "GRPC_ADDRESS", "MAX_SHIM_VERSION"] {
        start.env_remove(name);
    }
    let outcome = ended_well(start, params.write_to_bytes()?)?;
    let result = BootstrapResult::parse_from_bytes(&outcome.stdout)?;
    ensure!(result.protocol == "ttrpc", "{result:?}");
    Ok((result.address, i64::from(result.version)))
}

/// Address and version of the task service: a plain address, which means 2, or JSON with both.
fn answer(started: &Outcome) -> Result<(String, i64)> {
    let text = started.out();
    if !text.starts_with('{') {
        return Ok((text, 2));
    }
    let value: serde_json::Value = serde_json::from_str(&text)?;
    let address = value.get("address").and_then(serde_json::Value::as_str);
    let version = value.get("version").and_then(serde_json::Value::as_i64);
    let both = address.map(str::to_owned).zip(version);
    both.with_context(|| format!("no address and version in {text}"))
}

/// Where a folder of `/proc` shows how many descriptors a process has.
pub(crate) fn descriptors(pid: Pid) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}
