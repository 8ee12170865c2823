//! A whole node: containerd, lazaretd and an image, all private.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::Pid;

use crate::binaries::Binaries;
use crate::command::{self, Outcome, Running};
use crate::containerd::{self, Containerd};
use crate::daemon::{self, Daemon};
use crate::image::Image;
use crate::incident::Incident;
use crate::packages::Release;
use crate::procs;
use crate::run::Run;
use crate::scratch::Scratch;
use crate::{sweep, wait};

/// An incident is written right after its verdict; this much later it is missing.
const INCIDENT: Duration = Duration::from_secs(5);
const START: Duration = Duration::from_secs(20);

/// containerd and, unless left out, lazaretd.
#[derive(Debug)]
pub struct Node {
    // In this order: servers end before their places are swept.
    containerd: Containerd,
    daemon: Option<Daemon>,
    scratch: Scratch,
    counter: AtomicU32,
}

impl Node {
    /// A node with lazaretd; `extra` is laid over its `lazaret.toml`.
    ///
    /// # Errors
    /// When one of the two does not come up.
    pub fn start(release: Release, binaries: &Binaries, extra: &toml::Table) -> Result<Self> {
        let scratch = Scratch::new()?;
        let daemon = Daemon::start(scratch.places(), binaries, extra)?;
        let options = containerd::Options {
            release,
            shims: Some(binaries.dir().to_owned()),
            lazaret_config: Some(daemon::config_path(scratch.places())),
        };
        let containerd = Containerd::start(scratch.places(), options)?;
        Ok(Self {
            containerd,
            daemon: Some(daemon),
            scratch,
            counter: AtomicU32::new(0),
        })
    }

