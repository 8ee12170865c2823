//! The OCI runtime, called as a program.
//!
//! Most calls go through the crate `runc`. `exec` and `update` are made here: the
//! crate would read their JSON into types of its own and drop what those lack. So are
//! `checkpoint` and `restore`, which it does not have.

use std::env;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use containerd_shim_protos::shim::oci::CheckpointOptions;
use runc::options::{CreateOpts, DeleteOpts, GlobalOpts, KillOpts};
use runc::{Command, Io, Runc, Spawner};
use rustix::process::Pid;
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use crate::error::{Context, Error, Result};
use crate::options::Options;
use crate::reaper::Reaper;
use crate::stdio::ChildEnds;

/// The runtime's own messages, in the bundle.
const LOG: &str = "log.json";

/// The pid of a container's init, in the bundle.
const INIT_PID: &str = "init.pid";

/// The longest output of a call that is kept.
const MAX_OUTPUT: u64 = 4 << 20;

/// How long a hook that outlives its call may keep us from reading its output to
/// the end.
const OUTPUT_GRACE: Duration = Duration::from_millis(100);

/// The runtime, as it is called for one container.
#[derive(Debug)]
pub(crate) struct Runtime {
    id: String,
    bundle: PathBuf,
    options: Options,
    binary: String,
    root: PathBuf,
    client: Runc,
    spawner: Arc<Children>,
}

/// Spawns what the crate asks for, and waits for it through the one reaper.
#[derive(Debug)]
struct Children(Reaper);

#[async_trait]
impl Spawner for Children {
    async fn execute(&self, command: Command) -> runc::Result<(ExitStatus, u32, String, String)> {
        let mut command = command.into_std();
        let (mut child, ending) = self
            .0
            .spawn(&mut command)
            .map_err(runc::error::Error::ProcessSpawnFailed)?;
        drop(command); // And with it our copies of the container's pipes.
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let outputs =
            async { tokio::join!(read(stdout.map(OwnedFd::from)), read(stderr.map(OwnedFd::from))) };
        tokio::pin!(outputs, ending);
        let (ended, (stdout, stderr)) = tokio::select! {
            outputs = &mut outputs => (ending.await, outputs),
            ended = &mut ending => (ended, tokio::time::timeout(OUTPUT_GRACE, outputs).await.unwrap_or_default()),
        };
        let exit = ended.map_err(|gone| runc::error::Error::Other(Box::new(gone)))?;
        let status = ExitStatus::from_raw(exit.status.cast_signed() << 8);
        Ok((status, child.id(), stdout, stderr))
    }
}

async fn read(output: Option<OwnedFd>) -> String {
    let mut text = Vec::new();
    if let Some(output) = output.and_then(|fd| pipe::Receiver::from_owned_fd(fd).ok()) {
        // What was read before an error is the best there is.
        output.take(MAX_OUTPUT).read_to_end(&mut text).await.ok();
    }
    String::from_utf8_lossy(&text).into_owned()
}

impl Runtime {
    pub(crate) fn new(
        id: &str,
        namespace: &str,
        bundle: &Path,
        options: Options,
        reaper: Reaper,
    ) -> Result<Self> {
        let (binary, root) = (options.binary().to_owned(), options.root(namespace));
        let spawner = Arc::new(Children(reaper));
        let mut globals = GlobalOpts::new()
            .command(&binary)
            .root(&root)
            .log(bundle.join(LOG))
            .log_json()
            .systemd_cgroup(options.systemd_cgroup == Some(true));
        globals.custom_spawner(spawner.clone());
        let client = globals.build().map_err(|error| {
            Error::failed_precondition(format!(
                "cannot call the OCI runtime {binary} for container {id}: {error}; is it in containerd's PATH?"
            ))
        })?;
        Ok(Self {
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            options,
            binary,
            root,
            client,
            spawner,
        })
    }

    /// Makes the container; its init then waits for [`Runtime::start`].
    pub(crate) async fn create(&self, io: ChildEnds) -> Result<Pid> {
        let pid_file = self.bundle.join(INIT_PID);
        let mut create = CreateOpts::new().pid_file(&pid_file);
        create.console_socket = io.console_socket().map(Path::to_owned);
        create.io = Some(Arc::new(io));
        create.no_pivot = self.options.no_pivot_root;
        create.no_new_keyring = self.options.no_new_keyring;
        self.call(
            "create",
            self.client.create(&self.id, &self.bundle, Some(&create)),
        )
        .await?;
        read_pid(&pid_file)
    }

