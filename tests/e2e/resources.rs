//! What a container may use, what it uses, and what happens when that is too much: asked of the
//! shims themselves, because `ctr` shows less than they say.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use containerd_shim_protos::api::{StatsRequest, StatsResponse, UpdateTaskRequest};
use containerd_shim_protos::cgroups::metrics::Metrics as V1;
use containerd_shim_protos::cgroups_v2::metrics::Metrics as V2;
use containerd_shim_protos::protobuf::reflect::{ReflectFieldRef, ReflectValueRef};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageDyn, MessageField};
use containerd_shim_protos::ttrpc::{self, Client};
use lazaret_tests::node::Node;
use lazaret_tests::run::{LAZARET, Run, STOCK};
use lazaret_tests::{sweep, wait};

use crate::case::Case;
use crate::world::{IMAGE, World};

pub(crate) const CASES: &[Case] = &[
    Case::shared("resources::statistics_like_stock", statistics),
    Case::shared("resources::update_reaches_the_cgroup", update),
    Case::shared("resources::end_of_memory_is_told", out_of_memory),
];

const SOON: Duration = Duration::from_secs(30);
const MIB: u64 = 1 << 20;
const LIMIT: u64 = 64 * MIB;
/// Some work for the processor and for memory, always the same, and then none.
const WORK: &str = "dd if=/dev/zero of=/tmp/file bs=1M count=8 2>/dev/null; i=0; \
    while [ $i -lt 300000 ]; do i=$((i+1)); done; touch /ready; sleep 600";

fn statistics(world: &World) -> Result<()> {
    let node = world.node()?;
    let [ours, stock] = [LAZARET, STOCK].map(|runtime| measure(&node, runtime));
    let (ours, stock) = (ours?, stock?);
    ensure!(
        ours.contains_key("cpu.usage.total") || ours.contains_key("cpu.usage_usec"),
        "no time of the processor: {ours:#?}"
    );
    for name in ours.keys().chain(stock.keys()) {
        let value = |all: &BTreeMap<String, f64>| all.get(name).copied().unwrap_or_default();
        let (ours, stock) = (value(&ours), value(&stock));
        ensure!(
            alike(name, ours, stock),
            "{name}: {ours}, and under the stock runtime {stock}"
        );
    }
    Ok(())
}

/// Limits are the same, and so is what is told at all; of what two containers use, the order of
/// magnitude is. Which processor ran them, who came first to read a program from the disk, and
/// which pages the kernel takes for active is chance.
fn alike(name: &str, ours: f64, stock: f64) -> bool {
    let chance = ["blkio.io_", "io.usage", "cpu.usage.per_cpu["];
    let noise = match name {
        name if chance.iter().any(|part| name.starts_with(part)) || name.contains("active_") => return true,
        name if name.ends_with(['.', '#']) || name.contains("limit") => 0.0,
        name if name.starts_with("memory.") => 4.0 * MIB as f64,
        name if name.starts_with("cpu.") => 2e8,
        _ => 0.0,
    };
    let near = ours < 4.0 * stock && stock < 4.0 * ours;
    ours == stock || noise > 0.0 && (near || (ours - stock).abs() < noise)
}

fn measure(node: &Node, runtime: &str) -> Result<BTreeMap<String, f64>> {
    let id = node.id("stats");
    let run = Run::new(&id, IMAGE).runtime(runtime).tmpfs("/tmp");
    let run = run
        .option("--memory-limit", &LIMIT.to_string())
        .option("--cpus", "0.7");
    node.detach(&run.sh(WORK))?;
    wait::until_true("the work to be done", SOON, || {
        let ready = node.exec(&id, &["/bin/test", "-e", "/ready"]);
        ready.is_ok_and(|outcome| outcome.code == 0)
    })?;
    let request = StatsRequest {
        id: id.clone(),
        ..Default::default()
    };
    let stats = call(node, &id, "Stats", &request)?;
    let stats = StatsResponse::parse_from_bytes(&stats)?.stats.unwrap_or_default();
    let mut numbers = BTreeMap::new();
    match stats.type_url.as_str() {
        "io.containerd.cgroups.v1.Metrics" => flatten(&V1::parse_from_bytes(&stats.value)?, "", &mut numbers),
        "io.containerd.cgroups.v2.Metrics" => flatten(&V2::parse_from_bytes(&stats.value)?, "", &mut numbers),
        other => bail!("{runtime}: statistics of type {other}"),
    }
    // containerd understands them, too.
    node.ctr(&["task", "metrics", &id])?.ok()?;
    node.remove(&id)?;
    Ok(numbers)
}

/// Every number of a message under its path, every message in it (`.`), and how many there are of
/// what is repeated (`#`).
fn flatten(message: &dyn MessageDyn, path: &str, numbers: &mut BTreeMap<String, f64>) {
    for field in message.descriptor_dyn().fields() {
        let path = format!("{path}{}", field.name());
        match field.get_reflect(message) {
            ReflectFieldRef::Optional(value) => {
                if let Some(value) = value.value() {
                    add(value, path, numbers);
                }
            }
            ReflectFieldRef::Repeated(values) => {
                let count = values.len();
                for (index, value) in values.into_iter().enumerate() {
                    add(value, format!("{path}[{index}]"), numbers);
                }
                numbers.insert(format!("{path}#"), count as f64);
            }
            ReflectFieldRef::Map(_) => {}
        }
    }
}

