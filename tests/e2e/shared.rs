//! File systems that containers share with the host: they are judged there, the host never is.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lazaret_tests::command::{self, Outcome, Running};
use lazaret_tests::malware::{EFFECT, Malware};
use lazaret_tests::node::Node;
use lazaret_tests::run::{Run, STOCK};
use lazaret_tests::{mounts, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::bad_input::container;
use crate::case::Case;
use crate::check::{denial, drop_file, effect, was_denied};
use crate::world::{IMAGE, INSIDE, World, dropped, evil};

pub(crate) const CASES: &[Case] = &[
    Case::shared("shared::dropped_by_the_container_denied", dropped_by_container),
    Case::shared("shared::put_there_by_the_host_denied", put_there_by_host),
    Case::shared("shared::two_policies_on_one_volume", two_policies),
    Case::shared("shared::off_is_told", off),
    Case::alone("shared::layers_are_not_asked_about", layers),
    Case::alone("shared::a_stopped_daemon_does_not_stop_the_host", stopped),
    Case::alone("shared::a_flood_does_not_hold_up_the_host", flood),
    Case::alone("shared::a_service_of_the_host_asks_once", service),
    Case::alone("shared::nothing_is_left", nothing_left),
    Case::alone("shared::on_the_root_file_system", root_file_system),
];

const SOON: Duration = Duration::from_secs(10);
/// Where containers see the volume.
const VOLUME: &str = "/volume";
const DENY: (&str, &str) = ("--annotation", "lazaret.io/drift=deny");

/// A file system of the host that is lent to containers.
struct Volume(PathBuf);

impl Volume {
    /// A small one of its own: nothing else of the machine is on it.
    fn new(node: &Node) -> Result<Self> {
        let volume = Self(node.scratch().places().disk().join(node.id("volume")));
        fs::create_dir(&volume.0)?;
        let mount = ["-t", "tmpfs", "-o", "size=64m,mode=1777", "tmpfs"];
        command::check(Command::new("mount").args(mount).arg(&volume.0))?;
        Ok(volume)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn put(&self, name: &str, program: &Malware) -> Result<()> {
        fs::write(self.path(name), &program.content)?;
        Ok(fs::set_permissions(
            self.path(name),
            fs::Permissions::from_mode(0o755),
        )?)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // What stays is swept with the node.
        mounts::detach_below(&self.0);
    }
}

/// A container with the volume that does nothing of its own accord.
struct Lent<'a> {
    node: &'a Node,
    id: String,
}

impl<'a> Lent<'a> {
    fn start(node: &'a Node, volume: &Path, options: &[(&str, &str)]) -> Result<Self> {
        let id = node.id("shared");
        let run = Run::new(&id, IMAGE).bind(volume, VOLUME);
        let run = options
            .iter()
            .fold(run, |run, (name, value)| run.option(name, value));
        node.detach(&run.args(&["/bin/sleep", "600"]))?;
        Ok(Self { node, id })
    }

    fn shell(&self, script: &str) -> Result<Outcome> {
        self.node.exec(&self.id, &["/bin/sh", "-c", script])
    }

    fn end(self) -> Result<()> {
        self.node.remove(&self.id)
    }
}

/// `cat` of a file, as a service does it that has a mount namespace of its own.
fn private(path: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["-m", "cat"]).arg(path);
    command
}

/// Reads a file of the host from its beginning so many times.
fn read_often(path: &Path, times: usize) -> Result<Duration> {
    let began = Instant::now();
    for _ in 0..times {
        let mut byte = [0];
        File::open(path)?.read_exact(&mut byte)?;
    }
    Ok(began.elapsed())
}

fn counter(node: &Node, name: &str) -> Result<u64> {
    let status = node.daemon()?.status()?;
    let counter = status.pointer(&format!("/counters/{name}"));
    counter.and_then(Value::as_u64).context("no such counter")
}

fn mount_points(container: &Value, key: &str) -> Vec<String> {
    let superblocks = container.get(key).and_then(Value::as_array);
    let points = superblocks.into_iter().flatten();
    let points = points.filter_map(|superblock| superblock.get("mount_point")?.as_str());
    points.map(str::to_owned).collect()
}