    pub(crate) async fn start(&self) -> Result<()> {
        self.call("start", self.client.start(&self.id)).await.map(drop)
    }

    pub(crate) async fn kill(&self, signal: u32, all: bool) -> Result<()> {
        let options = KillOpts { all };
        self.call("kill", self.client.kill(&self.id, signal, Some(&options)))
            .await
    }

    /// Removes what is left of a container. Only `force` kills one that still runs;
    /// newer versions of runc then sleep 100 ms even if it does not.
    pub(crate) async fn delete(&self, force: bool) -> Result<()> {
        let options = DeleteOpts { force };
        self.call("delete", self.client.delete(&self.id, Some(&options)))
            .await
    }

    pub(crate) async fn pause(&self) -> Result<()> {
        self.call("pause", self.client.pause(&self.id)).await
    }

    pub(crate) async fn resume(&self) -> Result<()> {
        self.call("resume", self.client.resume(&self.id)).await
    }

    /// The pids of all processes in the container.
    pub(crate) async fn pids(&self) -> Result<Vec<u32>> {
        let pids = self.call("ps", self.client.ps(&self.id)).await?;
        Ok(pids.into_iter().filter_map(|pid| pid.try_into().ok()).collect())
    }

    /// Starts another process in the container, from the JSON of an OCI process.
    pub(crate) async fn exec(&self, exec_id: &str, process: &[u8], io: &ChildEnds) -> Result<Pid> {
        let spec = self.bundle.join(format!("{exec_id}.json"));
        let pid_file = self.bundle.join(format!("{exec_id}.pid"));
        crate::bundle::write(&spec, process)?;
        let mut command = self.command("exec");
        command
            .arg("--detach")
            .arg("--process")
            .arg(&spec)
            .arg("--pid-file")
            .arg(&pid_file);
        if let Some(socket) = io.console_socket() {
            command.arg("--console-socket").arg(socket);
        }
        command.arg(&self.id);
        io.set(&mut command)
            .await
            .context(|| "cannot connect the standard streams")?;
        let result = self
            .call("exec", self.run(command))
            .await
            .and_then(|()| read_pid(&pid_file));
        // They are the bundle's, and go with it if not now.
        std::fs::remove_file(&spec).ok();
        std::fs::remove_file(&pid_file).ok();
        result
    }

    /// Writes the processes of the container to the folder `image`, by criu.
    pub(crate) async fn checkpoint(&self, image: &Path, options: &CheckpointOptions) -> Result<()> {
        let (work, is_ours) = self.criu_work(&options.work_path);
        let mut command = self.criu_command("checkpoint")?;
        command
            .arg("--image-path")
            .arg(image)
            .arg("--work-path")
            .arg(&work);
        for (wanted, flag) in [
            (options.open_tcp, "--tcp-established"),
            (options.external_unix_sockets, "--ext-unix-sk"),
            (options.terminal, "--shell-job"),
            (options.file_locks, "--file-locks"),
            (!options.exit, "--leave-running"),
        ] {
            if wanted {
                command.arg(flag);
            }
        }
        if !options.cgroups_mode.is_empty() {
            command.arg("--manage-cgroups-mode").arg(&options.cgroups_mode);
        }
        for namespace in &options.empty_namespaces {
            command.arg("--empty-ns").arg(namespace);
        }
        command.arg(&self.id);
        let result = self.call("checkpoint", self.run(command)).await;
        let result = result.map_err(|error| self.with_criu_log(error, &work));
        if is_ours {
            // Made by criu, or not at all.
            std::fs::remove_dir_all(&work).ok();
        }
        result
    }

