//! `cargo xtask bench shim`: what the shim costs, guards attached, beside the stock shim.

use std::fs;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lazaret_tests::binaries::Binaries;
use lazaret_tests::image::Image;
use lazaret_tests::node::Node;
use lazaret_tests::packages::Release;
use lazaret_tests::procs;
use lazaret_tests::run::{LAZARET, Run, STOCK};
use lazaret_tests::{interrupt, ui, wait};
use nix::unistd::Pid;

use super::report::{self, Better, Row, Software};
use super::stats::Summary;
use crate::elevate;

const IMAGE: &str = "lazaret.test/bench:1";
/// 200 MB, of which a start opens every file.
const LARGE_IMAGE: &str = "lazaret.test/bench-large:1";
const FILES: usize = 500;
const FILE: usize = 400 << 10;
const OPEN_ALL: &str = "for file in /data/*; do read -r line < $file; done";

const WARM_UP: u32 = 3;
/// A shim frees what its start took only a moment later.
const SETTLE: Duration = Duration::from_secs(2);
/// Many at once, and by how many clients.
const MANY: u32 = 100;
const CLIENTS: u32 = 10;
/// Containers of a large pod.
const PODFUL: u32 = 5;
/// How long an idle shim is watched.
const IDLE: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(60);

const SAME_TIME: f64 = 1.0;
const A_THIRD: f64 = 1.0 / 3.0;
const NONE: f64 = 0.0;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    start: Start,
    /// Rounds of 100 containers by 10 clients, on each side
    #[arg(long, default_value_t = 3)]
    crowds: u32,
}

#[derive(clap::Args)]
pub(crate) struct Start {
    /// Starts (and execs) on each side
    #[arg(short, default_value_t = 40)]
    n: u32,
    /// Pods weighed on each side
    #[arg(long, default_value_t = 5)]
    pods: u32,
    /// containerd series
    #[arg(long, default_value_t = Release::newest().series.to_owned())]
    containerd: String,
}

/// All that a shim costs.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let Args { start, crowds } = args;
    elevate::with_root(|binaries| {
        let release = Release::find(&start.containerd)?;
        measure("shim", start, binaries, |table| {
            table.starts(start.n)?;
            table.execs(start.n)?;
            table.crowds(*crowds)?;
            table.pods(1, start.pods)?;
            table.pods(PODFUL, start.pods)?;
            table.idle()?;
            table.sizes(binaries, release)
        })
    })
}

/// What is felt first: the time of a start, and the weight of one shim.
pub(crate) fn run_start(args: &Start) -> Result<ExitCode> {
    elevate::with_root(|binaries| {
        measure("start", args, binaries, |table| {
            table.starts(args.n)?;
            table.pods(1, args.pods)
        })
    })
}

fn measure(
    name: &'static str,
    args: &Start,
    binaries: &Binaries,
    fill: impl FnOnce(&mut Table<'_>) -> Result<()>,
) -> Result<ExitCode> {
    let node = Node::start(Release::find(&args.containerd)?, binaries, &toml::Table::new())?;
    node.import(&Image::busybox(IMAGE)?)?;
    let mut table = Table {
        node: &node,
        rows: Vec::new(),
    };
    fill(&mut table)?;
    nothing_unguarded(&node)?;
    let software = Software::from([("containerd", node.containerd().version()?)]);
    report::publish(name, software, &table.rows)?;
    Ok(ExitCode::SUCCESS)
}

/// What was measured on one node.
struct Table<'a> {
    node: &'a Node,
    rows: Vec<Row>,
}

impl Table<'_> {
    fn add(&mut self, name: impl Into<String>, unit: &'static str, both: (Summary, Summary), target: f64) {
        let row = Row::beside(name.into(), unit, both, STOCK, Better::Lower);
        self.rows.push(row.target(target));
    }

    fn starts(&mut self, n: u32) -> Result<()> {
        let start = |runtime| timed(self.node, runtime, "/bin/true", IMAGE);
        let both = in_turn("starts", n, WARM_UP, start)?;
        self.add("ctr run --rm /bin/true", "ms", both, SAME_TIME);
        Ok(())
    }

    fn execs(&mut self, n: u32) -> Result<()> {
        let execs = Execs::prepare(self.node)?;
        let both = in_turn("execs", n, WARM_UP, |runtime| execs.timed(self.node, runtime))?;
        execs.end(self.node)?;
        self.add("ctr task exec /bin/true", "ms", both, SAME_TIME);
        Ok(())
    }

    fn crowds(&mut self, rounds: u32) -> Result<()> {
        self.node.import(&large_image()?)?;
        let name = format!("{MANY} containers by {CLIENTS} clients");
        let files = format!("{name}, {FILES} files each");
        for (name, image, script) in [(name, IMAGE, "/bin/true"), (files, LARGE_IMAGE, OPEN_ALL)] {
            let both = in_turn(&name, rounds, 1, |runtime| {
                crowd(self.node, runtime, image, script)
            })?;
            self.add(name, "ms", both, SAME_TIME);
        }
        Ok(())
    }

    fn pods(&mut self, size: u32, pods: u32) -> Result<()> {
        let mut weights = Weights::default();
        for _ in 0..pods {
            weights.add(self.node, size)?;
        }
        let (pss, rss) = weights.both()?;
        self.add(format!("PSS of a shim, pod of {size}"), "KiB", pss, A_THIRD);
        self.add(format!("RSS of a shim, pod of {size}"), "KiB", rss, A_THIRD);
        Ok(())
    }

    fn idle(&mut self) -> Result<()> {
        let name = format!("wake-ups of an idle shim in {} s", IDLE.as_secs());
        let both = idle(self.node)?;
        self.add(name, "", both, NONE);
        Ok(())
    }

    fn sizes(&mut self, binaries: &Binaries, release: Release) -> Result<()> {
        self.add("size of the program", "KiB", sizes(binaries, release)?, A_THIRD);
        Ok(())
    }
}

