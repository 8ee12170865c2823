//! Seals: a clean file that everybody in its container may open and run unasked, until it
//! changes.
//!
//! A seal is an ignore mark in the container's group, and a read lease that guards it: an ignore
//! mark alone notices neither asynchronous writes nor stores through a shared mapping. The lease
//! lies on the inode that holds the content, which for a file in the upper layer is not the one
//! that the container opens. The order is: lease, find out what the file is, judge, mark, look
//! whether the lease is whole. When it is broken: unmark, and only then give it back, after the
//! grace period of what may be about to run (`graces.rs`).

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use lazaret_sys::fanotify::Unasked;
use lazaret_sys::lease::{Breaks, Broken, Lease, Listener};
use lazaret_types::Access;

use crate::graces::Graces;
use crate::liveness::Pulse;
use crate::origin::{Copied, Identity, Inode, Origin, reopen};
use crate::runs::InodeNumber;
use crate::session::{Opening, Session};

/// Descriptors that one seal holds, at most.
const FDS_EACH: u64 = 2;

/// How often a lease is asked for when a file is about to run that somebody has open for
/// writing: a child that is just being forked may have it for a moment.
const TRIES: u32 = 3;

/// How often sealed files are looked for that were deleted: a seal keeps their space taken.
const SWEEP: Duration = Duration::from_secs(30);

/// How many seals a process may have that has `nofile` descriptors: at most 40 % of these are
/// for seals.
pub(crate) fn capacity(nofile: u64) -> usize {
    usize::try_from(nofile * 40 / 100 / FDS_EACH).unwrap_or(usize::MAX)
}

/// How many of its leases may be kept for who is about to run something: at most 10 %. All that
/// is sealed may come on top when it is lifted at once; then nothing more is sealed.
pub(crate) fn graces(nofile: u64) -> usize {
    usize::try_from(nofile * 10 / 100 / FDS_EACH).unwrap_or(usize::MAX)
}

/// All seals of the node.
#[derive(Debug)]
pub(crate) struct Seals {
    listener: Listener,
    capacity: usize,
    book: Mutex<Book>,
    graces: Arc<Graces>,
}

/// Why a change of a file would go unnoticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotHeld {
    /// Somebody has it open for writing, or mapped so.
    Written,
    /// It has no name, and so it cannot be told where its content lies.
    Nameless,
    /// There are no leases on its file system.
    OutOfReach,
    /// Too many leases are kept for others who are about to run something.
    Crowded,
}

/// A file whose change would not go unnoticed from now on.
#[derive(Debug)]
pub(crate) struct Held {
    lease: Lease,
    /// The file as the container opens it, where that is another inode than the lease is on.
    opened: Option<OwnedFd>,
    /// Whether all ways to change it are covered, not only those through what the container opens.
    whole: bool,
    /// The image's inode, for a file that is the image's.
    pub(crate) image: Option<Inode>,
}

#[derive(Debug)]
struct Seal {
    held: Held,
    session: Arc<Session>,
    inode: InodeNumber,
    age: u64,
    /// Somebody may be about to run it at any time.
    can_run: bool,
}

#[derive(Debug, Default)]
struct Book {
    /// By the number of the lease.
    seals: HashMap<RawFd, Seal>,
    containers: HashMap<usize, Of>,
    next_age: u64,
}

/// What one container has.
#[derive(Debug, Default)]
struct Of {
    /// Oldest first.
    by_age: BTreeMap<u64, RawFd>,
    by_inode: HashMap<InodeNumber, RawFd>,
}

