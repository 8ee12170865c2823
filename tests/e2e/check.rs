//! What several topics assert.

use anyhow::{Context, Result, ensure};
use lazaret_tests::command::Outcome;
use lazaret_tests::incident::Incident;
use lazaret_tests::malware::{EFFECT, tail};
use lazaret_tests::node::Node;

use crate::world::DROPPED;

/// The malware left no trace in the output, and the container failed or went on without it.
pub(crate) fn did_not_run(outcome: &Outcome) -> Result<()> {
    let said = format!("{}{}", outcome.out(), outcome.err());
    ensure!(!said.contains(EFFECT), "the malware ran: {outcome:?}");
    Ok(())
}

/// As [`did_not_run`], and whoever tried was told `EPERM`.
pub(crate) fn was_denied(outcome: &Outcome) -> Result<()> {
    did_not_run(outcome)?;
    let said = format!("{}{}", outcome.out(), outcome.err()).to_lowercase();
    ensure!(
        said.contains("operation not permitted"),
        "not denied as it should be: {said}"
    );
    Ok(())
}

/// The first incident of a container that denied the file with this hash.
pub(crate) fn denial(node: &Node, id: &str, sha256: &str) -> Result<Incident> {
    let incidents = node.incidents_of(id)?;
    let mut found = incidents.iter().filter(|incident| incident.denied());
    let found = found.find(|incident| incident.text("/file/sha256") == sha256);
    found
        .cloned()
        .with_context(|| format!("no denial of {sha256} in {incidents:?}"))
}

/// A script that makes the listed file `path` of busybox, as an attacker drops one.
pub(crate) fn drop_file(path: &str) -> String {
    let tail = tail(DROPPED);
    format!("cp /bin/busybox {path} && printf '%s' '{tail}' >> {path} && chmod +x {path}")
}

/// Does and says what the malware would.
pub(crate) fn effect(path: &str) -> String {
    format!("{path} -c 'echo {EFFECT}'")
}
