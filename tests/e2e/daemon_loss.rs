//! The daemon dies, hangs, or is restarted under load; and a shim dies.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lazaret_tests::command::{LIMIT, Outcome, Running};
use lazaret_tests::node::Node;
use lazaret_tests::run::{LAZARET, Run, STOCK};
use lazaret_tests::wait;
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::bad_input::container;
use crate::case::Case;
use crate::check::did_not_run;
use crate::world::{EVIL, EVIL_IMAGE, IMAGE, INSIDE, World};

pub(crate) const CASES: &[Case] = &[
    Case::alone("daemon::killed_in_a_storm_closed", killed_closed),
    Case::alone("daemon::killed_in_a_storm_open", killed_open),
    Case::alone("daemon::stopped_is_ended_by_its_watchdog", stopped),
    Case::alone("daemon::planned_restart_under_load", planned_restart),
    Case::alone("daemon::second_one_is_refused", second_daemon),
    Case::alone("shim::killed_as_with_the_stock_one", killed_shim),
];

/// A second daemon may wait for the first one to leave: it could be its successor.
const SUCCESSION: Duration = Duration::from_secs(40);
/// How long an opener may wait, whatever happens to the daemon.
const WAIT: Duration = Duration::from_millis(100);
const STORM: u64 = 6;
/// The storm is at its height.
const WARM: Duration = Duration::from_secs(2);
/// How long the daemon is away.
const AWAY: Duration = Duration::from_secs(1);

/// Opens clean files and executes listed ones, both without a pause.
struct Storm {
    id: String,
    opens: Running,
    execs: Running,
}

/// What came of a storm, as the helper tells.
struct Tally(Value);

impl Storm {
    fn start(node: &Node) -> Result<Self> {
        let id = node.id("storm");
        node.detach(&Run::new(&id, IMAGE).args(&["/bin/sleep", "600"]))?;
        node.exec(&id, &[INSIDE, "fill", "/tmp/storm", "64"])?.ok()?;
        let seconds = STORM.to_string();
        let start = |name, words: [&str; 3]| {
            let words = [words.as_slice(), &[&seconds, "8"]].concat();
            Running::start(&mut node.exec_command(name, &id, &words))
        };
        let opens = start("opens", [INSIDE, "opens", "/tmp/storm"])?;
        let execs = start("execs", [INSIDE, "execs", EVIL])?;
        std::thread::sleep(WARM);
        Ok(Self { id, opens, execs })
    }

    fn end(self) -> Result<(Tally, Tally)> {
        let tally = |outcome: Outcome| Ok(Tally(serde_json::from_str(&outcome.ok()?)?));
        let opens: Result<Tally> = tally(self.opens.wait(LIMIT)?);
        let execs: Result<Tally> = tally(self.execs.wait(LIMIT)?);
        Ok((opens?, execs?))
    }
}

impl Tally {
    fn count(&self, what: &str) -> u64 {
        self.0.get(what).and_then(Value::as_u64).unwrap_or_default()
    }

    fn wait(&self, which: &str) -> Duration {
        Duration::from_micros(self.count(which))
    }

    fn nothing_failed(&self) -> Result<()> {
        let failed = self.0.get("failed").and_then(Value::as_array);
        ensure!(
            failed.is_some_and(Vec::is_empty),
            "neither done nor denied: {}",
            self.0
        );
        Ok(())
    }
}

fn killed_closed(world: &World) -> Result<()> {
    let mut node = world.own_node("[guard]\non_daemon_loss = \"closed\"")?;
    let storm = Storm::start(&node)?;
    let id = storm.id.clone();
    node.daemon_mut()?.kill()?;
    std::thread::sleep(AWAY);
    node.daemon_mut()?.resume()?;
    let (opens, execs) = storm.end()?;
    opens.nothing_failed()?;
    ensure!(opens.count("denied") > 0, "closed must deny: {}", opens.0);
    ensure!(execs.count("done") == 0, "a listed file ran: {}", execs.0);
    ensure!(opens.wait("p99_us") <= WAIT, "openers waited: {}", opens.0);
    works_again(&node, &id)
}

fn killed_open(world: &World) -> Result<()> {
    let mut node = world.own_node("[guard]\non_daemon_loss = \"open\"")?;
    let storm = Storm::start(&node)?;
    let id = storm.id.clone();
    node.daemon_mut()?.kill()?;
    std::thread::sleep(AWAY);
    node.daemon_mut()?.resume()?;
    let (opens, execs) = storm.end()?;
    opens.nothing_failed()?;
    ensure!(opens.count("denied") == 0, "open must allow: {}", opens.0);
    ensure!(opens.wait("p99_us") <= WAIT, "openers waited: {}", opens.0);
    // What ran while nobody judged is on record: the gap at least.
    let container = container(&node, &id)?;
    let gap = container.get("gap").is_some_and(|gap| !gap.is_null());
    ensure!(
        gap,
        "no gap on record ({} execs ran): {container}",
        execs.count("done")
    );
    works_again(&node, &id)
}

