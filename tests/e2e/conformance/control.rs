//! Pausing, limits, statistics, memory's end, checkpoints.

use std::fs;

use anyhow::{Context as _, Result};
use containerd_shim_protos::api::{
    CheckpointTaskRequest, Empty, StatsRequest, StatsResponse, UpdateTaskRequest,
};
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use lazaret_tests::wait;
use serde_json::json;

use super::{Side, Told};
use crate::by_hand::bundle::{self, Spec};
use crate::by_hand::{Answer, KILL, SOON, Shim, Stdio, code, expect};
use crate::case::Case;

pub(super) const CASES: &[Case] = &[
    Case::compared("conformance::control::pause_and_resume", pause),
    Case::compared("conformance::control::pause_what_cannot_be_paused", pause_refused),
    Case::compared("conformance::control::delete_while_paused", delete_paused),
    Case::compared("conformance::control::kill_while_paused", kill_paused),
    Case::compared("conformance::control::update", update),
    Case::compared("conformance::control::update_never_started", update_created),
    Case::compared("conformance::control::update_after_exit", update_stopped),
    Case::compared("conformance::control::update_that_is_no_json", update_broken),
    Case::compared("conformance::control::statistics_by_phase", statistics),
    Case::compared("conformance::control::end_of_memory", out_of_memory),
    Case::compared("conformance::control::checkpoint_without_criu", checkpoint),
    Case::compared("conformance::control::checkpoint_by_phase", checkpoint_refused),
    Case::compared("conformance::control::restore_without_criu", restore),
];

const MIB: u64 = 1 << 20;

fn sleeping<'a>(side: &Side<'a>) -> Result<(Shim<'a>, String)> {
    let id = side.id();
    Ok((side.started(&Spec::new(&id, &["/bin/sleep", "600"]))?, id))
}

fn pause(side: &Side<'_>) -> Result<String> {
    let (shim, id) = sleeping(side)?;
    let mut told = Told::new();
    for (asked, answer) in [("pause", shim.pause(&id)?), ("resume", shim.resume(&id)?)] {
        told.answer(asked, &answer);
    }
    expect(shim.pause(&id)?)?;
    told.say(format!("{:?}", expect(shim.state(&id, "")?)?.status()));
    expect(shim.resume(&id)?)?;
    told.say(format!("{:?}", expect(shim.state(&id, "")?)?.status()));
    shim.end(&id)?;
    shim.events.wait_for("exit", 1)?;
    told.say(shim.events.story(&id)?);
    told.done()
}

fn pause_refused(side: &Side<'_>) -> Result<String> {
    let spec = Spec::new(&side.id(), &["/bin/sleep", "600"]);
    let shim = side.created(&spec)?;
    let id = spec.id();
    let mut told = Told::new();
    let mut tell = |asked: &str, answer: Answer<()>| told.say(format!("{asked} refused {}", answer.is_err()));
    tell("created: pause", shim.pause(id)?);
    tell("resume", shim.resume(id)?);
    expect(shim.start_process(id, "")?)?;
    tell("running: resume", shim.resume(id)?);
    expect(shim.pause(id)?)?;
    tell("paused: pause", shim.pause(id)?);
    expect(shim.resume(id)?)?;
    shim.end(id)?;
    tell("ended: pause", shim.pause(id)?);
    tell("resume", shim.resume(id)?);
    told.done()
}

fn delete_paused(side: &Side<'_>) -> Result<String> {
    let (shim, id) = sleeping(side)?;
    expect(shim.pause(&id)?)?;
    let mut told = Told::new();
    told.say(format!("refused {}", shim.delete(&id, "")?.is_err()));
    told.say(format!("{:?}", expect(shim.state(&id, "")?)?.status()));
    told.done()
}

fn kill_paused(side: &Side<'_>) -> Result<String> {
    let (shim, id) = sleeping(side)?;
    expect(shim.pause(&id)?)?;
    let mut told = Told::new();
    told.answer("kill", &shim.kill(&id, "", KILL, false)?);
    // Whether the signal alone ends it is up to the version of cgroups.
    drop(shim.resume(&id)?);
    told.say(format!("exit {}", expect(shim.wait(&id, "")?)?.exit_status));
    told.answer("delete", &shim.delete(&id, "")?);
    told.done()
}

fn update_to(shim: &Shim<'_>, id: &str, resources: &str) -> Result<Answer<()>> {
    let request = UpdateTaskRequest {
        id: id.to_owned(),
        resources: MessageField::some(Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".into(),
            value: resources.as_bytes().to_vec(),
            ..Default::default()
        }),
        ..Default::default()
    };
    Ok(shim.call::<Empty>("Update", &request)?.map(drop))
}

fn limits(bytes: u64, pids: u64) -> String {
    json!({"memory": {"limit": bytes}, "pids": {"limit": pids}, "cpu": {"shares": 512}}).to_string()
}

/// Limits as the container's cgroup has them, by the files' names in either version.
fn in_cgroup(side: &Side<'_>, id: &str) -> String {
    let read = |names: &[&str]| {
        let own = side.node.cgroups().into_iter().filter(|dir| dir.ends_with(id));
        let mut files = own.flat_map(|dir| names.iter().map(move |name| dir.join(name)));
        files
            .find_map(|file| fs::read_to_string(file).ok())
            .unwrap_or_default()
    };
    let [memory, pids, cpu] = [
        read(&["memory.limit_in_bytes", "memory.max"]),
        read(&["pids.max"]),
        read(&["cpu.shares", "cpu.weight"]),
    ];
    format!("memory {} pids {} cpu {}", memory.trim(), pids.trim(), cpu.trim())
}

