//! `cargo xtask bench scale`: what a node's thousandth container costs, and whether all are guarded.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lazaret_tests::binaries::Binaries;
use lazaret_tests::herd::{self, Held, Herd};
use lazaret_tests::image::Image;
use lazaret_tests::malware::Malware;
use lazaret_tests::node::Node;
use lazaret_tests::packages::Release;
use lazaret_tests::procs::{self, Weight};
use lazaret_tests::run::{LAZARET, Run, STOCK};
use lazaret_tests::{ui, wait};

use super::report::{self, Better, Row, Software};
use super::stats::Summary;
use crate::elevate;

const IMAGE: &str = "lazaret.test/scale:1";
const BAD: &str = "/opt/sh";
/// A shim frees what its start took only a moment later, and so does lazaretd.
const SETTLE: Duration = Duration::from_secs(3);
/// How long nothing is done, to see what that costs.
const IDLE: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_secs(60);
/// Clock ticks a second: the kernel tells user space no other number (USER_HZ).
const TICK_MS: f64 = 10.0;

const A_THIRD: f64 = 1.0 / 3.0;
/// Noise, but no square: the last quarter would cost nearly twice the first.
const LINEAR: f64 = 1.25;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Containers alive at once
    #[arg(short, default_value_t = 1_000)]
    n: usize,
    /// The same for the stock runtime, whose shims weigh more; compared with as many of ours
    #[arg(long, default_value_t = 250)]
    peers: usize,
    /// Containers of a pod, which share a shim, in the second round
    #[arg(long, default_value_t = 10)]
    pod: usize,
    /// Started, used and stopped at a time
    #[arg(long, default_value_t = 8)]
    together: usize,
    /// containerd series
    #[arg(long, default_value_t = Release::newest().series.to_owned())]
    containerd: String,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    elevate::with_root(|binaries| measure(args, binaries))
}

/// What was seen with so many containers alive.
#[derive(Debug, Clone, Copy)]
struct Level {
    containers: usize,
    /// lazaretd and its workers.
    daemon: Weight,
    shims: Weight,
    /// Milliseconds on a processor in a second in which nothing happens.
    idle: [f64; 2],
}

/// What one round came to.
#[derive(Debug)]
struct Round {
    name: String,
    levels: Vec<Level>,
    /// Milliseconds that one took, of as many as the peer has: started, and stopped.
    times: [f64; 2],
    after: Option<Level>,
    held: Option<[Held; 2]>,
}

fn measure(args: &Args, binaries: &Binaries) -> Result<ExitCode> {
    let release = Release::find(&args.containerd)?;
    let mut counts = vec![args.peers.min(args.n), args.n / 2, args.n];
    counts.sort_unstable();
    counts.dedup();
    let mut rounds = Vec::new();
    for (pod, name) in [
        (1, "one shim each".to_owned()),
        (args.pod, format!("pods of {}", args.pod)),
    ] {
        let node = guarded(release, binaries)?;
        rounds.push(round(&node, args, (LAZARET, pod, &name), &counts)?);
    }
    let node = Node::stock(release)?;
    node.import(&image()?.0)?;
    let peers = counts.first().copied().unwrap_or_default();
    let peer = round(&node, args, (STOCK, 1, STOCK), &[peers])?;
    let software = Software::from([("containerd", node.containerd().version()?)]);
    report::publish("scale", software, &rows(&rounds, &peer)?)?;
    Ok(ExitCode::SUCCESS)
}

fn image() -> Result<(Image, Malware)> {
    let bad = Malware::binary("scale")?;
    let path = BAD.trim_start_matches('/');
    Ok((Image::busybox(IMAGE)?.file(path, 0o755, bad.content.clone()), bad))
}

fn guarded(release: Release, binaries: &Binaries) -> Result<Node> {
    let node = Node::start(release, binaries, &toml::Table::new())?;
    let (image, bad) = image()?;
    node.import(&image)?;
    node.daemon()?.add_signature(&bad.sha256, "scale")?;
    Ok(node)
}

