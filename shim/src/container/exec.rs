//! Processes that join a running container.

use std::collections::hash_map::Entry;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use containerd_shim_protos::api::ExecProcessRequest;
use containerd_shim_protos::events::task::{TaskExecAdded, TaskExecStarted};
use lazaret_types::ContainerId;
use rustix::process::Pid;
use serde::Deserialize;

use super::{Container, Freezer, State};
use crate::error::{Context, Error, Result};
use crate::process::{Phase, Process, number};
use crate::reaper::{Ending, Exit};
use crate::stdio::{Owner, Prepared, Request};
use crate::sync::lock;

/// The signal that nothing survives.
const KILL: i32 = 9;

/// An exec, and the process that it becomes.
#[derive(Debug)]
pub(crate) struct Exec {
    pub(crate) id: String,
    pub(crate) process: Process,
    /// The JSON of an OCI process, for the runtime to read.
    spec: Vec<u8>,
}

impl Container {
    pub(crate) fn exec(&self, id: &str) -> Result<Arc<Exec>> {
        let exec = lock(&self.state).execs.get(id).cloned();
        exec.ok_or_else(|| Error::not_found(format!("{} has no exec {id}", self.name())))
    }

    /// Prepares an exec; [`Container::start_exec`] starts it.
    pub(crate) fn add_exec(&self, request: ExecProcessRequest) -> Result<()> {
        // It becomes a file name, and follows the same rule as an id.
        let id =
            ContainerId::new(request.exec_id).map_err(|error| Error::invalid_argument(error.to_string()))?;
        let id = id.as_str().to_owned();
        let spec = request
            .spec
            .into_option()
            .map(|any| any.value)
            .unwrap_or_default();
        check(&spec, request.terminal)
            .map_err(|why| Error::invalid_argument(format!("cannot use the process of exec {id}: {why}")))?;
        let stdio = Request {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        let exec = Arc::new(Exec {
            id: id.clone(),
            process: Process::new(stdio),
            spec,
        });
        {
            let mut state = lock(&self.state);
            self.refuse_exec(&state)?;
            match state.execs.entry(id.clone()) {
                Entry::Vacant(free) => drop(free.insert(exec)),
                Entry::Occupied(_) => {
                    return Err(Error::already_exists(format!(
                        "{} already has an exec {id}",
                        self.name()
                    )));
                }
            }
        }
        let event = TaskExecAdded {
            container_id: self.id.clone(),
            exec_id: id,
            ..Default::default()
        };
        self.shared.events.publish(&event);
        Ok(())
    }

    pub(crate) async fn start_exec(self: &Arc<Self>, id: &str) -> Result<u32> {
        let exec = self.exec(id)?;
        {
            let state = lock(&self.state);
            self.refuse_exec(&state)?;
            // Under the lock, so that init's exit either sees this start or forbids it.
            exec.process
                .begin_start(&format!("exec {id} of {}", self.name()))?;
        }
        match self.spawn_exec(&exec).await {
            Ok((pid, ending)) => {
                let pid = number(pid);
                self.shared.events.publish(&TaskExecStarted {
                    container_id: self.id.clone(),
                    exec_id: id.to_owned(),
                    pid,
                    ..Default::default()
                });
                exec.process.end_start(true);
                tokio::spawn(self.clone().watch_exec(exec, ending));
                Ok(pid)
            }
            Err(error) => {
                exec.process.end_start(false);
                Err(error)
            }
        }
    }

    async fn spawn_exec(&self, exec: &Exec) -> Result<(Pid, Ending)> {
        let owner = Owner {
            id: &exec.id,
            namespace: &self.shared.namespace,
            options: &self.options,
            reaper: &self.shared.reaper,
        };
        let (streams, ends) = Prepared::open(&exec.process.stdio, owner).await?;
        let recording = self.shared.reaper.record();
        let pid = self.runtime.exec(&exec.id, &exec.spec, &ends).await?;
        let ending = recording.ending_of(pid).ok_or_else(|| {
            Error::internal(format!(
                "exec {} of {} (pid {}) was lost",
                exec.id,
                self.name(),
                number(pid)
            ))
        })?;
        match streams.start().await {
            Ok(streams) => exec.process.born(pid, streams),
            Err(error) => {
                // It runs, and nobody could ever speak to it.
                self.shared.reaper.signal(pid, KILL).ok();
                return Err(error).context(|| format!("exec {} of {}", exec.id, self.name()));
            }
        }
        Ok((pid, ending))
    }

    async fn watch_exec(self: Arc<Self>, exec: Arc<Exec>, ending: Ending) {
        if let Ok(exit) = ending.await {
            self.tell_exit(&exec.id, &exec.process, exit);
        }
    }

    /// Signals the process of an exec.
    pub(crate) fn kill_exec(&self, id: &str, signal: u32) -> Result<()> {
        let exec = self.exec(id)?;
        let name = || format!("exec {id} of {}", self.name());
        let gone = || Error::not_found(format!("{} has ended already", name()));
        let pid = match (exec.process.phase(), exec.process.pid()) {
            (Phase::Stopped(_), _) => return Err(gone()),
            (_, Some(pid)) => pid,
            (_, None) => {
                return Err(Error::failed_precondition(format!(
                    "{} has not been started",
                    name()
                )));
            }
        };
        let number = i32::try_from(signal).unwrap_or(i32::MAX);
        match self.shared.reaper.signal(pid, number) {
            Ok(true) => Ok(()),
            Ok(false) => Err(gone()),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                Err(Error::invalid_argument(format!("there is no signal {signal}")))
            }
            Err(error) => Err(error).context(|| format!("cannot signal {}", name())),
        }
    }

