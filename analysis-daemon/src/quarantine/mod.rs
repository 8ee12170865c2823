//! Moves files that were denied out of their containers, and back.
//!
//! Nobody waits for it: the opener has its answer before a file is queued here.
//! One thread copies the content into the store, then removes the original. When
//! anything is in the way the file stays where it is, where it is denied as
//! before, and an incident says why. `docs/quarantine.md` tells the rest.

mod attributes;
mod custody;
mod hex;
mod item;
mod object;
mod original;
mod place;
mod queue;
mod refusal;
mod report;
mod step;
mod store;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use lazaret_config::QuarantineMode;
use lazaret_types::{ContainerFields, Finding, Severity, Sha256};
use ulid::Ulid;

pub(crate) use item::{Item, State};
pub(crate) use refusal::Refusal;
pub(crate) use store::Usage;

use crate::allow::{AllowList, Allowed};
use crate::containerd::Images;
use crate::counters::Counters;
use crate::evidence;
use crate::incidents::{IncidentLog, rfc3339};
use crate::judge::{Outcome, Verdict};
use crate::origin;
use crate::session::Session;
use custody::{Custody, Suspect};
use original::Original;
use queue::{Case, Queue, Task};
use store::Bounds;

/// How long a file of a container that ends may still be copied. Its end waits
/// for us, and must not wait long.
const PARTING: Duration = Duration::from_millis(300);

/// The quarantine of this node.
pub(crate) struct Quarantine {
    mode: QuarantineMode,
    custody: Custody,
    queue: Queue,
    allow: Arc<AllowList>,
    incidents: Arc<IncidentLog>,
    counters: Arc<Counters>,
}

impl Quarantine {
    /// Opens the store in `folder`, which need not exist, and starts the thread.
    ///
    /// # Errors
    /// When the folder cannot be used or the kernel gives no thread.
    pub(crate) fn start(
        folder: &Path,
        config: &lazaret_config::Quarantine,
        allow: Arc<AllowList>,
        incidents: Arc<IncidentLog>,
        counters: Arc<Counters>,
    ) -> io::Result<Arc<Self>> {
        let bounds = Bounds {
            size: config.max_size.as_u64(),
            items: config.max_items,
        };
        let quarantine = Arc::new(Self {
            mode: config.mode,
            custody: Custody::open(folder, bounds)?,
            queue: Queue::default(),
            allow,
            incidents,
            counters,
        });
        let worker = Arc::clone(&quarantine);
        thread::Builder::new()
            .name("quarantine".into())
            .spawn(move || worker.work())?;
        Ok(quarantine)
    }

    /// Queues a file that was refused, if the policy has it moved. Never waits. To
    /// be called when the opener has its answer.
    pub(crate) fn consider(&self, session: &Arc<Session>, file: BorrowedFd<'_>, outcome: &Outcome) {
        let Outcome::Judged {
            digest,
            verdict: Verdict::Bad(finding),
            set,
            ..
        } = outcome
        else {
            return;
        };
        if !self.moves(finding) {
            return;
        }
        let case = file.try_clone_to_owned().map(|file| Case {
            session: Arc::clone(session),
            file,
            digest: *digest,
            finding: finding.clone(),
            set: Arc::clone(set),
        });
        match case {
            Ok(case) => {
                if let Err(case) = self.queue.push(Task::Move(case)) {
                    self.report(&case, Err(&Refusal::Busy));
                }
            }
            Err(error) => tracing::warn!(%error, "a file was not quarantined: no descriptor for it"),
        }
    }

    fn moves(&self, finding: &Finding) -> bool {
        match self.mode {
            QuarantineMode::Off => false,
            QuarantineMode::Critical => finding.severity == Severity::Critical,
            // What only alerts stays, whoever found it.
            QuarantineMode::All => finding.severity >= Severity::Error,
        }
    }

    /// Looks after what a daemon that was killed left in a container. To be called
    /// once its group is being read.
    pub(crate) fn resume(&self, session: &Arc<Session>) {
        if !self.custody.store.unsettled().is_empty() {
            // A full queue leaves it to the next attach.
            let _full = self.queue.push(Task::Settle(Arc::clone(session)));
        }
    }

    /// Lets go of a container: what waits of it is not moved.
    pub(crate) fn forget(&self, session: &Arc<Session>) {
        for case in self.queue.forget(session) {
            self.report(&case, Err(&Refusal::Ending));
        }
    }

    fn work(&self) {
        let mut images = Images::new();
        loop {
            match self.queue.pop() {
                Task::Move(case) => {
                    let moved = self.move_away(&case, &mut images);
                    match &moved {
                        // Another opener of it was denied at the same time, and came first.
                        Ok(None) | Err(Refusal::Allowed) => {}
                        Ok(Some(moved)) => self.report(&case, Ok(moved)),
                        Err(refusal) => self.report(&case, Err(refusal)),
                    }
                }
                Task::Settle(session) => {
                    let container = &session.container;
                    self.custody
                        .settle(session.root.as_fd(), &container.namespace, container.id.as_str());
                }
            }
        }
    }