impl Seals {
    /// Starts the thread that gives leases back.
    ///
    /// # Errors
    /// When the kernel gives no thread or no signalfd.
    pub(crate) fn start(
        capacity: usize,
        graces: Arc<Graces>,
        pulses: &mut Vec<Arc<Pulse>>,
    ) -> io::Result<Arc<Self>> {
        let pulse = Arc::new(Pulse::default());
        pulses.push(Arc::clone(&pulse));
        let (ready, started) = mpsc::sync_channel(1);
        thread::Builder::new().name("leases".into()).spawn(move || {
            let breaks = match Breaks::listen() {
                Ok(breaks) => breaks,
                Err(error) => return drop(ready.send(Err(error))),
            };
            let seals = Arc::new(Self {
                listener: breaks.listener(),
                capacity,
                book: Mutex::default(),
                graces,
            });
            // Fails only when nobody waits for the seals any more.
            if ready.send(Ok(Arc::clone(&seals))).is_ok() {
                seals.give_back(&breaks, &pulse);
            }
        })?;
        started.recv().map_err(io::Error::other)?
    }

    /// Makes sure that a change of an open file will be noticed.
    ///
    /// # Errors
    /// When that cannot be.
    pub(crate) fn hold(&self, opening: &Opening, origin: &Origin) -> Result<Held, NotHeld> {
        let tries = match opening.access() {
            Access::Exec => TRIES,
            Access::Open | Access::Write => 0,
        };
        let mut held = self.try_hold(opening, origin);
        for again in 0..tries {
            if !matches!(held, Err(NotHeld::Written)) {
                break;
            }
            thread::sleep(Duration::from_millis(1 << again));
            held = self.try_hold(opening, origin);
        }
        held
    }

    /// Whether nobody has a file open for writing, or mapped so, at this moment.
    pub(crate) fn nobody_writes(&self, file: BorrowedFd<'_>) -> bool {
        let lease = file
            .try_clone_to_owned()
            .and_then(|file| Lease::take(file, self.listener));
        // Given back at once: who wants to write does not wait for us.
        lease.is_ok()
    }

