//! Takes files out of containers and gives them back: the store on one side, a
//! place in a container on the other, and between them an order of steps in
//! which a crash loses nothing.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lazaret_types::{ContainerFields, Finding, Sha256};
use ulid::Ulid;

use super::attributes::Attributes;
use super::item::{Item, SCHEMA, State};
use super::object;
use super::original::Original;
use super::place::{self, Place, Stamp};
use super::refusal::Refusal;
use super::step::{Step, passed};
use super::store::{Bounds, Store};
use crate::allow::{AllowList, Allowed};

/// The store, and how things get in and out.
#[derive(Debug)]
pub(super) struct Custody {
    pub(super) store: Store,
    /// Held while something is put into a container: two of one item would be in each other's way.
    putting: Mutex<()>,
}

/// A file that was judged.
#[derive(Debug)]
pub(super) struct Suspect<'a> {
    /// Of its container.
    pub(super) root: BorrowedFd<'a>,
    /// The very descriptor that was judged.
    pub(super) file: BorrowedFd<'a>,
    pub(super) path: PathBuf,
    pub(super) host_path: Option<PathBuf>,
    pub(super) sha256: Sha256,
    pub(super) finding: Finding,
    pub(super) container: ContainerFields,
    pub(super) by: String,
    pub(super) time: String,
}

/// An item, and why its original is still there; none when it is gone.
#[derive(Debug)]
pub(super) struct Moved {
    pub(super) item: Item,
    pub(super) remains: Option<Refusal>,
}

impl Suspect<'_> {
    fn item(&self, stamp: Stamp) -> Result<Item, Refusal> {
        Ok(Item {
            schema: SCHEMA,
            id: Ulid::generate(),
            time: self.time.clone(),
            by: self.by.clone(),
            container: self.container.clone(),
            path: self.path.as_os_str().as_bytes().to_owned(),
            host_path: self
                .host_path
                .as_ref()
                .map(|path| path.as_os_str().as_bytes().to_owned())
                .unwrap_or_default(),
            sha256: self.sha256,
            size: stamp.size,
            rule: self.finding.rule.clone(),
            severity: self.finding.severity,
            attributes: Attributes::of(self.file).map_err(Refusal::io("read the file's attributes"))?,
            links: stamp.links,
            state: State::Held,
        })
    }
}

impl Custody {
    pub(super) fn open(folder: &Path, bounds: Bounds) -> io::Result<Self> {
        Ok(Self {
            store: Store::open(folder, bounds)?,
            putting: Mutex::default(),
        })
    }

    /// Stores a file, then removes it from its container. None when it has no name
    /// there any more.
    ///
    /// # Errors
    /// Then it is where it was, and the store is as it was.
    pub(super) fn take(
        &self,
        suspect: Suspect<'_>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<Moved>, Refusal> {
        let stamp = place::stamp(suspect.file)?;
        if stamp.links == 0 {
            return Ok(None);
        }
        let item = self.store.put(suspect.file, suspect.item(stamp)?, cancelled)?;
        let removed = Place::find(suspect.root, &suspect.path, item.id)
            .and_then(|place| place.remove(suspect.file, stamp));
        let Err(refusal) = removed else {
            return Ok(Some(Moved {
                item: self.note_moved(item),
                remains: None,
            }));
        };
        Ok(Some(Moved {
            item,
            remains: Some(refusal),
        }))
    }

    /// The file is gone from its container, whatever becomes of the record.
    fn note_moved(&self, item: Item) -> Item {
        match self.store.set_state(item.clone(), State::Moved) {
            Ok(moved) => moved,
            Err(refusal) => {
                tracing::warn!(id = %item.id, %refusal, "an item of the quarantine says that its file may still be there");
                item
            }
        }
    }

    /// Finishes in a container what a daemon that was killed had begun.
    pub(super) fn settle(&self, root: BorrowedFd<'_>, namespace: &str, container: &str) {
        let _putting = self.putting();
        for id in self.store.unsettled() {
            let Ok(item) = self.store.get(id) else { continue };
            if !item.is_of(namespace, container) {
                continue;
            }
            if let Err(refusal) = self.settle_one(root, item) {
                tracing::warn!(%id, %refusal, container, "what a crash left of a quarantined file stays in its container");
            }
        }
    }

