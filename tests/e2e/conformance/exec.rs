//! Processes that join a container.

use std::thread;

use anyhow::{Context as _, Result};
use lazaret_tests::wait;

use super::{Side, Told};
use crate::by_hand::bundle::Spec;
use crate::by_hand::{KILL, SOON, Shim, Stdio, code, expect};
use crate::case::Case;

pub(super) const CASES: &[Case] = &[
    Case::compared("conformance::exec::whole_life_in_events", whole_life),
    Case::compared("conformance::exec::many_at_once", many),
    Case::compared("conformance::exec::state_of_every_phase", states),
    Case::compared("conformance::exec::waited_for_by_three", waits),
    Case::compared("conformance::exec::duplicate_id", duplicate),
    Case::compared("conformance::exec::id_again_after_delete", again),
    Case::compared("conformance::exec::unknown_id", unknown),
    Case::compared("conformance::exec::before_init_was_started", before_start),
    Case::compared("conformance::exec::after_init_has_ended", after_exit),
    Case::compared(
        "conformance::exec::added_before_init_ended_started_after",
        started_after_exit,
    ),
    Case::compared("conformance::exec::start_twice", start_twice),
    Case::compared("conformance::exec::killed", killed),
    Case::compared("conformance::exec::kill_before_start", kill_before_start),
    Case::compared("conformance::exec::kill_after_exit", kill_after_exit),
    Case::compared("conformance::exec::delete_while_running", delete_running),
    Case::compared("conformance::exec::delete_never_started", delete_created),
    Case::compared("conformance::exec::delete_twice", delete_twice),
    Case::compared("conformance::exec::missing_program", missing_program),
    Case::compared("conformance::exec::process_that_is_no_json", bad_process),
    Case::compared("conformance::exec::ends_with_init", ends_with_init),
    Case::compared("conformance::exec::user_folder_environment", settings),
    Case::compared("conformance::exec::into_a_paused_container", paused),
];

fn sleeping<'a>(side: &Side<'a>) -> Result<(Shim<'a>, String)> {
    let id = side.id();
    Ok((side.started(&Spec::new(&id, &["/bin/sleep", "600"]))?, id))
}

fn add(shim: &Shim<'_>, id: &str, exec_id: &str, script: &str) -> Result<()> {
    expect(shim.exec(id, exec_id, &["/bin/sh", "-c", script], &Stdio::null())?)
}

fn whole_life(side: &Side<'_>) -> Result<String> {
    let (shim, id) = sleeping(side)?;
    let code = shim.exec_to_end(&id, "e", &["/bin/sh", "-c", "exit 7"])?;
    shim.events.wait_for("exit", 1)?;
    Ok(format!("exit {code}; {}", shim.events.story(&id)?))
}

fn many(side: &Side<'_>) -> Result<String> {
    const MANY: u32 = 20;
    let (shim, id) = sleeping(side)?;
    let shim = &shim;
    let wrong = thread::scope(|scope| {
        let run = |number: u32| {
            let id = id.clone();
            move || {
                let exit = shim.exec_to_end(
                    &id,
                    &format!("e{number}"),
                    &["/bin/sh", "-c", &format!("exit {number}")],
                );
                exit.map(|exit| exit == number)
            }
        };
        let threads: Vec<_> = (0..MANY).map(|number| scope.spawn(run(number))).collect();
        let mut right = 0;
        for thread in threads {
            right += u32::from(thread.join().ok().context("an exec panicked")??);
        }
        anyhow::Ok(MANY - right)
    })?;
    shim.events.wait_for("exit", MANY as usize)?;
    Ok(format!("{MANY} at once, {wrong} wrong exit codes"))
}

fn states(side: &Side<'_>) -> Result<String> {
    let (shim, id) = sleeping(side)?;
    add(&shim, &id, "e", "sleep 600")?;
    let mut told = Told::new();
    let mut tell = |phase: &str| {
        let state = expect(shim.state(&id, "e")?)?;
        told.say(format!(
            "{phase}: {:?}, pid {}, exit {}, id {}",
            state.status(),
            state.pid > 0,
            state.exit_status,
            state.id
        ));
        anyhow::Ok(())
    };
    tell("added")?;
    expect(shim.start_process(&id, "e")?)?;
    tell("started")?;
    expect(shim.kill(&id, "e", KILL, false)?)?;
    expect(shim.wait(&id, "e")?)?;
    tell("ended")?;
    told.done()
}

