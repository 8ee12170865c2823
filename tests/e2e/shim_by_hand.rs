//! A shim started as containerd starts it, so that a test can hand it what containerd never
//! would.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use containerd_shim_protos::api::{CreateTaskRequest, ShutdownRequest};
use containerd_shim_protos::ttrpc::context;
use containerd_shim_protos::{Client, TaskClient};
use lazaret_tests::command;
use lazaret_tests::node::Node;
use lazaret_tests::scratch::MARK;

use crate::world::{World, config_of};

const DEADLINE_NS: i64 = 30_000_000_000;

/// What the shim says to a bundle with this `config.json`, be it at its start or at Create.
///
/// An error here means that it took the bundle, or crashed.
pub(crate) fn refusal(world: &World, node: &Node, id: &str, config: Option<&str>) -> Result<String> {
    let bundle = node.scratch().places().run().join("by-hand").join(id);
    fs::create_dir_all(bundle.join("rootfs"))?;
    if let Some(config) = config {
        fs::write(bundle.join("config.json"), config)?;
    }
    let started = command::run(&mut start(world, node, id, &bundle)?)?;
    if started.code != 0 {
        return Ok(started.err());
    }
    let client = Client::connect(&address(&started.out())?).context("connecting to the shim")?;
    let task = TaskClient::new(client);
    let refusal = create(&task, id, &bundle);
    let shutdown = ShutdownRequest {
        id: id.to_owned(),
        ..Default::default()
    };
    // The connection may close before the answer.
    drop(task.shutdown(context::with_timeout(DEADLINE_NS), &shutdown));
    refusal
}

/// The command line and the environment that containerd gives a shim.
fn start(world: &World, node: &Node, id: &str, bundle: &Path) -> Result<Command> {
    let places = node.scratch().places();
    let socket = places.run().join("containerd.sock");
    let mut start = Command::new(world.binaries()?.dir().join("containerd-shim-lazaret-v1"));
    start
        .args(["-namespace", places.name(), "-id", id, "-address"])
        .arg(&socket);
    start
        .args(["-publish-binary", "/bin/true", "start"])
        .current_dir(bundle);
    start
        .env(MARK, places.name())
        .env("LAZARET_CONFIG", config_of(node));
    start.env("TTRPC_ADDRESS", format!("{}.ttrpc", socket.display()));
    start.env("PATH", node.containerd().search_path()?);
    Ok(start)
}

fn create(task: &TaskClient, id: &str, bundle: &Path) -> Result<String> {
    let request = CreateTaskRequest {
        id: id.to_owned(),
        bundle: bundle.display().to_string(),
        ..Default::default()
    };
    match task.create(context::with_timeout(DEADLINE_NS), &request) {
        Ok(reply) => bail!("created pid {} of a broken bundle", reply.pid),
        Err(error) => Ok(error.to_string()),
    }
}

/// A plain address, or JSON with one in it.
fn address(answer: &str) -> Result<String> {
    if !answer.starts_with('{') {
        return Ok(answer.to_owned());
    }
    let value: serde_json::Value = serde_json::from_str(answer)?;
    let address = value.get("address").and_then(serde_json::Value::as_str);
    Ok(address
        .with_context(|| format!("no address in {answer}"))?
        .to_owned())
}