    /// The same, if it can be at once.
    pub(crate) fn try_hold(&self, opening: &Opening, origin: &Origin) -> Result<Held, NotHeld> {
        let file = opening.event.file.as_fd();
        if opening.access() == Access::Exec && !self.graces.has_room(opening.session()) {
            return Err(NotHeld::Crowded);
        }
        let own = || file.try_clone_to_owned();
        let out_of_reach = |_: io::Error| NotHeld::OutOfReach;
        let (holder, opened, image) = match origin {
            Origin::Image(inode) => (own(), None, Some(*inode)),
            // The last is guarded at least against who opens it as the container does.
            Origin::Plain | Origin::Unknown => (own(), None, None),
            Origin::Layer(real) | Origin::Copied(Copied { own: real, .. }) => {
                (reopen(real), Some(own().map_err(out_of_reach)?), None)
            }
            Origin::Nameless => return Err(NotHeld::Nameless),
        };
        let whole = !matches!(origin, Origin::Unknown);
        let lease = Lease::take(holder.map_err(out_of_reach)?, self.listener);
        let lease = lease.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => NotHeld::Written,
            _ => NotHeld::OutOfReach,
        })?;
        // It may have been copied up since we looked where it is.
        let still = image.is_none_or(|inode| Identity::of(file).is_ok_and(|now| inode.is(&now)));
        still
            .then_some(Held {
                lease,
                opened,
                whole,
                image,
            })
            .ok_or(NotHeld::Written)
    }

    /// Seals a file that was found clean while it was held, and that was allowed. `current` tells
    /// whether the verdict still stands.
    pub(crate) fn seal(
        &self,
        opening: &Opening,
        held: Held,
        unasked: Unasked,
        current: impl FnOnce() -> bool,
    ) {
        let file = opening.event.file.as_fd();
        let stat = rustix::fs::fstat(file)
            .ok()
            .filter(|_| self.capacity > 0 && held.whole && self.graces.has_room(opening.session()));
        let Some(stat) = stat else {
            return self.release(opening, held);
        };
        let (session, inode) = (opening.session(), (stat.st_dev, stat.st_ino));
        // Who hears of a break, and who lifts all seals, waits for this.
        let mut book = self.lock();
        let replaced = book.take_inode(session, inode);
        // Once it is sealed, whoever runs it does not ask.
        let can_run = stat.st_mode & 0o111 != 0 || opening.access() == Access::Exec;
        let seal = Seal {
            session: Arc::clone(session),
            inode,
            age: 0,
            can_run,
            held,
        };
        let over = book.take_over(self.capacity, session);
        replaced.iter().chain(&over).for_each(Seal::lift);
        let sealed = session.group.ignore(file, unasked).is_ok() && seal.held.is_whole() && current();
        let refused = if sealed {
            book.insert(seal);
            None
        } else {
            seal.lift();
            Some(seal)
        };
        drop(book);
        refused.into_iter().chain(over).for_each(|seal| self.leave(seal));
    }

    /// Whether a file of a container is sealed: it is clean by the signatures of now.
    pub(crate) fn covers(&self, session: &Arc<Session>, file: BorrowedFd<'_>) -> bool {
        let Ok(stat) = rustix::fs::fstat(file) else {
            return false;
        };
        let book = self.lock();
        let of = book.containers.get(&key(session));
        of.is_some_and(|of| of.by_inode.contains_key(&(stat.st_dev, stat.st_ino)))
    }

    /// Lets writers at a file again that is not to be sealed, after who asked was answered.
    pub(crate) fn release(&self, opening: &Opening, held: Held) {
        if opening.access() == Access::Exec {
            self.graces.keep(opening.session(), held);
        }
    }

    /// Lifts all seals of a container that is over.
    pub(crate) fn forget(&self, session: &Arc<Session>) {
        let mut book = self.lock();
        let lifted = book.take_container(session);
        lift_all(session, &lifted);
        // Closing a file that was deleted can take the disk a while.
        drop(book);
        drop(lifted);
        self.graces.forget(session);
    }

    /// Lifts all seals: what was clean may not be so by new signatures.
    pub(crate) fn clear(&self) {
        let mut book = self.lock();
        let sessions: HashMap<usize, Arc<Session>> = book
            .seals
            .values()
            .map(|seal| (key(&seal.session), Arc::clone(&seal.session)))
            .collect();
        let mut lifted = Vec::new();
        for session in sessions.values() {
            let seals = book.take_container(session);
            lift_all(session, &seals);
            lifted.extend(seals);
        }
        drop(book);
        lifted.into_iter().for_each(|seal| self.leave(seal));
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives leases back for ever.
    fn give_back(&self, breaks: &Breaks, pulse: &Pulse) {
        let mut sweep_at = Instant::now() + SWEEP;
        loop {
            let mut broken = Vec::new();
            pulse.rest();
            if let Err(error) = breaks.wait(Some(sweep_at), |lease| broken.push(lease)) {
                // Writers would wait, and what they wrote would be run unasked.
                tracing::error!(%error, "leases cannot be watched; the guards take over");
                std::process::abort();
            }
            pulse.work();
            for lease in broken {
                match lease {
                    Broken::File(number) => self.lift_one(number),
                    Broken::Any => self.lift_if(|seal| !seal.held.is_whole()),
                }
            }
            if Instant::now() >= sweep_at {
                self.lift_if(Seal::is_deleted);
                sweep_at = Instant::now() + SWEEP;
            }
        }
    }

    fn lift_one(&self, number: RawFd) {
        let mut book = self.lock();
        // It may be another's by now: that one is asked about once more, and no harm is done.
        let seal = book.take(number);
        seal.iter().for_each(Seal::lift);
        drop(book);
        seal.into_iter().for_each(|seal| self.leave(seal));
    }

    fn lift_if(&self, condition: impl Fn(&Seal) -> bool) {
        let mut book = self.lock();
        let matching = book.seals.iter().filter(|(_, seal)| condition(seal));
        let numbers: Vec<RawFd> = matching.map(|(number, _)| *number).collect();
        let taken = numbers.into_iter().filter_map(|number| book.take(number));
        let seals: Vec<Seal> = taken.collect();
        seals.iter().for_each(Seal::lift);
        drop(book);
        seals.into_iter().for_each(|seal| self.leave(seal));
    }

    /// Gives a lifted seal's lease back, when nobody can be about to run the file any more.
    fn leave(&self, seal: Seal) {
        if seal.can_run {
            self.graces.keep(&seal.session, seal.held);
        }
    }
}