    /// Forgets an exec that does not run.
    pub(crate) async fn delete_exec(&self, id: &str) -> Result<(u32, Exit)> {
        let exec = self.exec(id)?;
        let exit = match exec.process.phase() {
            Phase::Stopped(exit) => exit,
            // It never ran; nobody needs to wait for it any longer.
            Phase::Created => Exit {
                status: 0,
                at: SystemTime::now(),
            },
            Phase::Starting | Phase::Running => {
                let name = self.name();
                return Err(Error::failed_precondition(format!(
                    "exec {id} of {name} still runs; kill it first"
                )));
            }
        };
        exec.process.stop(exit);
        exec.process.drain().await;
        lock(&self.state).execs.remove(id);
        Ok((exec.process.pid_number(), exit))
    }

    /// All pids in the container, each with the exec that it was started as.
    pub(crate) async fn pids(&self) -> Result<Vec<(u32, Option<String>)>> {
        let pids = self.runtime.pids().await?;
        let state = lock(&self.state);
        let exec_of = |pid| state.execs.values().find(|exec| exec.process.pid_number() == pid);
        Ok(pids
            .into_iter()
            .map(|pid| (pid, exec_of(pid).map(|exec| exec.id.clone())))
            .collect())
    }

    fn refuse_exec(&self, state: &State) -> Result<()> {
        self.refuse_if_dead(state)?;
        if state.freezer != Freezer::Thawed {
            return Err(Error::failed_precondition(format!(
                "{} is paused; resume it first",
                self.name()
            )));
        }
        Ok(())
    }
}

/// Whether the runtime can make use of a process, as far as we must know.
fn check(spec: &[u8], terminal: bool) -> std::result::Result<(), String> {
    #[derive(Deserialize)]
    struct Spec {
        #[serde(default)]
        terminal: bool,
    }
    // serde takes a list for a struct, too.
    if !spec.trim_ascii_start().starts_with(b"{") {
        return Err("it is no JSON object".to_owned());
    }
    match serde_json::from_slice::<Spec>(spec) {
        Ok(spec) if spec.terminal == terminal => Ok(()),
        Ok(_) => Err("it and the request differ on whether it has a terminal".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_what_it_does_not_read_otherwise() {
        assert!(check(br#"{"args": ["sh"], "futureField": {}}"#, false).is_ok());
        assert!(check(br#"{"terminal": true}"#, true).is_ok());
        assert!(check(br#"{"terminal": true}"#, false).is_err());
        assert!(check(b"", false).is_err() && check(b"[]", false).is_err() && check(b"{", false).is_err());
    }
}