/// Both the old container and a new one are guarded.
fn works_again(node: &Node, id: &str) -> Result<()> {
    wait::until_true(
        "the container to be guarded again",
        Duration::from_secs(20),
        || {
            let state = container(node, id)
                .ok()
                .and_then(|found| Some(found.get("state")?.as_str()? == "guarded"));
            state == Some(true)
        },
    )?;
    ensure!(
        node.exec(id, &["/bin/echo", "clean"])?.ok()? == "clean",
        "a clean exec must work"
    );
    let denied = node.exec(id, &[EVIL, "-c", "echo THE-MALWARE-RAN"])?;
    ensure!(denied.code != 0, "the old container is unguarded");
    did_not_run(&denied)?;
    did_not_run(&node.run(&Run::new(&node.id("after"), EVIL_IMAGE))?)?;
    node.remove(id)
}

fn stopped(world: &World) -> Result<()> {
    let deadline = Duration::from_secs(2);
    let mut node = world.own_node("[scan]\ntimeout = \"1s\"\n[watchdog]\ndeadline = \"2s\"")?;
    let storm = Storm::start(&node)?;
    let id = storm.id.clone();
    let since = Instant::now();
    node.daemon_mut()?.signal(Signal::SIGSTOP)?;
    node.daemon_mut()?
        .wait_end(deadline * 4)
        .context("the watchdog slept, too")?;
    let took = since.elapsed();
    node.daemon_mut()?.resume()?;
    let (opens, execs) = storm.end()?;
    opens.nothing_failed()?;
    ensure!(execs.count("done") == 0, "a listed file ran: {}", execs.0);
    // Those that asked just before it stopped wait for the whole deadline, and no longer.
    ensure!(
        opens.wait("max_us") <= deadline * 3,
        "ended after {took:?}: {}",
        opens.0
    );
    works_again(&node, &id)
}

fn planned_restart(world: &World) -> Result<()> {
    let mut node = world.own_node("")?;
    let storm = Storm::start(&node)?;
    let id = storm.id.clone();
    node.daemon_mut()?.stop()?;
    node.daemon_mut()?.resume()?;
    let (opens, execs) = storm.end()?;
    opens.nothing_failed()?;
    ensure!(
        opens.count("denied") == 0,
        "a planned restart denied clean files: {}",
        opens.0
    );
    ensure!(
        execs.count("done") == 0,
        "a listed file ran unjudged: {}",
        execs.0
    );
    execs.nothing_failed()?;
    let container = container(&node, &id)?;
    ensure!(
        container.get("gap").is_none_or(Value::is_null),
        "a gap: {container}"
    );
    works_again(&node, &id)
}

/// Two daemons would read one group: the second one must not start, nor harm the first.
fn second_daemon(world: &World) -> Result<()> {
    let node = world.own_node("")?;
    let config = crate::world::config_of(&node);
    let mut second = std::process::Command::new(world.binaries()?.daemon());
    second
        .arg("--config")
        .arg(config)
        .env(lazaret_tests::scratch::MARK, node.scratch().places().name());
    let outcome = Running::start(&mut second)?.wait(SUCCESSION)?;
    ensure!(outcome.code != 0, "it started: {outcome:?}");
    did_not_run(&node.run(&Run::new(&node.id("after"), EVIL_IMAGE))?)
}

/// How a container ends whose shim was killed, as a client of containerd sees it.
#[derive(Debug, PartialEq)]
struct Ending {
    status: Option<String>,
    delete_code: i32,
    init_gone: bool,
    cgroup_gone: bool,
    client_code: i32,
}

fn killed_shim(world: &World) -> Result<()> {
    let node = world.node()?;
    let (ours, stock) = (kill_shim(&node, LAZARET)?, kill_shim(&node, STOCK)?);
    ensure!(ours == stock, "ours: {ours:?}\nstock: {stock:?}");
    ensure!(ours.init_gone && ours.cgroup_gone, "{ours:?}");
    // Nothing of it hangs on in the daemon, and the next container is guarded.
    did_not_run(&node.run(&Run::new(&node.id("after"), EVIL_IMAGE))?)
}

fn kill_shim(node: &Node, runtime: &str) -> Result<Ending> {
    let id = node.id("orphan");
    let client = node.spawn(&Run::new(&id, IMAGE).runtime(runtime).args(&["/bin/sleep", "600"]))?;
    node.wait_executed(&id)?;
    let init = node.task_pid(&id)?.context("no init")?;
    for shim in node.shims_of(&id) {
        kill(shim, Signal::SIGKILL)?;
    }
    let soon = Duration::from_secs(20);
    let init_gone = wait::until_true("init to end", soon, || !lazaret_tests::procs::alive(init)).is_ok();
    let client_code = client.wait(soon).map_or(-1, |outcome| outcome.code);
    let cgroup_gone = wait::until_true("the cgroup to go", soon, || {
        !node.cgroups().iter().any(|dir| dir.ends_with(&id))
    });
    let status = node.task_status(&id)?;
    let delete_code = node.ctr(&["task", "delete", &id])?.code;
    node.ctr(&["container", "delete", &id])?;
    Ok(Ending {
        status,
        delete_code,
        init_gone,
        cgroup_gone: cgroup_gone.is_ok(),
        client_code,
    })
}
