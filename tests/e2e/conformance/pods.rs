//! Shims and their pods: who shares one, when it ends, what is left after it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::protobuf::Message;
use lazaret_tests::{mounts, procs, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Side, Told};
use crate::by_hand::bundle::{self, Spec};
use crate::by_hand::{SOON, Shim, Stdio, code, descriptors, expect};
use crate::case::Case;

pub(super) const CASES: &[Case] = &[
    Case::compared("conformance::pods::group_annotation", by_group),
    Case::compared("conformance::pods::sandbox_annotation", by_sandbox),
    Case::compared("conformance::pods::no_annotation", by_nothing),
    Case::compared(
        "conformance::pods::shutdown_while_containers_remain",
        shutdown_early,
    ),
    Case::compared("conformance::pods::members_come_and_go", members),
    Case::compared("conformance::pods::member_outlives_the_sandbox", member_outlives),
    Case::compared("conformance::pods::socket_is_its_owners_alone", socket_mode),
    Case::compared("conformance::pods::process_of_the_shim", own_process),
    Case::compared("conformance::pods::start_after_a_dead_shim", dead_socket),
    Case::compared("conformance::pods::delete_action_after_kill_9", delete_action),
    Case::compared(
        "conformance::pods::delete_action_of_what_never_was",
        delete_nothing,
    ),
    Case::compared("conformance::pods::nothing_grows_in_many_lives", soak),
];

fn sleeper(side: &Side<'_>) -> Spec {
    Spec::new(&side.id(), &["/bin/sleep", "600"])
}

fn ends(shim: &Shim<'_>, pid: Pid, id: &str) -> Result<()> {
    shim.shutdown(id)?;
    wait::until_true("the shim to end", SOON, || !procs::alive(pid))
}

fn grouped(side: &Side<'_>, key: &str) -> Result<String> {
    let group = side.id();
    let first = sleeper(side).annotation(key, &group);
    let second = sleeper(side).annotation(key, &group);
    let other = sleeper(side).annotation(key, &side.id());
    let shim = side.started(&first)?;
    let mut told = Told::new();
    told.say(format!("one shim {}", shim.join(&second)? == shim.address));
    told.answer("create", &shim.create(&second, &Stdio::null())?);
    let apart = side.shim(&other)?;
    told.say(format!(
        "another group another shim {}",
        apart.address != shim.address
    ));
    told.done()
}

fn by_group(side: &Side<'_>) -> Result<String> {
    grouped(side, "io.containerd.runc.v2.group")
}

fn by_sandbox(side: &Side<'_>) -> Result<String> {
    grouped(side, "io.kubernetes.cri.sandbox-id")
}

fn by_nothing(side: &Side<'_>) -> Result<String> {
    let (first, second) = (sleeper(side), sleeper(side));
    let (one, two) = (side.started(&first)?, side.started(&second)?);
    Ok(format!(
        "a shim each {}",
        one.address != two.address && one.pid()? != two.pid()?
    ))
}

fn shutdown_early(side: &Side<'_>) -> Result<String> {
    let spec = sleeper(side);
    let shim = side.started(&spec)?;
    let pid = shim.pid()?;
    shim.shutdown(spec.id())?;
    thread::sleep(Duration::from_millis(300));
    let mut told = Told::new();
    told.say(format!(
        "still there {}, {:?}",
        procs::alive(pid),
        expect(shim.state(spec.id(), "")?)?.status()
    ));
    shim.end(spec.id())?;
    expect(shim.delete(spec.id(), "")?)?;
    ends(&shim, pid, spec.id())?;
    let socket = shim.address.trim_start_matches("unix://");
    told.say(format!(
        "gone after the last one, its socket {}",
        Path::new(socket).exists()
    ));
    told.done()
}

/// A pod with a sandbox, and members that come later and go earlier.
fn members(side: &Side<'_>) -> Result<String> {
    let key = "io.kubernetes.cri.sandbox-id";
    let sandbox = sleeper(side);
    let name = sandbox.id().to_owned();
    let sandbox = sandbox.annotation(key, &name);
    let shim = side.started(&sandbox)?;
    let pid = shim.pid()?;
    let mut told = Told::new();
    for wanted in [1, 2, 3] {
        let member = Spec::sh(&side.id(), &format!("exit {wanted}")).annotation(key, &name);
        shim.join(&member)?;
        expect(shim.create(&member, &Stdio::null())?)?;
        expect(shim.start_process(member.id(), "")?)?;
        told.say(format!(
            "exit {}",
            expect(shim.wait(member.id(), "")?)?.exit_status
        ));
        expect(shim.delete(member.id(), "")?)?;
        shim.shutdown(member.id())?;
    }
    told.say(format!("sandbox {:?}", expect(shim.state(&name, "")?)?.status()));
    shim.end(&name)?;
    expect(shim.delete(&name, "")?)?;
    ends(&shim, pid, &name)?;
    told.say("the shim ended");
    told.done()
}