/// Most often the layers of containers lie where the volumes do. What is sealed is not asked about
/// all the same, and a container that is not guarded is let go on by the kernel.
fn layers(world: &World) -> Result<()> {
    const OPENS: u64 = 1000;
    let node = world.own_node("")?;
    let folder = node.scratch().places().disk().join("below-layers");
    fs::create_dir(&folder)?;
    let lent = Lent::start(&node, &folder, &[])?;
    let status = container(&node, &lent.id)?;
    ensure!(
        mount_points(&status, "node_guarded").contains(&VOLUME.into()),
        "{status}"
    );
    let bystander = node.id("bystander");
    let stock = Run::new(&bystander, IMAGE).runtime(STOCK);
    node.detach(&stock.args(&["/bin/sleep", "600"]))?;
    // Of the image, and in the layer of the container.
    let files = "/bin/busybox /opt/own";
    let read = |times: u64| {
        format!(
            "i=0; while [ $i -lt {times} ]; do for file in {files}; do read -n 1 byte < $file; done; i=$((i + 1)); done"
        )
    };
    let few = format!("cp /bin/busybox /opt/own; {}; sleep 1; {}", read(5), read(5));
    let asked = |id: &str, counter: &dyn Fn() -> Result<u64>| -> Result<u64> {
        node.exec(id, &["/bin/sh", "-c", &few])?.ok()?;
        let before = counter()?;
        node.exec(id, &["/bin/sh", "-c", &read(OPENS)])?.ok()?;
        Ok(counter()? - before)
    };
    // To start what reads them takes some, too.
    let within = asked(&lent.id, &|| events_of(&node, &lent.id))?;
    ensure!(within < OPENS / 5, "asked {within} times about what is sealed");
    let outside = asked(&bystander, &|| counter(&node, "bystanders"))?;
    ensure!(
        outside < OPENS / 5,
        "asked {outside} times about one that is not guarded"
    );
    node.remove(&bystander)?;
    lent.end()
}

fn events_of(node: &Node, id: &str) -> Result<u64> {
    let status = container(node, id)?;
    let events = status.pointer("/events").and_then(Value::as_u64);
    events.with_context(|| format!("no events in {status}"))
}

fn dropped_by_container(world: &World) -> Result<()> {
    let node = world.node()?;
    let volume = Volume::new(&node)?;
    let lent = Lent::start(&node, &volume.0, &[])?;
    let status = container(&node, &lent.id)?;
    ensure!(
        mount_points(&status, "node_guarded") == [VOLUME] && mount_points(&status, "shared").is_empty(),
        "{status}"
    );
    let path = format!("{VOLUME}/sh");
    let clean = format!("cp /bin/busybox {path}; {path} -c 'echo fine'");
    ensure!(lent.shell(&clean)?.ok()? == "fine", "what is clean runs");
    was_denied(&lent.shell(&format!("{}; {}", drop_file(&path), effect(&path)))?)?;
    let incident = denial(&node, &lent.id, &dropped()?.sha256)?;
    ensure!(incident.text("/file/path") == path, "{incident:?}");
    lent.end()
}

fn put_there_by_host(world: &World) -> Result<()> {
    let node = world.node()?;
    let volume = Volume::new(&node)?;
    let lent = Lent::start(&node, &volume.0, &[])?;
    volume.put("sh", &evil()?)?;
    was_denied(&lent.shell(&effect(&format!("{VOLUME}/sh")))?)?;
    denial(&node, &lent.id, &evil()?.sha256)?;
    let read = lent.shell(&format!("cat {VOLUME}/sh | wc -c"))?;
    was_denied(&read)?;
    ensure!(read.out() == "0", "{read:?}");

    // The host does with it what it likes, by its own mount and by others.
    ensure!(fs::read(volume.path("sh"))? == evil()?.content);
    for _ in 0..20 {
        let seen = command::run(&mut private(&volume.path("sh")))?;
        seen.ok()?;
        ensure!(seen.stdout == evil()?.content, "the host was denied");
    }
    let ran = command::run(Command::new(volume.path("sh")).args(["-c", &format!("echo {EFFECT}")]))?;
    ensure!(ran.ok()? == EFFECT, "the host was denied");
    lent.end()
}

