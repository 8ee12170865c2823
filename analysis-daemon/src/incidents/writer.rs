//! The thread that writes incidents, so that nobody else ever waits for a disk.
//!
//! Everything that is queued is written and synced as one batch: few incidents
//! are on disk within one sync, many share it. Followers see a line only after
//! the sync, so no `seq` that anybody saw is ever given to another incident.
//!
//! When the disk takes none, the batch is kept and tried again; the queue fills,
//! and what does not fit is counted and told by an incident of its own.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::thread;
use std::time::Duration;

use lazaret_types::{Action, Severity};
use ulid::Ulid;

use super::store::{Damage, Limits, Store};
use super::{Draft, MAX_BATCH, MAX_LINE, Shared};
use crate::containerd::{Images, Known};

/// How long a disk that takes none is left alone.
const RETRY: Duration = Duration::from_secs(1);

/// Incidents taken from the queue at once.
const TAKEN: usize = 256;

/// What travels to the thread.
#[derive(Debug)]
pub(super) enum Message {
    /// Write it.
    Incident(Box<Draft>),
    /// Say when everything before it is on disk.
    Flush(SyncSender<()>),
}

/// The thread's state.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Receiver<Message>,
    shared: Arc<Shared>,
    folder: PathBuf,
    limits: Limits,
    node: String,
    images: Images,
    store: Option<Store>,
    /// Taken from the queue and not on disk.
    pending: VecDeque<Draft>,
    /// Who waits until `pending` is.
    flushes: Vec<SyncSender<()>>,
    /// Of the lost ones, those that were told.
    lost_told: u64,
}

impl Writer {
    pub(super) fn new(
        queue: Receiver<Message>,
        shared: Arc<Shared>,
        folder: PathBuf,
        limits: Limits,
        node: Ulid,
        images: Images,
    ) -> Self {
        Self {
            queue,
            shared,
            folder,
            limits,
            node: node.to_string(),
            images,
            store: None,
            pending: VecDeque::new(),
            flushes: Vec::new(),
            lost_told: 0,
        }
    }

    /// Runs until the last sender is gone.
    pub(super) fn run(mut self) {
        let mut open = true;
        let mut in_trouble = false;
        while open {
            if in_trouble {
                thread::sleep(RETRY);
            }
            // What could not be written is kept, and more of it is not taken. The
            // first round only opens the log: followers wait for it.
            if self.pending.len() < TAKEN {
                open = self.take(self.store.is_some() && !in_trouble);
            }
            in_trouble = match self.write() {
                Ok(()) => self.note_health(),
                Err(error) => self.note_trouble(&error),
            };
        }
    }

    /// Takes what is queued, up to a bound, and waits for the first when told
    /// so. False when there will never be more.
    fn take(&mut self, wait: bool) -> bool {
        let mut next = if wait && self.pending.is_empty() {
            self.queue.recv().map_err(|_closed| TryRecvError::Disconnected)
        } else {
            self.queue.try_recv()
        };
        loop {
            match next {
                Ok(Message::Incident(draft)) => self.pending.push_back(*draft),
                Ok(Message::Flush(done)) => self.flushes.push(done),
                Err(error) => return error == TryRecvError::Empty,
            }
            if self.pending.len() >= TAKEN || !self.flushes.is_empty() {
                return true;
            }
            next = self.queue.try_recv();
        }
    }

    /// Writes everything that is pending.
    fn write(&mut self) -> io::Result<()> {
        if self.store.is_none() {
            let (store, damage) = Store::open(&self.folder, self.limits)?;
            self.shared.committed.send_replace(Some(store.next_seq() - 1));
            self.store = Some(store);
            self.pending.extend(damage.map(damaged));
        }
        let lost = self.shared.lost.load(Ordering::Relaxed);
        if lost > self.lost_told {
            self.pending.push_back(lost_incidents(lost - self.lost_told));
            self.lost_told = lost;
        }
        while !self.pending.is_empty() {
            self.write_batch()?;
        }
        // Who no longer waits needs no answer.
        self.flushes
            .drain(..)
            .for_each(|done| done.try_send(()).unwrap_or_default());
        Ok(())
    }

    fn write_batch(&mut self) -> io::Result<()> {
        // Taken out, and put back only when it worked: see `Store`.
        let Some(mut store) = self.store.take() else {
            return Err(io::Error::other("the incident log is closed"));
        };
        let mut lines = Vec::new();
        let (mut seq, mut used) = (store.next_seq(), 0);
        for draft in &self.pending {
            let known = draft
                .container
                .as_ref()
                .map_or_else(Known::default, |container| self.images.known(container));
            let incident = draft.finish(store.next_id(draft.time), seq, &self.node, &known);
            let line = serde_json::to_vec(&incident)?;
            if lines.len() + line.len() >= MAX_BATCH {
                break;
            }
            used += 1;
            if line.len() >= MAX_LINE {
                // The kernel bounds every path and name, so this is a mistake of ours.
                tracing::error!(
                    rule = draft.rule,
                    bytes = line.len(),
                    "an incident is too long to be written"
                );
                self.shared.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            lines.extend_from_slice(&line);
            lines.push(b'\n');
            seq += 1;
        }
        if !lines.is_empty() {
            let last = store.append(&lines, seq - store.next_seq())?;
            self.shared.committed.send_replace(Some(last));
        }
        self.pending.drain(..used);
        self.store = Some(store);
        Ok(())
    }

    fn note_trouble(&self, error: &io::Error) -> bool {
        let mut trouble = self.shared.trouble();
        if trouble.is_none() {
            tracing::error!(folder = %self.folder.display(), %error, "incidents cannot be written; kept and tried again");
        }
        *trouble = Some(format!("{}: {error}", self.folder.display()));
        true
    }

    fn note_health(&self) -> bool {
        if self.shared.trouble().take().is_some() {
            tracing::info!(folder = %self.folder.display(), "incidents are written again");
        }
        false
    }
}

fn lost_incidents(count: u64) -> Draft {
    let output = format!("{count} incidents were not recorded: more came than the disk took");
    Draft {
        tags: vec!["lazaret".into()],
        ..Draft::new("Incidents lost", Severity::Error, Action::Alert, output)
    }
}

fn damaged(damage: Damage) -> Draft {
    let output = format!(
        "The incident log was cut short by a crash or a full disk: {}",
        damage.told
    );
    Draft {
        tags: vec!["lazaret".into()],
        ..Draft::new("Incident log damaged", Severity::Warning, Action::Alert, output)
    }
}
