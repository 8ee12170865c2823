//! Scan workers that hang or die: one file has no verdict, and
//! everything else goes on.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lazaret_tests::node::Node;
use lazaret_tests::run::Run;
use lazaret_tests::{command, procs, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, mkdtemp};

use crate::case::Case;
use crate::check::was_denied;
use crate::world::{IMAGE, World};

pub(crate) const CASES: &[Case] = &[
    Case::shared("workers::stalled_is_replaced", stalled),
    Case::shared("workers::killed_is_replaced", killed),
    Case::shared("workers::bad_rule_file_spares_the_rest", bad_rule_file),
    Case::shared("workers::new_rules_judge_at_once", reloaded),
];

/// Never comes to an end on a file that begins with its mark.
const ENDLESS: &str = "rule endless { strings: $m = \"lazaret-endless\" condition: $m at 0 and \
    for all i in (0..filesize - 1) : (for all j in (0..filesize - 1) : (uint8(i) + uint8(j) >= 0)) }";

const SOON: Duration = Duration::from_secs(10);

/// Makes an executable that the endless rule gets stuck at.
const STICKY: &str = "printf 'lazaret-endless' > /tmp/sticky; head -c 900000 /bin/busybox >> /tmp/sticky; \
    chmod +x /tmp/sticky; /tmp/sticky; echo code $?";

struct Rules {
    node: Node,
    id: String,
    folder: PathBuf,
}

impl Rules {
    /// A node with these rules alone, and a container on it.
    fn start(world: &World, rules: &[(&str, &str)]) -> Result<Self> {
        let folder = mkdtemp("/tmp/lazaret-rules.XXXXXX")?;
        for (name, text) in rules {
            fs::write(folder.join(name), text)?;
        }
        let node = world.own_node(&format!(
            "[scan]\ntimeout = '2s'\nrules = ['{}']",
            folder.display()
        ))?;
        let id = node.id("workers");
        node.detach(&Run::new(&id, IMAGE).args(&["/bin/sleep", "600"]))?;
        Ok(Self { node, id, folder })
    }

    fn shell(&self, script: &str) -> Result<command::Outcome> {
        self.node.exec(&self.id, &["/bin/sh", "-c", script])
    }

    /// The processes that judge: children of the zygote, which is a child of lazaretd.
    fn workers(&self) -> Result<Vec<Pid>> {
        let daemon = self.node.daemon()?.pid().context("lazaretd runs")?;
        let children = |parent: Pid| procs::all().filter(move |pid| parent_of(*pid) == Some(parent));
        Ok(children(daemon).flat_map(children).collect())
    }

    /// Whoever judges now answers for the file at hand only; then all is as before.
    fn goes_on(self) -> Result<()> {
        let told = self.node.incidents_of(&self.id)?;
        ensure!(
            told.iter()
                .any(|incident| incident.text("/rule") == "Unjudged file"),
            "nothing was told: {told:?}"
        );
        let fresh = self.shell("cp /bin/busybox /tmp/sh; /tmp/sh -c 'echo fine'")?;
        ensure!(fresh.ok()?.contains("fine"), "nothing is judged any more");
        self.node.remove(&self.id)?;
        Ok(fs::remove_dir_all(&self.folder)?)
    }
}

fn parent_of(pid: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
        .map(Pid::from_raw)
}

fn stalled(world: &World) -> Result<()> {
    let rules = Rules::start(world, &[("endless.yar", ENDLESS)])?;
    let begun = Instant::now();
    let outcome = rules.shell(STICKY)?;
    ensure!(
        outcome.err().contains("Operation not permitted"),
        "it ran: {outcome:?}"
    );
    ensure!(begun.elapsed() < SOON, "it took {:?}", begun.elapsed());
    rules.goes_on()
}

fn killed(world: &World) -> Result<()> {
    let rules = Rules::start(world, &[("endless.yar", ENDLESS)])?;
    let mut sticky = rules
        .node
        .exec_command("sticky", &rules.id, &["/bin/sh", "-c", STICKY]);
    let running = command::Running::start(&mut sticky)?;
    let busy = wait::until("a busy worker", SOON, || {
        rules.workers().ok()?.into_iter().find(is_busy)
    })?;
    kill(busy, Signal::SIGSEGV)?;
    let outcome = running.wait(SOON)?;
    ensure!(
        outcome.err().contains("Operation not permitted"),
        "it ran: {outcome:?}"
    );
    rules.goes_on()
}

/// It has used more than a tenth of a second.
fn is_busy(pid: &Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let ticks = after_name
        .split_whitespace()
        .nth(11)
        .and_then(|ticks| ticks.parse::<u64>().ok());
    ticks.is_some_and(|ticks| ticks >= 10)
}

fn bad_rule_file(world: &World) -> Result<()> {
    let good =
        "rule good { meta: severity = \"Critical\" strings: $m = \"lazaret-good-rule\" condition: $m }";
    let rules = Rules::start(
        world,
        &[("a.yar", "rule bad {\n  condition: unknown }"), ("b.yar", good)],
    )?;
    let marked = "printf lazaret-good-rule > /tmp/marked; cat /tmp/marked";
    was_denied(&rules.shell(marked)?)?;
    let folder = rules.folder.display().to_string();
    let checked = command::run(&mut rules.node.daemon()?.cli(&["rules", "check"]))?;
    ensure!(checked.code == 1, "{checked:?}");
    ensure!(
        checked.out().contains(&format!("{folder}/a.yar:2:14: error")),
        "{checked:?}"
    );
    rules.node.remove(&rules.id)?;
    Ok(fs::remove_dir_all(&rules.folder)?)
}

fn reloaded(world: &World) -> Result<()> {
    let rules = Rules::start(world, &[])?;
    let marked = "printf lazaret-new-rule > /tmp/marked; cat /tmp/marked";
    rules.shell(marked)?.ok()?;
    let new = "rule new_one { meta: severity = \"Error\" strings: $m = \"lazaret-new-rule\" condition: $m }";
    fs::write(rules.folder.join("new.yar"), new)?;
    command::check(&mut rules.node.daemon()?.cli(&["rules", "reload"]))?;
    was_denied(&rules.shell("cat /tmp/marked")?)?;
    let listed = command::check(&mut rules.node.daemon()?.cli(&["rules", "list"]))?;
    ensure!(listed.contains("new_one"), "{listed}");
    rules.node.remove(&rules.id)?;
    Ok(fs::remove_dir_all(&rules.folder)?)
}