fn two_policies(world: &World) -> Result<()> {
    let node = world.node()?;
    let volume = Volume::new(&node)?;
    let strict = Lent::start(&node, &volume.0, &[DENY])?;
    let lax = Lent::start(&node, &volume.0, &[])?;
    let path = format!("{VOLUME}/sh");
    lax.shell(&format!("cp /bin/busybox {path} && echo more >> {path}"))?
        .ok()?;
    let run = format!("{path} -c 'echo ran'");
    for _ in 0..3 {
        ensure!(lax.shell(&run)?.ok()? == "ran", "drift is an alert by default");
        was_denied(&strict.shell(&run)?)?;
    }
    for (lent, action) in [(&strict, "deny"), (&lax, "alert")] {
        let incidents = node.incidents_of(&lent.id)?;
        let mut drifts = incidents
            .iter()
            .filter(|incident| incident.text("/rule") == "Drift");
        let drift = drifts.next().context("no drift was told")?;
        ensure!(drift.text("/action") == action, "{drift:?}");
    }
    // The volume stays guarded for the one who stays.
    lax.end()?;
    was_denied(&strict.shell(&run)?)?;
    strict.end()
}

fn off(world: &World) -> Result<()> {
    let node = world.own_node("[guard]\nshared = false")?;
    let volume = Volume::new(&node)?;
    let lent = Lent::start(&node, &volume.0, &[])?;
    let status = container(&node, &lent.id)?;
    ensure!(mount_points(&status, "shared") == [VOLUME], "{status}");
    let reason = status.pointer("/shared/0/reason").and_then(Value::as_str);
    ensure!(reason == Some("guard.shared is off"), "{status}");
    volume.put("sh", &evil()?)?;
    let ran = lent.shell(&effect(&format!("{VOLUME}/sh")))?;
    ensure!(ran.ok()? == EFFECT, "{ran:?}");
    lent.end()
}

fn stopped(world: &World) -> Result<()> {
    let mut node = world.own_node("")?;
    let volume = Volume::new(&node)?;
    volume.put("sh", &evil()?)?;
    let before = read_often(&volume.path("sh"), 1000)?;
    let lent = Lent::start(&node, &volume.0, &[])?;
    was_denied(&lent.shell(&effect(&format!("{VOLUME}/sh")))?)?;
    let id = lent.id;

    node.daemon_mut()?.signal(Signal::SIGSTOP)?;
    let during = read_often(&volume.path("sh"), 1000);
    node.daemon_mut()?.signal(Signal::SIGCONT)?;
    let during = during?;
    ensure!(
        during < Duration::from_millis(500),
        "the host waited: {during:?} for 1000 opens, {before:?} without a mark"
    );
    ensure!(node.daemon_mut()?.alive(), "the daemon has ended");
    node.remove(&id)
}

/// Many openers of a container, and one of the host by a mount that is not known yet.
fn flood(world: &World) -> Result<()> {
    const THREADS: &str = "400";
    let node = world.own_node("")?;
    let volume = Volume::new(&node)?;
    let lent = Lent::start(&node, &volume.0, &[])?;
    let folder = format!("{VOLUME}/flood");
    node.exec(&lent.id, &[INSIDE, "fill", &folder, "64"])?.ok()?;
    fs::write(volume.path("file"), "content")?;
    let words = [INSIDE, "opens", &folder, "4", THREADS];
    let storm = Running::start(&mut node.exec_command("flood", &lent.id, &words))?;
    thread::sleep(Duration::from_secs(1));
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        let seen = command::run(&mut private(&volume.path("file")))?;
        ensure!(seen.ok()? == "content", "the host was denied");
        longest = longest.max(seen.took);
    }
    let tally: Value = serde_json::from_str(&storm.wait(SOON)?.ok()?)?;
    ensure!(
        longest < Duration::from_secs(1),
        "the host waited {longest:?}: {tally}"
    );
    ensure!(
        tally.pointer("/done").and_then(Value::as_u64) > Some(100),
        "{tally}"
    );
    lent.end()
}

