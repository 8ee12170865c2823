//! Case by case, what the stock shim does and what lazaret's does: the same, or another thing for
//! a reason that is written down. A run of all of them writes `docs/conformance.md`.

mod control;
mod differences;
mod exec;
mod init;
mod node_wide;
mod options;
mod pods;
mod stdio;
mod table;
mod terminals;

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context as _, Result, bail};
use lazaret_tests::node::Node;
use lazaret_tests::run::{LAZARET, STOCK};

use crate::by_hand::bundle::Spec;
use crate::by_hand::{Answer, Shim, Stdio, code, expect};
use crate::case::Case;
use crate::world::World;

pub(crate) use table::publish;

/// All cases, in the order of the table.
pub(crate) fn cases() -> impl Iterator<Item = Case> {
    let topics = [
        init::CASES,
        exec::CASES,
        stdio::CASES,
        terminals::CASES,
        control::CASES,
        pods::CASES,
        options::CASES,
        node_wide::CASES,
    ];
    topics.into_iter().flatten().copied()
}

/// One of the two runtimes, for a case to try: what it tells of it is compared.
pub(crate) struct Side<'a> {
    world: &'a World,
    node: &'a Node,
    runtime: &'static str,
    counter: AtomicU32,
    prefix: String,
}

impl<'a> Side<'a> {
    /// A name that no other container has.
    fn id(&self) -> String {
        format!("{}-{}", self.prefix, self.counter.fetch_add(1, Ordering::Relaxed))
    }

    /// A shim for a container that is not created yet.
    fn shim(&self, spec: &Spec) -> Result<Shim<'a>> {
        Shim::start(self.world, self.node, self.runtime, spec)
    }

    /// A created container without streams, and its shim.
    fn created(&self, spec: &Spec) -> Result<Shim<'a>> {
        self.created_with(spec, &Stdio::null())
    }

    fn created_with(&self, spec: &Spec, stdio: &Stdio) -> Result<Shim<'a>> {
        let shim = self.shim(spec)?;
        expect(shim.create(spec, stdio)?)?;
        Ok(shim)
    }

    /// A started container without streams, and its shim.
    fn started(&self, spec: &Spec) -> Result<Shim<'a>> {
        self.started_with(spec, &Stdio::null())
    }

    fn started_with(&self, spec: &Spec, stdio: &Stdio) -> Result<Shim<'a>> {
        let shim = self.created_with(spec, stdio)?;
        expect(shim.start_process(spec.id(), "")?)?;
        Ok(shim)
    }

    /// Fifos for the streams of a process.
    fn streams(&self) -> std::path::PathBuf {
        self.node.scratch().places().fifos().join(self.id())
    }
}

/// Tries a case on both sides and compares what they tell.
pub(crate) fn compare(
    world: &World,
    name: &'static str,
    case: fn(&Side<'_>) -> Result<String>,
) -> Result<()> {
    let node = world.node()?;
    let try_on = |runtime, letter: &str| {
        let side = Side {
            world,
            node: &node,
            runtime,
            counter: AtomicU32::new(0),
            prefix: node.id(letter),
        };
        case(&side).with_context(|| runtime.to_owned())
    };
    let (ours, stock) = thread::scope(|scope| {
        let stock = scope.spawn(|| try_on(STOCK, "s"));
        (try_on(LAZARET, "l"), stock.join())
    });
    let Ok(stock) = stock else {
        bail!("the stock runtime's half panicked")
    };
    let (ours, stock) = match (ours, stock) {
        (Ok(ours), Ok(stock)) => (ours, stock),
        (Err(ours), Err(stock)) => bail!("{ours:#}\nand {stock:#}"),
        (ours, stock) => {
            let (ours, stock) = (ours?, stock?);
            bail!("{ours} {stock}");
        }
    };
    let series = world.release().series;
    let why = differences::reason(name, series);
    table::add(name, series, &stock, &ours, why);
    match (ours == stock, why) {
        (true, None) | (false, Some(_)) => Ok(()),
        (true, Some(why)) => bail!("listed as a difference ({why}), and yet the same: {ours}"),
        (false, None) => bail!("not as under the stock runtime:\nlazaret: {ours}\nrunc-v2: {stock}"),
    }
}

/// Answers by what was asked, as `start OK, start again FAILED_PRECONDITION`.
#[derive(Default)]
struct Told(Vec<String>);

impl Told {
    fn new() -> Self {
        Self::default()
    }

    fn say(&mut self, what: impl Into<String>) {
        self.0.push(what.into());
    }

    /// The code of an answer.
    fn answer<T>(&mut self, asked: &str, answer: &Answer<T>) {
        self.say(format!("{asked} {}", code(answer)));
    }

    fn done(self) -> Result<String> {
        Ok(self.0.join(", "))
    }
}