fn add(value: ReflectValueRef<'_>, path: String, numbers: &mut BTreeMap<String, f64>) {
    match value {
        ReflectValueRef::Message(message) => {
            let path = format!("{path}.");
            flatten(&*message, &path, numbers);
            numbers.insert(path, 1.0);
        }
        ReflectValueRef::U64(number) => drop(numbers.insert(path, number as f64)),
        ReflectValueRef::U32(number) => drop(numbers.insert(path, f64::from(number))),
        ReflectValueRef::F64(number) => drop(numbers.insert(path, number)),
        // Names of devices and sizes of pages.
        other => drop(numbers.insert(format!("{path}={other}"), 0.0)),
    }
}

fn update(world: &World) -> Result<()> {
    let node = world.node()?;
    for runtime in [LAZARET, STOCK] {
        let id = node.id("update");
        let run = Run::new(&id, IMAGE).runtime(runtime).args(&["/bin/sleep", "600"]);
        node.detach(&run.option("--memory-limit", &LIMIT.to_string()))?;
        ensure!(memory_limit(&node, &id)? == LIMIT, "{runtime}");
        let request = |resources: &str| UpdateTaskRequest {
            id: id.clone(),
            resources: MessageField::some(Any {
                type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".into(),
                value: resources.into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let lower = format!(
            r#"{{"memory": {{"limit": {}}}, "pids": {{"limit": 77}}}}"#,
            LIMIT / 2
        );
        call(&node, &id, "Update", &request(&lower)).context(runtime)?;
        ensure!(memory_limit(&node, &id)? == LIMIT / 2, "{runtime}");
        ensure!(limit(&node, &id, &["pids.max"])? == 77, "{runtime}");
        let broken = call(&node, &id, "Update", &request("{"));
        ensure!(broken.is_err(), "{runtime}: it took what is no JSON");
        ensure!(memory_limit(&node, &id)? == LIMIT / 2, "{runtime}");
        node.remove(&id)?;
    }
    Ok(())
}

fn memory_limit(node: &Node, id: &str) -> Result<u64> {
    limit(node, id, &["memory.limit_in_bytes", "memory.max"])
}

/// A limit as the container's cgroup has it, by the file's name in either version.
fn limit(node: &Node, id: &str, names: &[&str]) -> Result<u64> {
    let own = node.cgroups().into_iter().filter(|dir| dir.ends_with(id));
    let mut files = own.flat_map(|dir| names.iter().map(move |name| dir.join(name)));
    let text = files.find_map(|file| fs::read_to_string(file).ok());
    Ok(text.context("its cgroup has no such file")?.trim().parse()?)
}

/// The stock runtime is no measure here: it was seen to tell one, two and three, and to lose the
/// last event of a container on a busy machine.
fn out_of_memory(world: &World) -> Result<()> {
    let node = world.node()?;
    let watch = Events::of(&node)?;
    let id = node.id("oom");
    let run = Run::new(&id, IMAGE).option("--memory-limit", &(24 * MIB).to_string());
    // A container whose memory ends twice, and its shell survives both.
    let outcome = node.run(&run.sh("tail /dev/zero; sleep 1; tail /dev/zero; sleep 1; exit 7"))?;
    ensure!(outcome.code == 7, "{outcome:?}");
    let of_it = |topic: &str| {
        let text = watch.text();
        let lines = text.lines();
        lines
            .filter(|line| line.contains(topic) && line.contains(&id))
            .count()
    };
    wait::until_true("the container's last event", SOON, || of_it("/tasks/delete") > 0)
        .with_context(|| watch.text())?;
    let told = of_it("/tasks/oom");
    ensure!(told == 2, "told {told} times: {}", watch.text());
    Ok(())
}

/// A running `ctr events`.
struct Events {
    ctr: Child,
    file: std::path::PathBuf,
}

impl Events {
    /// Returns when events arrive.
    fn of(node: &Node) -> Result<Self> {
        let file = node.scratch().places().run().join(node.id("events"));
        let mut ctr = node.containerd().ctr();
        let ctr = ctr
            .arg("events")
            .stdin(Stdio::null())
            .stdout(File::create(&file)?);
        let this = Self {
            ctr: ctr.stderr(Stdio::null()).spawn()?,
            file,
        };
        let name = node.scratch().places().name();
        wait::until_true("the first event", SOON, || {
            let change = node.ctr(&["namespaces", "label", name, "watched=yes"]);
            change.is_ok() && !this.text().is_empty()
        })?;
        Ok(this)
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.file).unwrap_or_default()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.ctr.kill().unwrap_or_default();
        drop(self.ctr.wait());
    }
}

/// Calls the task service of a container's shim, by the name that the stock shim of this
/// containerd has it under.
fn call(node: &Node, id: &str, method: &str, request: &impl Message) -> Result<Vec<u8>> {
    let socket = sweep::shim_socket(&node.containerd().bundle(id)).context("its bundle names no socket")?;
    let client = Client::connect(&format!("unix://{}", socket.display()))?;
    let version = if node.containerd().release().series.starts_with("1.") {
        2
    } else {
        3
    };
    let call = ttrpc::Request {
        service: format!("containerd.task.v{version}.Task"),
        method: method.to_owned(),
        timeout_nano: i64::try_from(SOON.as_nanos())?,
        payload: request.write_to_bytes()?,
        ..Default::default()
    };
    Ok(client.request(call)?.payload)
}