fn waits(side: &Side<'_>) -> Result<String> {
    let (shim, id) = sleeping(side)?;
    add(&shim, &id, "e", "sleep 0.3; exit 9")?;
    let waited = thread::scope(|scope| {
        let waiters: Vec<_> = (0..3).map(|_| scope.spawn(|| shim.wait(&id, "e"))).collect();
        expect(shim.start_process(&id, "e")?)?;
        let mut codes = Vec::new();
        for waiter in waiters {
            let answer = waiter.join().ok().context("a waiter panicked")??;
            codes.push(expect(answer)?.exit_status);
        }
        anyhow::Ok(codes)
    })?;
    let after = expect(shim.wait(&id, "e")?)?.exit_status;
    Ok(format!("before: {waited:?}, after: {after}"))
}

fn duplicate(side: &Side<'_>) -> Result<String> {
    let (shim, id) = sleeping(side)?;
    add(&shim, &id, "e", "true")?;
    Ok(code(&shim.exec(&id, "e", &["/bin/true"], &Stdio::null())?).to_owned())
}

fn again(side: &Side<'_>) -> Result<String> {
    let (shim, id) = sleeping(side)?;
    let mut told = Told::new();
    for wanted in [1, 2] {
        let exit = shim.exec_to_end(&id, "e", &["/bin/sh", "-c", &format!("exit {wanted}")])?;
        told.say(format!("exit {exit}"));
    }
    told.done()
}

fn unknown(side: &Side<'_>) -> Result<String> {
    let (shim, id) = sleeping(side)?;
    let mut told = Told::new();
    told.answer("start", &shim.start_process(&id, "none")?);
    told.answer("state", &shim.state(&id, "none")?);
    told.answer("wait", &shim.wait(&id, "none")?);
    told.answer("kill", &shim.kill(&id, "none", KILL, false)?);
    told.answer("resize", &shim.resize(&id, "none", (80, 24))?);
    told.say(format!(
        "close refused {}",
        shim.close_stdin(&id, "none")?.is_err()
    ));
    told.answer("delete", &shim.delete(&id, "none")?);
    told.done()
}

fn before_start(side: &Side<'_>) -> Result<String> {
    let spec = Spec::new(&side.id(), &["/bin/sleep", "600"]);
    let shim = side.created(&spec)?;
    let mut told = Told::new();
    told.answer("add", &shim.exec(spec.id(), "e", &["/bin/true"], &Stdio::null())?);
    told.answer("kill", &shim.kill(spec.id(), "e", KILL, false)?);
    expect(shim.start_process(spec.id(), "")?)?;
    told.answer("start, when init runs", &shim.start_process(spec.id(), "e")?);
    told.say(format!(
        "exit {}",
        expect(shim.wait(spec.id(), "e")?)?.exit_status
    ));
    told.done()
}

fn after_exit(side: &Side<'_>) -> Result<String> {
    let spec = Spec::new(&side.id(), &["/bin/true"]);
    let shim = side.started(&spec)?;
    expect(shim.wait(spec.id(), "")?)?;
    let added = shim.exec(spec.id(), "e", &["/bin/true"], &Stdio::null())?;
    Ok(code(&added).to_owned())
}

fn started_after_exit(side: &Side<'_>) -> Result<String> {
    let (shim, id) = sleeping(side)?;
    add(&shim, &id, "e", "true")?;
    shim.end(&id)?;
    let started = shim.start_process(&id, "e")?;
    let mut told = Told::new();
    told.say(format!("start refused {}", started.is_err()));
    told.answer("delete of the container", &shim.delete(&id, "")?);
    told.done()
}

fn start_twice(side: &Side<'_>) -> Result<String> {
    let (shim, id) = sleeping(side)?;
    add(&shim, &id, "e", "sleep 600")?;
    expect(shim.start_process(&id, "e")?)?;
    let again = shim.start_process(&id, "e")?;
    Ok(format!(
        "{}, {:?}",
        code(&again),
        expect(shim.state(&id, "e")?)?.status()
    ))
}

fn killed(side: &Side<'_>) -> Result<String> {
    let (shim, id) = sleeping(side)?;
    add(&shim, &id, "e", "sleep 600")?;
    expect(shim.start_process(&id, "e")?)?;
    let mut told = Told::new();
    told.answer("kill", &shim.kill(&id, "e", KILL, false)?);
    told.say(format!("exit {}", expect(shim.wait(&id, "e")?)?.exit_status));
    told.say(format!("init {:?}", expect(shim.state(&id, "")?)?.status()));
    told.done()
}

fn kill_before_start(side: &Side<'_>) -> Result<String> {
    let (shim, id) = sleeping(side)?;
    add(&shim, &id, "e", "true")?;
    Ok(code(&shim.kill(&id, "e", KILL, false)?).to_owned())
}

fn kill_after_exit(side: &Side<'_>) -> Result<String> {
    let (shim, id) = sleeping(side)?;
    add(&shim, &id, "e", "true")?;
    expect(shim.start_process(&id, "e")?)?;
    expect(shim.wait(&id, "e")?)?;
    Ok(code(&shim.kill(&id, "e", KILL, false)?).to_owned())
}

