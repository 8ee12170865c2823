//! Files are judged when they were written, so that a bad one is found before anybody opens it.
//!
//! This holds nobody up and guards nothing: whoever opens the file is asked about all the same.
//! One thread of the lowest priority does it. What it has no time for waits in the kernel, and
//! what is too much for the kernel is counted and left to the next opener.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use lazaret_sys::fanotify::{self, EVENT_SIZE, Event, Written};
use lazaret_sys::{open_in_root, priority};
use lazaret_types::{Access, Action};
use rustix::event::epoll;
use rustix::fs::OFlags;

use crate::counters::Counters;
use crate::engine::{Input, Priority};
use crate::evidence;
use crate::incidents::IncidentLog;
use crate::judge::{Judge, Outcome, Verdict};
use crate::quarantine::Quarantine;
use crate::reader::Ticket;
use crate::session::Session;

/// Files of one container in a row, while others wait.
const BATCH: usize = 16;

/// Containers looked at in one round.
const ROUND: usize = 64;

/// Looks at what all containers write.
pub(crate) struct Writes {
    epoll: OwnedFd,
    watched: Mutex<HashMap<u64, Arc<Watched>>>,
    means: Means,
}

/// What it works with.
pub(crate) struct Means {
    pub(crate) judge: Arc<Judge>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) incidents: Arc<IncidentLog>,
    pub(crate) quarantine: Arc<Quarantine>,
}

#[derive(Debug)]
struct Watched {
    session: Arc<Session>,
    group: fanotify::Writes,
    over: AtomicBool,
}

impl Writes {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the kernel gives none, or no epoll.
    pub(crate) fn start(means: Means) -> io::Result<Arc<Self>> {
        let writes = Arc::new(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            watched: Mutex::default(),
            means,
        });
        let looker = Arc::clone(&writes);
        thread::Builder::new().name("writes".into()).spawn(move || {
            if let Err(error) = priority::lower_thread() {
                tracing::warn!(%error, "what is written is judged at normal priority");
            }
            if let Err(error) = looker.look_on() {
                tracing::error!(%error, "files are not judged any more when they were written");
            }
        })?;
        Ok(writes)
    }

    /// Begins to look at what a container writes.
    ///
    /// # Errors
    /// When the kernel gives no group or no mark.
    pub(crate) fn watch(&self, ticket: Ticket, session: &Arc<Session>) -> io::Result<()> {
        let group = fanotify::Writes::new()?;
        for superblock in &session.guarded {
            let on = open_in_root(session.root.as_fd(), &superblock.mount_point, OFlags::PATH);
            // One that another mount hides by now is left to who opens its files.
            if let Err(error) = on.and_then(|on| group.mark_superblock(on.as_fd())) {
                let (container, at) = (&session.container.id, superblock.mount_point.display());
                tracing::debug!(%container, %at, %error, "what is written here is judged when it is opened");
            }
        }
        let watched = Arc::new(Watched {
            session: Arc::clone(session),
            group,
            over: AtomicBool::new(false),
        });
        let data = epoll::EventData::new_u64(ticket.token());
        epoll::add(&self.epoll, watched.group.as_fd(), data, epoll::EventFlags::IN)?;
        self.lock().insert(ticket.token(), watched);
        Ok(())
    }

    /// Ends that. What is looked at just now may take a moment more.
    pub(crate) fn forget(&self, ticket: Ticket) {
        if let Some(watched) = self.lock().remove(&ticket.token()) {
            watched.over.store(true, Ordering::Release);
            // It fails for what was never added.
            let _gone = epoll::delete(&self.epoll, watched.group.as_fd());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Watched>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_on(&self) -> io::Result<()> {
        let mut ready = Vec::with_capacity(ROUND);
        let mut buffer = vec![0; BATCH * EVENT_SIZE];
        loop {
            ready.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut ready), None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            for event in &ready {
                let watched = self.lock().get(&event.data.u64()).cloned();
                if let Some(watched) = watched {
                    self.look(&watched, &mut buffer);
                }
            }
        }
    }

    fn look(&self, watched: &Watched, buffer: &mut [u8]) {
        let (mut files, mut lost) = (Vec::with_capacity(BATCH), false);
        let read = watched.group.read(buffer, |written| match written {
            Written::File(event) => files.push(event),
            Written::Lost => lost = true,
        });
        let nothing = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        if lost || read.is_err_and(|error| !nothing(&error)) {
            self.means.counters.writes_lost.one();
        }
        let mut seen = HashSet::new();
        for file in files {
            if watched.over.load(Ordering::Acquire) {
                return;
            }
            // Written several times since we looked last.
            let stat = rustix::fs::fstat(&file.file);
            let worth = stat.is_ok_and(|stat| {
                stat.st_size > 0 && stat.st_nlink > 0 && seen.insert((stat.st_dev, stat.st_ino))
            });
            if worth {
                self.judge(&watched.session, &file);
            }
        }
    }

    fn judge(&self, session: &Arc<Session>, written: &Event) {
        let Means {
            judge,
            counters,
            incidents,
            quarantine,
        } = &self.means;
        let file = written.file.as_fd();
        let deadline = Instant::now() + judge.timeout;
        let outcome = judge.judge(Input::File(file), deadline, Priority::Background);
        counters.written.one();
        let Outcome::Judged {
            verdict: Verdict::Bad(finding),
            ..
        } = &outcome
        else {
            return;
        };
        if session.reports.admits(finding.severity) {
            let process = evidence::process(written.pid, written.pidfd.as_ref().map(AsFd::as_fd));
            let fields = evidence::file(file, &outcome);
            // Nobody was refused anything yet.
            let (action, access) = (Action::Alert, Access::Write);
            incidents.report(evidence::draft(
                session, &outcome, action, access, process, fields,
            ));
        } else {
            counters.incidents_suppressed.one();
        }
        quarantine.consider(session, file, &outcome);
    }
}
