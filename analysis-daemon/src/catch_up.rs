//! What ran already when the daemon came back: programs and libraries that were
//! opened while nobody judged.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use lazaret_sys::{cgroup, pidfd};
use lazaret_types::{Access, Action};

use crate::daemon::Daemon;
use crate::engine::{Input, Priority};
use crate::evidence;
use crate::session::Session;

/// Judges the program and the executable mappings of each process of a container
/// and kills those that would have been refused. Blocks; the reader must be
/// reading, since what is opened here may lie on a marked file system.
pub(crate) fn run(daemon: &Daemon, session: &Arc<Session>) {
    session.catching_up.store(true, Ordering::Release);
    let mut seen = HashSet::new();
    match processes(session) {
        Ok(pids) => pids.into_iter().for_each(|pid| {
            // A process that ends meanwhile needs no judgement any more.
            if let Err(error) = look_at(daemon, session, pid, &mut seen) {
                tracing::debug!(pid, %error, "a process went away while it was looked at");
            }
        }),
        Err(error) => {
            let container = &session.container.id;
            tracing::error!(%container, %error, "what runs already could not be looked at");
        }
    }
    session.catching_up.store(false, Ordering::Release);
}

fn processes(session: &Arc<Session>) -> io::Result<Vec<i32>> {
    match &session.cgroup {
        Some((folder, _)) => cgroup::processes(folder),
        // Without cgroup v2 only the init is known for certain.
        None => Ok(vec![session.init_pid]),
    }
}

/// Identity enough to skip what this very run has looked at.
type Seen = HashSet<(u64, u64)>;

fn look_at(daemon: &Daemon, session: &Arc<Session>, pid: i32, seen: &mut Seen) -> io::Result<()> {
    let pidfd = pidfd::open(pid)?;
    // The pid came from a list: is it still somebody of this container?
    let ours = session
        .cgroup
        .as_ref()
        .is_none_or(|(folder, _)| cgroup::v2_folder(pid).is_ok_and(|now| now.starts_with(folder)));
    if !ours {
        return Ok(());
    }
    judge(
        daemon,
        session,
        pid,
        &pidfd,
        format!("/proc/{pid}/exe").into(),
        seen,
    )?;
    for mapping in executable_mappings(pid)? {
        judge(daemon, session, pid, &pidfd, mapping, seen)?;
    }
    Ok(())
}

/// The files that are mapped to be run, as paths that open exactly them
/// (`/proc/PID/map_files`, proc_pid_map_files(5)).
fn executable_mappings(pid: i32) -> io::Result<Vec<PathBuf>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let mapping = |line: &str| {
        // address perms offset device inode path
        let mut fields = line.split_ascii_whitespace();
        let (range, perms) = (fields.next()?, fields.next()?);
        let inode = fields.nth(2)?;
        (perms.contains('x') && inode != "0").then(|| format!("/proc/{pid}/map_files/{range}").into())
    };
    Ok(maps.lines().filter_map(mapping).collect())
}

fn judge(
    daemon: &Daemon,
    session: &Arc<Session>,
    pid: i32,
    pidfd: &OwnedFd,
    path: PathBuf,
    seen: &mut Seen,
) -> io::Result<()> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let known = !seen.insert((metadata.dev(), metadata.ino()));
    let judge = &daemon.judge;
    let deadline = Instant::now() + judge.timeout;
    // Not behind openers: it runs already.
    let outcome = judge.judge(Input::File(file.as_fd()), deadline, Priority::Opener);
    let action = match judge.action(&outcome, Access::Exec) {
        Action::Allow => return Ok(()),
        Action::Deny => match outcome {
            crate::judge::Outcome::Judged { .. } => Action::Kill,
            // It has been running for a while: a doubt is no reason to kill it.
            crate::judge::Outcome::Unjudged(_) => Action::Alert,
        },
        other => other,
    };
    let process = evidence::process(pid, Some(pidfd.as_fd()));
    if action == Action::Kill {
        pidfd::kill(pidfd)?;
    }
    if action == Action::Kill {
        daemon.quarantine.consider(session, file.as_fd(), &outcome);
    }
    if action == Action::Kill || !known {
        let file = evidence::file(file.as_fd(), &outcome);
        daemon.incidents.report(evidence::draft(
            session,
            &outcome,
            action,
            Access::Exec,
            process,
            file,
        ));
    }
    Ok(())
}