fn member_outlives(side: &Side<'_>) -> Result<String> {
    let key = "io.kubernetes.cri.sandbox-id";
    let sandbox = sleeper(side);
    let name = sandbox.id().to_owned();
    let (sandbox, member) = (
        sandbox.annotation(key, &name),
        sleeper(side).annotation(key, &name),
    );
    let shim = side.started(&sandbox)?;
    shim.join(&member)?;
    expect(shim.create(&member, &Stdio::null())?)?;
    expect(shim.start_process(member.id(), "")?)?;
    shim.end(&name)?;
    expect(shim.delete(&name, "")?)?;
    shim.shutdown(&name)?;
    thread::sleep(Duration::from_millis(200));
    Ok(format!(
        "member {:?}",
        expect(shim.state(member.id(), "")?)?.status()
    ))
}

fn socket_mode(side: &Side<'_>) -> Result<String> {
    let shim = side.created(&sleeper(side))?;
    let socket = Path::new(shim.address.trim_start_matches("unix://"));
    let mode = fs::metadata(socket)?.permissions().mode() & 0o777;
    let folder = fs::metadata(socket.parent().context("a folder")?)?
        .permissions()
        .mode()
        & 0o077;
    Ok(format!(
        "closed to others {}, {}",
        mode & 0o077 == 0,
        folder & 0o022 == 0
    ))
}

fn own_process(side: &Side<'_>) -> Result<String> {
    let spec = sleeper(side);
    let shim = side.started(&spec)?;
    let pid = shim.pid()?;
    let group = nix::unistd::getpgid(Some(pid))? == pid;
    let score = |pid: &str| -> Result<i32> {
        Ok(fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))?
            .trim()
            .parse()?)
    };
    let worse = score(&pid.to_string())? - score("self")?;
    let streams = ["0", "1", "2"].map(|fd| fs::read_link(format!("/proc/{pid}/fd/{fd}")));
    let holds_ours = streams
        .into_iter()
        .flatten()
        .any(|target| target.to_string_lossy().starts_with("pipe:"));
    let init = Pid::from_raw(expect(shim.state(spec.id(), "")?)?.pid.cast_signed());
    let child = procs::parent(init) == Some(pid);
    Ok(format!(
        "own group {group}, oom score {worse:+}, holds our pipes {holds_ours}, init is its child {child}"
    ))
}

fn dead_socket(side: &Side<'_>) -> Result<String> {
    let key = "io.containerd.runc.v2.group";
    let group = side.id();
    let (first, second) = (
        sleeper(side).annotation(key, &group),
        sleeper(side).annotation(key, &group),
    );
    let dead = side.shim(&first)?;
    let pid = dead.pid()?;
    kill(pid, Signal::SIGKILL)?;
    wait::until_true("the shim to be dead", SOON, || !procs::alive(pid))?;
    let shim = side.started(&second)?;
    Ok(format!(
        "the same address {}, {:?}",
        shim.address == dead.address,
        expect(shim.state(second.id(), "")?)?.status()
    ))
}

fn delete_action(side: &Side<'_>) -> Result<String> {
    let spec = sleeper(side);
    let shim = side.started(&spec)?;
    let init = Pid::from_raw(expect(shim.state(spec.id(), "")?)?.pid.cast_signed());
    let pid = shim.pid()?;
    kill(pid, Signal::SIGKILL)?;
    wait::until_true("the shim to be dead", SOON, || !procs::alive(pid))?;
    let deleted = shim.delete_action(spec.id())?;
    let response = DeleteResponse::parse_from_bytes(&deleted.stdout)?;
    wait::until_true("init to die", SOON, || !procs::alive(init))?;
    let left = left_of(side, spec.id());
    Ok(format!(
        "exit {}, its pid {}, when {}, left {left:?}",
        response.exit_status,
        response.pid == init.as_raw().unsigned_abs(),
        response.exited_at.is_some(),
    ))
}

