//! What a container writes is judged before anybody opens it.

use std::time::Duration;

use anyhow::{Result, ensure};
use lazaret_tests::incident::Incident;
use lazaret_tests::node::Node;
use lazaret_tests::run::Run;
use lazaret_tests::wait;

use crate::case::Case;
use crate::check::{denial, drop_file, effect, was_denied};
use crate::world::{IMAGE, World, dropped};

pub(crate) const CASES: &[Case] = &[
    Case::shared("writes::found_before_it_is_opened", found),
    Case::shared("writes::quarantined_before_it_is_opened", quarantined),
    Case::shared("writes::flood_holds_nobody_up", flood),
];

const SOON: Duration = Duration::from_secs(30);

/// The incident of a bad file that was written.
fn written(node: &Node, id: &str) -> Option<Incident> {
    let incidents = node.incidents_of(id).ok()?;
    let mut found = incidents
        .into_iter()
        .filter(|incident| incident.text("/output_fields/evt.type") == "close");
    found.next()
}

fn found(world: &World) -> Result<()> {
    let node = world.node()?;
    for folder in ["/opt", "/tmp"] {
        let id = node.id("written");
        let script = format!("{}; sleep 600", drop_file(&format!("{folder}/new")));
        node.detach(&Run::new(&id, IMAGE).tmpfs("/tmp").sh(&script))?;
        let told = wait::until("a bad file to be found", SOON, || written(&node, &id))?;
        ensure!(told.text("/action") == "alert", "{told:?}");
        ensure!(told.text("/file/sha256") == dropped()?.sha256, "{told:?}");
        ensure!(told.text("/file/path") == format!("{folder}/new"), "{told:?}");
        // Found is not enough to let it run.
        let outcome = node.exec(&id, &["/bin/sh", "-c", &effect(&format!("{folder}/new"))])?;
        was_denied(&outcome)?;
        denial(&node, &id, &dropped()?.sha256)?;
        node.remove(&id)?;
    }
    Ok(())
}

fn quarantined(world: &World) -> Result<()> {
    let node = world.own_node("[quarantine]\nmode = 'all'")?;
    let id = node.id("written");
    let script = format!(
        "{}; while [ -e /opt/new ]; do sleep 0.1; done; echo gone",
        drop_file("/opt/new")
    );
    let outcome = node.run(&Run::new(&id, IMAGE).sh(&script))?;
    ensure!(outcome.ok()? == "gone", "{outcome:?}");
    Ok(())
}

fn flood(world: &World) -> Result<()> {
    let node = world.own_node("")?;
    let id = node.id("writer");
    // More than the kernel remembers at once.
    let script = "/opt/inside fill /tmp/many 30000 > /dev/null; echo done";
    let outcome = node.run(&Run::new(&id, IMAGE).tmpfs("/tmp").sh(script))?;
    ensure!(outcome.ok()? == "done", "{outcome:?}");
    let status = node.daemon()?.status()?;
    let count = |name: &str| {
        status
            .pointer(&format!("/counters/{name}"))
            .and_then(serde_json::Value::as_u64)
    };
    let judged = count("written").unwrap_or_default() + count("writes_lost").unwrap_or_default();
    ensure!(judged > 0, "nothing was judged, nothing was lost: {status}");
    Ok(())
}
