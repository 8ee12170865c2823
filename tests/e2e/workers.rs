//! Scan workers that hang, die or starve: one file has no verdict, and
//! everything else goes on.

use std::fs;
use std::path::{Path, PathBuf};
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
    Case::shared("workers::out_of_the_kernels_memory_is_replaced", starved),
    Case::shared("workers::out_of_its_own_memory_is_replaced", greedy),
    Case::shared("workers::bad_rule_file_spares_the_rest", bad_rule_file),
    Case::shared("workers::new_rules_judge_at_once", reloaded),
    Case::alone("workers::what_is_over_a_limit_is_unpacked_once", over_a_limit),
];

/// Never comes to an end on a file that begins with its mark.
const ENDLESS: &str = "rule endless { strings: $m = \"lazaret-endless\" condition: $m at 0 and \
    for all i in (0..filesize - 1) : (for all j in (0..filesize - 1) : (uint8(i) + uint8(j) >= 0)) }";

/// Remembers a digest for each piece of a file that begins with its mark: more than a gigabyte.
const GREEDY: &str = "import \"hash\" rule greedy { strings: $m = \"lazaret-greedy\" condition: $m at 0 and \
    for all i in (0..filesize - 1) : (for all n in (1..16) : (hash.md5(i, n) != \"\")) }";

/// Makes an executable that the greedy rule takes memory for.
const HUNGRY: &str = "printf lazaret-greedy > /tmp/hungry; head -c 900000 /bin/busybox >> /tmp/hungry; \
    chmod +x /tmp/hungry; /tmp/hungry";