    /// Lets criu restore what [`Runtime::checkpoint`] wrote; it runs when this returns.
    pub(crate) async fn restore(&self, image: &Path, io: &ChildEnds) -> Result<Pid> {
        let pid_file = self.bundle.join(INIT_PID);
        let (work, _) = self.criu_work("");
        let mut command = self.criu_command("restore")?;
        command
            .arg("--image-path")
            .arg(image)
            .arg("--work-path")
            .arg(&work);
        command.args(["--detach", "--no-subreaper"]);
        command
            .arg("--pid-file")
            .arg(&pid_file)
            .arg("--bundle")
            .arg(&self.bundle);
        if self.options.no_pivot_root {
            command.arg("--no-pivot");
        }
        if let Some(socket) = io.console_socket() {
            command.arg("--console-socket").arg(socket);
        }
        command.arg(&self.id);
        io.set(&mut command)
            .await
            .context(|| "cannot connect the standard streams")?;
        self.call("restore", self.run(command)).await?;
        read_pid(&pid_file)
    }

    /// A call that needs criu: the one that the options name, if they do.
    fn criu_command(&self, action: &str) -> Result<Command> {
        let mut command = self.command(action);
        if !self.options.criu_folder.is_empty() {
            let rest = env::var_os("PATH").unwrap_or_default();
            let folder = PathBuf::from(&self.options.criu_folder);
            let path = env::join_paths([folder].into_iter().chain(env::split_paths(&rest)));
            command.env("PATH", path.context(|| "the runtime option CriuPath")?);
        }
        Ok(command)
    }

    /// Where criu works, and whether that is ours to remove.
    fn criu_work(&self, wanted: &str) -> (PathBuf, bool) {
        match [wanted, &self.options.criu_work_path]
            .into_iter()
            .find(|path| !path.is_empty())
        {
            Some(path) => (path.into(), false),
            None => (self.bundle.join("criu-work"), true),
        }
    }

    /// Keeps criu's log in the bundle and names it, if there is one.
    fn with_criu_log(&self, error: Error, work: &Path) -> Error {
        let kept = self.bundle.join("criu-dump.log");
        match std::fs::copy(work.join("dump.log"), &kept) {
            Ok(_) => error.and(format!("criu's log is {}", kept.display())),
            Err(_) => error,
        }
    }

    /// Whether the runtime knows another container by our id: two containerds on a
    /// machine may use the same one, and share the runtime's state.
    pub(crate) async fn knows_another(&self) -> bool {
        #[derive(Deserialize)]
        struct State {
            bundle: PathBuf,
        }
        let mut command = self.command("state");
        command.arg(&self.id);
        let Ok((_, _, stdout, _)) = self.spawner.execute(command).await else {
            return false;
        };
        serde_json::from_str(&stdout).is_ok_and(|state: State| state.bundle != self.bundle)
    }

    /// Changes the limits, from the JSON of OCI's Linux resources.
    pub(crate) async fn update(&self, resources: &[u8]) -> Result<()> {
        let file = self.bundle.join("resources.json");
        crate::bundle::write(&file, resources)?;
        let mut command = self.command("update");
        command.arg("--resources").arg(&file).arg(&self.id);
        let result = self.call("update", self.run(command)).await;
        std::fs::remove_file(&file).ok();
        result
    }

    /// A call of the runtime with the arguments and streams that all calls have.
    fn command(&self, action: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(&self.root);
        command
            .arg("--log")
            .arg(self.bundle.join(LOG))
            .args(["--log-format", "json"]);
        if self.options.systemd_cgroup == Some(true) {
            command.arg("--systemd-cgroup");
        }
        // With it, runc would talk to the systemd that started containerd.
        command.env_remove("NOTIFY_SOCKET");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.arg(action);
        command
    }

    async fn run(&self, command: Command) -> runc::Result<()> {
        let (status, _, stdout, stderr) = self.spawner.execute(command).await?;
        if status.success() {
            Ok(())
        } else {
            Err(runc::error::Error::CommandFailed {
                status,
                stdout,
                stderr,
            })
        }
    }

    /// Awaits a call, and says what the runtime itself says if it fails.
    async fn call<T>(&self, action: &str, call: impl Future<Output = runc::Result<T>>) -> Result<T> {
        let log = self.bundle.join(LOG);
        let before = std::fs::metadata(&log).map_or(0, |meta| meta.len());
        call.await.map_err(|error| {
            let told = last_error(&log, before).unwrap_or_else(|| match error {
                runc::error::Error::CommandFailed { status, stderr, .. } => {
                    format!("{status}: {}", stderr.trim())
                }
                error => error.to_string(),
            });
            self.classify(action, &told)
        })
    }

