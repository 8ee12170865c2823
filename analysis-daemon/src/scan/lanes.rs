//! Several files of one scan under judgement at once.
//!
//! Judging is reading, digesting, and then waiting for a worker: while one file waits, the next
//! one is read. What comes out is taken in the order of the walk, so that a scan still is at one
//! place, and goes on behind it after a restart.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

/// Files of one scan under judgement at once.
pub(crate) const LANES: usize = 3;

/// Files of one scan on their way, each with a descriptor: small ones go by while a large one is
/// judged.
const AHEAD: usize = 16;

/// A file on its way.
pub(super) struct Ahead<T> {
    pub(super) path: PathBuf,
    /// Bytes.
    pub(super) size: u64,
    outcome: mpsc::Receiver<T>,
}

struct Work<T> {
    file: OwnedFd,
    outcome: mpsc::SyncSender<T>,
}

/// The files that are on their way, in the order of the walk.
pub(super) struct Lanes<T> {
    work: mpsc::SyncSender<Work<T>>,
    ahead: VecDeque<Ahead<T>>,
}

/// What has come to the front.
pub(super) enum Front<T> {
    Done(Ahead<T>, T),
    /// It was not begun: the scan is being left.
    Left,
}

impl<T: Send> Lanes<T> {
    /// Runs a walk whose files are judged beside it, and begun as long as `goes_on`. When this
    /// returns, nothing is under judgement any more.
    ///
    /// # Errors
    /// When the kernel gives no thread; nothing was walked then.
    pub(super) fn open<R>(
        judge: impl Fn(BorrowedFd<'_>) -> T + Sync,
        goes_on: impl Fn() -> bool + Sync,
        walk: impl FnOnce(Self) -> R,
    ) -> io::Result<R> {
        let (work, entered) = mpsc::sync_channel::<Work<T>>(AHEAD);
        let entered = Mutex::new(entered);
        // Asked with the lock held: what was begun comes before all that was not.
        let next = || {
            let entered = entered.lock().unwrap_or_else(PoisonError::into_inner);
            entered.recv().ok().map(|work| (work, goes_on()))
        };
        let lane = || {
            if let Err(error) = lazaret_sys::priority::lower_thread() {
                tracing::warn!(%error, "a scan runs at normal priority");
            }
            while let Some((Work { file, outcome }, begin)) = next() {
                if begin {
                    let judged = judge(file.as_fd());
                    drop(file);
                    // It fails when the walk has failed: nobody asks any more.
                    drop(outcome.send(judged));
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..LANES {
                let thread = thread::Builder::new().name("scan-lane".into());
                thread.spawn_scoped(scope, lane)?;
            }
            let ahead = VecDeque::with_capacity(AHEAD);
            Ok(walk(Self { work, ahead }))
        })
    }

    /// Sends a file on its way.
    pub(super) fn enter(&mut self, path: PathBuf, size: u64, file: OwnedFd) {
        let (outcome, receiver) = mpsc::sync_channel(1);
        // It fails when no lane is left: then what it was for has not begun.
        drop(self.work.send(Work { file, outcome }));
        let outcome = receiver;
        self.ahead.push_back(Ahead { path, size, outcome });
    }

    /// What has come to the front by now. Waits only when no more can be entered.
    pub(super) fn front(&mut self) -> Option<Front<T>> {
        let is_full = self.ahead.len() >= AHEAD;
        match self.ahead.front()?.outcome.try_recv() {
            Ok(outcome) => self.ahead.pop_front().map(|file| Front::Done(file, outcome)),
            Err(mpsc::TryRecvError::Empty) if !is_full => None,
            Err(_) => self.last(),
        }
    }

    /// What comes to the front next. Waits for it; none when nothing is on its way.
    pub(super) fn last(&mut self) -> Option<Front<T>> {
        let file = self.ahead.pop_front()?;
        Some(match file.outcome.recv() {
            Ok(outcome) => Front::Done(file, outcome),
            Err(mpsc::RecvError) => Front::Left,
        })
    }
}