    /// What became of a file; none when it is gone already.
    fn move_away(&self, case: &Case, images: &mut Images) -> Result<Option<custody::Moved>, Refusal> {
        if self.allow.allows(&case.digest) {
            return Err(Refusal::Allowed);
        }
        let session = &case.session;
        let path = origin::path_of(case.file.as_fd()).map_err(Refusal::io("learn the file's path"))?;
        let host_path = evidence::host_path(session, case.file.as_fd(), &path);
        let container = &session.container;
        let began = Instant::now();
        let suspect = Suspect {
            root: session.root.as_fd(),
            file: case.file.as_fd(),
            path,
            host_path,
            sha256: case.digest,
            finding: case.finding.clone(),
            container: ContainerFields {
                id: container.id.to_string(),
                namespace: container.namespace.clone(),
                image: container.image.clone().or_else(|| images.known(container).image),
                pod: container
                    .pod
                    .as_ref()
                    .map(|pod| format!("{}/{}", pod.namespace, pod.name)),
            },
            by: format!("lazaretd, quarantine.mode = {:?}", self.mode.to_string()),
            time: rfc3339(SystemTime::now()),
        };
        self.custody.take(suspect, &|| {
            session.ending.load(Ordering::Acquire) && began.elapsed() > PARTING
        })
    }

    fn report(&self, case: &Case, moved: Result<&custody::Moved, &Refusal>) {
        if case.session.reports.admits(case.finding.severity) {
            self.incidents.report(report::draft(case, moved));
        } else {
            self.counters.incidents_suppressed.one();
        }
    }

    /// How full the store is.
    pub(crate) fn usage(&self) -> Usage {
        self.custody.store.usage()
    }

    /// The ids of all items, oldest first.
    pub(crate) fn ids(&self) -> Vec<Ulid> {
        self.custody.store.ids()
    }

    /// An item. Blocks on the disk.
    ///
    /// # Errors
    /// When there is none, or its record cannot be read.
    pub(crate) fn get(&self, id: Ulid) -> Result<Item, Refusal> {
        self.custody.store.get(id)
    }

    /// Writes an item's content, or with `plain` unset its object, to `sink`.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// When there is none or it is damaged: what `sink` got is worth nothing then.
    pub(crate) fn export(&self, id: Ulid, plain: bool, sink: &mut impl Write) -> Result<(), Refusal> {
        self.custody.export(id, plain, sink)
    }

    /// Puts an item back into its container and allows its content. Blocks on the disk.
    ///
    /// # Errors
    /// Then nothing has changed, neither in the container nor on the allow-list.
    pub(crate) fn restore(
        &self,
        id: Ulid,
        session: Option<&Session>,
        replace: bool,
        by: &str,
    ) -> Result<Item, Refusal> {
        let item = self.get(id)?;
        let Some(session) = session.filter(|session| !session.ending.load(Ordering::Acquire)) else {
            return Err(Refusal::NotRunning(item.container.id));
        };
        let reason = format!("restored from quarantine: item {id}, {}", item.rule);
        let reason = reason.chars().filter(|c| !c.is_control()).collect();
        let allowed = Allowed::new(item.sha256, reason, by.to_owned(), None);
        self.custody
            .restore(session.root.as_fd(), item, replace, &self.allow, allowed)
    }

    /// Puts the image's own version of a file where an item was, if `judge` finds it clean, and
    /// tells it. The item stays. Returns it and what its path is now. Blocks on the disk.
    ///
    /// # Errors
    /// Then nothing has changed in the container.
    pub(crate) fn restore_original(
        &self,
        id: Ulid,
        session: Option<&Session>,
        replace: bool,
        by: &str,
        judge: impl FnOnce(BorrowedFd<'_>) -> Outcome,
    ) -> Result<(Item, Sha256), Refusal> {
        let item = self.get(id)?;
        let Some(session) = session.filter(|session| !session.ending.load(Ordering::Acquire)) else {
            return Err(Refusal::NoLayers(item.container.id));
        };
        if session.container.layers.lower.is_empty() {
            return Err(Refusal::NotLayered(item.container.id));
        }
        let original = Original::find(&session.container.layers, item.path())?;
        let (digest, set) = match judge(original.as_fd()) {
            Outcome::Judged {
                digest,
                verdict: Verdict::Clean,
                set,
                ..
            } => (digest, set),
            Outcome::Judged {
                verdict: Verdict::Bad(finding),
                ..
            } => return Err(Refusal::OriginalBad(finding.rule)),
            Outcome::Unjudged(reason) => return Err(Refusal::OriginalUnjudged(reason)),
        };
        let root = session.root.as_fd();
        let item = self
            .custody
            .put_original(root, item, &original, digest, replace)?;
        let put = report::Put {
            item: &item,
            digest,
            size: original.size(),
            set,
            by,
        };
        self.incidents.report(put.draft(session));
        Ok((item, digest))
    }

    /// Forgets an item, and its content if no other item has it. Blocks on the disk.
    ///
    /// # Errors
    /// When there is none, or the disk does not take it.
    pub(crate) fn remove(&self, id: Ulid) -> Result<(), Refusal> {
        self.custody.store.remove(id)
    }
}
