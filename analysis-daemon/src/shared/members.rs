//! Who an opener belongs to.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use lazaret_sys::fanotify::Event;
use lazaret_sys::mounts::{self, Namespace};
use lazaret_sys::{cgroup, pidfd};

use crate::session::Session;

/// With more processes than this in guarded containers, nobody is told to be outside of them all.
const MAX_PROCESSES: usize = 10_000;

/// The guarded containers, by their cgroups.
#[derive(Debug, Default)]
pub(super) struct Members(RwLock<HashMap<PathBuf, Arc<Session>>>);

/// Who opened something.
#[derive(Debug)]
pub(super) enum Opener {
    /// A process of a guarded container.
    Of(Arc<Session>),
    /// A process outside of them.
    Bystander,
    /// It hides, or has been killed.
    Unknown,
}

impl Members {
    /// # Errors
    /// With the reason when the container's processes cannot be told from others.
    pub(super) fn insert(&self, session: &Arc<Session>) -> Result<(), &'static str> {
        let cgroup = cgroup::v2_path(session.init_pid).map_err(|_none| "it has no cgroup v2")?;
        let alive = pidfd::has_exited(&session.init).is_ok_and(|exited| !exited);
        let own = cgroup::v2_path(std::process::id().cast_signed()).unwrap_or_default();
        if !alive || own.starts_with(&cgroup) {
            return Err("it has no cgroup of its own");
        }
        self.write().insert(cgroup, Arc::clone(session));
        Ok(())
    }

    pub(super) fn remove(&self, session: &Arc<Session>) {
        self.write().retain(|_, member| !Arc::ptr_eq(member, session));
    }

    /// Whose opener this is. Opens nothing but files of `/proc`.
    pub(super) fn opener(&self, event: &Event) -> Opener {
        if event.pid == 0 {
            // Not in our pid namespace, as all guarded containers are.
            return Opener::Bystander;
        }
        let cgroup = cgroup::v2_path(event.pid);
        // As long as it waits for us, its pid is nobody else's.
        let has_exited = |pidfd| pidfd::has_exited(pidfd).unwrap_or(true);
        if event.pidfd.as_ref().is_some_and(has_exited) {
            return Opener::Unknown;
        }
        // A path too long to be told: only who makes cgroups in cgroups has one.
        let Ok(cgroup) = cgroup else {
            return Opener::Unknown;
        };
        let members = self.read();
        let mut above = cgroup.ancestors().filter_map(|above| members.get(above));
        above
            .next()
            .map_or(Opener::Bystander, |session| Opener::Of(Arc::clone(session)))
    }

    /// Whether a process of a guarded container is in this mount namespace, or may be.
    pub(super) fn may_be_in(&self, namespace: Namespace) -> bool {
        let sessions: Vec<_> = self.read().values().cloned().collect();
        let mut budget = MAX_PROCESSES;
        sessions.iter().any(|session| {
            let Ok(pids) = processes(session) else { return true };
            let known = pids.len() <= budget;
            budget = budget.saturating_sub(pids.len());
            !known || pids.into_iter().any(|pid| may_be(pid, namespace))
        })
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<PathBuf, Arc<Session>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<PathBuf, Arc<Session>>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn processes(session: &Session) -> io::Result<Vec<i32>> {
    let folder = session.cgroup.as_ref().map(|(folder, _)| folder);
    match cgroup::processes(folder.ok_or(io::ErrorKind::Unsupported)?) {
        // The container is over.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        pids => pids,
    }
}

fn may_be(pid: i32, namespace: Namespace) -> bool {
    match mounts::namespace_of(pid) {
        Ok(own) => own == namespace,
        // One that has exited is nowhere.
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}
