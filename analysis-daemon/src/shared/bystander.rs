//! Openers outside of guarded containers, whose mounts are spared: services with a mount namespace
//! of their own, other containers, mounts of the host that are new.
//!
//! They have been let through already. All that is left to do here makes the next time cheaper, so
//! it has its own thread and is given up whenever there is too much of it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use lazaret_sys::fanotify::Event;

use super::marks::Marks;
use super::members::Members;
use crate::rate::Rate;

/// Those that wait; each keeps a file open.
const QUEUE: usize = 32;

/// One who was let through.
#[derive(Debug)]
pub(super) struct Bystander {
    /// What was opened, by the mount to be spared.
    pub(super) file: OwnedFd,
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
}

/// The thread that has their mounts spared.
#[derive(Debug)]
pub(super) struct Bystanders(SyncSender<Bystander>);

impl Bystanders {
    /// # Errors
    /// When the kernel gives no thread.
    pub(super) fn start(members: Arc<Members>, marks: Arc<Marks>) -> io::Result<Self> {
        let (queue, inbox) = sync_channel(QUEUE);
        thread::Builder::new()
            .name("bystanders".into())
            .spawn(move || spare(&inbox, &members, &marks))?;
        Ok(Self(queue))
    }

    /// Takes the event of an opener that was let through. Never waits.
    pub(super) fn notice(&self, event: Event) {
        let Event { file, pid, pidfd, .. } = event;
        if let Some(pidfd) = pidfd {
            // When there are too many, the next open is another chance.
            drop(self.0.try_send(Bystander { file, pid, pidfd }));
        }
    }
}

fn spare(inbox: &Receiver<Bystander>, members: &Members, marks: &Marks) {
    // A host that starts containers all the time has a new namespace each time.
    let rate = Rate::new();
    for bystander in inbox {
        if !rate.admits() {
            continue;
        }
        // It may have exited meanwhile, or unmounted what it came by.
        if let Err(error) = marks.spare(&bystander, members) {
            tracing::debug!(pid = bystander.pid, %error, "the mount of a bystander was not spared");
        }
    }
}
