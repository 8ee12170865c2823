//! `cargo xtask soak`: container after container for a long time, and nothing may grow.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lazaret_tests::binaries::Binaries;
use lazaret_tests::image::Image;
use lazaret_tests::malware::{EFFECT, Malware};
use lazaret_tests::node::Node;
use lazaret_tests::packages::Release;
use lazaret_tests::procs::Weight;
use lazaret_tests::run::Run;
use lazaret_tests::{interrupt, ui, wait};

use crate::elevate;

const IMAGE: &str = "lazaret.test/soak:1";
/// Caches are full and allocators have what they need.
const WARM_UP: u32 = 100;
/// What the daemon may gain over thousands of containers: its verdict cache is bounded.
const MAY_GROW_KIB: u64 = 4 * 1024;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Container lifecycles
    #[arg(short, default_value_t = 2_000)]
    n: u32,
    /// containerd series
    #[arg(long, default_value_t = Release::newest().series.to_owned())]
    containerd: String,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let release = Release::find(&args.containerd)?;
    elevate::with_root(|binaries| soak(args.n, release, binaries))
}

fn soak(n: u32, release: Release, binaries: &Binaries) -> Result<ExitCode> {
    let node = Node::start(release, binaries, &toml::Table::new())?;
    let malware = Malware::binary("soak")?;
    node.import(&Image::busybox(IMAGE)?.file("opt/sh", 0o755, malware.content))?;
    node.daemon()?.add_signature(&malware.sha256, "soak")?;
    lives(&node, WARM_UP, "warming up")?;
    let before = weigh(&node)?;
    lives(&node, n, "container lifecycles")?;
    let after = weigh(&node)?;
    ensure!(
        after.descriptors <= before.descriptors,
        "file descriptors leak: {before:?} then {after:?}"
    );
    ensure!(
        after.pss_kib <= before.pss_kib + MAY_GROW_KIB,
        "memory grows: {before:?} then {after:?}"
    );
    anstream::println!("soak: {n} lifecycles, lazaretd {before:?} then {after:?}");
    Ok(ExitCode::SUCCESS)
}

fn lives(node: &Node, n: u32, text: &str) -> Result<()> {
    let bar = ui::bar(u64::from(n), text);
    for number in 0..n {
        life(node, number).with_context(|| format!("lifecycle {number}"))?;
        interrupt::yield_to_cleanup();
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

/// In turn: one that ends by itself, one that is denied, one with an exec and a kill.
fn life(node: &Node, number: u32) -> Result<()> {
    let id = node.id("soak");
    let run = Run::new(&id, IMAGE);
    match number % 3 {
        0 => {
            let outcome = node.run(&run.sh("echo clean; exit 3"))?;
            ensure!(outcome.code == 3 && outcome.out() == "clean", "{outcome:?}");
        }
        1 => {
            let outcome = node.run(&run.args(&["/opt/sh", "-c", &format!("echo {EFFECT}")]))?;
            ensure!(!outcome.out().contains(EFFECT), "unguarded");
        }
        _ => {
            node.detach(&run.args(&["/bin/sleep", "600"]))?;
            ensure!(
                node.exec(&id, &["/bin/echo", "exec"])?.ok()? == "exec",
                "an exec failed"
            );
            node.remove(&id)?;
        }
    }
    Ok(())
}

/// Once no container is left: what stays then, leaked.
fn weigh(node: &Node) -> Result<Weight> {
    wait::until_true("the shims to end", Duration::from_secs(30), || {
        node.shims().is_empty()
    })?;
    let pid = node.daemon()?.pid().context("lazaretd does not run")?;
    Ok(Weight::of([pid]))
}
