//! `cargo xtask bench files`: what opening and running files costs in a guarded container.
//!
//! Three containers of one image take turns: guarded, under the stock shim with nothing attached,
//! and under the stock shim with a responder that lets everything pass at once, which is what any
//! guard that is asked costs at least.

use std::fs::File;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lazaret_tests::binaries::Binaries;
use lazaret_tests::image::Image;
use lazaret_tests::node::Node;
use lazaret_tests::packages::Release;
use lazaret_tests::run::{LAZARET, Run, STOCK};
use lazaret_tests::{interrupt, procs, ui};
use serde_json::Value;

use self::responder::Responder;
use super::report::{self, Better, Row, Software};
use super::stats::Summary;
use crate::elevate;

mod responder;

const IMAGE: &str = "lazaret.test/bench-files:1";
const INSIDE: &str = "/opt/inside";

/// Files of the image that are opened in turn. Fewer than a node has seals for: beyond, the
/// oldest are asked about again.
const WORKING_SET: usize = 1000;

/// The image's own large part: 500 files, 200 MB.
const STARTED: (usize, usize) = (500, 400_000);

/// Files that are unpacked.
const NEW_FILES: usize = 20_000;

/// To settle before the daemon is weighed.
const IDLE: Duration = Duration::from_secs(5);

const SAME: f64 = 1.05;
const UNPACKED: f64 = 1.15;
const HOST: f64 = 1.10;
const IDLE_MIB: f64 = 60.0;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rounds of each measurement
    #[arg(short, default_value_t = 15)]
    n: u32,
    /// containerd series
    #[arg(long, default_value_t = Release::newest().series.to_owned())]
    containerd: String,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    elevate::with_root(|binaries| measure(args, binaries))
}

/// The three containers.
struct Sides<'a> {
    node: &'a Node,
    guarded: String,
    plain: String,
    answered: String,
    _responder: Responder,
}

/// What is done in a container, and how often.
struct Work {
    name: &'static str,
    script: &'static [&'static str],
    target: Option<f64>,
}

const WORKS: &[Work] = &[
    Work {
        name: "open+close, judged file",
        script: &["cost-opens", "/opt/set/0", "20000"],
        target: Some(SAME),
    },
    Work {
        name: "open+close, 1,000 judged files in turn",
        script: &["cost-opens", "/opt/set", "20000"],
        target: Some(SAME),
    },
    Work {
        name: "fork+exec, judged program",
        script: &["cost-execs", "/bin/true", "500"],
        target: Some(SAME),
    },
    Work {
        name: "first open of a new file of 1 MiB",
        script: &["cost-first-opens", "/opt/first", "20", "1048576"],
        target: None,
    },
];

