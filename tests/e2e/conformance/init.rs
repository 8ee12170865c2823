//! The first process of a container, from Create to Delete.

use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use containerd_shim_protos::api::{PidsRequest, PidsResponse};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::shim::oci::ProcessDetails;
use lazaret_tests::{mounts, procs, wait};
use nix::unistd::Pid;

use super::{Side, Told};
use crate::by_hand::bundle::{self, Spec};
use crate::by_hand::{KILL, SOON, Stdio, TERM, code, expect};
use crate::case::Case;

pub(super) const CASES: &[Case] = &[
    Case::compared("conformance::init::whole_life_in_events", whole_life),
    Case::compared("conformance::init::exit_codes", exit_codes),
    Case::compared("conformance::init::killed_by_signals", signals),
    Case::compared("conformance::init::exit_time", exit_time),
    Case::compared("conformance::init::waits_before_and_after_exit", waits),
    Case::compared("conformance::init::state_of_every_phase", states),
    Case::compared("conformance::init::create_twice", create_twice),
    Case::compared("conformance::init::start_twice", start_twice),
    Case::compared("conformance::init::start_after_exit", start_after_exit),
    Case::compared("conformance::init::unknown_container", unknown),
    Case::compared("conformance::init::delete_while_running", delete_running),
    Case::compared("conformance::init::delete_never_started", delete_created),
    Case::compared("conformance::init::delete_twice", delete_twice),
    Case::compared("conformance::init::kill_never_started", kill_created),
    Case::compared("conformance::init::kill_after_exit", kill_stopped),
    Case::compared("conformance::init::kill_with_no_such_signal", kill_no_signal),
    Case::compared("conformance::init::exit_right_after_start", short_lives),
    Case::compared("conformance::init::missing_program", missing_program),
    Case::compared("conformance::init::rootfs_that_cannot_be_mounted", bad_mount),
    Case::compared(
        "conformance::init::children_end_with_their_pid_namespace",
        private_pids,
    ),
    Case::compared(
        "conformance::init::children_in_the_hosts_pid_namespace",
        shared_pids,
    ),
    Case::compared("conformance::init::kill_all_in_the_hosts_pid_namespace", kill_all),
    Case::compared("conformance::init::orphans_are_reaped", orphans),
    Case::compared("conformance::init::pids_and_who_started_them", pids),
];

fn sleeper(side: &Side<'_>) -> Spec {
    Spec::new(&side.id(), &["/bin/sleep", "600"])
}

fn whole_life(side: &Side<'_>) -> Result<String> {
    let spec = Spec::sh(&side.id(), "exit 7");
    let shim = side.started(&spec)?;
    expect(shim.wait(spec.id(), "")?)?;
    expect(shim.delete(spec.id(), "")?)?;
    shim.events.wait_for("delete", 1)?;
    shim.events.story(spec.id())
}

fn exit_codes(side: &Side<'_>) -> Result<String> {
    let mut told = Told::new();
    for wanted in [0, 1, 42, 255] {
        let spec = Spec::sh(&side.id(), &format!("exit {wanted}"));
        let shim = side.started(&spec)?;
        let waited = expect(shim.wait(spec.id(), "")?)?.exit_status;
        let state = expect(shim.state(spec.id(), "")?)?.exit_status;
        let deleted = expect(shim.delete(spec.id(), "")?)?.exit_status;
        told.say(format!("{wanted}: {waited} {state} {deleted}"));
    }
    told.done()
}

fn signals(side: &Side<'_>) -> Result<String> {
    /// A real-time signal, which has no name.
    const REAL_TIME: u32 = 40;
    let mut told = Told::new();
    for (signal, script) in [
        (KILL, "sleep 600"),
        (
            TERM,
            "trap 'exit 5' TERM; touch /ready; while :; do sleep 0.05; done",
        ),
        // Nobody handles it; only init of a pid namespace is safe from it.
        (REAL_TIME, "sleep 600"),
    ] {
        let id = side.id();
        let spec = if signal == REAL_TIME {
            Spec::sh(&id, "exec sleep 600").shared_pids()
        } else {
            Spec::sh(&id, script)
        };
        let shim = side.started(&spec)?;
        if signal == TERM {
            wait::until_true("the trap to be set", SOON, || {
                shim.exec_to_end(&id, &side.id(), &["/bin/test", "-e", "/ready"])
                    .is_ok_and(|code| code == 0)
            })?;
        }
        if signal == REAL_TIME {
            executed(&shim, &id)?;
        }
        expect(shim.kill(&id, "", signal, false)?)?;
        told.say(format!(
            "signal {signal}: {}",
            expect(shim.wait(&id, "")?)?.exit_status
        ));
    }
    told.done()
}

