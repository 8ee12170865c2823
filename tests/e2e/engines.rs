//! An engine that lazaret does not know: a program in another language, in a sandbox.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lazaret_tests::command::{self, Outcome};
use lazaret_tests::incident::Incident;
use lazaret_tests::malware::EFFECT;
use lazaret_tests::node::Node;
use lazaret_tests::run::Run;
use lazaret_tests::scratch::Scratch;
use serde_json::Value;

use crate::case::Case;
use crate::check::was_denied;
use crate::world::{IMAGE, World};

pub(crate) const CASES: &[Case] = &[
    Case::shared("engines::what_only_it_knows_is_denied", found),
    Case::shared("engines::large_and_small_are_handed_to_it", sizes),
    Case::shared("engines::one_that_fails_is_replaced", |world| {
        fails(world, "unjudged")
    }),
    Case::shared("engines::a_failure_may_mean_the_others_word", |world| {
        fails(world, "others")
    }),
    Case::shared("engines::one_that_stalls_is_ended", stalls),
    Case::shared("engines::its_sandbox_holds", sandboxed),
    Case::shared("engines::one_that_cannot_be_run_fails_alone", cannot_run),
];

const PROGRAM: &str = include_str!("../engines/example.py");
const MARKER: &str = "lazaret-inert-marker-of-an-engine";
const TIMEOUT: Duration = Duration::from_secs(1);

/// A node with the example engine, and a container.
struct Bench {
    node: Node,
    id: String,
    // Last: the node ends before the engine is removed.
    scratch: Scratch,
}

impl Bench {
    /// `extra` goes into `[[engines]]`.
    fn start(world: &World, extra: &str) -> Result<Self> {
        Self::of_program(world, PROGRAM, extra)
    }

    fn of_program(world: &World, program: &str, extra: &str) -> Result<Self> {
        let scratch = Scratch::new()?;
        let command = scratch.places().disk().join("engine");
        fs::write(&command, program)?;
        fs::set_permissions(&command, fs::Permissions::from_mode(0o755))?;
        let node = world.own_node(&format!(
            "[scan]\ntimeout = '3s'\non_write = false\n[[engines]]\nname = 'example'\ncommand = '{}'\n{extra}",
            command.display()
        ))?;
        let id = node.id("engines");
        node.detach(&Run::new(&id, IMAGE).tmpfs("/tmp").args(&["/bin/sleep", "600"]))?;
        let bench = Self { node, id, scratch };
        bench.shell("cat /dev/null")?.ok()?;
        Ok(bench)
    }

    fn shell(&self, script: &str) -> Result<Outcome> {
        self.node.exec(&self.id, &["/bin/sh", "-c", script])
    }

    /// Makes a shell with these words in it, and runs it.
    fn run(&self, words: &str) -> Result<Outcome> {
        let folder = format!("/tmp/{}", words.len());
        self.shell(&format!(
            "mkdir -p {folder} && cp /bin/busybox {folder}/sh && printf '%s' '{words}' >> {folder}/sh && \
             {folder}/sh -c 'echo {EFFECT}'"
        ))
    }

    fn count(&self, key: &str) -> Result<u64> {
        let status = self.node.daemon()?.status()?;
        let engine = status.pointer("/engines/0").context("no engine")?;
        ensure!(
            engine.get("name").and_then(Value::as_str) == Some("example"),
            "{engine}"
        );
        let count = engine.get(key).and_then(Value::as_u64);
        count.with_context(|| format!("no {key} in {engine}"))
    }

    fn denial(&self) -> Result<Incident> {
        let incidents = self.node.incidents_of(&self.id)?;
        let found = incidents.iter().find(|incident| incident.denied());
        found
            .cloned()
            .with_context(|| format!("no denial in {incidents:?}"))
    }

    fn end(self) -> Result<()> {
        self.node.remove(&self.id)?;
        drop((self.node, self.scratch));
        Ok(())
    }
}

