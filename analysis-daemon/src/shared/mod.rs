//! The guard of the superblocks that containers share with the host: volumes, `/etc/hosts` and
//! the like.
//!
//! A mark on a superblock asks about every open on it, the host's too. So there is one group for
//! the whole node, in which every mount of the host is spared before the superblock is marked
//! (`marks.rs`): the kernel lets what is opened there go on, and no process of the host waits for
//! us. What is left is told apart by the opener's cgroup (`members.rs`): an opener of a guarded
//! container is judged as any other of its openers; everybody else is let through at once
//! (`reader.rs`), and the mount that he came by is spared from then on (`bystander.rs`).
//!
//! The group is closed when the daemon ends. Until the next one marks again, nobody asks.

mod backlog;
mod bystander;
mod layers;
mod marks;
mod members;
mod reader;

use std::io;
use std::sync::Arc;

use lazaret_sys::fanotify::Group;
use lazaret_types::Superblock;

pub(crate) use marks::Coverage;
pub(crate) use reader::Means;

use crate::liveness::Pulse;
use crate::session::Session;
use crate::waker::Waker;
use bystander::Bystanders;
use marks::Marks;
use members::Members;
use reader::Reader;

/// The guard of what is shared with the host; switched off, it guards nothing and says so.
pub(crate) struct SharedGuard(Option<On>);

struct On {
    members: Arc<Members>,
    marks: Arc<Marks>,
    reader: reader::Handle,
}

impl SharedGuard {
    /// Starts the threads, if `guard.shared` is on. `waker` is told when there is room in the budgets.
    ///
    /// # Errors
    /// When the kernel gives no group or thread.
    pub(crate) fn start(
        config: &lazaret_config::Guard,
        means: Means,
        waker: Waker,
        pulses: &mut Vec<Arc<Pulse>>,
    ) -> io::Result<Self> {
        if !config.shared {
            return Ok(Self(None));
        }
        let group = Arc::new(Group::new()?);
        let members = Arc::new(Members::default());
        let marks = Arc::new(Marks::new(Arc::clone(&group)));
        let bystanders = Bystanders::start(Arc::clone(&members), Arc::clone(&marks))?;
        let pulse = Arc::new(Pulse::default());
        pulses.push(Arc::clone(&pulse));
        let reader = Reader::start(group, Arc::clone(&members), bystanders, means, waker, pulse)?;
        Ok(Self(Some(On {
            members,
            marks,
            reader,
        })))
    }

    /// Guards a container on what it shares with the host; how far is told in its session. To be
    /// called before its first instruction. Blocks: it looks paths up.
    pub(crate) fn attach(&self, session: &Arc<Session>) {
        let coverage = match &self.0 {
            None => Coverage::none(&session.shared, "guard.shared is off"),
            // A member first: from now on nobody takes a mount of his for a bystander's.
            Some(on) => match on.members.insert(session) {
                Ok(()) => on.marks.cover(session),
                Err(why) => Coverage::none(&session.shared, why),
            },
        };
        for (Superblock { mount_point, .. }, why) in &coverage.unguarded {
            let container = &session.container.id;
            tracing::warn!(%container, mount_point = %mount_point.display(), why, "not guarded");
        }
        // It is attached once.
        let _first = session.coverage.set(coverage);
    }

    /// Ends the guard of a container. After this, nothing more is read for it.
    pub(crate) async fn detach(&self, session: &Arc<Session>) {
        let Some(on) = &self.0 else { return };
        on.members.remove(session);
        on.reader.forget(session).await;
        let devices = session.coverage.get().map(|coverage| coverage.devices.clone());
        if let Some(devices) = devices.filter(|devices| !devices.is_empty()) {
            let marks = Arc::clone(&on.marks);
            // Not waited for: it looks up paths of the host, and a container's end waits for us.
            drop(tokio::task::spawn_blocking(move || marks.release(&devices)));
        }
    }
}