impl Held {
    /// Whether nobody has asked to write yet.
    pub(crate) fn is_whole(&self) -> bool {
        self.lease.is_whole().unwrap_or(false)
    }
}

fn key(session: &Arc<Session>) -> usize {
    Arc::as_ptr(session).addr()
}

/// Lifts seals of one container: all that it has.
fn lift_all(session: &Session, seals: &[Seal]) {
    if seals.is_empty() {
        return;
    }
    if let Err(error) = session.group.flush_inode_marks() {
        tracing::error!(container = %session.container.id, %error, "marks were not flushed; lifting them one by one");
        seals.iter().for_each(Seal::lift);
    }
}

impl Seal {
    /// Openers are asked about again. The lease must live until this is done.
    fn lift(&self) {
        let opened = self.held.opened.as_ref();
        let opened = opened.map_or_else(|| self.held.lease.as_fd(), |file| file.as_fd());
        if let Err(error) = self.session.group.heed(opened) {
            // Better nobody guards by a mark that cannot be taken off.
            tracing::error!(container = %self.session.container.id, %error, "a mark cannot be taken off; the guards take over");
            std::process::abort();
        }
    }

    fn is_deleted(&self) -> bool {
        rustix::fs::fstat(&self.held.lease).is_ok_and(|stat| stat.st_nlink == 0)
    }
}

impl Book {
    fn insert(&mut self, mut seal: Seal) {
        seal.age = self.next_age;
        self.next_age += 1;
        let number = seal.held.lease.number();
        seal.session.sealed.fetch_add(1, Ordering::Relaxed);
        let of = self.containers.entry(key(&seal.session)).or_default();
        of.by_age.insert(seal.age, number);
        of.by_inode.insert(seal.inode, number);
        self.seals.insert(number, seal);
    }

    fn take(&mut self, number: RawFd) -> Option<Seal> {
        let seal = self.seals.remove(&number)?;
        seal.session.sealed.fetch_sub(1, Ordering::Relaxed);
        let key = key(&seal.session);
        if let Some(of) = self.containers.get_mut(&key) {
            of.by_age.remove(&seal.age);
            of.by_inode.remove(&seal.inode);
            if of.by_age.is_empty() {
                self.containers.remove(&key);
            }
        }
        Some(seal)
    }

    fn take_inode(&mut self, session: &Arc<Session>, inode: InodeNumber) -> Option<Seal> {
        let number = *self.containers.get(&key(session))?.by_inode.get(&inode)?;
        self.take(number)
    }

    /// Makes room for one more seal of a container. Its own go first when it has more than its
    /// share: a container that opens files without end costs the others nothing.
    fn take_over(&mut self, capacity: usize, session: &Arc<Session>) -> Option<Seal> {
        if self.seals.len() < capacity {
            return None;
        }
        let share = capacity / self.containers.len().max(1);
        let own = self
            .containers
            .get(&key(session))
            .filter(|of| of.by_age.len() >= share);
        let from = own.or_else(|| self.containers.values().max_by_key(|of| of.by_age.len()))?;
        let oldest = *from.by_age.first_key_value()?.1;
        self.take(oldest)
    }

    fn take_container(&mut self, session: &Arc<Session>) -> Vec<Seal> {
        let of = self.containers.remove(&key(session)).unwrap_or_default();
        session.sealed.store(0, Ordering::Relaxed);
        let numbers = of.by_age.into_values();
        numbers.filter_map(|number| self.seals.remove(&number)).collect()
    }
}
