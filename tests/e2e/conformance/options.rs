//! The options of `containerd.runc.v1.Options`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use containerd_shim_protos::api::{CheckpointTaskRequest, Empty};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::shim::oci;
use lazaret_tests::packages;

use super::{Side, Told};
use crate::by_hand::bundle::Spec;
use crate::by_hand::{Shim, Start, Stdio, code, expect};
use crate::case::Case;

pub(super) const CASES: &[Case] = &[
    Case::compared("conformance::options::binary_name_crun", crun),
    Case::compared("conformance::options::binary_that_is_not_there", missing_binary),
    Case::compared("conformance::options::root", root),
    Case::compared("conformance::options::no_pivot_root", no_pivot),
    Case::compared("conformance::options::no_new_keyring", no_keyring),
    Case::compared("conformance::options::systemd_cgroup", systemd),
    Case::compared("conformance::options::shim_cgroup", shim_cgroup),
    Case::compared("conformance::options::criu_path", criu_path),
    Case::compared("conformance::options::unknown_type", unknown_type),
    Case::compared("conformance::options::broken", broken),
];

fn any(options: &oci::Options) -> Result<Any> {
    Ok(Any {
        type_url: "containerd.runc.v1.Options".into(),
        value: options.write_to_bytes()?,
        ..Default::default()
    })
}

/// A shim with a container that was created with these options.
fn created<'a>(side: &Side<'a>, spec: &Spec, stdio: &Stdio, options: &oci::Options) -> Result<Shim<'a>> {
    let shim = side.shim(spec)?;
    let options = any(options)?;
    expect(shim.create_as(spec, stdio, |request| request.options = Some(options).into())?)?;
    Ok(shim)
}

/// A runtime that writes down how it is called, and calls runc.
fn telling_runc(side: &Side<'_>) -> Result<(String, PathBuf)> {
    let folder = side.streams();
    fs::create_dir_all(&folder)?;
    let (program, log) = (folder.join("runc"), folder.join("calls"));
    let runc = packages::runc_bin()?.join("runc");
    let script = format!(
        "#!/bin/sh\necho \"$@\" >>{}\nexec {} \"$@\"\n",
        log.display(),
        runc.display()
    );
    fs::write(&program, script)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok((program.display().to_string(), log))
}

/// crun, and what of its libraries a machine may not have.
fn crun_program(side: &Side<'_>) -> Result<String> {
    let folder = side.streams();
    fs::create_dir_all(&folder)?;
    let tree = packages::unpacked("crun")?;
    let library = packages::unpacked("libyajl2")?;
    let libraries = fs::read_dir(library.join("usr/lib"))?
        .flatten()
        .map(|entry| entry.path());
    let path: Vec<_> = libraries.map(|path| path.display().to_string()).collect();
    let program = folder.join("crun");
    let script = format!(
        "#!/bin/sh\nexport LD_LIBRARY_PATH={}\nexec {} \"$@\"\n",
        path.join(":"),
        tree.join("usr/bin/crun").display()
    );
    fs::write(&program, script)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(program.display().to_string())
}

fn crun(side: &Side<'_>) -> Result<String> {
    let options = oci::Options {
        binary_name: crun_program(side)?,
        root: side.streams().display().to_string(),
        ..Default::default()
    };
    let stdio = Stdio::outputs(&side.streams())?;
    let (out, _err) = (stdio.open_stdout()?, stdio.open_stderr()?);
    let spec = Spec::sh(&side.id(), "echo of crun; sleep 600");
    let shim = side.shim(&spec)?;
    let options = any(&options)?;
    let created = shim.create_as(&spec, &stdio, |request| request.options = Some(options).into())?;
    if let Err(refusal) = &created {
        // crun of this machine's Debian does not run where version 2 has controllers beside 1.
        return Ok(format!(
            "create {}, {}",
            refusal.code,
            refusal.message.rsplit(": ").next().unwrap_or_default()
        ));
    }
    expect(shim.start_process(spec.id(), "")?)?;
    let out = out.collect()?;
    let mut told = Told::new();
    told.say(format!(
        "exec {}",
        shim.exec_to_end(spec.id(), "e", &["/bin/sh", "-c", "exit 5"])?
    ));
    told.answer("pause", &shim.pause(spec.id())?);
    told.answer("resume", &shim.resume(spec.id())?);
    told.say(format!("exit {}", shim.end(spec.id())?));
    told.answer("delete", &shim.delete(spec.id(), "")?);
    told.say(crate::by_hand::text(out).trim().to_owned());
    told.done()
}

fn missing_binary(side: &Side<'_>) -> Result<String> {
    let spec = Spec::new(&side.id(), &["/bin/true"]);
    let shim = side.shim(&spec)?;
    let options = any(&oci::Options {
        binary_name: "/no/such/runtime".into(),
        ..Default::default()
    })?;
    let created = shim.create_as(&spec, &Stdio::null(), |request| {
        request.options = Some(options).into();
    })?;
    let said = created
        .as_ref()
        .err()
        .map(|refusal| refusal.message.clone())
        .unwrap_or_default();
    Ok(format!(
        "refused {}, names it {}",
        created.is_err(),
        said.contains("/no/such/runtime")
    ))
}

fn root(side: &Side<'_>) -> Result<String> {
    let root = side.streams();
    let options = oci::Options {
        root: root.display().to_string(),
        ..Default::default()
    };
    let spec = Spec::new(&side.id(), &["/bin/sleep", "600"]);
    let shim = created(side, &spec, &Stdio::null(), &options)?;
    let state = root.join(side.node.scratch().places().name()).join(spec.id());
    let there = state.join("state.json").exists();
    expect(shim.delete(spec.id(), "")?)?;
    Ok(format!("state below it {there}, after delete {}", state.exists()))
}

