//! `cargo xtask bench start`: what a guarded start costs, and what a shim weighs.

use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lazaret_tests::binaries::Binaries;
use lazaret_tests::image::Image;
use lazaret_tests::node::Node;
use lazaret_tests::packages::Release;
use lazaret_tests::procs;
use lazaret_tests::run::{LAZARET, Run, STOCK};
use lazaret_tests::{interrupt, ui};

use super::report::{self, Better, Row, Software};
use super::stats::Summary;
use crate::elevate;

const IMAGE: &str = "lazaret.test/bench:1";
const WARM_UP: u32 = 3;
/// A shim frees what its start took only a moment later.
const SETTLE: Duration = Duration::from_secs(2);

const SAME_TIME: f64 = 1.0;
const A_THIRD: f64 = 1.0 / 3.0;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Starts on each side
    #[arg(short, default_value_t = 40)]
    n: u32,
    /// Shims weighed on each side
    #[arg(long, default_value_t = 5)]
    shims: u32,
    /// containerd series
    #[arg(long, default_value_t = Release::newest().series.to_owned())]
    containerd: String,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    elevate::with_root(|binaries| measure(args, binaries))
}

fn measure(args: &Args, binaries: &Binaries) -> Result<ExitCode> {
    let release = Release::find(&args.containerd)?;
    let node = Node::start(release, binaries, &toml::Table::new())?;
    node.import(&Image::busybox(IMAGE)?)?;
    let rows = [
        Row::beside(
            "ctr run --rm /bin/true",
            "ms",
            starts(&node, args.n)?,
            STOCK,
            Better::Lower,
        )
        .target(SAME_TIME),
        Row::beside(
            "PSS of a shim, sleeping container",
            "KiB",
            weights(&node, args.shims)?,
            STOCK,
            Better::Lower,
        )
        .target(A_THIRD),
    ];
    let software = Software::from([("containerd", node.containerd().version()?)]);
    report::publish("start", software, &rows)?;
    Ok(ExitCode::SUCCESS)
}

/// Both sides in turn, and in turn first: drift of the machine hits both alike.
fn starts(node: &Node, n: u32) -> Result<(Summary, Summary)> {
    let bar = ui::bar(u64::from(n), "starting containers");
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for round in 0..n + WARM_UP {
        let order = if round % 2 == 0 {
            [LAZARET, STOCK]
        } else {
            [STOCK, LAZARET]
        };
        for runtime in order {
            let took = start(node, runtime)?;
            if round >= WARM_UP {
                if runtime == LAZARET { &mut ours } else { &mut peer }.push(took);
            }
        }
        bar.set_position(u64::from(round.saturating_sub(WARM_UP) + 1));
    }
    bar.finish_and_clear();
    both(ours, peer)
}

fn start(node: &Node, runtime: &str) -> Result<f64> {
    let run = Run::new(&node.id("start"), IMAGE)
        .runtime(runtime)
        .args(&["/bin/true"]);
    let mut command = node.run_command(&run, &["--rm"]);
    command.stdin(Stdio::null());
    let started = Instant::now();
    let output = command.output()?;
    let took = started.elapsed();
    interrupt::yield_to_cleanup();
    ensure!(
        output.status.success(),
        "{}: {}",
        runtime,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(took.as_secs_f64() * 1000.0)
}

/// One container at a time: with more, shims of one kind would share pages.
fn weights(node: &Node, n: u32) -> Result<(Summary, Summary)> {
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for _ in 0..n {
        ours.push(weight(node, LAZARET)?);
        peer.push(weight(node, STOCK)?);
    }
    both(ours, peer)
}

fn weight(node: &Node, runtime: &str) -> Result<f64> {
    let id = node.id("weigh");
    node.detach(&Run::new(&id, IMAGE).runtime(runtime).args(&["/bin/sleep", "600"]))?;
    std::thread::sleep(SETTLE);
    let shims = node.shims();
    ensure!(!shims.is_empty(), "no shim found for {runtime}");
    // More than one where a container has helpers of its own: all of them count.
    let sum: u64 = shims.into_iter().map(procs::pss_kib).sum::<Result<u64>>()?;
    node.remove(&id)?;
    Ok(f64::from(u32::try_from(sum)?))
}

fn both(ours: Vec<f64>, peer: Vec<f64>) -> Result<(Summary, Summary)> {
    Summary::of(ours)
        .zip(Summary::of(peer))
        .context("nothing was measured")
}