fn large_image() -> Result<Image> {
    let files = (0..FILES).map(|number| {
        // All different: a verdict is remembered by content.
        let line = format!("file {number} of a large image\n");
        (format!("data/{number:03}"), line.repeat(FILE / line.len()))
    });
    let image = Image::busybox(LARGE_IMAGE)?;
    Ok(files.fold(image, |image, (path, content)| image.file(path, 0o644, content)))
}

/// Both sides in turn, and in turn first: drift of the machine hits both alike.
fn in_turn(
    what: &str,
    n: u32,
    warm_up: u32,
    measure: impl Fn(&'static str) -> Result<f64>,
) -> Result<(Summary, Summary)> {
    let bar = ui::bar(u64::from(n), what);
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for round in 0..n + warm_up {
        let order = if round % 2 == 0 {
            [LAZARET, STOCK]
        } else {
            [STOCK, LAZARET]
        };
        for runtime in order {
            let value = measure(runtime)?;
            interrupt::yield_to_cleanup();
            if round >= warm_up {
                if runtime == LAZARET { &mut ours } else { &mut peer }.push(value);
            }
        }
        bar.set_position(u64::from(round.saturating_sub(warm_up) + 1));
    }
    bar.finish_and_clear();
    both(ours, peer)
}

/// One container from start to end, in milliseconds.
fn timed(node: &Node, runtime: &str, script: &str, image: &str) -> Result<f64> {
    let run = Run::new(&node.id("start"), image).runtime(runtime);
    let run = if script.contains(' ') {
        run.sh(script)
    } else {
        run.args(&[script])
    };
    time(&mut node.run_command(&run, &["--rm"])).with_context(|| runtime.to_owned())
}

fn time(command: &mut Command) -> Result<f64> {
    command.stdin(Stdio::null());
    let started = Instant::now();
    let output = command.output()?;
    let took = started.elapsed();
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(took.as_secs_f64() * 1000.0)
}

/// A container of each side to exec into.
struct Execs {
    ours: String,
    peer: String,
}

impl Execs {
    fn prepare(node: &Node) -> Result<Self> {
        let sleeper = |runtime| {
            let id = node.id("exec");
            node.detach(
                &Run::new(&id, IMAGE)
                    .runtime(runtime)
                    .args(&["/bin/sleep", "3600"]),
            )?;
            anyhow::Ok(id)
        };
        Ok(Self {
            ours: sleeper(LAZARET)?,
            peer: sleeper(STOCK)?,
        })
    }

    fn timed(&self, node: &Node, runtime: &str) -> Result<f64> {
        let id = if runtime == LAZARET {
            &self.ours
        } else {
            &self.peer
        };
        time(&mut node.exec_command(&node.id("e"), id, &["/bin/true"]))
    }

    fn end(self, node: &Node) -> Result<()> {
        node.remove(&self.ours)?;
        node.remove(&self.peer)
    }
}

/// Many containers, some at a time; milliseconds until the last one has gone.
fn crowd(node: &Node, runtime: &str, image: &str, script: &str) -> Result<f64> {
    let next = AtomicU32::new(0);
    let client = || {
        while next.fetch_add(1, Ordering::Relaxed) < MANY {
            timed(node, runtime, script, image)?;
        }
        anyhow::Ok(())
    };
    let started = Instant::now();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        let mut ended = clients
            .into_iter()
            .map(|it| it.join().ok().context("a client panicked")?);
        ended.try_for_each(|ended| ended)
    })?;
    Ok(started.elapsed().as_secs_f64() * 1000.0)
}

/// What shims weigh, in KiB. One pod at a time: with more, shims of one kind would share pages.
#[derive(Default)]
struct Weights {
    pss: (Vec<f64>, Vec<f64>),
    rss: (Vec<f64>, Vec<f64>),
}