fn update(side: &Side<'_>) -> Result<String> {
    let (shim, id) = sleeping(side)?;
    let mut told = Told::new();
    told.answer("update", &update_to(&shim, &id, &limits(64 * MIB, 77))?);
    told.say(in_cgroup(side, &id));
    told.answer("again", &update_to(&shim, &id, &limits(32 * MIB, 78))?);
    told.say(in_cgroup(side, &id));
    told.done()
}

fn update_created(side: &Side<'_>) -> Result<String> {
    let spec = Spec::new(&side.id(), &["/bin/sleep", "600"]);
    let shim = side.created(&spec)?;
    let updated = update_to(&shim, spec.id(), &limits(64 * MIB, 77))?;
    Ok(format!("{}, {}", code(&updated), in_cgroup(side, spec.id())))
}

fn update_stopped(side: &Side<'_>) -> Result<String> {
    let (shim, id) = sleeping(side)?;
    shim.end(&id)?;
    Ok(format!(
        "refused {}",
        update_to(&shim, &id, &limits(64 * MIB, 77))?.is_err()
    ))
}

fn update_broken(side: &Side<'_>) -> Result<String> {
    let (shim, id) = sleeping(side)?;
    expect(update_to(&shim, &id, &limits(64 * MIB, 77))?)?;
    let broken = update_to(&shim, &id, "{")?;
    Ok(format!("refused {}, {}", broken.is_err(), in_cgroup(side, &id)))
}

fn statistics(side: &Side<'_>) -> Result<String> {
    let spec = Spec::new(&side.id(), &["/bin/sleep", "600"]);
    let shim = side.created(&spec)?;
    let mut told = Told::new();
    let mut tell = |phase: &str| {
        let request = StatsRequest {
            id: spec.id().to_owned(),
            ..Default::default()
        };
        let answer = shim.call::<StatsResponse>("Stats", &request)?;
        let kind = answer
            .as_ref()
            .map(|stats| stats.stats.type_url.clone())
            .unwrap_or_default();
        told.say(format!("{phase}: {} {kind}", code(&answer)));
        anyhow::Ok(())
    };
    tell("created")?;
    expect(shim.start_process(spec.id(), "")?)?;
    tell("started")?;
    told.done()
}

fn out_of_memory(side: &Side<'_>) -> Result<String> {
    let spec = Spec::sh(&side.id(), "tail /dev/zero; sleep 0.5; exit 7").set(
        "/linux/resources/memory",
        json!({"limit": 24 * MIB, "swap": 24 * MIB}),
    );
    let shim = side.started(&spec)?;
    let exit = expect(shim.wait(spec.id(), "")?)?.exit_status;
    expect(shim.delete(spec.id(), "")?)?;
    shim.events.wait_for("delete", 1)?;
    let told = shim.events.topics().iter().any(|topic| topic == "oom");
    Ok(format!("exit {exit}, told {told}"))
}

fn checkpoint_of(shim: &Shim<'_>, side: &Side<'_>, id: &str) -> Result<Answer<()>> {
    let request = CheckpointTaskRequest {
        id: id.to_owned(),
        path: side.streams().display().to_string(),
        ..Default::default()
    };
    Ok(shim.call::<Empty>("Checkpoint", &request)?.map(drop))
}

fn checkpoint(side: &Side<'_>) -> Result<String> {
    let (shim, id) = sleeping(side)?;
    let answer = checkpoint_of(&shim, side, &id)?;
    let said = answer
        .as_ref()
        .err()
        .map(|refusal| refusal.message.to_lowercase())
        .unwrap_or_default();
    let state = expect(shim.state(&id, "")?)?;
    Ok(format!(
        "{}, names criu {}, {:?}",
        code(&answer),
        said.contains("criu"),
        state.status()
    ))
}

fn checkpoint_refused(side: &Side<'_>) -> Result<String> {
    let spec = Spec::new(&side.id(), &["/bin/sleep", "600"]);
    let shim = side.created(&spec)?;
    let mut told = Told::new();
    told.say(format!(
        "created refused {}",
        checkpoint_of(&shim, side, spec.id())?.is_err()
    ));
    expect(shim.start_process(spec.id(), "")?)?;
    shim.end(spec.id())?;
    told.say(format!(
        "ended refused {}",
        checkpoint_of(&shim, side, spec.id())?.is_err()
    ));
    told.done()
}

fn restore(side: &Side<'_>) -> Result<String> {
    let spec = Spec::new(&side.id(), &["/bin/sleep", "600"]);
    let image = side.streams();
    fs::create_dir_all(&image)?;
    let shim = side.shim(&spec)?;
    let created = shim.create_as(&spec, &Stdio::null(), |request| {
        request.checkpoint = image.display().to_string();
    })?;
    let mut told = Told::new();
    told.answer("create", &created);
    if created.is_ok() {
        told.answer("start", &shim.start_process(spec.id(), "")?);
        told.answer("delete", &shim.delete(spec.id(), "")?);
    }
    let mounted = || !lazaret_tests::mounts::below(&bundle::path(side.node, spec.id())).is_empty();
    wait::until_true("the rootfs to be unmounted", SOON, || !mounted())
        .context("after a restore that failed")?;
    told.done()
}