fn measure(args: &Args, binaries: &Binaries) -> Result<ExitCode> {
    let release = Release::find(&args.containerd)?;
    let node = Node::start(release, binaries, &toml::Table::new())?;
    node.import(&image(binaries)?)?;
    let sides = Sides::start(&node)?;
    let mut rows = Vec::new();
    for work in WORKS {
        rows.push(sides.compare(work, args.n)?);
    }
    rows.push(second_start(&node, args.n)?);
    rows.push(idle(&node)?);
    rows.push(host(&node, args.n)?);
    rows.extend(sides.unpack(args.n.min(5))?);
    let software = Software::from([("containerd", node.containerd().version()?)]);
    report::publish("files", software, &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn image(binaries: &Binaries) -> Result<Image> {
    let mut image = Image::busybox(IMAGE)?.file("opt/inside", 0o755, binaries.inside()?);
    for index in 0..WORKING_SET {
        image = image.file(format!("opt/set/{index}"), 0o644, format!("file {index}\n"));
    }
    let (files, size) = STARTED;
    for index in 0..files {
        let line = format!("library {index}\n");
        let content: Vec<u8> = line.bytes().cycle().take(size).collect();
        image = image.file(format!("opt/libraries/{index}"), 0o644, content);
    }
    Ok(image)
}

impl<'a> Sides<'a> {
    fn start(node: &'a Node) -> Result<Self> {
        let sleeping = |what: &str, runtime: &str| -> Result<String> {
            let id = node.id(what);
            node.detach(
                &Run::new(&id, IMAGE)
                    .runtime(runtime)
                    .args(&["/bin/sleep", "36000"]),
            )?;
            Ok(id)
        };
        let answered = sleeping("answered", STOCK)?;
        let pid = node.task_pid(&answered)?.context("the container has no init")?;
        let sides = Self {
            node,
            guarded: sleeping("guarded", LAZARET)?,
            plain: sleeping("plain", STOCK)?,
            answered,
            _responder: Responder::start(pid)?,
        };
        sides.make_archives()?;
        Ok(sides)
    }

    fn make_archives(&self) -> Result<()> {
        for id in [&self.guarded, &self.plain, &self.answered] {
            let files = NEW_FILES.to_string();
            self.inside(id, &["fill", "/opt/many", &files])?;
            self.shell(id, "cd /opt && tar cf many.tar many && rm -r many")?;
        }
        Ok(())
    }

    /// One row: guarded, and nothing attached.
    fn compare(&self, work: &Work, n: u32) -> Result<Row> {
        let cost = |id: &str| -> Result<f64> {
            let told = self.inside(id, work.script)?;
            let cost = told.get("ns").and_then(Value::as_f64);
            Ok(cost.context("no cost was told")? / 1000.0)
        };
        let both = interleaved(n, work.name, || cost(&self.guarded), || cost(&self.plain))?;
        Ok(Row::beside(work.name, "us", both, "nothing attached", Better::Lower).target(work.target))
    }

    fn unpack(&self, n: u32) -> Result<[Row; 2]> {
        let name = "tar xf of 20,000 new files";
        let unpack = |id: &str| -> Result<f64> {
            let begun = Instant::now();
            self.shell(id, "cd /opt && tar xf many.tar")?;
            let took = begun.elapsed();
            self.shell(id, "rm -r /opt/many")?;
            Ok(took.as_secs_f64() * 1000.0)
        };
        let against = |peer: &str| interleaved(n, name, || unpack(&self.guarded), || unpack(peer));
        Ok([
            Row::beside(
                name,
                "ms",
                against(&self.plain)?,
                "nothing attached",
                Better::Lower,
            ),
            Row::beside(
                name,
                "ms",
                against(&self.answered)?,
                "allow-all responder",
                Better::Lower,
            )
            .target(UNPACKED),
        ])
    }

    fn inside(&self, id: &str, words: &[&str]) -> Result<Value> {
        let words: Vec<&str> = [INSIDE].iter().chain(words).copied().collect();
        let outcome = self.node.exec(id, &words)?;
        Ok(serde_json::from_str(&outcome.ok()?).unwrap_or_default())
    }

    fn shell(&self, id: &str, script: &str) -> Result<()> {
        self.node.exec(id, &["/bin/sh", "-c", script])?.ok()?;
        Ok(())
    }
}

/// A second container of an image whose files were judged in the first one.
fn second_start(node: &Node, n: u32) -> Result<Row> {
    let start = |runtime: &str| -> Result<f64> {
        let run = Run::new(&node.id("second"), IMAGE).runtime(runtime);
        let mut command = node.run_command(&run.args(&[INSIDE, "cost-reads", "/opt/libraries"]), &["--rm"]);
        command.stdin(Stdio::null());
        let begun = Instant::now();
        let output = command.output()?;
        let took = begun.elapsed();
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(took.as_secs_f64() * 1000.0)
    };
    let name = "start that reads 500 files, 200 MB";
    let both = interleaved(n, name, || start(LAZARET), || start(STOCK))?;
    Ok(Row::beside(name, "ms", both, "nothing attached", Better::Lower).target(SAME))
}

/// The daemon and all its children, when nothing happens.
fn idle(node: &Node) -> Result<Row> {
    std::thread::sleep(IDLE);
    let daemon = node.daemon()?.pid().context("lazaretd runs")?;
    let weights = procs::family(daemon).into_iter().map(procs::pss_kib);
    let weights = weights.collect::<Result<Vec<u64>>>()?;
    let total: u64 = weights.into_iter().sum();
    let mib = f64::from(u32::try_from(total)?) / 1024.0;
    let (ours, limit) = (Summary::of(vec![mib]), Summary::of(vec![IDLE_MIB]));
    let both = ours.zip(limit).context("nothing was weighed")?;
    Ok(Row::beside(
        "PSS of daemon and workers, idle",
        "MiB",
        both,
        "limit",
        Better::Lower,
    )
    .target(1.0))
}

/// What a process of the host pays while a container shares the file system that it works on.
fn host(node: &Node, n: u32) -> Result<Row> {
    const OPENS: u32 = 20_000;
    let folder = node.scratch().places().disk().join("lent");
    std::fs::create_dir(&folder)?;
    let file = folder.join("file");
    std::fs::write(&file, "content")?;
    let cost = || -> Result<f64> {
        let begun = Instant::now();
        for _ in 0..OPENS {
            File::open(&file)?;
        }
        Ok(begun.elapsed().as_secs_f64() * 1e6 / f64::from(OPENS))
    };
    let lent = || -> Result<f64> {
        let id = node.id("lent");
        let run = Run::new(&id, IMAGE).bind(&folder, "/lent");
        node.detach(&run.args(&["/bin/sleep", "36000"]))?;
        let cost = cost()?;
        node.remove(&id)?;
        Ok(cost)
    };
    let name = "open+close by the host, on a disk that a container shares";
    let both = interleaved(n, name, lent, cost)?;
    Ok(Row::beside(name, "us", both, "nothing guarded", Better::Lower).target(HOST))
}

/// Both in turn, and in turn first: drift of the machine hits both alike.
fn interleaved(
    n: u32,
    name: &str,
    ours: impl Fn() -> Result<f64>,
    peer: impl Fn() -> Result<f64>,
) -> Result<(Summary, Summary)> {
    let bar = ui::bar(u64::from(n), name);
    // Not counted: what is judged once is judged now.
    ours()?;
    peer()?;
    let (mut of_ours, mut of_peer) = (Vec::new(), Vec::new());
    for round in 0..n {
        interrupt::yield_to_cleanup();
        if round % 2 == 0 {
            of_ours.push(ours()?);
            of_peer.push(peer()?);
        } else {
            of_peer.push(peer()?);
            of_ours.push(ours()?);
        }
        bar.set_position(u64::from(round + 1));
    }
    bar.finish_and_clear();
    Summary::of(of_ours)
        .zip(Summary::of(of_peer))
        .context("nothing was measured")
}
