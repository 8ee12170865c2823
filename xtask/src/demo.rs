//! `cargo xtask demo`: what lazaret does, on a terminal, in under a minute.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lazaret_tests::binaries::Binaries;
use lazaret_tests::command::{self, Outcome};
use lazaret_tests::image::Image;
use lazaret_tests::incident::Incident;
use lazaret_tests::malware::{EFFECT, Malware, tail};
use lazaret_tests::node::Node;
use lazaret_tests::packages::Release;
use lazaret_tests::run::Run;
use lazaret_tests::ui::{BAD, DIM, GOOD, STEP};
use lazaret_tests::wait;

use crate::elevate;

const CLEAN: &str = "lazaret.test/clean:1";
const EVIL: &str = "lazaret.test/evil:1";
const MARKER: &str = "demo";
/// A container that goes on running.
const HELD: &str = "held";

/// What is known bad beyond doubt is moved out of its container.
const POLICY: &str = "[quarantine]\nmode = 'critical'";

/// An item shows up right after its denial; this much later it is missing.
const MOVED: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// containerd series
    #[arg(long, default_value_t = Release::newest().series.to_owned())]
    containerd: String,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let release = Release::find(&args.containerd)?;
    elevate::with_root(|binaries| show(release, binaries))
}

fn show(release: Release, binaries: &Binaries) -> Result<ExitCode> {
    let begun = Instant::now();
    let malware = Malware::binary(MARKER)?;
    let node = Node::start(release, binaries, &toml::from_str(POLICY)?)?;
    furnish(&node, &malware)?;
    anstream::println!(
        "\n{DIM}containerd {} and lazaretd, private to this run, under {}{DIM:#}",
        node.containerd().version()?,
        node.scratch().places().run().display()
    );
    let started = clean(&node)?;
    dropped(&node)?;
    let id = entrypoint(&node)?;
    incident(&node, &id, &malware)?;
    node.detach(&Run::new(HELD, CLEAN).args(&["/bin/sleep", "600"]))?;
    webshell(&node)?;
    quarantine(&node)?;
    drop(node);
    anstream::println!(
        "\n{GOOD}demo:{GOOD:#} a clean container ran in {:.2} s, malware was denied 4 times of 4, \
         all cleaned up, {:.1} s in all",
        started.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    Ok(ExitCode::SUCCESS)
}

fn furnish(node: &Node, malware: &Malware) -> Result<()> {
    node.import(&Image::busybox(CLEAN)?)?;
    let image = Image::busybox(EVIL)?.file("opt/sh", 0o755, malware.content.clone());
    node.import(&image.entrypoint(&["/opt/sh", "-c", &format!("echo {EFFECT}")]))?;
    node.daemon()?
        .add_signature(&malware.sha256, "lazaret-test-malware")
}

fn clean(node: &Node) -> Result<Duration> {
    heading(1, "a clean container, as usual");
    let run = Run::new("clean", CLEAN).args(&["/bin/echo", "hello from a guarded container"]);
    let outcome = shown(node, &run, "/bin/echo hello from a guarded container")?;
    outcome.ok()?;
    anstream::println!(
        "   {GOOD}ran and gone in {:.2} s{GOOD:#}",
        outcome.took.as_secs_f64()
    );
    Ok(outcome.took)
}

fn dropped(node: &Node) -> Result<()> {
    heading(2, "a container writes test malware to its disk and runs it");
    let script = format!(
        "cp /bin/busybox /tmp/sh; printf '%s' '{}' >> /tmp/sh; /tmp/sh -c 'echo {EFFECT}'",
        tail(MARKER)
    );
    let outcome = shown(
        node,
        &Run::new("dropped", CLEAN).sh(&script),
        "/bin/sh -c \"cp ...; /tmp/sh\"",
    )?;
    ensure!(
        outcome.err().contains("Operation not permitted"),
        "it was not denied: {outcome:?}"
    );
    denied(&outcome)
}

fn entrypoint(node: &Node) -> Result<String> {
    heading(3, "a container whose entrypoint is the malware");
    let run = Run::new("entrypoint", EVIL);
    let outcome = shown(node, &run, "")?;
    denied(&outcome)?;
    Ok(run.id().to_owned())
}

fn incident(node: &Node, id: &str, malware: &Malware) -> Result<()> {
    heading(4, "what the operator is told: lazaret events --json");
    let incidents = node.incidents_of(id)?;
    let is_ours = |incident: &&Incident| incident.text("/file/sha256") == malware.sha256;
    let incident = incidents.iter().find(is_ours).context("no incident of it")?;
    for line in serde_json::to_string_pretty(&incident.0)?.lines() {
        anstream::println!("   {line}");
    }
    Ok(())
}

fn webshell(node: &Node) -> Result<()> {
    heading(
        5,
        "somebody uploads a PHP web shell: no list knows it, a rule does",
    );
    // In parts, so that this source is not one itself.
    let shell = format!("<?php @{}(${}['c']); ?>", "eval", "_POST");
    let quoted = shell.replace('\'', "'\\''");
    let script = format!("mkdir -p /www; printf '%s' '{quoted}' > /www/up.php; cat /www/up.php");
    let outcome = node.exec(HELD, &["/bin/sh", "-c", &script])?;
    anstream::println!(
        "   {DIM}$ cat /www/up.php{DIM:#}\n   {}",
        outcome.err().trim_end()
    );
    denied(&outcome)?;
    let incidents = node.incidents_of(HELD)?;
    let found = incidents
        .iter()
        .find(|incident| incident.text("/file/path") == "/www/up.php");
    let found = found.context("no incident of the web shell")?;
    anstream::println!(
        "   {BAD}{}{BAD:#}: {}",
        found.text("/rule"),
        found.text("/output")
    );
    Ok(())
}

fn quarantine(node: &Node) -> Result<()> {
    heading(
        6,
        "the quarantine: malware is moved out, and comes back when you allow it",
    );
    let run = "/opt/tool -c 'echo it runs, because it was allowed'";
    let tail = tail(MARKER);
    let drop = format!(
        "mkdir -p /opt; cp /bin/busybox /opt/sh; printf '%s' '{tail}' >> /opt/sh; mv /opt/sh /opt/tool"
    );
    node.exec(
        HELD,
        &["/bin/sh", "-c", &format!("{drop}; ln -sf tool /opt/sh; true")],
    )?
    .ok()?;
    let shell = |script: &str| node.exec(HELD, &["/bin/sh", "-c", script]);
    denied(&shell(&run.replace("/opt/tool", "/opt/sh"))?)?;
    let item = wait::until("the item in the quarantine", MOVED, || {
        item(node, "/opt/tool").ok()?
    })?;
    anstream::println!("{}", indented(&lazaret(node, &["quarantine", "list"])?));
    anstream::println!("{}", indented(&lazaret(node, &["quarantine", "restore", &item])?));
    let outcome = shell(&run.replace("/opt/tool", "/opt/sh"))?;
    anstream::println!("   {GOOD}{}{GOOD:#}", outcome.ok()?);
    Ok(())
}

/// The id of the item that was moved from a path.
fn item(node: &Node, path: &str) -> Result<Option<String>> {
    let items = Incident::parse_all(&lazaret(node, &["quarantine", "list", "--json"])?)?;
    let moved = |item: &&Incident| item.text("/path") == path && item.text("/state") == "moved";
    Ok(items.iter().find(moved).map(|item| item.text("/id").to_owned()))
}

fn lazaret(node: &Node, args: &[&str]) -> Result<String> {
    command::check(&mut node.daemon()?.cli(args))
}

fn indented(text: &str) -> String {
    text.lines()
        .map(|line| format!("   {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn heading(number: u32, text: &str) {
    anstream::println!("\n{STEP}{number}. {text}{STEP:#}");
}

fn shown(node: &Node, run: &Run, command: &str) -> Result<Outcome> {
    anstream::println!(
        "   {DIM}$ ctr run --rm --runtime {} {} {} {command}{DIM:#}",
        run.runtime_name(),
        run.image(),
        run.id()
    );
    let outcome = node.run(run)?;
    for line in [outcome.out(), outcome.err()]
        .iter()
        .flat_map(|text| text.lines())
    {
        anstream::println!("   {line}");
    }
    Ok(outcome)
}

fn denied(outcome: &Outcome) -> Result<()> {
    ensure!(!outcome.out().contains(EFFECT), "the malware ran");
    ensure!(
        outcome.code != 0,
        "a container of malware ended as if all were well"
    );
    anstream::println!(
        "   {BAD}denied{BAD:#}, exit code {}: not one byte of it was run or read",
        outcome.code
    );
    Ok(())
}