fn delete_running(side: &Side<'_>) -> Result<String> {
    let (shim, id) = sleeping(side)?;
    add(&shim, &id, "e", "sleep 600")?;
    expect(shim.start_process(&id, "e")?)?;
    let deleted = shim.delete(&id, "e")?;
    Ok(format!(
        "{}, {:?}",
        code(&deleted),
        expect(shim.state(&id, "e")?)?.status()
    ))
}

fn delete_created(side: &Side<'_>) -> Result<String> {
    let (shim, id) = sleeping(side)?;
    add(&shim, &id, "e", "true")?;
    let mut told = Told::new();
    told.answer("delete", &shim.delete(&id, "e")?);
    told.answer("state", &shim.state(&id, "e")?);
    told.done()
}

fn delete_twice(side: &Side<'_>) -> Result<String> {
    let (shim, id) = sleeping(side)?;
    add(&shim, &id, "e", "exit 3")?;
    expect(shim.start_process(&id, "e")?)?;
    expect(shim.wait(&id, "e")?)?;
    let mut told = Told::new();
    let deleted = shim.delete(&id, "e")?;
    told.answer("once", &deleted);
    told.say(format!("exit {}", expect(deleted)?.exit_status));
    told.answer("twice", &shim.delete(&id, "e")?);
    told.done()
}

fn missing_program(side: &Side<'_>) -> Result<String> {
    let (shim, id) = sleeping(side)?;
    expect(shim.exec(&id, "e", &["/bin/nothing-there"], &Stdio::null())?)?;
    let started = shim.start_process(&id, "e")?;
    let said = started
        .as_ref()
        .err()
        .map(|refusal| refusal.message.clone())
        .unwrap_or_default();
    let names = said.contains("nothing-there") && said.contains("no such file");
    let deleted = shim.delete(&id, "e")?;
    Ok(format!(
        "start {}, runc's words {names}, delete {}",
        code(&started),
        code(&deleted)
    ))
}

fn bad_process(side: &Side<'_>) -> Result<String> {
    let (shim, id) = sleeping(side)?;
    let mut told = Told::new();
    for broken in ["", "{", "[]"] {
        let added = shim.exec_raw(&id, "e", broken.as_bytes(), &Stdio::null())?;
        told.say(format!("{broken:?} refused {}", added.is_err()));
    }
    told.done()
}

fn ends_with_init(side: &Side<'_>) -> Result<String> {
    let (shim, id) = sleeping(side)?;
    add(&shim, &id, "e", "sleep 600")?;
    expect(shim.start_process(&id, "e")?)?;
    let mut told = Told::new();
    told.say(format!("init {}", shim.end(&id)?));
    told.say(format!("exec {}", expect(shim.wait(&id, "e")?)?.exit_status));
    shim.events.wait_for("exit", 2)?;
    told.say(shim.events.story(&id)?);
    told.done()
}

fn settings(side: &Side<'_>) -> Result<String> {
    let (shim, id) = sleeping(side)?;
    let stdio = Stdio::outputs(&side.streams())?;
    let (out, _err) = (stdio.open_stdout()?, stdio.open_stderr()?);
    let process = serde_json::json!({
        "user": {"uid": 1000, "gid": 1000, "additionalGids": [7]},
        "args": ["/bin/sh", "-c", "id -u; id -G; pwd; echo $HARBOUR"],
        "env": ["PATH=/bin", "HARBOUR=quarantine"],
        "cwd": "/var",
    });
    expect(shim.exec_raw(&id, "e", process.to_string().as_bytes(), &stdio)?)?;
    expect(shim.start_process(&id, "e")?)?;
    let out = out.collect()?;
    expect(shim.wait(&id, "e")?)?;
    expect(shim.delete(&id, "e")?)?;
    Ok(crate::by_hand::text(out)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" "))
}

fn paused(side: &Side<'_>) -> Result<String> {
    let (shim, id) = sleeping(side)?;
    add(&shim, &id, "before", "sleep 600")?;
    expect(shim.start_process(&id, "before")?)?;
    expect(shim.pause(&id)?)?;
    let mut told = Told::new();
    told.say(format!(
        "before: {:?}",
        expect(shim.state(&id, "before")?)?.status()
    ));
    told.answer("add", &shim.exec(&id, "e", &["/bin/true"], &Stdio::null())?);
    expect(shim.resume(&id)?)?;
    wait::until_true("the exec to run again", SOON, || {
        shim.state(&id, "before")
            .is_ok_and(|state| state.is_ok_and(|state| format!("{:?}", state.status()) == "RUNNING"))
    })?;
    told.say(format!(
        "afterwards exit {}",
        shim.exec_to_end(&id, "later", &["/bin/sh", "-c", "exit 4"])?
    ));
    told.done()
}