impl Weights {
    fn add(&mut self, node: &Node, size: u32) -> Result<()> {
        for runtime in [LAZARET, STOCK] {
            let pod = Pod::start(node, runtime, size)?;
            thread::sleep(SETTLE);
            // More than one where a container has helpers of its own: all of them count.
            let weigh = |weight: fn(Pid) -> Result<u64>| -> Result<f64> {
                let sum: u64 = pod.shims().into_iter().map(weight).sum::<Result<u64>>()?;
                Ok(f64::from(u32::try_from(sum)?))
            };
            let (pss, rss) = (weigh(procs::pss_kib)?, weigh(procs::rss_kib)?);
            let of = |both: &mut (Vec<f64>, Vec<f64>), value| {
                if runtime == LAZARET {
                    &mut both.0
                } else {
                    &mut both.1
                }
                .push(value);
            };
            of(&mut self.pss, pss);
            of(&mut self.rss, rss);
            pod.end()?;
        }
        Ok(())
    }

    fn both(self) -> Result<((Summary, Summary), (Summary, Summary))> {
        Ok((both(self.pss.0, self.pss.1)?, both(self.rss.0, self.rss.1)?))
    }
}

/// Sleeping containers behind one shim.
struct Pod<'a> {
    node: &'a Node,
    ids: Vec<String>,
}

impl<'a> Pod<'a> {
    fn start(node: &'a Node, runtime: &str, size: u32) -> Result<Self> {
        let ids: Vec<_> = (0..size).map(|_| node.id("pod")).collect();
        let group = ids.first().cloned().unwrap_or_default();
        for id in &ids {
            let run = Run::new(id, IMAGE).runtime(runtime).args(&["/bin/sleep", "3600"]);
            node.detach(&run.option("--annotation", &format!("io.containerd.runc.v2.group={group}")))?;
        }
        let pod = Self { node, ids };
        ensure!(
            pod.shims().len() == 1,
            "{runtime}: {size} containers and not one shim"
        );
        Ok(pod)
    }

    fn shims(&self) -> Vec<Pid> {
        self.ids.iter().flat_map(|id| self.node.shims_of(id)).collect()
    }

    fn end(self) -> Result<()> {
        let shims = self.shims();
        for id in &self.ids {
            self.node.remove(id)?;
        }
        wait::until_true("the pod's shim to end", SOON, || {
            !shims.iter().any(|pid| procs::alive(*pid))
        })
    }
}

/// How often the threads of an idle shim were woken, both sides watched at once.
fn idle(node: &Node) -> Result<(Summary, Summary)> {
    let (ours, peer) = (Pod::start(node, LAZARET, 1)?, Pod::start(node, STOCK, 1)?);
    thread::sleep(SETTLE);
    let count = |pod: &Pod<'_>| pod.shims().into_iter().map(wake_ups).sum::<Result<u64>>();
    let before = (count(&ours)?, count(&peer)?);
    ui::step(&format!("watching idle shims for {} s", IDLE.as_secs()), || {
        thread::sleep(IDLE);
        Ok(())
    })?;
    let grown = |after: u64, before: u64| -> Result<Vec<f64>> {
        Ok(vec![f64::from(u32::try_from(after.saturating_sub(before))?)])
    };
    let both = both(grown(count(&ours)?, before.0)?, grown(count(&peer)?, before.1)?)?;
    ours.end()?;
    peer.end()?;
    Ok(both)
}

/// How often the threads of a process went to sleep, and so were woken: proc(5),
/// `voluntary_ctxt_switches`.
fn wake_ups(pid: Pid) -> Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let status = fs::read_to_string(thread.path().join("status"))?;
        let count = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        sum += count.context("no count of switches")?.trim().parse::<u64>()?;
    }
    Ok(sum)
}

fn sizes(binaries: &Binaries, release: Release) -> Result<(Summary, Summary)> {
    let size = |path: std::path::PathBuf| -> Result<Vec<f64>> {
        Ok(vec![f64::from(u32::try_from(fs::metadata(path)?.len() / 1024)?)])
    };
    both(
        size(binaries.dir().join("containerd-shim-lazaret-v1"))?,
        size(release.bin()?.join("containerd-shim-runc-v2"))?,
    )
}

/// A measurement of containers that nobody guarded would be worth nothing.
fn nothing_unguarded(node: &Node) -> Result<()> {
    let incidents = node.daemon()?.incidents()?;
    let gap = incidents
        .iter()
        .find(|incident| incident.text("/kind").contains("gap"));
    ensure!(gap.is_none(), "containers ran unguarded: {gap:?}");
    let log = node.containerd().log();
    ensure!(!log.contains("UNGUARDED"), "containers ran unguarded");
    Ok(())
}

fn both(ours: Vec<f64>, peer: Vec<f64>) -> Result<(Summary, Summary)> {
    Summary::of(ours)
        .zip(Summary::of(peer))
        .context("nothing was measured")
}
