//! What waits for the thread, bounded for the node and for each container.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use lazaret_types::{Finding, Sha256};

use crate::session::Session;

/// Files that wait; each holds a descriptor.
const MAX_TASKS: usize = 256;

/// Of these, of one container: a flood leaves room for others.
const MAX_EACH: usize = 32;

/// A file that was refused.
pub(super) struct Case {
    pub(super) session: Arc<Session>,
    /// The very descriptor that was judged.
    pub(super) file: OwnedFd,
    pub(super) digest: Sha256,
    pub(super) finding: Finding,
    /// The version of the signature set that found it.
    pub(super) set: Arc<str>,
}

pub(super) enum Task {
    /// Move a file away.
    Move(Case),
    /// Look after what a crash left in a container.
    Settle(Arc<Session>),
}

impl Task {
    fn session(&self) -> &Arc<Session> {
        match self {
            Self::Move(case) => &case.session,
            Self::Settle(session) => session,
        }
    }

    fn is_of(&self, session: &Arc<Session>) -> bool {
        Arc::ptr_eq(self.session(), session)
    }
}

#[derive(Default)]
pub(super) struct Queue {
    tasks: Mutex<VecDeque<Task>>,
    filled: Condvar,
}

impl Queue {
    /// Queues a task; gives a case back for which there is no room.
    pub(super) fn push(&self, task: Task) -> Result<(), Case> {
        let mut tasks = self.tasks();
        let same = tasks.iter().filter(|other| other.is_of(task.session())).count();
        if same >= MAX_EACH || tasks.len() >= MAX_TASKS {
            return match task {
                Task::Move(case) => Err(case),
                Task::Settle(_) => Ok(()),
            };
        }
        tasks.push_back(task);
        drop(tasks);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits for a task.
    pub(super) fn pop(&self) -> Task {
        let mut tasks = self.tasks();
        loop {
            match tasks.pop_front() {
                Some(task) => return task,
                None => tasks = self.filled.wait(tasks).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Takes out whatever holds a container, and returns the cases among it.
    pub(super) fn forget(&self, session: &Arc<Session>) -> Vec<Case> {
        let mut tasks = self.tasks();
        let (its, others) = std::mem::take(&mut *tasks)
            .into_iter()
            .partition::<VecDeque<_>, _>(|task| task.is_of(session));
        *tasks = others;
        let case = |task| match task {
            Task::Move(case) => Some(case),
            Task::Settle(_) => None,
        };
        its.into_iter().filter_map(case).collect()
    }

    fn tasks(&self) -> MutexGuard<'_, VecDeque<Task>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
