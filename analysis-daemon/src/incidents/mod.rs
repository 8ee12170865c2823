//! The incident log: what happened on this node, one JSON object a line.
//!
//! Reporting never waits and never fails: a bounded queue leads to a thread that
//! writes. The files are an outbox that is read by cursor, so who was away for a
//! while misses nothing that is still on disk, and knows what is not.
//! `docs/incidents.md` describes the lines.

mod draft;
mod falco;
mod follow;
mod segment;
mod store;
mod tail;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use ulid::Ulid;

pub(crate) use draft::{Draft, rfc3339};
pub(crate) use follow::{Follower, Line};

use crate::containerd::Images;
use crate::signatures::Signatures;
use store::Limits;
use writer::{Message, Writer};

/// Incidents that wait for the writer; more are lost, counted and told.
const QUEUE: usize = 4096;

/// What the end of the daemon may wait for the disk.
const FLUSH_DEADLINE: Duration = Duration::from_secs(3);

/// Longest line, in bytes. Three paths of the kernel's longest, with each byte
/// escaped as badly as can be, are a quarter of it.
const MAX_LINE: usize = 512 << 10;

/// Written and synced at once, in bytes.
const MAX_BATCH: usize = 1 << 20;

/// The way into the log. Its thread ends when this is dropped.
#[derive(Debug)]
pub(crate) struct IncidentLog {
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
    folder: PathBuf,
    signatures: Arc<Signatures>,
}

/// What the writer's thread tells.
#[derive(Debug)]
struct Shared {
    /// The last `seq` on disk; none until the log could be opened.
    committed: watch::Sender<Option<u64>>,
    lost: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl Shared {
    fn trouble(&self) -> MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IncidentLog {
    /// Starts the log in `folder`, which need not exist. A folder that cannot be
    /// written is not an error: see [`IncidentLog::trouble`].
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn open(
        folder: impl Into<PathBuf>,
        config: &lazaret_config::Incidents,
        node: Ulid,
        signatures: Arc<Signatures>,
    ) -> io::Result<Self> {
        let folder = folder.into();
        let (queue, receiver) = mpsc::sync_channel(QUEUE);
        let shared = Arc::new(Shared {
            committed: watch::Sender::new(None),
            lost: AtomicU64::new(0),
            trouble: Mutex::new(None),
        });
        let limits = Limits {
            max_file_size: config.max_file_size.as_u64(),
            keep: config.keep,
        };
        let writer = Writer::new(
            receiver,
            Arc::clone(&shared),
            folder.clone(),
            limits,
            node,
            Images::new(),
        );
        thread::Builder::new()
            .name("incidents".into())
            .spawn(move || writer.run())?;
        Ok(Self {
            queue,
            shared,
            folder,
            signatures,
        })
    }

    /// Reports an incident. Never waits; what does not fit in the queue is
    /// counted, and told when there is room again.
    pub(crate) fn report(&self, mut draft: Draft) {
        draft
            .signature_set
            .get_or_insert_with(|| self.signatures.current().version());
        if self.queue.try_send(Message::Incident(Box::new(draft))).is_err() {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything reported before is on disk, for at most
    /// [`FLUSH_DEADLINE`]; false when it is not then.
    pub(crate) fn flush(&self) -> bool {
        let deadline = Instant::now() + FLUSH_DEADLINE;
        let (done, is_done) = mpsc::sync_channel(1);
        let mut message = Message::Flush(done);
        while let Err(TrySendError::Full(returned)) = self.queue.try_send(message) {
            if Instant::now() >= deadline {
                return false;
            }
            message = returned;
            thread::sleep(Duration::from_millis(1));
        }
        is_done
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            .is_ok()
    }

    /// Reads from the incident with this `seq` on; 0 means the oldest on disk.
    pub(crate) fn follow(&self, from_seq: u64) -> Follower {
        Follower::new(self.folder.clone(), self.shared.committed.subscribe(), from_seq)
    }

    /// The last `seq` on disk; none until the log could be opened, 0 while it is empty.
    pub(crate) fn last_seq(&self) -> Option<u64> {
        *self.shared.committed.borrow()
    }

    /// Incidents that were not recorded since the daemon started.
    pub(crate) fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Why incidents cannot be written right now.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.shared.trouble().clone()
    }
}
