//! The threads that read fanotify groups.
//!
//! A reader opens no path and takes no file's word for anything: it takes an
//! event, finds its container, and passes it on to be judged. Each container
//! belongs to one reader for its whole life.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;

use lazaret_sys::fanotify::{EVENT_SIZE, Event, Response};
use rustix::event::epoll;
use rustix::fs::FileType;
use tokio::sync::oneshot;

use crate::counters::Counters;
use crate::liveness::Pulse;
use crate::session::{Asked, Gate, Opening, Place, Session};
use crate::waker::Waker;

/// Events read at once.
const BATCH: usize = 64;

/// More readers help only where many containers open new files at the same time.
const MAX_READERS: usize = 4;

/// The token of a reader's own eventfd; containers count up from 1.
const WAKE: u64 = 0;

/// Where openings go to be judged.
pub(crate) type Sink = Arc<dyn Fn(Opening) + Send + Sync>;

/// All readers.
#[derive(Debug)]
pub(crate) struct Readers {
    readers: Vec<Handle>,
    next: AtomicUsize,
    gate: Arc<Gate>,
}

/// A container's place among the readers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    reader: usize,
    token: u64,
}

impl Ticket {
    /// Unique among all tickets of this daemon.
    pub(crate) fn token(self) -> u64 {
        self.token
    }
}

#[derive(Debug)]
struct Handle {
    commands: mpsc::Sender<Command>,
    waker: Waker,
}

#[derive(Debug)]
enum Command {
    Add(u64, Arc<Session>),
    Remove(u64, oneshot::Sender<()>),
}

impl Readers {
    /// Starts the threads, which may have `event_budget` openers under judgement, together with
    /// whom `beside` wakes.
    ///
    /// # Errors
    /// When the kernel gives no thread, epoll or eventfd.
    pub(crate) fn start(
        event_budget: usize,
        beside: Waker,
        counters: &Arc<Counters>,
        pulses: &mut Vec<Arc<Pulse>>,
        sink: Sink,
    ) -> io::Result<Self> {
        let count = thread::available_parallelism()
            .map_or(1, usize::from)
            .min(MAX_READERS);
        let wakers = (0..count).map(|_| Waker::new()).collect::<io::Result<Vec<_>>>()?;
        let gate = Arc::new(Gate {
            budget: crate::budget::Budget::new(event_budget),
            room: wakers.iter().cloned().chain([beside]).collect(),
        });
        let mut readers = Vec::with_capacity(count);
        for (index, waker) in wakers.into_iter().enumerate() {
            let (commands, inbox) = mpsc::channel();
            let pulse = Arc::new(Pulse::default());
            pulses.push(Arc::clone(&pulse));
            let reader = Reader {
                epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
                inbox,
                waker: waker.clone(),
                sessions: HashMap::new(),
                paused: Vec::new(),
                gate: Arc::clone(&gate),
                sink: Arc::clone(&sink),
                counters: Arc::clone(counters),
                pulse,
                buffer: vec![0; BATCH * EVENT_SIZE],
            };
            thread::Builder::new()
                .name(format!("reader-{index}"))
                .spawn(move || reader.run())?;
            readers.push(Handle { commands, waker });
        }
        Ok(Self {
            readers,
            next: AtomicUsize::new(0),
            gate,
        })
    }

    /// The node's budget.
    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Begins to read a container's group.
    pub(crate) fn add(&self, session: Arc<Session>) -> Ticket {
        let token = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let ticket = Ticket {
            reader: token % self.readers.len(),
            token: token as u64,
        };
        self.tell(ticket, Command::Add(ticket.token, session));
        ticket
    }

    /// Stops reading a container's group; when this is done, nobody reads it.
    pub(crate) async fn remove(&self, ticket: Ticket) {
        let (done, removed) = oneshot::channel();
        self.tell(ticket, Command::Remove(ticket.token, done));
        // An error means that the reader is gone, and so is its reading.
        let _gone = removed.await;
    }

    fn tell(&self, ticket: Ticket, command: Command) {
        if let Some(reader) = self.readers.get(ticket.reader) {
            // A reader that has ended by a panic has taken the process with it.
            let _gone = reader.commands.send(command);
            reader.waker.wake();
        }
    }
}

struct Reader {
    epoll: OwnedFd,
    inbox: mpsc::Receiver<Command>,
    waker: Waker,
    sessions: HashMap<u64, Arc<Session>>,
    /// Left out of the wait until there is budget again.
    paused: Vec<u64>,
    gate: Arc<Gate>,
    sink: Sink,
    counters: Arc<Counters>,
    pulse: Arc<Pulse>,
    buffer: Vec<u8>,
}

