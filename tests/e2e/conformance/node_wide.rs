//! What takes a whole containerd: `ctr` and the daemon in between.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lazaret_tests::run::Run;
use lazaret_tests::wait;
use nix::sys::signal::{Signal, kill};

use super::{Side, Told};
use crate::by_hand::SOON;
use crate::case::Case;
use crate::world::IMAGE;

pub(super) const CASES: &[Case] = &[
    Case::compared("conformance::node::log_uri_file", log_file),
    Case::compared("conformance::node::containerd_restarts", restart),
    Case::compared("conformance::node::shim_is_killed", shim_killed),
    Case::compared("conformance::node::user_namespace", user_namespace),
    Case::compared("conformance::node::host_network_and_read_only_root", host_network),
    Case::compared("conformance::node::checkpoint_without_criu", checkpoint),
];

fn run(side: &Side<'_>, id: &str) -> Run {
    Run::new(id, IMAGE).runtime(side.runtime)
}

fn log_file(side: &Side<'_>) -> Result<String> {
    let log = side.streams().join("log");
    let id = side.id();
    let script = run(side, &id).option("--log-uri", &format!("file://{}", log.display())).sh("echo logged; exit 4");
    let mut command = side.node.run_command(&script, &["--detach"]);
    lazaret_tests::command::check(&mut command)?;
    status_is(side, &id, "STOPPED")?;
    side.node.remove(&id)?;
    Ok(format!("{:?}", fs::read_to_string(&log)?))
}

fn status_is(side: &Side<'_>, id: &str, wanted: &str) -> Result<()> {
    wait::until_true(&format!("{id} to be {wanted}"), SOON, || {
        side.node.task_status(id).is_ok_and(|status| status.as_deref() == Some(wanted))
    })
}

/// On a node of its own: others would miss their containerd.
fn restart(side: &Side<'_>) -> Result<String> {
    let mut node = side.world.own_node("")?;
    let (stays, ends) = (side.id(), side.id());
    node.detach(&run(side, &stays).args(&["/bin/sleep", "600"]))?;
    node.detach(&run(side, &ends).sh("until [ -e /end ]; do sleep 0.05; done; exit 6"))?;
    let init = node.task_pid(&ends)?.context("no task")?;
    let shims = node.shims();
    node.containerd_mut().stop()?;
    // While nobody listens, one of the two ends.
    fs::write(format!("/proc/{init}/root/end"), "")?;
    wait::until_true("the container to end", SOON, || !lazaret_tests::procs::alive(init))?;
    node.containerd_mut().resume()?;
    let mut told = Told::new();
    told.say(format!("the same shims {}", node.shims() == shims));
    let status = |id: &str| node.task_status(id).map(Option::unwrap_or_default);
    wait::until_true("both tasks to be known", SOON, || {
        status(&stays).is_ok_and(|is| is == "RUNNING") && status(&ends).is_ok_and(|is| is == "STOPPED")
    })?;
    told.say(format!("{} and {}", status(&stays)?, status(&ends)?));
    told.say(format!("exec {}", node.exec(&stays, &["/bin/sh", "-c", "exit 5"])?.code));
    let deleted = node.ctr(&["task", "delete", &ends])?;
    told.say(format!("exit code kept {}", deleted.err().contains("code 6") || deleted.code == 6));
    node.ctr(&["container", "delete", &ends])?;
    node.remove(&stays)?;
    told.done()
}

fn shim_killed(side: &Side<'_>) -> Result<String> {
    let node = side.node;
    let id = side.id();
    node.detach(&run(side, &id).args(&["/bin/sleep", "600"]))?;
    let init = node.task_pid(&id)?.context("no task")?;
    let shim = node.shims_of(&id).into_iter().next().context("no shim")?;
    kill(shim, Signal::SIGKILL)?;
    wait::until_true("init to be killed", SOON, || !lazaret_tests::procs::alive(init))?;
    wait::until_true("the cgroup and the mounts to go", SOON, || {
        !node.cgroups().iter().any(|dir| dir.ends_with(&id))
            && lazaret_tests::mounts::below(&node.containerd().bundle(&id)).is_empty()
    })?;
    let known = wait::until_true("the task to be forgotten", SOON, || {
        node.task_status(&id).is_ok_and(|status| status.is_none_or(|status| status != "RUNNING"))
    });
    node.ctr(&["task", "delete", &id])?;
    let again = node.ctr(&["container", "delete", &id])?;
    Ok(format!("init dead, nothing mounted, task no longer running {}, container deleted {}", known.is_ok(), again.code == 0))
}

fn user_namespace(side: &Side<'_>) -> Result<String> {
    let id = side.id();
    let script = "cat /proc/self/uid_map; id -u; stat -c %u /bin/busybox; touch /x && stat -c %u /x";
    let run = run(side, &id).option("--uidmap", "0:100000:65536").option("--gidmap", "0:100000:65536").sh(script);
    let outcome = side.node.run(&run)?;
    Ok(format!("exit {}, {}", outcome.code, outcome.out().split_whitespace().collect::<Vec<_>>().join(" ")))
}

fn host_network(side: &Side<'_>) -> Result<String> {
    let id = side.id();
    let run = run(side, &id).sh("touch /x 2>&1 | grep -o 'Read-only file system'; readlink /proc/self/ns/net");
    let mut command = side.node.run_command(&run, &["--rm", "--net-host", "--read-only"]);
    let outcome = lazaret_tests::command::run(&mut command)?;
    let own = fs::read_link("/proc/self/ns/net")?.display().to_string();
    Ok(format!("exit {}, {}", outcome.code, outcome.out().replace(&own, "the host's").replace('\n', ", ")))
}

fn checkpoint(side: &Side<'_>) -> Result<String> {
    let id = side.id();
    side.node.detach(&run(side, &id).args(&["/bin/sleep", "600"]))?;
    let outcome = side.node.ctr(&["task", "checkpoint", &id])?;
    ensure!(outcome.code != 0, "criu is here: {outcome:?}");
    std::thread::sleep(Duration::from_millis(100));
    let status = side.node.task_status(&id)?.unwrap_or_default();
    side.node.remove(&id)?;
    Ok(format!("refused, {status}"))
}
