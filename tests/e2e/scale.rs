//! Many containers at once: none is unguarded, and nothing stays of them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use lazaret_tests::herd::{self, Held, Herd};
use lazaret_tests::node::Node;
use lazaret_tests::run::Run;
use lazaret_tests::wait;

use crate::case::Case;
use crate::world::{EVIL, IMAGE, World};

pub(crate) const CASES: &[Case] = &[
    Case::alone("scale::each_with_its_shim", |world| many(world, 1)),
    Case::alone("scale::pods_of_ten", |world| many(world, 10)),
];

const CONTAINERS: usize = 100;
/// At a time.
const TOGETHER: usize = 6;
const SOON: Duration = Duration::from_secs(20);

fn many(world: &World, pod: usize) -> Result<()> {
    let node = world.own_node("")?;
    let template = |name: &str| Run::new(name, IMAGE).args(&["/bin/sleep", "600"]);
    let groups = Held::by(&node)?.groups;
    // Whatever else lazaretd keeps for good, it has after a few containers.
    live(Herd::new(&node, template("first"), pod, TOGETHER), TOGETHER)?;
    let before = none_left(&node, |held| held.groups <= groups)?;
    live(Herd::new(&node, template("many"), pod, TOGETHER), CONTAINERS)?;
    let no_more = |held: &Held| {
        held.groups <= groups && held.descriptors <= before.descriptors && held.threads <= before.threads
    };
    none_left(&node, no_more).with_context(|| {
        let now = Held::by(&node);
        format!("something stays: {before:?}, then {now:?}")
    })?;
    Ok(())
}

fn live(mut herd: Herd<'_>, count: usize) -> Result<()> {
    herd.grow(count)?;
    herd.is_guarded(false)?;
    herd.each(|id| herd::refuses(herd.node(), id, EVIL))?;
    herd.is_guarded(true)?;
    herd.stop()
}

/// What lazaretd holds once all is over and `as_expected`. A thread for what blocks stays for some
/// seconds after its work.
fn none_left(node: &Node, as_expected: impl Fn(&Held) -> bool) -> Result<Held> {
    wait::until_true("the shims to end", SOON, || node.shims().is_empty())?;
    wait::until("lazaretd to let go", SOON, || {
        let held = Held::by(node).ok()?;
        (held.containers == 0 && as_expected(&held)).then_some(held)
    })
}
