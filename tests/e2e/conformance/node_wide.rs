//! What takes a whole containerd: `ctr` and the daemon in between.

use std::fs;
use std::sync::{Mutex, PoisonError};
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
    let script = run(side, &id)
        .option("--log-uri", &format!("file://{}", log.display()))
        .sh("echo logged; exit 4");
    let mut command = side.node.run_command(&script, &["--detach"]);
    lazaret_tests::command::check(&mut command)?;
    status_is(side, &id, "STOPPED")?;
    side.node.remove(&id)?;
    Ok(format!("{:?}", fs::read_to_string(&log)?))
}

fn status_is(side: &Side<'_>, id: &str, wanted: &str) -> Result<()> {
    wait::until_true(&format!("{id} to be {wanted}"), SOON, || {
        side.node
            .task_status(id)
            .is_ok_and(|status| status.as_deref() == Some(wanted))
    })
}

/// On a node of its own: others would miss their containerd. Of two containers, one ends while
/// containerd is away, and the other one afterwards.
fn restart(side: &Side<'_>) -> Result<String> {
    const SCRIPT: &str = "until [ -e /end ]; do sleep 0.05; done; exit 6";
    let mut node = side.world.own_node("")?;
    let (meanwhile, later) = (side.id(), side.id());
    for id in [&meanwhile, &later] {
        node.detach(&run(side, id).sh(SCRIPT))?;
    }
    let init = |id: &str| node.task_pid(id)?.context("no task");
    let (first, second) = (init(&meanwhile)?, init(&later)?);
    let end = |init: nix::unistd::Pid| {
        fs::write(format!("/proc/{init}/root/end"), "")?;
        wait::until_true("the container to end", SOON, || {
            !lazaret_tests::procs::alive(init)
        })
    };
    let shim = node.shims_of(&later);
    node.containerd_mut().stop()?;
    end(first)?;
    node.containerd_mut().resume()?;
    let mut told = Told::new();
    let status = |id: &str| {
        node.task_status(id)
            .map(|status| status.unwrap_or_else(|| "no task".to_owned()))
    };
    wait::until_true("the task to be known again", SOON, || {
        status(&later).is_ok_and(|is| is == "RUNNING")
    })?;
    told.say(format!("the same shim {}", node.shims_of(&later) == shim));
    told.say(format!("what ended meanwhile: {}", status(&meanwhile)?));
    told.say(format!(
        "exec {}",
        node.exec(&later, &["/bin/sh", "-c", "exit 5"])?.code
    ));
    end(second)?;
    wait::until_true("the exit to be known", SOON, || {
        status(&later).is_ok_and(|is| is == "STOPPED")
    })?;
    let deleted = node.ctr(&["task", "delete", &later])?;
    told.say(format!(
        "exit code kept {}",
        deleted.code == 6 || deleted.err().contains(" 6")
    ));
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
        node.task_status(&id)
            .is_ok_and(|status| status.is_none_or(|status| status != "RUNNING"))
    });
    node.ctr(&["task", "delete", &id])?;
    let again = node.ctr(&["container", "delete", &id])?;
    Ok(format!(
        "init dead, nothing mounted, task no longer running {}, container deleted {}",
        known.is_ok(),
        again.code == 0
    ))
}

fn user_namespace(side: &Side<'_>) -> Result<String> {
    /// `ctr` makes one snapshot for all, and fails if another one does so just then.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let id = side.id();
    let script = "cat /proc/self/uid_map; id -u; stat -c %u /bin/busybox; touch /x && stat -c %u /x";
    let run = run(side, &id)
        .option("--uidmap", "0:100000:65536")
        .option("--gidmap", "0:100000:65536")
        .sh(script);
    let outcome = side.node.run(&run)?;
    Ok(format!(
        "exit {}, {} {}",
        outcome.code,
        outcome.out().split_whitespace().collect::<Vec<_>>().join(" "),
        outcome.err()
    ))
}

fn host_network(side: &Side<'_>) -> Result<String> {
    let id = side.id();
    let run =
        run(side, &id).sh("touch /x 2>&1 | grep -o 'Read-only file system'; readlink /proc/self/ns/net");
    let mut command = side
        .node
        .run_command(&run, &["--rm", "--net-host", "--read-only"]);
    let outcome = lazaret_tests::command::run(&mut command)?;
    let own = fs::read_link("/proc/self/ns/net")?.display().to_string();
    Ok(format!(
        "exit {}, {}",
        outcome.code,
        outcome.out().replace(&own, "the host's").replace('\n', ", ")
    ))
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
