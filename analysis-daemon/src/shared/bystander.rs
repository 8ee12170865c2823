//! Mounts that are spared: those of openers outside of guarded containers (services with a mount
//! namespace of their own, other containers, mounts of the host that are new), and those by which
//! overlayfs opens the layers of a guarded container.
//!
//! Their openers have been answered already. All that is left to do here makes the next time
//! cheaper, so it has its own thread and is given up whenever there is too much of it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use lazaret_sys::fanotify::Event;

use super::layers::Layers;
use super::marks::Marks;
use super::members::Members;
use crate::rate::Rate;
use crate::session::Session;

/// Those that wait; each keeps a file open.
const QUEUE: usize = 32;

/// How many mounts are looked at in a burst, and then each second: a host that starts containers
/// all the time has new ones all the time, some ten for each.
const LOOKS: (f64, f64) = (1000.0, 200.0);

/// One whose mount may be spared.
#[derive(Debug)]
pub(super) enum Noticed {
    Bystander(Bystander),
    /// A file that was opened in a guarded container by none of the mounts that it began with.
    Layer {
        file: OwnedFd,
        session: Arc<Session>,
    },
}

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
pub(super) struct Bystanders(SyncSender<Noticed>);

impl Bystanders {
    /// # Errors
    /// When the kernel gives no thread or no group.
    pub(super) fn start(members: Arc<Members>, marks: Arc<Marks>) -> io::Result<Self> {
        let (queue, inbox) = sync_channel(QUEUE);
        let layers = Layers::new()?;
        thread::Builder::new()
            .name("bystanders".into())
            .spawn(move || spare(&inbox, &members, &marks, &layers))?;
        Ok(Self(queue))
    }

    /// Takes the event of an opener that was let through. Never waits.
    pub(super) fn notice(&self, event: Event) {
        let Event { file, pid, pidfd, .. } = event;
        if let Some(pidfd) = pidfd {
            self.send(Noticed::Bystander(Bystander { file, pid, pidfd }));
        }
    }

    /// Looks at an opener of a guarded container that may have come by a layer's mount. Never waits.
    pub(super) fn notice_layer(&self, event: &Event, session: &Arc<Session>) {
        if let Ok(file) = event.file.try_clone() {
            let session = Arc::clone(session);
            self.send(Noticed::Layer { file, session });
        }
    }

    fn send(&self, noticed: Noticed) {
        // When there are too many, the next open is another chance.
        drop(self.0.try_send(noticed));
    }
}

fn spare(inbox: &Receiver<Noticed>, members: &Members, marks: &Marks, layers: &Layers) {
    let rate = Rate::of(LOOKS);
    for noticed in inbox {
        if !rate.admits() {
            continue;
        }
        let spared = match &noticed {
            Noticed::Bystander(bystander) => marks.spare(bystander, members, layers),
            Noticed::Layer { file, session } => marks.spare_layer(file, session, layers),
        };
        // It may have exited meanwhile, or unmounted what it came by.
        if let Err(error) = spared {
            tracing::debug!(?noticed, %error, "a mount was not spared");
        }
    }
}
