//! The one place where children are spawned and reaped.
//!
//! The shim is a subreaper: when runc ends, the container's processes become our
//! children. One may end before runc has told us its pid, so a [`Recording`] is
//! opened before runc is spawned. It keeps every exit that nobody waits for, and
//! is asked for the pid afterwards.
//!
//! A pid is a safe name here because nobody else reaps: as long as `waitid` finds
//! a child under a pid, that pid cannot have been given to another process.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, WaitStatus, wait, waitid};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::sync::lock;

/// How and when a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit {
    /// The exit code, or 128 + the signal that killed it.
    pub(crate) status: u32,
    /// When it was reaped.
    pub(crate) at: SystemTime,
}

/// Resolves once the process has ended.
pub(crate) type Ending = oneshot::Receiver<Exit>;

/// Hands the exits of all children to those who wait for them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reaper(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    waiting: HashMap<Pid, oneshot::Sender<Exit>>,
    /// What each open recording has kept.
    recordings: BTreeMap<u64, HashMap<Pid, Exit>>,
    /// Names the next recording.
    opened: u64,
}

/// Keeps the exits that nobody waits for, from its opening until it is dropped.
#[derive(Debug)]
pub(crate) struct Recording {
    reaper: Reaper,
    id: u64,
}

impl Reaper {
    /// Starts to reap, for as long as the runtime lives.
    pub(crate) fn start() -> io::Result<Self> {
        let mut sigchld = signal(SignalKind::child())?;
        let reaper = Self::default();
        let this = reaper.clone();
        tokio::spawn(async move {
            while sigchld.recv().await.is_some() {
                this.reap();
            }
        });
        Ok(reaper)
    }

    /// Starts to keep exits.
    pub(crate) fn record(&self) -> Recording {
        let mut state = lock(&self.0);
        let id = state.opened;
        state.opened += 1;
        state.recordings.insert(id, HashMap::new());
        Recording {
            reaper: self.clone(),
            id,
        }
    }

    /// Spawns a child that dies with the shim. Must run on the main thread: the
    /// kernel ties the child to the thread that forks it.
    pub(crate) fn spawn(&self, command: &mut Command) -> io::Result<(Child, Ending)> {
        lazaret_sys::child::end_with_parent(command);
        self.spawn_lasting(command)
    }

    /// Spawns a child that outlives the shim.
    pub(crate) fn spawn_lasting(&self, command: &mut Command) -> io::Result<(Child, Ending)> {
        // The lock keeps the child unreaped until it is waited for.
        let mut state = lock(&self.0);
        let child = command.spawn()?;
        let ending = state.wait_for(Pid::from_child(&child));
        Ok((child, ending))
    }

    /// Sends a signal to a child; false when it has been reaped already.
    pub(crate) fn signal(&self, pid: Pid, number: i32) -> io::Result<bool> {
        let _nobody_reaps = lock(&self.0);
        if !is_child(pid) {
            return Ok(false);
        }
        lazaret_sys::child::signal(pid, number).map(|()| true)
    }

    /// Whether the process is our child and has not been reaped.
    pub(crate) fn has_child(&self, pid: Pid) -> bool {
        let _nobody_reaps = lock(&self.0);
        is_child(pid)
    }

    fn reap(&self) {
        let mut state = lock(&self.0);
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            state.deliver(
                pid,
                Exit {
                    status: exit_status(status),
                    at: SystemTime::now(),
                },
            );
        }
    }
}

impl State {
    fn wait_for(&mut self, pid: Pid) -> Ending {
        let (tell, ending) = oneshot::channel();
        self.waiting.insert(pid, tell);
        ending
    }

    fn deliver(&mut self, pid: Pid, exit: Exit) {
        match self.waiting.remove(&pid) {
            // Who waits may have given up since; then nobody cares.
            Some(waiting) => drop(waiting.send(exit)),
            None => self
                .recordings
                .values_mut()
                .for_each(|kept| kept.extend([(pid, exit)])),
        }
    }
}

impl Recording {
    /// The end of a process that became our child since the recording was opened;
    /// none when there was no such process.
    pub(crate) fn ending_of(self, pid: Pid) -> Option<Ending> {
        let mut state = lock(&self.reaper.0);
        // A living child is the later one if an earlier one had the same pid.
        if is_child(pid) {
            return Some(state.wait_for(pid));
        }
        let exit = state.recordings.get_mut(&self.id)?.remove(&pid)?;
        let (tell, ending) = oneshot::channel();
        tell.send(exit).ok()?;
        Some(ending)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        lock(&self.reaper.0).recordings.remove(&self.id);
    }
}

