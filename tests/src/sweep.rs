//! Takes away everything a run left in the system, whatever state it is in.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::mounts;
use crate::procs;
use crate::scratch::{MARK, Places};
use crate::ui;

const LIMIT: Duration = Duration::from_secs(20);
const CGROUPS: &str = "/sys/fs/cgroup";
/// Where runc keeps its state for the stock shim, one folder a containerd namespace.
const RUNC_STATE: &str = "/run/containerd/runc";

/// Ends the run's processes and containers, then removes its mounts, cgroups, sockets, folders.
///
/// It knows the run by name only, so it serves a clean end, a signal, a panic and the remains of
/// a run that was killed alike.
pub fn sweep(places: &Places) {
    // Servers first: they would start anew or report what is taken away beneath them.
    kill_all("processes", || marked(places));
    kill_all("containers", || contained(places));
    let sockets = shim_sockets(&places.run());
    mounts::detach_below(&places.run());
    mounts::detach_below(&places.disk());
    cgroups(places.name())
        .iter()
        .rev()
        .for_each(|dir| drop(fs::remove_dir(dir)));
    sockets.iter().for_each(|socket| drop(fs::remove_file(socket)));
    for dir in [
        Path::new(RUNC_STATE).join(places.name()),
        places.disk(),
        places.run(),
    ] {
        remove(&dir);
    }
}

fn remove(dir: &Path) {
    // Never through a mount that could not be detached.
    if mounts::below(dir).is_empty()
        && dir.exists()
        && let Err(error) = fs::remove_dir_all(dir)
    {
        ui::note(&format!("could not remove {}: {error}", dir.display()));
    }
}

fn kill_all(what: &str, find: impl Fn() -> Vec<Pid>) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let found = find();
        if found.is_empty() {
            return;
        }
        if Instant::now() > deadline {
            ui::note(&format!("{what} that would not end: {found:?}"));
            return;
        }
        for pid in found {
            // One that ended since the search is what we want.
            kill(pid, Signal::SIGKILL).unwrap_or_default();
        }
        sleep(Duration::from_millis(20));
    }
}

/// containerd, shims, lazaretd and its workers: they inherit the mark. Never ourselves.
fn marked(places: &Places) -> Vec<Pid> {
    let own = nix::unistd::getpid();
    procs::all()
        .filter(|pid| *pid != own && procs::has_env(*pid, MARK, places.name()))
        .collect()
}

/// Processes in the run's containers: their environment is the image's, their cgroup is ours.
fn contained(places: &Places) -> Vec<Pid> {
    let dirs = cgroups(places.name());
    for dir in &dirs {
        // A frozen process does not take its SIGKILL.
        drop(fs::write(dir.join("freezer.state"), "THAWED"));
    }
    dirs.iter()
        .flat_map(|dir| procs::in_cgroup(dir))
        .filter(|pid| procs::alive(*pid))
        .collect()
}

/// The run's cgroups in every hierarchy, v1 and v2; parents before their children.
#[must_use]
pub fn cgroups(name: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for root in hierarchies().iter().map(|hierarchy| hierarchy.join(name)) {
        collect_dirs(&root, &mut found);
    }
    found
}

/// Where hierarchies of cgroups are mounted, or may be: every folder of the usual place and, for a
/// machine with version 2 alone, the place itself.
#[must_use]
pub fn hierarchies() -> Vec<PathBuf> {
    let entries = fs::read_dir(CGROUPS).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders
        .map(|entry| entry.path())
        .chain([PathBuf::from(CGROUPS)])
        .collect()
}

fn collect_dirs(dir: &Path, found: &mut Vec<PathBuf>) {
    // `cpu` and its like may be links to `cpu,cpuacct`: real folders only.
    if !fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_dir()) {
        return;
    }
    found.push(dir.to_owned());
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        collect_dirs(&entry.path(), found);
    }
}

/// Sockets of shims lie outside the run's folders; each bundle names its own.
fn shim_sockets(run: &Path) -> Vec<PathBuf> {
    let tasks = run.join("state/io.containerd.runtime.v2.task");
    let namespaces = fs::read_dir(tasks).into_iter().flatten().flatten();
    let bundles = namespaces.flat_map(|dir| fs::read_dir(dir.path()).into_iter().flatten().flatten());
    bundles.filter_map(|bundle| shim_socket(&bundle.path())).collect()
}

/// The socket of the shim that serves this bundle.
#[must_use]
pub fn shim_socket(bundle: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(bundle.join("address")).or_else(|_| {
        let json = fs::read(bundle.join("bootstrap.json"))?;
        let value: Value = serde_json::from_slice(&json)?;
        std::io::Result::Ok(
            value
                .get("address")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
        )
    });
    let path = PathBuf::from(text.ok()?.trim().strip_prefix("unix://")?);
    path.is_absolute().then_some(path)
}