fn round(
    node: &Node,
    args: &Args,
    (runtime, pod, name): (&str, usize, &str),
    counts: &[usize],
) -> Result<Round> {
    let is_ours = runtime == LAZARET;
    let template = |id: &str| Run::new(id, IMAGE).runtime(runtime).args(&["/bin/sleep", "3600"]);
    let groups = is_ours
        .then(|| Held::by(node))
        .transpose()?
        .map(|held| held.groups);
    // What is only made once is not the first container's.
    let mut first = Herd::new(node, template("first"), pod, args.together);
    first.grow(args.together)?;
    if is_ours {
        first.each(|id| herd::refuses(node, id, BAD))?;
    }
    first.stop()?;
    none_left(node, groups)?;
    let held_before = is_ours.then(|| Held::by(node)).transpose()?;

    let mut levels = vec![level(node, 0)?];
    let mut herd = Herd::new(node, template("scale"), pod, args.together);
    let mut starting = Vec::new();
    for count in counts {
        let what = format!("{name}: starting up to {count} containers");
        starting.push(timed(&what, || herd.grow(*count))?);
        levels.push(level(node, *count)?);
    }
    if is_ours {
        herd.is_guarded(false)?;
        timed(&format!("{name}: a bad file in each"), || {
            herd.each(|id| herd::refuses(node, id, BAD))
        })?;
        herd.is_guarded(true)?;
    }
    let first = counts.first().copied().unwrap_or_default();
    timed(&format!("{name}: stopping down to {first}"), || {
        herd.shrink(first)
    })?;
    let stopping = timed(&format!("{name}: stopping the rest"), || herd.stop())?;
    none_left(node, groups)?;
    let after = level(node, 0)?;
    let held_after = is_ours.then(|| Held::by(node)).transpose()?;
    Ok(Round {
        name: name.to_owned(),
        levels,
        times: [starting.first().copied().unwrap_or_default(), stopping]
            .map(|took| took.as_secs_f64() * 1000.0 / first as f64),
        after: Some(after),
        held: held_before.zip(held_after).map(<[Held; 2]>::from),
    })
}

fn timed(what: &str, work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let began = Instant::now();
    ui::step(what, work)?;
    Ok(began.elapsed())
}

/// Waits until nothing of any container is left, and lazaretd has no more than its own `groups`.
fn none_left(node: &Node, groups: Option<usize>) -> Result<()> {
    wait::until_true("the shims to end", SOON, || node.shims().is_empty())?;
    if let Some(groups) = groups {
        wait::until_true("lazaretd to let go", SOON, || {
            Held::by(node).is_ok_and(|held| held.containers == 0 && held.groups <= groups)
        })?;
    }
    // A thread for what blocks stays for a while after its work.
    sleep(SETTLE + IDLE);
    Ok(())
}

fn level(node: &Node, containers: usize) -> Result<Level> {
    sleep(SETTLE);
    let weigh = || {
        let daemon = node.daemon().ok().and_then(lazaret_tests::daemon::Daemon::pid);
        let family = daemon.map(procs::family).unwrap_or_default();
        [Weight::of(family), Weight::of(node.shims())]
    };
    let ([daemon, shims], began) = (weigh(), Instant::now());
    ensure!(
        (shims.processes == 0) == (containers == 0),
        "{} shims for {containers} containers",
        shims.processes
    );
    sleep(IDLE);
    let (later, passed) = (weigh(), began.elapsed());
    let idle = |before: Weight, after: Weight| {
        after.ticks.saturating_sub(before.ticks) as f64 * TICK_MS / passed.as_secs_f64()
    };
    let [daemon_later, shims_later] = later;
    let level = Level {
        containers,
        daemon,
        shims,
        idle: [idle(daemon, daemon_later), idle(shims, shims_later)],
    };
    ui::note(&format!("{level:?}"));
    Ok(level)
}

/// A quantity of processes: its name, its unit and how it is read.
type Quantity = (&'static str, &'static str, fn(&Weight) -> f64);

/// The last is cut to whole ticks for each process by the kernel. That is nothing for lazaretd and
/// much for a shim, and the later ones just as often have used up the tick that the earlier ones
/// nearly have: it is compared with the peer's shims, but not with that of other shims.
const QUANTITIES: [Quantity; 4] = [
    ("PSS", "KiB", |weight| weight.pss_kib as f64),
    ("descriptors", "", |weight| weight.descriptors as f64),
    ("threads", "", |weight| weight.threads as f64),
    ("time on a processor", "ms", |weight| {
        weight.ticks as f64 * TICK_MS
    }),
];

fn rows(rounds: &[Round], peer: &Round) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for round in rounds {
        against_peer(round, peer, &mut rows)?;
    }
    for round in rounds {
        growth(round, &mut rows)?;
    }
    for round in rounds {
        at_levels(round, &mut rows)?;
    }
    Ok(rows)
}

fn row(name: String, unit: &'static str, ours: f64, peer: f64, peer_name: &str) -> Result<Row> {
    let one = |value| Summary::of(vec![value]).context("no number");
    Ok(Row::beside(
        name,
        unit,
        (one(ours)?, one(peer)?),
        peer_name,
        Better::Lower,
    ))
}

