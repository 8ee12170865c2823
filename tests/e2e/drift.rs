//! A container that runs what its image does not have, without any signature.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lazaret_tests::incident::Incident;
use lazaret_tests::node::Node;
use lazaret_tests::run::Run;

use crate::case::Case;
use crate::world::{DYNAMIC, IMAGE, World};

pub(crate) const CASES: &[Case] = &[
    Case::shared("drift::alert_by_default_and_once", alert),
    Case::shared("drift::one_thousand_denied", thousand),
    Case::shared("drift::read_before_it_runs_denied", read_first),
    Case::shared("drift::image_files_run_however_they_were_touched", image_files),
    Case::shared("drift::listed_program_and_folder_may", exceptions),
    Case::shared("drift::owner_may_not_where_the_admin_says_so", admin_decides),
];

const SOON: Duration = Duration::from_secs(2);
const ANNOTATION: &str = "--annotation";
const DENY: &str = "lazaret.io/drift=deny";

/// Makes an executable that no image has and no signature knows.
const BRING: &str = "bring() { cp /bin/busybox $1 && echo more >> $1 && chmod +x $1; }; ";

fn drifts(node: &Node, id: &str) -> Result<Vec<Incident>> {
    let incidents = node.incidents_of(id)?;
    let drifts = incidents
        .into_iter()
        .filter(|incident| incident.text("/rule") == "Drift");
    Ok(drifts.collect())
}

fn alert(world: &World) -> Result<()> {
    let node = world.node()?;
    let id = node.id("drift-alert");
    node.detach(&Run::new(&id, IMAGE).args(&["/bin/sleep", "600"]))?;
    let shell = |script: &str| node.exec(&id, &["/bin/sh", "-c", script])?.ok();
    let run = "/opt/sh -c 'echo ran'";
    ensure!(
        shell(&format!("{BRING} bring /opt/sh; {run}"))? == "ran",
        "an alert is no refusal"
    );
    // It is remembered a moment after it was answered.
    std::thread::sleep(SOON);
    let told = drifts(&node, &id)?.len();
    ensure!(told > 0, "nothing was told");
    ensure!(shell(&format!("{run}; {run}; {run}"))? == "ran\nran\nran");
    std::thread::sleep(SOON);
    let drifts = drifts(&node, &id)?;
    ensure!(drifts.len() == told, "unchanged, and told again: {drifts:?}");
    let drift = drifts.first().context("nothing was told")?;
    ensure!(drift.text("/action") == "alert", "{drift:?}");
    ensure!(drift.text("/priority") == "Warning", "{drift:?}");
    ensure!(drift.text("/file/path") == "/opt/sh", "{drift:?}");
    node.remove(&id)
}

fn thousand(world: &World) -> Result<()> {
    let node = world.node()?;
    let id = node.id("drift-deny");
    let script = format!(
        "{BRING} bring /opt/sh; bring /tmp/sh; i=0; while [ $i -lt 500 ]; do \
        /opt/sh -c 'echo ran' 2> /opt/error; /tmp/sh -c 'echo ran' 2> /dev/null; i=$((i + 1)); done; \
        cat /opt/error; echo tried $i"
    );
    let run = Run::new(&id, IMAGE).tmpfs("/tmp").option(ANNOTATION, DENY);
    let outcome = node.run(&run.sh(&script))?;
    let said = outcome.ok()?;
    ensure!(said.ends_with("tried 500"), "{outcome:?}");
    ensure!(!said.contains("ran"), "a denied file ran: {outcome:?}");
    ensure!(said.contains("Operation not permitted"), "{outcome:?}");
    let drifts = drifts(&node, &id)?;
    let drift = drifts.first().context("nothing was told")?;
    ensure!(drift.denied() && drift.text("/priority") == "Error", "{drift:?}");
    Ok(())
}

/// A file that was found clean when it was read is still asked about when it runs.
fn read_first(world: &World) -> Result<()> {
    let node = world.node()?;
    let id = node.id("drift-read");
    let script = format!(
        "{BRING} bring /opt/sh; cat /opt/sh > /dev/null; cat /opt/sh > /dev/null; /opt/sh -c 'echo ran'; echo $?"
    );
    let outcome = node.run(&Run::new(&id, IMAGE).option(ANNOTATION, DENY).sh(&script))?;
    ensure!(outcome.ok()? == "126", "{outcome:?}");
    Ok(())
}

fn image_files(world: &World) -> Result<()> {
    let node = world.node()?;
    let id = node.id("drift-image");
    let script = format!(
        "chown 1000 {DYNAMIC}; touch {DYNAMIC}; {DYNAMIC} -c 'echo touched'; \
        echo more >> {DYNAMIC}; {DYNAMIC} -c 'echo changed'; echo $?"
    );
    let outcome = node.run(&Run::new(&id, IMAGE).option(ANNOTATION, DENY).sh(&script))?;
    ensure!(outcome.ok()? == "touched\n126", "{outcome:?}");
    Ok(())
}

fn exceptions(world: &World) -> Result<()> {
    let config = format!("[drift]\naction = 'deny'\nprograms = ['{DYNAMIC}']\nfolders = ['/opt/plugins']");
    let node = world.own_node(&config)?;
    let id = node.id("drift-rule");
    let script = format!(
        "{BRING} bring /opt/sh; mkdir /opt/plugins; bring /opt/plugins/sh; \
        {DYNAMIC} -c '/opt/sh -c \"echo by a program\"; true'; \
        {DYNAMIC} -c '/bin/sh -c \"/opt/sh -c \\\"echo by its child\\\"; true\"; true'; \
        /opt/plugins/sh -c 'echo in a folder'; \
        cp {DYNAMIC} /opt/other; mv /opt/other {DYNAMIC}; /opt/sh -c 'echo by nobody'; echo $?"
    );
    let outcome = node.run(&Run::new(&id, IMAGE).sh(&script))?;
    let expected = "by a program\nby its child\nin a folder\n126";
    ensure!(outcome.ok()? == expected, "{outcome:?}");
    Ok(())
}

fn admin_decides(world: &World) -> Result<()> {
    let node = world.own_node("[drift]\naction = 'deny'\nowner_decides = false")?;
    let id = node.id("drift-admin");
    let run = Run::new(&id, IMAGE).option(ANNOTATION, "lazaret.io/drift=allow");
    let outcome = node.run(&run.sh(&format!("{BRING} bring /opt/sh; /opt/sh -c 'echo ran'; echo $?")))?;
    ensure!(outcome.ok()? == "126", "{outcome:?}");
    Ok(())
}