    /// A node with containerd alone, for the stock runtime.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn stock(release: Release) -> Result<Self> {
        let scratch = Scratch::new()?;
        let options = containerd::Options {
            release,
            shims: None,
            lazaret_config: None,
        };
        let containerd = Containerd::start(scratch.places(), options)?;
        Ok(Self {
            containerd,
            daemon: None,
            scratch,
            counter: AtomicU32::new(0),
        })
    }

    /// Its containerd.
    #[must_use]
    pub fn containerd(&self) -> &Containerd {
        &self.containerd
    }

    /// Its containerd, to be stopped and started again.
    #[must_use]
    pub fn containerd_mut(&mut self) -> &mut Containerd {
        &mut self.containerd
    }

    /// Its lazaretd.
    ///
    /// # Errors
    /// On a node without one.
    pub fn daemon(&self) -> Result<&Daemon> {
        self.daemon.as_ref().context("this node has no lazaretd")
    }

    /// Its lazaretd, to be killed and the like.
    ///
    /// # Errors
    /// On a node without one.
    pub fn daemon_mut(&mut self) -> Result<&mut Daemon> {
        self.daemon.as_mut().context("this node has no lazaretd")
    }

    /// Where everything of it is.
    #[must_use]
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// A container id that this node has not had.
    pub fn id(&self, what: &str) -> String {
        format!("{what}-{}", self.counter.fetch_add(1, Ordering::Relaxed))
    }

    /// Imports an image.
    ///
    /// # Errors
    /// When containerd does not take it.
    pub fn import(&self, image: &Image) -> Result<()> {
        self.containerd.import(image)
    }

    /// Runs a container to its end and removes it.
    ///
    /// # Errors
    /// When it overruns [`command::LIMIT`]. Its exit code is the caller's to judge.
    pub fn run(&self, run: &Run) -> Result<Outcome> {
        command::run(&mut self.run_command(run, &["--rm"]))
    }

    /// `ctr run` as a command, not started yet.
    #[must_use]
    pub fn run_command(&self, run: &Run, flags: &[&str]) -> Command {
        let fifos = self.scratch.places().fifos();
        run.command(self.containerd.ctr(), &fifos, flags)
    }

    /// Starts a container and keeps collecting its output.
    ///
    /// # Errors
    /// When `ctr` cannot be started.
    pub fn spawn(&self, run: &Run) -> Result<Running> {
        Running::start(&mut self.run_command(run, &["--rm"]))
    }

    /// Starts a container in the background, its output thrown away.
    ///
    /// # Errors
    /// When containerd or the shim refuses.
    pub fn detach(&self, run: &Run) -> Result<()> {
        command::check(&mut self.run_command(run, &["--detach", "--null-io"])).map(drop)
    }

    /// Runs `args` in a running container.
    ///
    /// # Errors
    /// As [`Node::run`].
    pub fn exec(&self, id: &str, args: &[&str]) -> Result<Outcome> {
        let exec_id = self.id("exec");
        command::run(&mut self.exec_command(&exec_id, id, args))
    }

    /// `ctr task exec` as a command, not started yet.
    #[must_use]
    pub fn exec_command(&self, exec_id: &str, id: &str, args: &[&str]) -> Command {
        let mut ctr = self.containerd.ctr();
        ctr.args(["task", "exec", "--exec-id", exec_id, "--fifo-dir"]);
        ctr.arg(self.scratch.places().fifos()).arg(id).args(args);
        ctr
    }

    /// `ctr` with these words.
    ///
    /// # Errors
    /// As [`Node::run`].
    pub fn ctr(&self, args: &[&str]) -> Result<Outcome> {
        command::run(self.containerd.ctr().args(args))
    }

    /// Kills a container's task and removes both.
    ///
    /// # Errors
    /// When one of them stays.
    pub fn remove(&self, id: &str) -> Result<()> {
        // An exited task cannot be killed, and need not be.
        self.ctr(&["task", "kill", "--signal", "9", "--all", id])?;
        let deleted = wait::until("the task to be deleted", Duration::from_secs(20), || {
            let deleted = self.ctr(&["task", "delete", id]).ok()?;
            (deleted.code == 0 || deleted.err().contains("not found")).then_some(())
        });
        deleted.with_context(|| id.to_owned())?;
        self.ctr(&["container", "delete", id])?.ok().map(drop)
    }

    /// STATUS of a task as `ctr task ls` shows it, when there is one.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub fn task_status(&self, id: &str) -> Result<Option<String>> {
        self.task_column(id, 2)
    }

    /// Pid of a task's init, when there is one.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub fn task_pid(&self, id: &str) -> Result<Option<Pid>> {
        let raw = self.task_column(id, 1)?.map(|pid| pid.parse()).transpose()?;
        Ok(raw.map(Pid::from_raw))
    }

    /// Waits until the container's own program runs. A task is RUNNING a little earlier, when
    /// its init still is runc's, which dies of a signal that the program would not.
    ///
    /// # Errors
    /// When it does not come to that.
    pub fn wait_executed(&self, id: &str) -> Result<()> {
        wait::until_true(&format!("{id} to be executed"), START, || {
            let pid = self.task_pid(id).ok().flatten();
            let comm = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok());
            comm.is_some_and(|comm| !comm.starts_with("runc"))
        })
    }

    fn task_column(&self, id: &str, column: usize) -> Result<Option<String>> {
        let table = self.ctr(&["task", "ls"])?.ok()?;
        let rows = table
            .lines()
            .map(|row| row.split_whitespace().collect::<Vec<_>>());
        let mut found = rows.filter(|row| row.first() == Some(&id));
        Ok(found.find_map(|row| row.get(column).map(|cell| (*cell).to_owned())))
    }

    /// Incidents of one container, once there is at least one.
    ///
    /// # Errors
    /// When none comes.
    pub fn incidents_of(&self, id: &str) -> Result<Vec<Incident>> {
        let daemon = self.daemon()?;
        wait::until(&format!("an incident of {id}"), INCIDENT, || {
            let mut found = daemon.incidents().ok()?;
            found.retain(|incident| incident.is_of(id));
            (!found.is_empty()).then_some(found)
        })
    }

    /// Pids of the shims that serve this node.
    #[must_use]
    pub fn shims(&self) -> Vec<Pid> {
        let name = self.scratch.places().name();
        let is_shim = |pid: &Pid| {
            let words = procs::command_line(*pid);
            let program = words.first().map(String::as_str).unwrap_or_default();
            program
                .rsplit('/')
                .next()
                .is_some_and(|file| file.starts_with("containerd-shim"))
                && words.windows(2).any(|pair| pair == ["-namespace", name])
        };
        procs::all().filter(is_shim).collect()
    }

    /// Pids of the shim that was started for this container: one, or none.
    #[must_use]
    pub fn shims_of(&self, id: &str) -> Vec<Pid> {
        let names = |pid: &Pid| {
            procs::command_line(*pid)
                .windows(2)
                .any(|pair| pair == ["-id", id])
        };
        self.shims().into_iter().filter(names).collect()
    }

    /// Whether a shim runs that was started for this container.
    #[must_use]
    pub fn has_shim(&self, id: &str) -> bool {
        !self.shims_of(id).is_empty()
    }

    /// Cgroups of this node's containers.
    #[must_use]
    pub fn cgroups(&self) -> Vec<std::path::PathBuf> {
        sweep::cgroups(self.scratch.places().name())
    }
}