/// By container, with as many of each.
fn against_peer(round: &Round, peer: &Round, rows: &mut Vec<Row>) -> Result<()> {
    let theirs = peer.levels.last().context("the peer was not measured")?;
    let (zero, ours) = (
        round.levels.first().context("no level")?,
        round
            .levels
            .iter()
            .find(|level| level.containers == theirs.containers)
            .context("no level of as many containers")?,
    );
    let count = theirs.containers as f64;
    let peer_name = format!("{}, {} containers", peer.name, theirs.containers);
    let name = &round.name;
    for (quantity, unit, of) in QUANTITIES {
        let shims = of(&ours.shims) / count;
        let with_daemon = shims + (of(&ours.daemon) - of(&zero.daemon)) / count;
        let stock = of(&theirs.shims) / count;
        let (of_shims, of_all) = if quantity == "PSS" {
            (Some(A_THIRD), Some(1.0))
        } else {
            (None, None)
        };
        for (what, value, target) in [
            ("shims", shims, of_shims),
            ("shims and lazaretd", with_daemon, of_all),
        ] {
            let title = format!("{name}: {what}, {quantity} of one");
            rows.push(row(title, unit, value, stock, &peer_name)?.target(target));
        }
    }
    let [ours_idle, theirs_idle] = [ours, theirs].map(|level| level.idle.iter().sum());
    if theirs_idle > 0.0 {
        let title = format!("{name}: all, nothing happens");
        rows.push(row(title, "ms/s", ours_idle, theirs_idle, &peer_name)?);
    }
    for ((what, ours), theirs) in ["start", "stop"].into_iter().zip(round.times).zip(peer.times) {
        let title = format!("{name}: a {what}, many at once");
        rows.push(row(title, "ms", ours, theirs, &peer_name)?);
    }
    Ok(())
}

/// Whether the later containers cost more than the earlier ones.
fn growth(round: &Round, rows: &mut Vec<Row>) -> Result<()> {
    let [zero, .., half, all] = round.levels.as_slice() else {
        return Ok(());
    };
    let peer_name = format!("the containers up to {}", half.containers);
    let name = &round.name;
    let each = |from: &Level, to: &Level, of: &dyn Fn(&Level) -> f64| {
        (of(to) - of(from)) / (to.containers - from.containers) as f64
    };
    for (quantity, unit, of) in QUANTITIES {
        for (who, side) in [
            ("lazaretd", (|level| &level.daemon) as fn(&Level) -> &Weight),
            ("shims", |level| &level.shims),
        ] {
            let of = |level: &Level| of(side(level));
            let (late, early) = (each(half, all, &of), each(zero, half, &of));
            let title = format!("{name}: {who}, {quantity} of one more");
            // What hardly grows has no ratio.
            if early > 0.5 && (unit, who) != ("ms", "shims") {
                rows.push(row(title, unit, late, early, &peer_name)?.target(LINEAR));
            }
        }
    }
    Ok(())
}

/// What there was, and what is left.
fn at_levels(round: &Round, rows: &mut Vec<Row>) -> Result<()> {
    let name = &round.name;
    let zero = round.levels.first().context("no level")?;
    let peer_name = "with no container yet";
    for level in round.levels.iter().skip(1) {
        for (quantity, unit, of) in QUANTITIES {
            let title = format!("{name}: lazaretd, {quantity} at {}", level.containers);
            rows.push(row(title, unit, of(&level.daemon), of(&zero.daemon), peer_name)?);
        }
    }
    for level in round.levels.iter().skip(1) {
        for (quantity, unit, of) in QUANTITIES {
            let title = format!("{name}: all shims, {quantity} at {}", level.containers);
            rows.push(row(
                title,
                unit,
                of(&level.shims),
                of(&level.daemon),
                "lazaretd then",
            )?);
        }
    }
    if let Some(after) = &round.after {
        let title = format!("{name}: lazaretd, PSS after the stop");
        let pss = |level: &Level| level.daemon.pss_kib as f64;
        rows.push(row(title, "KiB", pss(after), pss(zero), peer_name)?);
    }
    if let Some([before, after]) = &round.held {
        for (what, ours, theirs) in [
            ("descriptors", after.descriptors, before.descriptors),
            ("threads", after.threads, before.threads),
        ] {
            let title = format!("{name}: lazaretd, {what} after the stop");
            rows.push(row(title, "", ours as f64, theirs as f64, peer_name)?.target(1.0));
        }
    }
    Ok(())
}