/// What there is of a container in the system, apart from its bundle.
fn left_of(side: &Side<'_>, id: &str) -> Vec<&'static str> {
    let mounted = !mounts::below(&bundle::path(side.node, id)).is_empty();
    let cgroup = side.node.cgroups().iter().any(|dir| dir.ends_with(id));
    let state = Path::new("/run/containerd/runc")
        .join(side.node.scratch().places().name())
        .join(id);
    let all = [
        ("mounts", mounted),
        ("a cgroup", cgroup),
        ("runc's state", state.exists()),
    ];
    all.into_iter()
        .filter_map(|(name, there)| there.then_some(name))
        .collect()
}

fn delete_nothing(side: &Side<'_>) -> Result<String> {
    let spec = sleeper(side);
    let shim = side.shim(&spec)?;
    let deleted = shim.delete_action(spec.id())?;
    let response = DeleteResponse::parse_from_bytes(&deleted.stdout).unwrap_or_default();
    Ok(format!(
        "ended {}, exit {}, pid {}",
        deleted.code, response.exit_status, response.pid
    ))
}

/// How many lives the soak takes; 1000 of them take minutes.
const LIVES: &str = "LAZARET_LIVES";

/// A hundred containers in one shim, some at a time, with an exec, a kill or a bad beginning:
/// afterwards it has no more of anything.
fn soak(side: &Side<'_>) -> Result<String> {
    const CLIENTS: u32 = 5;
    let lives = std::env::var(LIVES)
        .map_or(Ok(100), |lives| lives.parse())
        .context(LIVES)?;
    let key = "io.containerd.runc.v2.group";
    let sandbox = sleeper(side).annotation(key, &side.id());
    let shim = side.started(&sandbox)?;
    let pid = shim.pid()?;
    for number in 0..CLIENTS {
        one_life(side, &shim, number)?;
    }
    let before = settled(pid)?;
    let next = AtomicU32::new(0);
    thread::scope(|scope| {
        let client = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= lives {
                    return anyhow::Ok(());
                }
                one_life(side, &shim, number).with_context(|| format!("life {number}"))?;
            }
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        let mut ended = clients
            .into_iter()
            .map(|it| it.join().ok().context("a client panicked")?);
        ended.try_for_each(|ended| ended)
    })?;
    let fds = wait::until("its descriptors to be closed", SOON, || {
        descriptors(pid).ok().filter(|fds| *fds <= before)
    });
    let children = procs::all().filter(|child| procs::parent(*child) == Some(pid));
    let zombies = children.filter(|child| !procs::alive(*child)).count();
    let own = |dir: &&PathBuf| {
        let name = dir
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        name.starts_with(&format!("{}-", side.prefix)) && name != sandbox.id()
    };
    let cgroups = side.node.cgroups().iter().filter(own).count();
    let below = |dir: PathBuf| {
        let bundles = mounts::below(&dir)
            .into_iter()
            .filter_map(|rootfs| Some(rootfs.parent()?.to_owned()));
        bundles.filter(|bundle| own(&bundle)).count()
    };
    let mounted = below(side.node.scratch().places().run().join("by-hand"));
    let growth = if fds.is_ok() { "no more" } else { "more" };
    Ok(format!(
        "{growth} descriptors, {zombies} zombies, {cgroups} cgroups, {mounted} mounts"
    ))
}

/// How many descriptors a shim has once it is quiet.
fn settled(pid: Pid) -> Result<usize> {
    thread::sleep(Duration::from_millis(500));
    descriptors(pid)
}

fn one_life(side: &Side<'_>, shim: &Shim<'_>, number: u32) -> Result<()> {
    let spec = match number % 4 {
        0 => Spec::new(&side.id(), &["/bin/nothing-there"]),
        1 => Spec::sh(&side.id(), "exit 3"),
        _ => sleeper(side),
    };
    // runc-v2 of 1.6 fails here now and then on a busy machine: it looks for a process of its own
    // that has ended already.
    wait::until("the pod's shim to be found", SOON, || shim.join(&spec).ok())?;
    let stdio = Stdio::outputs(&side.streams())?;
    let (out, err) = (stdio.open_stdout()?, stdio.open_stderr()?);
    let created = shim.create(&spec, &stdio)?;
    if created.is_err() {
        return Ok(());
    }
    expect(shim.start_process(spec.id(), "")?)?;
    if number % 4 == 2 {
        shim.exec_to_end(spec.id(), "e", &["/bin/true"])?;
    }
    let exit = if number % 4 == 1 {
        expect(shim.wait(spec.id(), "")?)?.exit_status
    } else {
        shim.end(spec.id())?
    };
    anyhow::ensure!(
        exit == if number % 4 == 1 { 3 } else { 137 },
        "exit {exit} in life {number}"
    );
    let deleted = shim.delete(spec.id(), "")?;
    anyhow::ensure!(deleted.is_ok(), "delete {}", code(&deleted));
    drop((out, err));
    Ok(())
}