/// Only true to its word while nobody can reap.
fn is_child(pid: Pid) -> bool {
    waitid(
        WaitId::Pid(pid),
        WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT,
    )
    .is_ok()
}

/// As a shell tells it. The number is taken raw: a process can die of a real-time
/// signal, which has no name.
fn exit_status(status: WaitStatus) -> u32 {
    let number = match status.terminating_signal() {
        Some(signal) => 128 + signal,
        None => status.exit_status().unwrap_or(255),
    };
    number.unsigned_abs()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    fn in_runtime(test: impl Future<Output = ()>) {
        // One reaper takes the children of all tests, so they must not overlap.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _alone = lock(&ONE_AT_A_TIME);
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(test);
    }

    /// Spawns a child that nobody waits for, as an orphan of runc would be.
    #[allow(clippy::zombie_processes, reason = "the reaper under test reaps it")]
    fn adopt(script: &str) -> Pid {
        Pid::from_child(&sh(script).spawn().unwrap())
    }

    async fn until_reaped(reaper: &Reaper, pid: Pid) {
        while reaper.has_child(pid) {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn tells_codes_and_signals() {
        in_runtime(async {
            let reaper = Reaper::start().unwrap();
            for (script, status) in [
                ("exit 0", 0),
                ("exit 3", 3),
                ("kill -9 $$", 137),
                ("kill -15 $$", 143),
                ("kill -40 $$", 168),
            ] {
                let (_child, ending) = reaper.spawn(&mut sh(script)).unwrap();
                assert_eq!(ending.await.unwrap().status, status, "{script}");
            }
        });
    }

    #[test]
    fn a_recording_keeps_what_was_reaped_before_the_question() {
        in_runtime(async {
            let reaper = Reaper::start().unwrap();
            let recording = reaper.record();
            let pid = adopt("exit 7");
            until_reaped(&reaper, pid).await;
            assert_eq!(recording.ending_of(pid).unwrap().await.unwrap().status, 7);
        });
    }

    #[test]
    fn a_recording_waits_for_what_still_runs() {
        in_runtime(async {
            let reaper = Reaper::start().unwrap();
            let recording = reaper.record();
            let pid = adopt("exec sleep 60");
            let ending = recording.ending_of(pid).unwrap();
            assert!(reaper.signal(pid, 9).unwrap());
            assert_eq!(ending.await.unwrap().status, 137);
            assert!(!reaper.signal(pid, 9).unwrap(), "a reaped child gets no signal");
        });
    }

    #[test]
    fn a_living_child_is_not_taken_for_an_earlier_one_of_its_pid() {
        in_runtime(async {
            let reaper = Reaper::start().unwrap();
            let recording = reaper.record();
            let pid = adopt("exec sleep 60");
            let earlier = Exit {
                status: 1,
                at: SystemTime::now(),
            };
            lock(&reaper.0)
                .recordings
                .get_mut(&recording.id)
                .unwrap()
                .insert(pid, earlier);
            let ending = recording.ending_of(pid).unwrap();
            reaper.signal(pid, 15).unwrap();
            assert_eq!(ending.await.unwrap().status, 143);
        });
    }

    #[test]
    fn a_recording_knows_nothing_of_what_came_before_or_of_strangers() {
        in_runtime(async {
            let reaper = Reaper::start().unwrap();
            let before = adopt("exit 0");
            until_reaped(&reaper, before).await;
            assert!(reaper.record().ending_of(before).is_none());
            assert!(reaper.record().ending_of(Pid::INIT).is_none());
            assert!(
                lock(&reaper.0).recordings.is_empty(),
                "a dropped recording keeps nothing"
            );
        });
    }

    #[test]
    fn no_exit_is_lost_under_churn() {
        in_runtime(async {
            let reaper = Reaper::start().unwrap();
            for _ in 0..100 {
                let recording = reaper.record();
                let pid = adopt("exit 5");
                let (_child, runc) = reaper.spawn(&mut sh("exit 0")).unwrap();
                assert_eq!(runc.await.unwrap().status, 0);
                assert_eq!(recording.ending_of(pid).expect("kept").await.unwrap().status, 5);
            }
        });
    }
}