/// Until the container's own program runs: before, its init is the runtime's.
fn executed(shim: &crate::by_hand::Shim<'_>, id: &str) -> Result<()> {
    let pid = expect(shim.state(id, "")?)?.pid;
    wait::until_true("the program to run", SOON, || {
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        !comm.starts_with("runc")
    })
}

fn exit_time(side: &Side<'_>) -> Result<String> {
    let spec = sleeper(side);
    let shim = side.started(&spec)?;
    let before = expect(shim.state(spec.id(), "")?)?.exited_at;
    let killed_at = SystemTime::now();
    expect(shim.kill(spec.id(), "", KILL, false)?)?;
    let told = expect(shim.wait(spec.id(), "")?)?.exited_at.unwrap_or_default();
    let state = expect(shim.state(spec.id(), "")?)?.exited_at.unwrap_or_default();
    let deleted = expect(shim.delete(spec.id(), "")?)?.exited_at.unwrap_or_default();
    let told_at =
        SystemTime::UNIX_EPOCH + Duration::new(told.seconds.unsigned_abs(), told.nanos.unsigned_abs());
    let near = killed_at <= told_at && told_at <= SystemTime::now();
    // Go's zero time is a date of the year 1: both mean that there is none.
    let none_before = before.into_option().is_none_or(|at| at.seconds <= 0);
    Ok(format!(
        "none before the exit: {none_before}, right: {near}, the same from State {} and Delete {}",
        state == told,
        deleted == told
    ))
}

fn waits(side: &Side<'_>) -> Result<String> {
    let spec = Spec::sh(&side.id(), "sleep 0.5; exit 9");
    let shim = side.created(&spec)?;
    let waited = thread::scope(|scope| {
        let waiters: Vec<_> = (0..3).map(|_| scope.spawn(|| shim.wait(spec.id(), ""))).collect();
        expect(shim.start_process(spec.id(), "")?)?;
        let mut codes = Vec::new();
        for waiter in waiters {
            let answer = waiter.join().ok().context("a waiter panicked")??;
            codes.push(expect(answer)?.exit_status);
        }
        anyhow::Ok(codes)
    })?;
    let after = expect(shim.wait(spec.id(), "")?)?.exit_status;
    Ok(format!("before: {waited:?}, after: {after}"))
}

fn states(side: &Side<'_>) -> Result<String> {
    let spec = sleeper(side);
    let stdio = Stdio::outputs(&side.streams())?;
    let (_out, _err) = (stdio.open_stdout()?, stdio.open_stderr()?);
    let shim = side.created_with(&spec, &stdio)?;
    let mut told = Told::new();
    let mut tell = |phase: &str| {
        let state = expect(shim.state(spec.id(), "")?)?;
        let streams = state.stdin.is_empty() && state.stdout == stdio.stdout && state.stderr == stdio.stderr;
        told.say(format!(
            "{phase}: {:?}, pid {}, exit {}, bundle {}, streams {streams}, terminal {}",
            state.status(),
            state.pid > 0,
            state.exit_status,
            state.bundle.ends_with(spec.id()),
            state.terminal,
        ));
        anyhow::Ok(())
    };
    tell("created")?;
    expect(shim.start_process(spec.id(), "")?)?;
    tell("started")?;
    shim.end(spec.id())?;
    tell("ended")?;
    told.done()
}

fn create_twice(side: &Side<'_>) -> Result<String> {
    let spec = sleeper(side);
    let shim = side.created(&spec)?;
    let again = shim.create(&spec, &Stdio::null())?;
    let state = expect(shim.state(spec.id(), "")?)?;
    Ok(format!(
        "refused {}, the first one is {:?}",
        again.is_err(),
        state.status()
    ))
}

fn start_twice(side: &Side<'_>) -> Result<String> {
    let spec = sleeper(side);
    let shim = side.started(&spec)?;
    let mut told = Told::new();
    told.answer("start again", &shim.start_process(spec.id(), "")?);
    told.say(format!("{:?}", expect(shim.state(spec.id(), "")?)?.status()));
    told.done()
}

fn start_after_exit(side: &Side<'_>) -> Result<String> {
    let spec = Spec::new(&side.id(), &["/bin/true"]);
    let shim = side.started(&spec)?;
    expect(shim.wait(spec.id(), "")?)?;
    Ok(code(&shim.start_process(spec.id(), "")?).to_owned())
}

