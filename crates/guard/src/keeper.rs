//! The keeper: makes sure that somebody always answers for a container.
//!
//! It opens nothing, allocates nothing once it runs, and takes no lock that
//! another thread could hold: whatever else of its process waits on a guarded
//! file, the keeper goes on.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lazaret_api::handover::v1::{Detach, Gap, Take, from_daemon::Message as FromDaemon, from_keeper};
use lazaret_config::Config;
use lazaret_sys::fanotify::{EVENT_SIZE, Group, Response};
use lazaret_sys::{seqpacket, wait};
use lazaret_types::LossPolicy;
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::Target;
use crate::survey::Survey;
use crate::wire::{self, Small};

/// What a guard sends to its keeper.
pub(crate) const DETACH: &[u8] = b"detach";

/// Events that the keeper reads at once.
const BATCH: usize = 128;

/// Between two attempts to reach a daemon that is not there, growing from the one
/// to the other: soon after a crash, rarely when there is none.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// Longest reason in a report, in bytes.
const MAX_REASON: usize = 256;

/// What a keeper tells its guard.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// The daemon judges.
    Guarded,
    /// The daemon was not to be had, and why.
    Unguarded(String),
    /// The guard is off; the daemon has closed everything, or is dead.
    Detached,
    /// The guard is off; the daemon did not say that it has closed everything.
    Late,
}

/// Who reads the group. Never two: see `handover.proto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Daemon,
    /// Openers wait, at most until then.
    Nobody {
        until: Instant,
    },
    Keeper,
}

/// What happened since the daemon judged last.
#[derive(Debug, Clone, Copy)]
struct Absence {
    since: Instant,
    allowed: u64,
    denied: u64,
    /// Openers were made to wait; nothing was answered.
    held: bool,
}

pub(crate) struct Keeper {
    group: Group,
    root: OwnedFd,
    init: OwnedFd,
    control: OwnedFd,
    socket: PathBuf,
    attach: Vec<u8>,
    response: Response,
    attach_timeout: Duration,
    detach_timeout: Duration,
    restart_grace: Duration,

    turn: Turn,
    connection: Option<OwnedFd>,
    /// When an Attach that was sent goes unanswered for too long.
    offer_ends: Option<Instant>,
    retry_at: Instant,
    backoff: Duration,
    event_fd_limit: u32,
    absence: Absence,
    /// The outcome of the first attach has been reported.
    reported: bool,
    /// And it was a failure: the container will not start.
    failed: bool,
    buffer: Box<[u8]>,
}

impl Keeper {
    pub(crate) fn new(
        target: Target,
        survey: &Survey,
        group: Group,
        control: OwnedFd,
        config: &Config,
    ) -> Self {
        let now = Instant::now();
        Self {
            group,
            attach: wire::attach(&target.container, survey),
            root: target.root,
            init: target.init,
            control,
            socket: config.node.guard_socket(),
            response: match config.guard.on_daemon_loss {
                LossPolicy::Closed => Response::Deny,
                LossPolicy::Open => Response::Allow,
            },
            attach_timeout: config.guard.attach_timeout,
            detach_timeout: config.guard.detach_timeout,
            restart_grace: config.guard.restart_grace,
            turn: Turn::Nobody {
                until: now + config.guard.attach_timeout,
            },
            connection: None,
            offer_ends: None,
            retry_at: now,
            backoff: RETRY.0,
            event_fd_limit: 0,
            absence: Absence {
                since: now,
                allowed: 0,
                denied: 0,
                held: true,
            },
            reported: false,
            failed: false,
            buffer: vec![0; EVENT_SIZE * BATCH].into_boxed_slice(),
        }
    }

    /// Keeps the container until its guard says otherwise.
    pub(crate) fn run(mut self) {
        self.offer();
        while !self.failed {
            let ready = self.wait();
            if ready.control {
                return self.detach();
            }
            if ready.connection {
                self.hear();
            }
            if ready.group {
                self.answer();
            }
            self.keep_time(Instant::now());
        }
    }