/// Memory ends before time does.
const PATIENT: &str = "[watchdog]\ndeadline = '120s'\n[scan]\ntimeout = '60s'";

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
        Self::configured(world, "[scan]\ntimeout = '2s'", rules)
    }

    /// As [`Rules::start`]; `config` ends in its `[scan]`.
    fn configured(world: &World, config: &str, rules: &[(&str, &str)]) -> Result<Self> {
        let folder = mkdtemp("/tmp/lazaret-rules.XXXXXX")?;
        for (name, text) in rules {
            fs::write(folder.join(name), text)?;
        }
        let node = world.own_node(&format!(
            "{config}\non_write = false\nrules = ['{}']",
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
        let children = |parent: Pid| procs::all().filter(move |pid| procs::parent(*pid) == Some(parent));
        Ok(children(daemon).flat_map(children).collect())
    }

    /// The worker failed at a file; it was not merely slow.
    fn engine_failed(&self) -> Result<()> {
        let told = self.node.incidents_of(&self.id)?;
        let why = "the engine that judged it failed";
        ensure!(
            told.iter()
                .any(|incident| incident.denied() && incident.text("/output").ends_with(why)),
            "{told:?}"
        );
        let log = self.node.daemon()?.log();
        ensure!(log.contains("the scan worker died"), "{log}");
        Ok(())
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

/// The kernel, not the worker, finds that there is no memory.
fn starved(world: &World) -> Result<()> {
    let rules = Rules::configured(world, PATIENT, &[("greedy.yar", GREEDY)])?;
    let tight = TightMemory::new(rules.node.scratch().places().name(), 16 << 20)?;
    rules.shell("true")?.ok()?;
    let workers = rules.workers()?;
    ensure!(!workers.is_empty(), "nobody judged the shell");
    workers.iter().try_for_each(|worker| tight.hold(*worker))?;
    // The content itself is in memory that lazaretd has filled.
    was_denied(&rules.shell(HUNGRY)?)?;
    ensure!(tight.kills()? > 0, "nobody was killed for want of memory");
    rules.engine_failed()?;
    rules.goes_on()
}

fn greedy(world: &World) -> Result<()> {
    let little = format!("{PATIENT}\nmax_file_size = '4MiB'\nworker_memory = '132MiB'");
    let rules = Rules::configured(world, &little, &[("greedy.yar", GREEDY)])?;
    was_denied(&rules.shell(HUNGRY)?)?;
    rules.engine_failed()?;
    rules.goes_on()
}

/// A memory cgroup that gives little, found by the sweep under the run's name.
struct TightMemory {
    folder: PathBuf,
    /// Where it counts whom the kernel has killed.
    events: &'static str,
}

impl TightMemory {
    fn new(run: &str, bytes: u64) -> Result<Self> {
        let v1 = Path::new("/sys/fs/cgroup/memory");
        if v1.is_dir() {
            Self::make(
                &v1.join(run),
                "memory.limit_in_bytes",
                "memory.oom_control",
                bytes,
            )
        } else {
            let parent = Path::new("/sys/fs/cgroup").join(run);
            fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory")?;
            fs::write(parent.join("cgroup.subtree_control"), "+memory")?;
            Self::make(&parent, "memory.max", "memory.events", bytes)
        }
    }

    fn make(parent: &Path, limit: &str, events: &'static str, bytes: u64) -> Result<Self> {
        let folder = parent.join("tight");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(limit), bytes.to_string()).context("this machine limits no memory")?;
        Ok(Self { folder, events })
    }

    /// What a process takes from now on counts here; what it has stays where it was.
    fn hold(&self, pid: Pid) -> Result<()> {
        Ok(fs::write(self.folder.join("cgroup.procs"), pid.to_string())?)
    }

    fn kills(&self) -> Result<u64> {
        let text = fs::read_to_string(self.folder.join(self.events))?;
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        Ok(count.context("the kernel counts no kills")?.parse()?)
    }
}

/// It has used more than a tenth of a second.
fn is_busy(pid: &Pid) -> bool {
    lazaret_sys::stat::of(pid.as_raw()).is_ok_and(|stat| stat.ticks >= 10)
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

/// An archive that unpacks to more than it may is told about at each open, and unpacked once.
fn over_a_limit(world: &World) -> Result<()> {
    let config = "[scan]\ntimeout = '4s'\nunpack = { size = '128MiB', ratio = 1000000 }";
    let rules = Rules::configured(world, config, &[])?;
    let bomb = "dd if=/dev/zero bs=1M count=160 2>/dev/null | gzip > /tmp/bomb.gz";
    rules.shell(bomb)?.ok()?;
    let open = |path: &str, known: usize| -> Result<u64> {
        let busy = || Ok::<_, anyhow::Error>(procs::Weight::of(rules.workers()?).ticks);
        let before = busy()?;
        rules.shell(&format!("cat {path} > /dev/null"))?.ok()?;
        wait::until_true("the incident", SOON, || {
            let told = rules.node.incidents_of(&rules.id).unwrap_or_default();
            let told = told
                .iter()
                .filter(|it| it.text("/output").contains("scan.unpack.size"));
            told.count() == known
        })?;
        Ok(busy()?.saturating_sub(before))
    };
    let first = open("/tmp/bomb.gz", 1)?;
    ensure!(first >= 5, "too little work to tell by: {first} ticks");
    for known in 2..5 {
        let again = open("/tmp/bomb.gz", known)?;
        ensure!(again * 4 < first, "unpacked again: {again} ticks after {first}");
    }
    // Whoever allows it is heard, and so is who takes that back. To be digested, it is opened.
    let sha256 = rules.shell("sha256sum /tmp/bomb.gz")?.ok()?;
    let sha256 = sha256.split_whitespace().next().context("no digest")?;
    command::check(&mut rules.node.daemon()?.cli(&["allow", "add", sha256]))?;
    open("/tmp/bomb.gz", 5)?;
    command::check(&mut rules.node.daemon()?.cli(&["allow", "rm", sha256]))?;
    open("/tmp/bomb.gz", 6)?;
    rules.node.remove(&rules.id)?;
    Ok(fs::remove_dir_all(&rules.folder)?)
}
