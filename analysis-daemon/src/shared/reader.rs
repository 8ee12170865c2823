//! The thread that reads the node's group.
//!
//! The kernel's queue is everybody's, so this thread never leaves it alone for one container's
//! sake: openers for which there is no room wait in the backlog, and those who are too many even
//! for that are refused. That falls upon who floods, and is no way around the guard.
//!
//! It opens nothing but files of `/proc`: an open on a marked superblock would wait for itself.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread;

use lazaret_sys::fanotify::{EVENT_SIZE, Event, Group, Response};
use lazaret_sys::mounts;
use lazaret_types::{Action, Severity};
use rustix::event::{PollFd, PollFlags};
use tokio::sync::oneshot;

use super::backlog::Backlog;
use super::bystander::Bystanders;
use super::members::{Members, Opener};
use crate::counters::{Counter, Counters};
use crate::incidents::{Draft, IncidentLog};
use crate::liveness::Pulse;
use crate::reader::{Sink, is_empty, is_fatal, is_own};
use crate::session::{Asked, Gate, Opening, Place, Session};
use crate::waker::Waker;

/// Events read at once.
const BATCH: usize = 64;

/// What the reader works with.
pub(crate) struct Means {
    pub(crate) gate: Arc<Gate>,
    pub(crate) sink: Sink,
    pub(crate) counters: Arc<Counters>,
    pub(crate) incidents: Arc<IncidentLog>,
    /// Openers that may wait, in all and of one container.
    pub(crate) backlog: (usize, usize),
}

/// To speak to the thread.
#[derive(Debug)]
pub(super) struct Handle {
    commands: mpsc::Sender<Forget>,
    waker: Waker,
}

/// A container ends, or we do: nothing of it may be kept.
#[derive(Debug)]
struct Forget {
    session: Arc<Session>,
    done: oneshot::Sender<()>,
}

pub(super) struct Reader {
    desk: Desk,
    members: Arc<Members>,
    bystanders: Bystanders,
    inbox: mpsc::Receiver<Forget>,
    waker: Waker,
    pulse: Arc<Pulse>,
    /// By the address of the session.
    backlog: Backlog<usize, Waiting>,
}

/// An opener of a container.
type Waiting = (Arc<Session>, Event);

/// Where openers are sent on their way.
struct Desk {
    group: Arc<Group>,
    means: Means,
}

impl Handle {
    /// When this is done, the reader has nothing of the container any more.
    pub(super) async fn forget(&self, session: &Arc<Session>) {
        let (done, forgotten) = oneshot::channel();
        let session = Arc::clone(session);
        // A reader that has ended by a panic has taken the process with it.
        let _gone = self.commands.send(Forget { session, done });
        self.waker.wake();
        let _gone = forgotten.await;
    }
}

impl Reader {
    /// # Errors
    /// When the kernel gives no thread.
    pub(super) fn start(
        group: Arc<Group>,
        members: Arc<Members>,
        bystanders: Bystanders,
        means: Means,
        waker: Waker,
        pulse: Arc<Pulse>,
    ) -> io::Result<Handle> {
        let (commands, inbox) = mpsc::channel();
        let reader = Self {
            members,
            bystanders,
            backlog: Backlog::new(means.backlog),
            desk: Desk { group, means },
            inbox,
            waker: waker.clone(),
            pulse,
        };
        thread::Builder::new()
            .name("reader-shared".into())
            .spawn(move || reader.run())?;
        Ok(Handle { commands, waker })
    }

    fn run(mut self) {
        if let Err(error) = self.read_on() {
            // The host's openers must not wait for one who does not read.
            tracing::error!(%error, "the node's group cannot be read; the guards take over");
            std::process::abort();
        }
    }