/// The words of `runc create` that an option is to add.
fn words_of_create(side: &Side<'_>, change: impl FnOnce(&mut oci::Options), word: &str) -> Result<String> {
    let (binary_name, calls) = telling_runc(side)?;
    let mut options = oci::Options {
        binary_name,
        ..Default::default()
    };
    change(&mut options);
    let spec = Spec::new(&side.id(), &["/bin/true"]);
    let shim = side.shim(&spec)?;
    let options = any(&options)?;
    drop(shim.create_as(&spec, &Stdio::null(), |request| {
        request.options = Some(options).into();
    })?);
    let calls = fs::read_to_string(&calls).context("the runtime was not called")?;
    let create = calls
        .lines()
        .find(|line| line.contains(" create "))
        .unwrap_or_default();
    let has = create.split_whitespace().any(|it| it == word);
    Ok(format!("{word} {has}"))
}

fn no_pivot(side: &Side<'_>) -> Result<String> {
    words_of_create(side, |options| options.no_pivot_root = true, "--no-pivot")
}

fn no_keyring(side: &Side<'_>) -> Result<String> {
    words_of_create(side, |options| options.no_new_keyring = true, "--no-new-keyring")
}

fn systemd(side: &Side<'_>) -> Result<String> {
    words_of_create(side, |options| options.systemd_cgroup = true, "--systemd-cgroup")
}

fn shim_cgroup(side: &Side<'_>) -> Result<String> {
    let cgroup = format!("/{}/{}", side.node.scratch().places().name(), side.id());
    for hierarchy in lazaret_tests::sweep::hierarchies() {
        make_cgroup(&hierarchy, cgroup.trim_start_matches('/'))?;
    }
    let options = any(&oci::Options {
        shim_cgroup: cgroup.clone(),
        ..Default::default()
    })?;
    let how = Start {
        options: Some(options),
        ..Default::default()
    };
    let spec = Spec::new(&side.id(), &["/bin/sleep", "600"]);
    let shim = Shim::start_as(side.world, side.node, side.runtime, &spec, &how)?;
    expect(shim.create(&spec, &Stdio::null())?)?;
    let pid = shim.pid()?;
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let joined = own.lines().filter(|line| line.ends_with(&cgroup)).count();
    Ok(format!("joined {}", joined > 0))
}

/// Makes a cgroup that processes can join: on version 1, one without processors or memory nodes
/// takes none.
fn make_cgroup(hierarchy: &Path, path: &str) -> Result<()> {
    let mut dir = hierarchy.to_owned();
    for part in path.split('/') {
        let parent = dir.clone();
        dir.push(part);
        fs::create_dir_all(&dir)?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if parent.join(file).exists() && fs::read_to_string(dir.join(file))?.trim().is_empty() {
                fs::write(dir.join(file), fs::read_to_string(parent.join(file))?)?;
            }
        }
    }
    Ok(())
}

/// A field of containerd 1.x, whose number 2.0 has retired.
fn criu_path(side: &Side<'_>) -> Result<String> {
    const CRIU_PATH: u32 = 8;
    let folder = side.streams();
    fs::create_dir_all(&folder)?;
    let (program, called) = (folder.join("criu"), folder.join("called"));
    fs::write(
        &program,
        format!("#!/bin/sh\necho called >{}\nexit 1\n", called.display()),
    )?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let mut options = oci::Options::new();
    let fields = options.special_fields.mut_unknown_fields();
    fields.add_length_delimited(CRIU_PATH, program.display().to_string().into_bytes());
    let spec = Spec::new(&side.id(), &["/bin/sleep", "600"]);
    let shim = created(side, &spec, &Stdio::null(), &options)?;
    expect(shim.start_process(spec.id(), "")?)?;
    let request = CheckpointTaskRequest {
        id: spec.id().to_owned(),
        path: folder.join("image").display().to_string(),
        ..Default::default()
    };
    let refused = shim.call::<Empty>("Checkpoint", &request)?.is_err();
    Ok(format!(
        "refused {refused}, this criu was called {}",
        called.exists()
    ))
}

fn unknown_type(side: &Side<'_>) -> Result<String> {
    let spec = Spec::new(&side.id(), &["/bin/true"]);
    let shim = side.shim(&spec)?;
    let created = shim.create_as(&spec, &Stdio::null(), |request| {
        request.options = Some(Any {
            type_url: "example.com/Unknown".into(),
            value: vec![8, 1],
            ..Default::default()
        })
        .into();
    })?;
    Ok(format!("refused {}", created.is_err()))
}

fn broken(side: &Side<'_>) -> Result<String> {
    let spec = Spec::new(&side.id(), &["/bin/true"]);
    let shim = side.shim(&spec)?;
    let created = shim.create_as(&spec, &Stdio::null(), |request| {
        request.options = Some(Any {
            type_url: "containerd.runc.v1.Options".into(),
            value: vec![0xff; 32],
            ..Default::default()
        })
        .into();
    })?;
    let left = !lazaret_tests::mounts::below(Path::new(&crate::by_hand::bundle::path(side.node, spec.id())))
        .is_empty();
    Ok(format!(
        "refused {}, still mounted {left}, state {}",
        created.is_err(),
        code(&shim.state(spec.id(), "")?)
    ))
}