fn found(world: &World) -> Result<()> {
    let bench = Bench::start(world, "")?;
    was_denied(&bench.run(MARKER)?)?;
    let incident = bench.denial()?;
    ensure!(
        (incident.text("/rule"), incident.text("/engine")) == ("example: Marker", "external"),
        "{incident:?}"
    );
    ensure!(incident.text("/priority") == "Critical", "{incident:?}");
    ensure!(bench.run("something else")?.ok()? == EFFECT);
    ensure!(bench.count("found")? == 1 && bench.count("failed")? == 0);
    // It is asked once, until somebody says that it judges by something else.
    let (again, asked) = ("/tmp/14/sh -c true", bench.count("asked")?);
    bench.shell(again)?.ok()?;
    ensure!(bench.count("asked")? == asked);
    command::check(&mut bench.node.daemon()?.cli(&["rules", "reload"]))?;
    bench.shell(again)?.ok()?;
    ensure!(bench.count("asked")? > asked);
    bench.end()
}

/// A small content is in the message, a larger one in memory beside it.
fn sizes(world: &World) -> Result<()> {
    let bench = Bench::start(world, "")?;
    for size in [1, 1_000, 1_000_000] {
        let text = format!("head -c {size} /dev/zero > /tmp/{size}");
        let clean = bench.shell(&format!("{text}; wc -c < /tmp/{size}"))?;
        ensure!(clean.ok()? == size.to_string(), "{clean:?}");
        was_denied(&bench.shell(&format!(
            "{text}; printf {MARKER} >> /tmp/{size}; wc -c < /tmp/{size}"
        ))?)?;
    }
    ensure!(bench.count("found")? == 3 && bench.count("failed")? == 0);
    bench.end()
}

/// It crashes, or answers what is no answer: the file has no verdict, the next one has.
fn fails(world: &World, means: &str) -> Result<()> {
    let bench = Bench::start(world, &format!("on_failure = '{means}'"))?;
    for (at, words) in ["please crash", "please babble"].iter().enumerate() {
        let outcome = bench.run(words)?;
        if means == "others" {
            ensure!(outcome.ok()? == EFFECT, "the others' word counts");
        } else {
            was_denied(&outcome)?;
            ensure!(bench.denial()?.text("/rule") == "Unjudged file");
        }
        ensure!(bench.count("failed")? > at as u64, "{words} was not counted");
        // Another word each time: it is another content.
        was_denied(&bench.run(&format!("{words}{}{MARKER}", "-".repeat(at)).replace("please", "no"))?)?;
        ensure!(bench.run(&format!("fine {at}"))?.ok()? == EFFECT);
    }
    bench.end()
}

fn stalls(world: &World) -> Result<()> {
    let bench = Bench::start(world, "")?;
    let begun = Instant::now();
    was_denied(&bench.run("please stall")?)?;
    let waited = begun.elapsed();
    ensure!((TIMEOUT..3 * TIMEOUT).contains(&waited), "it took {waited:?}");
    ensure!(bench.count("failed")? > 0);
    was_denied(&bench.run(MARKER)?)?;
    ensure!(bench.run("fine")?.ok()? == EFFECT);
    bench.end()
}

/// The engine tells what it can do.
fn sandboxed(world: &World) -> Result<()> {
    let able = |bench: &Bench| -> Result<String> {
        was_denied(&bench.run("please try")?)?;
        Ok(bench.denial()?.text("/rule").to_owned())
    };
    let bench = Bench::start(world, "")?;
    ensure!(able(&bench)? == "example: Able: uid 65534");
    bench.end()?;
    // That it says so when it can.
    let system = "'/usr', '/bin', '/lib', '/lib64', '/etc'";
    let bench = Bench::start(world, &format!("paths = [{system}]"))?;
    ensure!(able(&bench)? == "example: Able: reads /etc/passwd, uid 65534");
    bench.end()
}

/// What it fails at has no verdict; lazaretd goes on.
fn cannot_run(world: &World) -> Result<()> {
    let bench = Bench::of_program(world, "#!/nonexistent\n", "on_failure = 'others'")?;
    ensure!(bench.run("fine")?.ok()? == EFFECT);
    ensure!(bench.count("failed")? > 0);
    bench.end()
}