fn unknown(side: &Side<'_>) -> Result<String> {
    let spec = sleeper(side);
    let shim = side.created(&spec)?;
    let id = "nobody";
    let mut told = Told::new();
    told.answer("state", &shim.state(id, "")?);
    told.answer("start", &shim.start_process(id, "")?);
    told.answer("kill", &shim.kill(id, "", KILL, false)?);
    told.answer("wait", &shim.wait(id, "")?);
    told.answer("pause", &shim.pause(id)?);
    told.answer("resume", &shim.resume(id)?);
    told.answer("exec", &shim.exec(id, "e", &["/bin/true"], &Stdio::null())?);
    told.answer("resize", &shim.resize(id, "", (80, 24))?);
    told.answer("close", &shim.close_stdin(id, "")?);
    told.answer("delete", &shim.delete(id, "")?);
    told.done()
}

fn delete_running(side: &Side<'_>) -> Result<String> {
    let spec = sleeper(side);
    let shim = side.started(&spec)?;
    let mut told = Told::new();
    told.answer("delete", &shim.delete(spec.id(), "")?);
    told.say(format!("{:?}", expect(shim.state(spec.id(), "")?)?.status()));
    told.done()
}

fn delete_created(side: &Side<'_>) -> Result<String> {
    let spec = sleeper(side);
    let shim = side.created(&spec)?;
    let mut told = Told::new();
    let pid = expect(shim.state(spec.id(), "")?)?.pid;
    told.answer("delete", &shim.delete(spec.id(), "")?);
    told.answer("state", &shim.state(spec.id(), "")?);
    told.say(format!(
        "init lives {}",
        procs::alive(Pid::from_raw(pid.cast_signed()))
    ));
    told.done()
}

fn delete_twice(side: &Side<'_>) -> Result<String> {
    let spec = Spec::new(&side.id(), &["/bin/true"]);
    let shim = side.started(&spec)?;
    expect(shim.wait(spec.id(), "")?)?;
    let mut told = Told::new();
    told.answer("once", &shim.delete(spec.id(), "")?);
    told.answer("twice", &shim.delete(spec.id(), "")?);
    told.answer("wait", &shim.wait(spec.id(), "")?);
    told.done()
}

fn kill_created(side: &Side<'_>) -> Result<String> {
    let spec = sleeper(side);
    let shim = side.created(&spec)?;
    let mut told = Told::new();
    told.answer("kill", &shim.kill(spec.id(), "", KILL, false)?);
    told.say(format!("exit {}", expect(shim.wait(spec.id(), "")?)?.exit_status));
    told.say(format!("{:?}", expect(shim.state(spec.id(), "")?)?.status()));
    told.answer("start", &shim.start_process(spec.id(), "")?);
    told.answer("delete", &shim.delete(spec.id(), "")?);
    told.done()
}

fn kill_stopped(side: &Side<'_>) -> Result<String> {
    let spec = Spec::new(&side.id(), &["/bin/true"]);
    let shim = side.started(&spec)?;
    expect(shim.wait(spec.id(), "")?)?;
    let mut told = Told::new();
    told.answer("one", &shim.kill(spec.id(), "", KILL, false)?);
    told.done()
}

fn kill_no_signal(side: &Side<'_>) -> Result<String> {
    let spec = sleeper(side);
    let shim = side.started(&spec)?;
    let refused = shim.kill(spec.id(), "", 1000, false)?.is_err();
    Ok(format!(
        "refused {refused}, {:?}",
        expect(shim.state(spec.id(), "")?)?.status()
    ))
}

fn short_lives(side: &Side<'_>) -> Result<String> {
    let mut stories = Vec::new();
    for _ in 0..5 {
        let spec = Spec::sh(&side.id(), "exit 3");
        let shim = side.started(&spec)?;
        shim.events.wait_for("exit", 1)?;
        stories.push(shim.events.story(spec.id())?);
    }
    stories.dedup();
    Ok(stories.join("; "))
}

fn missing_program(side: &Side<'_>) -> Result<String> {
    let spec = Spec::new(&side.id(), &["/bin/nothing-there"]);
    let shim = side.shim(&spec)?;
    let created = shim.create(&spec, &Stdio::null())?;
    let said = created
        .as_ref()
        .err()
        .map(|refusal| refusal.message.clone())
        .unwrap_or_default();
    let names = said.contains("nothing-there") && said.contains("no such file");
    let mounted = !mounts::below(&bundle::path(side.node, spec.id())).is_empty();
    Ok(format!(
        "create {}, runc's words {names}, still mounted {mounted}",
        code(&created)
    ))
}

fn bad_mount(side: &Side<'_>) -> Result<String> {
    let spec = sleeper(side);
    let shim = side.shim(&spec)?;
    let created = shim.create_as(&spec, &Stdio::null(), |request| {
        let mut broken = request.rootfs.first().cloned().unwrap_or_default();
        broken.options = vec!["lowerdir=/no/such/folder".into()];
        request.rootfs.push(broken);
    })?;
    let mounted = !mounts::below(&bundle::path(side.node, spec.id())).is_empty();
    let known = shim.state(spec.id(), "")?;
    Ok(format!(
        "refused {}, still mounted {mounted}, state {}",
        created.is_err(),
        code(&known)
    ))
}