    /// Waits for something to do. While the daemon reads there is no timeout: an
    /// idle container costs no wake-up.
    fn wait(&self) -> Ready {
        let quiet = PollFlags::empty();
        let connection = self
            .connection
            .as_ref()
            .map_or(self.control.as_fd(), |fd| fd.as_fd());
        let reading = self.turn == Turn::Keeper;
        let mut fds = [
            PollFd::from_borrowed_fd(self.control.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(connection, PollFlags::IN),
            PollFd::from_borrowed_fd(self.group.as_fd(), if reading { PollFlags::IN } else { quiet }),
        ];
        let timeout = self
            .next_deadline()
            .map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|left| Timespec::try_from(left + Duration::from_millis(1)).ok());
        // EINTR is a round with nothing ready, and the deadlines are looked at again.
        let _interrupted = rustix::event::poll(&mut fds, timeout.as_ref());
        let [control, connection, group] = fds.map(|fd| !fd.revents().is_empty());
        Ready {
            control,
            connection: connection && self.connection.is_some(),
            group: group && reading,
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let turn = match self.turn {
            Turn::Daemon => return None,
            Turn::Nobody { until } => Some(until),
            Turn::Keeper => None,
        };
        let contact = if self.connection.is_some() {
            self.offer_ends
        } else {
            Some(self.retry_at)
        };
        turn.into_iter().chain(contact).min()
    }

    /// Does what is due.
    fn keep_time(&mut self, now: Instant) {
        if self.turn == Turn::Daemon {
            return;
        }
        if self.offer_ends.is_some_and(|ends| ends <= now) {
            self.hang_up("lazaretd did not answer in time");
        }
        if self.connection.is_none() && self.retry_at <= now {
            self.offer();
        }
        if matches!(self.turn, Turn::Nobody { until } if until <= now) {
            self.go_unguarded("lazaretd could not be reached in time");
        }
    }

    /// Connects to the daemon and offers the container.
    fn offer(&mut self) {
        let sent = seqpacket::connect(&self.socket).and_then(|connection| {
            let fds = [self.group.as_fd(), self.root.as_fd(), self.init.as_fd()];
            seqpacket::send(&connection, &self.attach, &fds).map(|()| connection)
        });
        match sent {
            Ok(connection) => {
                self.connection = Some(connection);
                self.offer_ends = Some(Instant::now() + self.attach_timeout);
            }
            Err(_) => self.hang_up("nothing listens on lazaretd's guard.sock"),
        }
    }

    /// Gives an offer up, to try again later.
    fn hang_up(&mut self, reason: &str) {
        self.connection = None;
        self.offer_ends = None;
        self.retry_at = Instant::now() + self.backoff;
        self.backoff = (self.backoff * 2).min(RETRY.1);
        if !self.reported && self.response == Response::Allow {
            self.go_unguarded(reason);
        }
    }

    /// Stops waiting for the daemon. A container that has not started yet must
    /// not under `closed`.
    fn go_unguarded(&mut self, reason: &str) {
        self.failed = !self.reported && self.response == Response::Deny;
        self.report(Report::UNGUARDED, reason);
        self.take_over();
    }

    /// Reads one message of the daemon.
    fn hear(&mut self) {
        let Some(connection) = &self.connection else {
            return;
        };
        let mut bytes = [0; 1024];
        let mut fds = [const { None }; seqpacket::MAX_FDS];
        let length = match seqpacket::receive(connection, &mut bytes, &mut fds) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
            Err(_) => 0,
            Ok(length) => length,
        };
        let message = bytes
            .get(..length)
            .filter(|bytes| !bytes.is_empty())
            .and_then(wire::decode);
        match (self.turn, message) {
            (Turn::Daemon, Some(FromDaemon::Return(_))) => {}
            (Turn::Daemon, Some(FromDaemon::Stopped(_))) => self.returned(),
            // End of file, or what no sane daemon says.
            (Turn::Daemon, _) => self.lost(),
            (_, Some(FromDaemon::Attached(attached))) => self.hand_over(attached.event_fd_limit),
            (_, Some(FromDaemon::Refused(refused))) => self.refused(&refused.reason),
            (_, _) => self.hang_up("lazaretd hung up"),
        }
    }

    /// The daemon is ready: it reads from here on.
    fn hand_over(&mut self, event_fd_limit: u32) {
        let Absence {
            since,
            allowed,
            denied,
            held,
        } = self.absence;
        let lasted_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let fresh = !self.reported;
        let gap = Gap {
            lasted_ms,
            allowed,
            denied,
            planned: held,
        };
        self.event_fd_limit = event_fd_limit;
        self.offer_ends = None;
        self.backoff = RETRY.0;
        self.turn = Turn::Daemon;
        if !self.say(from_keeper::Message::Take(Take {
            gap: (!fresh).then_some(gap),
        })) {
            return self.lost();
        }
        self.report(Report::GUARDED, "");
    }

    fn refused(&mut self, reason: &str) {
        if !self.reported {
            self.go_unguarded(reason);
        }
        self.backoff = RETRY.1;
        self.hang_up(reason);
    }

    /// The daemon has given the group back: a planned restart.
    fn returned(&mut self) {
        self.say(from_keeper::Message::Take(Take::default()));
        let now = Instant::now();
        self.connection = None;
        self.retry_at = now;
        self.absence = Absence {
            since: now,
            allowed: 0,
            denied: 0,
            held: true,
        };
        self.turn = Turn::Nobody {
            until: now + self.restart_grace,
        };
    }