    fn settle_one(&self, root: BorrowedFd<'_>, item: Item) -> Result<(), Refusal> {
        let place = Place::find(root, item.path(), item.id)?;
        let removed = place.clear(|file| {
            let found = object::identify(file, item.size, &|| false);
            found.is_ok_and(|found| found.sha256 == item.sha256)
        })?;
        // Killed between removing it and noting that: then its name is free.
        if removed || item.state == State::Restoring || !place.is_taken() {
            self.store.set_state(item, State::Moved)?;
        }
        Ok(())
    }

    pub(super) fn export(&self, id: Ulid, plain: bool, sink: &mut impl Write) -> Result<(), Refusal> {
        let item = self.store.get(id)?;
        let mut object = self.store.open_object(&item)?;
        let exported = if plain {
            object::decode(object, sink).map(drop)
        } else {
            io::copy(&mut object, sink).map(drop)
        };
        exported.map_err(Refusal::io("export the item"))
    }

    /// Puts an item back and forgets it. Its content is allowed first: otherwise the
    /// file would come back only to be taken again.
    pub(super) fn restore(
        &self,
        root: BorrowedFd<'_>,
        item: Item,
        replace: bool,
        allow: &AllowList,
        allowed: Allowed,
    ) -> Result<Item, Refusal> {
        let _putting = self.putting();
        let place = Place::find(root, item.path(), item.id)?;
        is_free(&place, replace, &item)?;
        let object = self.store.open_object(&item)?;
        let before = item.state;
        let item = self.store.set_state(item, State::Restoring)?;
        if let Err(refusal) = put_back(&place, replace, object, &item, allow, allowed) {
            // Best effort: what is meant to undo does not hide why.
            drop(self.store.set_state(item, before));
            return Err(refusal);
        }
        passed(Step::Restored);
        self.store.remove(item.id)?;
        Ok(item)
    }

    /// Puts the image's own version where an item was. What was taken stays in the store.
    pub(super) fn put_original(
        &self,
        root: BorrowedFd<'_>,
        item: Item,
        original: &Original,
        judged: Sha256,
        replace: bool,
    ) -> Result<Item, Refusal> {
        let _putting = self.putting();
        let place = Place::find_as_written(root, item.path(), item.id)?;
        is_free(&place, replace, &item)?;
        let before = item.state;
        // Whoever comes after a crash looks for what was coming.
        let item = self.store.set_state(item, State::Restoring)?;
        let put = place.put(replace, |file| original.write(file, judged));
        if put.is_ok() {
            passed(Step::OriginalNamed);
        }
        let item = self.store.set_state(item, before);
        put.and(item)
    }

    fn putting(&self) -> MutexGuard<'_, ()> {
        self.putting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_free(place: &Place, replace: bool, item: &Item) -> Result<(), Refusal> {
    if !replace && place.is_taken() {
        return Err(Refusal::Occupied(crate::evidence::escape(item.path()).0));
    }
    Ok(())
}

/// Allows an item's content and puts its file there, or does neither.
fn put_back(
    place: &Place,
    replace: bool,
    object: File,
    item: &Item,
    allow: &AllowList,
    allowed: Allowed,
) -> Result<(), Refusal> {
    let known = allow.add(allowed)?;
    passed(Step::Allowed);
    place
        .put(replace, |file| fill(file, object, item))
        .inspect_err(|_why| {
            // Best effort, as above.
            drop(match known {
                Some(before) => allow.add(before).map(drop),
                None => allow.remove(&item.sha256).map(drop),
            });
        })
}

/// Writes an item's content and attributes to a new file, and closes it.
fn fill(mut file: File, object: File, item: &Item) -> Result<(), Refusal> {
    object::decode(object, &mut file).map_err(Refusal::io("write the file"))?;
    let attributes = item.attributes.apply(file.as_fd());
    attributes.map_err(Refusal::io("give the file its owner, mode, times and attributes"))?;
    passed(Step::AttributesRestored);
    file.sync_all().map_err(Refusal::io("write the file"))
}