fn private_pids(side: &Side<'_>) -> Result<String> {
    let spec = Spec::sh(&side.id(), "sleep 600 & sleep 600 & wait");
    let shim = side.started(&spec)?;
    let children = wait_children(side, spec.id(), 3)?;
    expect(shim.kill(spec.id(), "", KILL, false)?)?;
    let exit = expect(shim.wait(spec.id(), "")?)?.exit_status;
    Ok(format!("exit {exit}, {} left", living(&children)))
}

fn shared_pids(side: &Side<'_>) -> Result<String> {
    let spec = Spec::sh(&side.id(), "sleep 600 & sleep 600 & sleep 0.3; exit 4").shared_pids();
    let shim = side.started(&spec)?;
    let children = wait_children(side, spec.id(), 3)?;
    let exit = expect(shim.wait(spec.id(), "")?)?.exit_status;
    wait::until_true("init's children to end", SOON, || living(&children) == 0)?;
    Ok(format!("exit {exit}, {} left", living(&children)))
}

fn kill_all(side: &Side<'_>) -> Result<String> {
    let script = "trap '' TERM; sleep 600 & sleep 600 & while :; do sleep 0.05; done";
    let spec = Spec::sh(&side.id(), script).shared_pids();
    let shim = side.started(&spec)?;
    let children = wait_children(side, spec.id(), 3)?;
    let mut told = Told::new();
    told.answer("kill all", &shim.kill(spec.id(), "", KILL, true)?);
    told.say(format!("exit {}", expect(shim.wait(spec.id(), "")?)?.exit_status));
    wait::until_true("all of them to end", SOON, || living(&children) == 0)?;
    told.done()
}

/// The processes of a container, once there are so many.
fn wait_children(side: &Side<'_>, id: &str, count: usize) -> Result<Vec<Pid>> {
    wait::until(&format!("{count} processes"), SOON, || {
        let own = side.node.cgroups().into_iter().filter(|dir| dir.ends_with(id));
        let mut pids: Vec<_> = own.flat_map(|dir| procs::in_cgroup(&dir)).collect();
        pids.sort_unstable();
        pids.dedup();
        (pids.len() >= count).then_some(pids)
    })
}

fn living(pids: &[Pid]) -> usize {
    pids.iter().filter(|pid| procs::alive(**pid)).count()
}

/// What is orphaned in the host's pid namespace becomes a child of the shim, which reaps it.
fn orphans(side: &Side<'_>) -> Result<String> {
    const ORPHANS: usize = 20;
    let script = format!("for i in $(seq {ORPHANS}); do (sleep 0.2 & exit) ; done; touch /done; sleep 600");
    let spec = Spec::sh(&side.id(), &script).shared_pids();
    let shim = side.started(&spec)?;
    let pid = shim.pid()?;
    let children = || {
        procs::all()
            .filter(|child| procs::parent(*child) == Some(pid))
            .count()
    };
    wait::until_true("the orphans to be made", SOON, || {
        shim.exec_to_end(spec.id(), &side.id(), &["/bin/test", "-e", "/done"])
            .is_ok_and(|code| code == 0)
    })?;
    let zombies = || {
        procs::all()
            .filter(|child| procs::parent(*child) == Some(pid) && !procs::alive(*child))
            .count()
    };
    // Its own children stay: init, and for some releases a helper.
    let reaped = wait::until_true("the orphans to be reaped", SOON, || {
        children() < ORPHANS / 2 && zombies() == 0
    });
    Ok(format!("all reaped {}", reaped.is_ok()))
}

fn pids(side: &Side<'_>) -> Result<String> {
    let spec = sleeper(side);
    let shim = side.started(&spec)?;
    expect(shim.exec(spec.id(), "second", &["/bin/sleep", "600"], &Stdio::null())?)?;
    let second = expect(shim.start_process(spec.id(), "second")?)?;
    let request = PidsRequest {
        id: spec.id().to_owned(),
        ..Default::default()
    };
    let processes = expect(shim.call::<PidsResponse>("Pids", &request)?)?.processes;
    ensure!(processes.len() == 2, "{processes:?}");
    let mut told = Told::new();
    for process in &processes {
        let who = if process.pid == second { "exec" } else { "init" };
        let details = match process.info.as_ref() {
            Some(info) => format!(
                "{} {}",
                info.type_url,
                ProcessDetails::parse_from_bytes(&info.value)?.exec_id
            ),
            None => "no details".to_owned(),
        };
        told.say(format!("{who}: {details}"));
    }
    told.0.sort();
    told.done()
}
