//! Processes: our own children, and finding those that belong to a run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context, Result};
use lazaret_sys::stat;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A long-running child of ours: killed and reaped when dropped.
#[derive(Debug)]
pub struct Server(Child);

impl Server {
    /// Starts `command` in a process group of its own: Ctrl-C at the terminal then reaches us
    /// alone, and we end it in our order.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        use std::os::unix::process::CommandExt as _;
        let child = command
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().display()))?;
        Ok(Self(child))
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        pid(self.0.id())
    }

    /// Whether it has not ended.
    pub fn alive(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    /// Sends it a signal; one that has ended already is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        // An ended child of ours stays a zombie until waited for, so its id cannot be reused.
        match kill(self.pid(), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno).context("sending a signal"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A process id as the kernel's calls take it.
#[must_use]
pub fn pid(raw: u32) -> Pid {
    Pid::from_raw(i32::try_from(raw).unwrap_or(i32::MAX))
}

/// All process ids in `/proc`.
pub fn all() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .map(Pid::from_raw)
}

/// Whether a process runs. One that waits to be reaped does not: nobody may be there to do it.
#[must_use]
pub fn alive(pid: Pid) -> bool {
    stat::of(pid.as_raw()).is_ok_and(|stat| !matches!(stat.state, 'Z' | 'X'))
}

/// The command line of a process, empty for zombies and kernel threads.
#[must_use]
pub fn command_line(pid: Pid) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}

/// Whether `pid` carries `NAME=value` in its environment. False for zombies.
#[must_use]
pub fn has_env(pid: Pid, name: &str, value: &str) -> bool {
    let wanted = format!("{name}={value}");
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment
        .split(|byte| *byte == 0)
        .any(|entry| entry == wanted.as_bytes())
}

/// Who started a process, as the kernel has it now.
#[must_use]
pub fn parent(pid: Pid) -> Option<Pid> {
    let stat = stat::of(pid.as_raw()).ok()?;
    Some(Pid::from_raw(stat.parent))
}

/// A process and all that it or its children started.
#[must_use]
pub fn family(first: Pid) -> Vec<Pid> {
    let mut family = vec![first];
    let mut at = 0;
    while let Some(elder) = family.get(at).copied() {
        family.extend(all().filter(|pid| parent(*pid) == Some(elder)));
        at += 1;
    }
    family
}

/// Proportional set size in KiB: shared pages count by their share.
///
/// # Errors
/// When the process is gone.
pub fn pss_kib(pid: Pid) -> Result<u64> {
    rollup_kib(pid, "Pss:")
}

/// Resident set size in KiB: shared pages count in full.
///
/// # Errors
/// When the process is gone.
pub fn rss_kib(pid: Pid) -> Result<u64> {
    rollup_kib(pid, "Rss:")
}

fn rollup_kib(pid: Pid, name: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line
        .and_then(|line| line.split_whitespace().next())
        .with_context(|| format!("no {name} line"))?;
    Ok(number.parse()?)
}

/// What the descriptors of a process refer to, as far as the kernel tells.
pub fn descriptors(pid: Pid) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    entries.filter_map(|entry| fs::read_link(entry.path()).ok())
}

/// What some processes use together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Weight {
    /// How many there are.
    pub processes: u64,
    /// Proportional set size.
    pub pss_kib: u64,
    /// Descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
    /// Clock ticks on a processor since each began.
    pub ticks: u64,
}

impl Weight {
    /// Of those that are there.
    pub fn of(pids: impl IntoIterator<Item = Pid>) -> Self {
        let mut sum = Self::default();
        for pid in pids {
            let (Ok(pss_kib), Ok(stat)) = (pss_kib(pid), stat::of(pid.as_raw())) else {
                continue;
            };
            sum.processes += 1;
            sum.pss_kib += pss_kib;
            sum.descriptors += descriptors(pid).count() as u64;
            sum.threads += u64::from(stat.threads);
            sum.ticks += stat.ticks;
        }
        sum
    }
}

/// The pid written in a cgroup's `cgroup.procs`, all of them.
#[must_use]
pub fn in_cgroup(dir: &Path) -> Vec<Pid> {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.parse().ok())
        .map(Pid::from_raw)
        .collect()
}