    fn read_on(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; BATCH * EVENT_SIZE];
        loop {
            self.pulse.rest();
            let (woken, events) = self.wait()?;
            self.pulse.work();
            if woken {
                self.waker.clear();
                self.obey();
                self.catch_up();
            }
            if events {
                self.read(&mut buffer)?;
            }
        }
    }

    /// Whether somebody woke us, and whether there are events.
    fn wait(&self) -> io::Result<(bool, bool)> {
        let mut fds = [
            PollFd::from_borrowed_fd(self.waker.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.desk.group.as_fd(), PollFlags::IN),
        ];
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None))?;
        let [woken, events] = fds.map(|fd| !fd.revents().is_empty());
        Ok((woken, events))
    }

    fn obey(&mut self) {
        while let Ok(Forget { session, done }) = self.inbox.try_recv() {
            // Of a container that ends nobody waits for an answer any more. When it is we who end,
            // all who still wait go on, as will those that are in the kernel's queue.
            let ending = session.ending.load(Ordering::Acquire);
            let response = if ending { Response::Deny } else { Response::Allow };
            for (_, event) in self.backlog.take(key(&session)) {
                self.desk.answer(&event, response);
            }
            drop(session);
            // The task that asked may have been given up.
            let _unheard = done.send(());
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let group = Arc::clone(&self.desk.group);
        match group.read(buffer, |event| self.receive(event)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if is_fatal(&error) => return Err(error),
            // Nothing waited any more, or the event's file could not be opened without waiting.
            Err(error) => {
                self.desk.means.counters.refused_by_kernel.one();
                if error.kind() != io::ErrorKind::WouldBlock {
                    tracing::warn!(%error, "the kernel refused an open on a superblock that containers share");
                }
            }
            Ok(_) => {}
        }
        Ok(())
    }

    fn receive(&mut self, event: Event) {
        if is_own(event.pid) {
            return self.desk.answer(&event, Response::Allow);
        }
        match self.members.opener(&event) {
            Opener::Of(_) if is_empty(&event) => self.desk.answer(&event, Response::Allow),
            Opener::Of(session) => {
                if is_by_other_mount(&event, &session) {
                    self.bystanders.notice_layer(&event, &session);
                }
                self.enter(session, event);
            }
            Opener::Bystander => {
                self.desk.answer(&event, Response::Allow);
                self.desk.means.counters.bystanders.one();
                self.bystanders.notice(event);
            }
            Opener::Unknown => self.desk.answer(&event, Response::Deny),
        }
    }

    /// Passes an opener on to be judged, or has it wait for its container's turn.
    fn enter(&mut self, session: Arc<Session>, event: Event) {
        let key = key(&session);
        let opener = (session, event);
        let opener = if self.backlog.has(key) {
            opener
        } else {
            match self.desk.submit(opener) {
                Ok(()) => return,
                Err(opener) => opener,
            }
        };
        match self.backlog.push(key, opener) {
            Ok(()) => self.catch_up(),
            Err(opener) => self.desk.refuse(&opener),
        }
    }

    /// Sends on whom there is room for.
    fn catch_up(&mut self) {
        if !self.backlog.is_empty() {
            // First: room may be made before anybody knows that we wait for it.
            self.waker.pause();
            self.backlog.offer(|opener| self.desk.submit(opener));
        }
    }
}

impl Desk {
    fn answer(&self, event: &Event, response: Response) {
        // Of no consequence when it fails: then the event was answered.
        let _answered = self.group.respond(event.number(), response);
    }

    /// # Errors
    /// Gives the opener back when there is no room in the budgets.
    fn submit(&self, (session, event): Waiting) -> Result<(), Waiting> {
        let Means { gate, sink, .. } = &self.means;
        if Place::take(&session, gate, 1) == 0 {
            return Err((session, event));
        }
        let asked = Asked::Shared(Arc::clone(&self.group));
        sink(Opening::new(session, event, asked, Arc::clone(gate)));
        Ok(())
    }

    /// More openers of one container wait at once than are kept.
    fn refuse(&self, (session, event): &Waiting) {
        self.answer(event, Response::Deny);
        let Means {
            counters, incidents, ..
        } = &self.means;
        let of_node = [&counters.events, &counters.denied, &counters.unjudged];
        let of_session = [&session.events, &session.denied, &session.unjudged];
        of_node.into_iter().chain(of_session).for_each(Counter::one);
        if !session.reports.admits(Severity::Warning) {
            return counters.incidents_suppressed.one();
        }
        let output = format!(
            "deny: an open by pid {} in container {}: too many of its processes open files at once on file \
            systems that it shares with the host",
            event.pid, session.container.id
        );
        incidents.report(Draft {
            tags: vec!["file".into(), "unjudged".into()],
            container: Some(Arc::clone(&session.container)),
            ..Draft::new("Unjudged file", Severity::Warning, Action::Deny, output)
        });
    }
}

/// Whether an opener came by none of the mounts that its container began with.
fn is_by_other_mount(event: &Event, session: &Session) -> bool {
    let coverage = session.coverage.get();
    let by = mounts::id_of(event.file.as_fd());
    coverage.is_some_and(|coverage| by.is_ok_and(|by| !coverage.mounts.contains(&by)))
}

fn key(session: &Arc<Session>) -> usize {
    Arc::as_ptr(session).addr()
}