    /// Gives the runtime's message the code that containerd looks for.
    fn classify(&self, action: &str, told: &str) -> Error {
        let gone = [
            "does not exist",
            "already finished",
            "not running",
            "no such process",
            "process not found",
        ];
        let message = format!("OCI runtime {action} failed for container {}: {told}", self.id);
        let told = told.to_lowercase();
        if gone.iter().any(|words| told.contains(words)) && matches!(action, "kill" | "delete" | "ps") {
            Error::not_found(message)
        } else {
            Error::internal(message)
        }
    }
}

/// The pid of the container's init, as the runtime left it in the bundle.
pub(crate) fn init_pid(bundle: &Path) -> Result<Pid> {
    read_pid(&bundle.join(INIT_PID))
}

fn read_pid(file: &Path) -> Result<Pid> {
    let text = std::fs::read_to_string(file).context(|| format!("cannot read {}", file.display()))?;
    let pid = text
        .trim()
        .parse()
        .ok()
        .filter(|pid| *pid > 0)
        .and_then(Pid::from_raw);
    pid.ok_or_else(|| Error::internal(format!("no pid in {}: {text:?}", file.display())))
}

/// The last error that the runtime has logged since its log was `before` bytes long.
fn last_error(log: &Path, before: u64) -> Option<String> {
    #[derive(Deserialize)]
    struct Line {
        level: String,
        msg: String,
    }
    let mut file = File::open(log).ok()?;
    file.seek(SeekFrom::Start(before)).ok()?;
    let mut text = String::new();
    file.take(MAX_OUTPUT).read_to_string(&mut text).ok()?;
    let mut lines = text
        .lines()
        .rev()
        .filter_map(|line| serde_json::from_str::<Line>(line).ok());
    lines.find(|line| line.level == "error").map(|line| line.msg)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn runtime(binary: &str) -> Result<Runtime> {
        let options = Options {
            binary: binary.into(),
            ..Options::default()
        };
        Runtime::new("c1", "default", Path::new("/b"), options, Reaper::default())
    }

    #[test]
    fn says_that_the_runtime_is_missing() {
        let error = runtime("no-such-runtime").unwrap_err().to_string();
        assert!(
            error.contains("no-such-runtime") && error.contains("PATH"),
            "{error}"
        );
    }

    #[test]
    fn tells_the_last_error_of_this_call() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join(LOG);
        let line =
            |level: &str, msg: &str| format!("{{\"level\":{level:?},\"msg\":{msg:?},\"time\":\"now\"}}\n");
        let earlier = line("error", "earlier");
        std::fs::write(
            &log,
            [&earlier, "not json\n", &line("error", "mine"), &line("info", "x")].concat(),
        )
        .unwrap();
        assert_eq!(last_error(&log, earlier.len() as u64).as_deref(), Some("mine"));
        assert_eq!(last_error(&log, 1 << 20), None);
        assert_eq!(last_error(Path::new("/nonexistent"), 0), None);
    }

    #[test]
    fn tells_a_process_that_has_gone_from_a_failure() {
        let runtime = runtime("/bin/true").unwrap();
        assert!(
            runtime
                .classify("kill", "os: process already finished")
                .is_not_found()
        );
        assert!(
            runtime
                .classify("delete", "container does not exist")
                .is_not_found()
        );
        assert!(
            !runtime
                .classify("create", "exec: \"x\": file does not exist")
                .is_not_found()
        );
        assert!(!runtime.classify("kill", "permission denied").is_not_found());
    }

    #[test]
    fn reads_pids_that_are_pids() {
        let dir = tempfile::tempdir().unwrap();
        for (text, good) in [
            ("12\n", true),
            ("0", false),
            ("-1", false),
            ("", false),
            ("99999999999", false),
        ] {
            std::fs::write(dir.path().join(INIT_PID), text).unwrap();
            assert_eq!(init_pid(dir.path()).is_ok(), good, "{text}");
        }
    }
}