    /// The daemon is dead. Its ignore marks outlive the leases that made them
    /// safe, so they go first; then what it had read and not answered; then the
    /// rest, as it comes.
    fn lost(&mut self) {
        let now = Instant::now();
        self.connection = None;
        self.retry_at = now + self.backoff;
        self.absence = Absence {
            since: now,
            allowed: 0,
            denied: 0,
            held: false,
        };
        // It cannot fail on a group that exists; and nothing better could be done.
        let _flushed = self.group.flush_inode_marks();
        for number in 0..self.event_fd_limit.cast_signed() {
            if self.group.respond(number, self.response).is_ok() {
                self.count();
            }
        }
        self.take_over();
    }

    fn take_over(&mut self) {
        self.absence.held = false;
        self.turn = Turn::Keeper;
    }

    /// Answers what waits, without looking at it.
    fn answer(&mut self) {
        let Self {
            group,
            buffer,
            response,
            ..
        } = self;
        let mut answered = 0;
        // A failed read has refused its event in the kernel; the rest comes again.
        let _refused = group.read(buffer, |event| {
            if group.respond(event.number(), *response).is_ok() {
                answered += 1;
            }
        });
        (0..answered).for_each(|_| self.count());
    }

    fn count(&mut self) {
        match self.response {
            Response::Allow => self.absence.allowed += 1,
            Response::Deny => self.absence.denied += 1,
        }
    }

    /// The guard wants to end: everything of the container is closed first.
    fn detach(self) {
        let closed = self.turn != Turn::Daemon || self.daemon_lets_go();
        let Self { control, .. } = &self;
        let report = if closed { Report::DETACHED } else { Report::LATE };
        // The guard may not wait for it: it was dropped.
        let _unheard = seqpacket::send(control, &[report], &[]);
    }

    /// Asks the daemon to close everything. True when it did or is dead.
    fn daemon_lets_go(&self) -> bool {
        if !self.say(from_keeper::Message::Detach(Detach {})) {
            return true;
        }
        let Some(connection) = &self.connection else {
            return true;
        };
        let deadline = Instant::now() + self.detach_timeout;
        let (mut bytes, mut fds) = ([0; 64], [const { None }; seqpacket::MAX_FDS]);
        while wait::readable(connection.as_fd(), Some(deadline)).unwrap_or(false) {
            match seqpacket::receive(connection, &mut bytes, &mut fds) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) | Ok(0) => return true,
                Ok(length) => {
                    let message = bytes.get(..length).and_then(wire::decode);
                    if matches!(message, Some(FromDaemon::Detached(_) | FromDaemon::Stopped(_))) {
                        return true;
                    }
                }
            }
        }
        false
    }

    fn say(&self, message: from_keeper::Message) -> bool {
        let mut buffer: Small = [0; 64];
        let message = wire::encode(message, &mut buffer);
        self.connection
            .as_ref()
            .is_some_and(|connection| seqpacket::send(connection, message, &[]).is_ok())
    }

    /// Reports the outcome of the first attach; what comes later is the daemon's to tell.
    fn report(&mut self, kind: u8, reason: &str) {
        if std::mem::replace(&mut self.reported, true) {
            return;
        }
        let mut message = [kind; 1 + MAX_REASON];
        let length = reason.len().min(MAX_REASON);
        for (to, from) in message.iter_mut().skip(1).zip(reason.bytes()) {
            *to = from;
        }
        let message = message.get(..=length).unwrap_or_default();
        // Nobody waits for it any more: then the end of control is seen next.
        let _unheard = seqpacket::send(&self.control, message, &[]);
    }
}

#[derive(Debug, Clone, Copy)]
struct Ready {
    control: bool,
    connection: bool,
    group: bool,
}

impl Report {
    const GUARDED: u8 = 1;
    const UNGUARDED: u8 = 2;
    const DETACHED: u8 = 3;
    const LATE: u8 = 4;

    /// Waits for a keeper's report; none when it says nothing in time, or is gone.
    pub(crate) fn receive(control: &OwnedFd, deadline: Instant) -> Option<Self> {
        let (mut bytes, mut fds) = ([0; 1 + MAX_REASON], [const { None }; seqpacket::MAX_FDS]);
        while wait::readable(control.as_fd(), Some(deadline)).unwrap_or(false) {
            let length = match seqpacket::receive(control, &mut bytes, &mut fds) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(_) | Ok(0) => return None,
                Ok(length) => length,
            };
            let (kind, reason) = bytes.get(..length)?.split_first()?;
            return match *kind {
                Self::GUARDED => Some(Self::Guarded),
                Self::UNGUARDED => Some(Self::Unguarded(String::from_utf8_lossy(reason).into_owned())),
                Self::DETACHED => Some(Self::Detached),
                Self::LATE => Some(Self::Late),
                _ => None,
            };
        }
        None
    }
}