/// What has a mount namespace of its own is spared from its first open on.
fn service(world: &World) -> Result<()> {
    const OPENS: u64 = 500;
    let node = world.own_node("")?;
    let volume = Volume::new(&node)?;
    fs::write(volume.path("file"), "content\n")?;
    let lent = Lent::start(&node, &volume.0, &[])?;
    let before = counter(&node, "bystanders")?;
    let file = volume.path("file");
    let script = format!(
        "read line < {file}; sleep 1; i=0; while [ $i -lt {OPENS} ]; do read line < {file}; i=$((i + 1)); done; \
        echo $line",
        file = file.display()
    );
    let ran = command::run(Command::new("unshare").args(["-m", "sh", "-c", &script]))?;
    ensure!(ran.ok()? == "content", "{ran:?}");
    let asked = counter(&node, "bystanders")? - before;
    ensure!((1..OPENS / 5).contains(&asked), "asked {asked} times");
    // A process of the host within the container's namespace has nothing spared there.
    let init = node.task_pid(&lent.id)?.context("no init")?;
    let mut enter = Command::new("nsenter");
    enter.args(["-m", "-t", &init.to_string(), "cat"]);
    command::run(enter.arg(format!("{VOLUME}/file")))?.ok()?;
    thread::sleep(Duration::from_secs(1));
    volume.put("sh", &evil()?)?;
    was_denied(&lent.shell(&effect(&format!("{VOLUME}/sh")))?)?;
    lent.end()
}

/// Marks of this daemon's groups, as `/proc/PID/fdinfo` shows them (proc_pid_fdinfo(5)).
fn marks(node: &Node) -> Result<Vec<String>> {
    let pid = node.daemon()?.pid().context("no daemon")?;
    let mut marks = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A descriptor may be closed meanwhile.
        let info = fs::read_to_string(entry?.path()).unwrap_or_default();
        let lines = info.lines().filter(|line| line.starts_with("fanotify "));
        marks.extend(
            lines
                .filter(|line| !line.starts_with("fanotify flags:"))
                .map(str::to_owned),
        );
    }
    Ok(marks)
}

fn nothing_left(world: &World) -> Result<()> {
    let node = world.own_node("")?;
    let volume = Volume::new(&node)?;
    fs::write(volume.path("file"), "content")?;
    let (first, second) = (
        Lent::start(&node, &volume.0, &[])?,
        Lent::start(&node, &volume.0, &[])?,
    );
    let of_mounts = |marks: &[String]| marks.iter().any(|mark| mark.starts_with("fanotify mnt_id:"));
    ensure!(of_mounts(&marks(&node)?), "no mount of the host is spared");
    first.end()?;
    let before = counter(&node, "bystanders")?;
    command::run(&mut private(&volume.path("file")))?.ok()?;
    ensure!(
        counter(&node, "bystanders")? > before,
        "the first to end took the mark away"
    );
    second.end()?;
    wait::until_true("all marks to go", SOON, || {
        marks(&node).is_ok_and(|marks| marks.is_empty())
    })?;
    let before = counter(&node, "bystanders")?;
    command::run(&mut private(&volume.path("file")))?.ok()?;
    ensure!(counter(&node, "bystanders")? == before, "somebody asked");
    let unmounted = command::run(Command::new("umount").arg(&volume.0))?;
    ensure!(unmounted.code == 0, "something holds the volume: {unmounted:?}");
    Ok(())
}

/// Kills a daemon that has not been let off in time, by a call that opens nothing.
fn let_off(daemon: Pid, limit: Duration) -> mpsc::Sender<()> {
    let (off, waiting) = mpsc::channel();
    thread::spawn(move || {
        if waiting.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            kill(daemon, Signal::SIGKILL).unwrap_or_default();
        }
    });
    off
}

/// Every process of this machine lives on it.
fn root_file_system(world: &World) -> Result<()> {
    let node = world.own_node("")?;
    let folder = node.scratch().places().disk().join("on-root");
    fs::create_dir(&folder)?;
    let daemon = node.daemon()?.pid().context("no daemon")?;
    let _watched = let_off(daemon, 6 * SOON);
    let lent = Lent::start(&node, &folder, &[])?;
    let status = container(&node, &lent.id)?;
    ensure!(
        mount_points(&status, "node_guarded").contains(&VOLUME.into()),
        "{status}"
    );
    let path = format!("{VOLUME}/sh");
    was_denied(&lent.shell(&format!("{}; {}", drop_file(&path), effect(&path)))?)?;
    denial(&node, &lent.id, &dropped()?.sha256)?;
    let took = read_often(Path::new("/etc/passwd"), 1000)?;
    ensure!(took < Duration::from_millis(500), "the host waited: {took:?}");
    command::run(&mut private(Path::new("/etc/passwd")))?.ok()?;
    lent.end()
}