/// Our own opens (scans, quarantine) are never asked about.
pub(crate) fn is_own(pid: i32) -> bool {
    static OWN: OnceLock<i32> = OnceLock::new();
    pid == *OWN.get_or_init(|| std::process::id().cast_signed())
}

/// There is nothing to judge in an empty file: most new files are, when they are made.
pub(crate) fn is_empty(event: &Event) -> bool {
    !event.exec
        && rustix::fs::fstat(&event.file).is_ok_and(|stat| {
            stat.st_size == 0 && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        })
}

impl Reader {
    fn run(mut self) {
        if let Err(error) = self.read_on() {
            // Whatever it was: a daemon that does not read must not look alive.
            tracing::error!(%error, "a reader cannot go on; the guards take over");
            std::process::abort();
        }
    }

    fn read_on(&mut self) -> io::Result<()> {
        let wake = epoll::EventData::new_u64(WAKE);
        epoll::add(&self.epoll, &self.waker, wake, epoll::EventFlags::IN)?;
        let mut ready = Vec::with_capacity(BATCH);
        loop {
            self.pulse.rest();
            ready.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut ready), None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            self.pulse.work();
            for event in &ready {
                let token = event.data.u64();
                if token == WAKE {
                    self.obey()?;
                } else if let Some(session) = self.sessions.get(&token) {
                    let session = Arc::clone(session);
                    self.read(token, &session)?;
                }
            }
        }
    }

    /// Takes commands, and looks at the paused containers again.
    fn obey(&mut self) -> io::Result<()> {
        self.waker.clear();
        for token in std::mem::take(&mut self.paused) {
            self.listen(token, epoll::EventFlags::IN)?;
        }
        while let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::Add(token, session) => {
                    let data = epoll::EventData::new_u64(token);
                    epoll::add(&self.epoll, session.group.as_fd(), data, epoll::EventFlags::IN)?;
                    self.sessions.insert(token, session);
                }
                Command::Remove(token, done) => {
                    if let Some(session) = self.sessions.remove(&token) {
                        epoll::delete(&self.epoll, session.group.as_fd())?;
                    }
                    // The task that asked may have been given up.
                    let _unheard = done.send(());
                }
            }
        }
        Ok(())
    }

    fn listen(&self, token: u64, flags: epoll::EventFlags) -> io::Result<()> {
        let Some(session) = self.sessions.get(&token) else {
            return Ok(());
        };
        let data = epoll::EventData::new_u64(token);
        Ok(epoll::modify(&self.epoll, session.group.as_fd(), data, flags)?)
    }

    fn pause(&mut self, token: u64, session: &Session) -> io::Result<()> {
        self.listen(token, epoll::EventFlags::empty())?;
        self.paused.push(token);
        self.waker.pause();
        // A place may have been given back just before anybody was told to wake us.
        let places = Place::take(session, &self.gate, 1);
        Place::give_back(session, &self.gate, places);
        if places > 0 {
            self.waker.wake_if_paused();
        }
        Ok(())
    }

    fn read(&mut self, token: u64, session: &Arc<Session>) -> io::Result<()> {
        let places = Place::take(session, &self.gate, BATCH);
        if places == 0 {
            return self.pause(token, session);
        }
        let Self {
            buffer,
            gate,
            sink,
            counters,
            ..
        } = self;
        let mut used = 0;
        let space = buffer.get_mut(..places * EVENT_SIZE).unwrap_or_default();
        let read = session.group.read(space, |event| {
            if is_own(event.pid) || is_empty(&event) {
                // Of no consequence when it fails: then the event was answered.
                let _answered = session.group.respond(event.number(), Response::Allow);
                return;
            }
            used += 1;
            sink(Opening::new(
                Arc::clone(session),
                event,
                Asked::Own,
                Arc::clone(gate),
            ));
        });
        Place::give_back(session, gate, places - used);
        match read {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) if is_fatal(&error) => Err(error),
            // Nothing waited any more, or a lease of the container's own stood in the way.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                counters.refused_by_kernel.one();
                Ok(())
            }
            Err(error) => {
                counters.refused_by_kernel.one();
                let container = &session.container.id;
                tracing::warn!(%container, %error, "the kernel refused an open because it could not be read");
                Ok(())
            }
        }
    }
}

/// Errors of the group or of ours. All others are of the event at hand, which the
/// kernel has answered with a refusal.
pub(crate) fn is_fatal(error: &io::Error) -> bool {
    let ours = [libc::EBADF, libc::EFAULT, libc::EINVAL];
    error.raw_os_error().is_none_or(|code| ours.contains(&code))
}
