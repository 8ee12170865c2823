//! The store on disk: `objects/` holds contents, `items/` says whose they were.
//!
//! An object is there before the first item that needs it and goes after the
//! last one, and each appears under its name whole and synced. So a crash leaves
//! at worst files that nobody needs, which the next start sweeps.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lazaret_types::Sha256;
use ulid::Ulid;

use super::item::{Item, State};
use super::object::{self, Copied, HEADER};
use super::refusal::Refusal;
use super::step::{Step, passed};
use crate::durable;

/// A record is smaller: its path and its attributes are bounded.
const MAX_RECORD: u64 = 64 << 10;

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Of all objects, in bytes.
    pub(super) size: u64,
    /// Items.
    pub(super) items: usize,
}

/// The folder. One daemon at a time has it.
#[derive(Debug)]
pub(super) struct Store {
    objects: PathBuf,
    items: PathBuf,
    bounds: Bounds,
    /// Held over whole operations. Not the lock of who only looks.
    changing: Mutex<()>,
    index: Mutex<Index>,
}

/// What is in the store; what else is known of an item stays on disk.
#[derive(Debug, Default)]
struct Index {
    items: BTreeMap<Ulid, Entry>,
    /// Sizes with header, in bytes.
    objects: HashMap<Sha256, u64>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    sha256: Sha256,
    /// Something of it may lie about in its container.
    unsettled: bool,
}

impl Index {
    fn used(&self) -> u64 {
        self.objects.values().sum()
    }

    fn note(&mut self, item: &Item) {
        let entry = Entry {
            sha256: item.sha256,
            unsettled: item.state != State::Moved,
        };
        self.items.insert(item.id, entry);
    }

    fn needs(&self, sha256: Sha256) -> bool {
        self.items.values().any(|entry| entry.sha256 == sha256)
    }
}

/// How full the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) items: usize,
    /// Bytes.
    pub(crate) used: u64,
}

impl Store {
    /// Opens the store in `folder`, which need not exist, and sweeps what a crash
    /// left. A record that cannot be read is told and stays, and so does its object.
    ///
    /// # Errors
    /// When the folder cannot be made or listed.
    pub(super) fn open(folder: &Path, bounds: Bounds) -> io::Result<Self> {
        let (objects, items) = (folder.join("objects"), folder.join("items"));
        for folder in [folder, &objects, &items] {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            // One that was there already may be open to others.
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        }
        let store = Self {
            objects,
            items,
            bounds,
            changing: Mutex::default(),
            index: Mutex::default(),
        };
        store.recover()?;
        Ok(store)
    }

    fn recover(&self) -> io::Result<()> {
        let mut index = self.index();
        let mut all_read = true;
        for name in names(&self.items)? {
            match record_id(&name).map(|id| (id, self.record(id))) {
                Some((_, Ok(item))) => index.note(&item),
                Some((id, Err(error))) => {
                    all_read = false;
                    tracing::warn!(%id, %error, "an item of the quarantine cannot be read; it stays as it is");
                }
                None => sweep(&self.items, &name)?,
            }
        }
        for name in names(&self.objects)? {
            let path = self.objects.join(&name);
            match name.parse::<Sha256>() {
                // Perhaps a record that cannot be read needs it.
                Ok(sha256) if index.needs(sha256) || !all_read => {
                    index.objects.insert(sha256, fs::metadata(path)?.len());
                }
                Ok(_) => remove_file(&path)?,
                Err(_) => sweep(&self.objects, &name)?,
            }
        }
        Ok(())
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How full it is.
    pub(super) fn usage(&self) -> Usage {
        let index = self.index();
        Usage {
            items: index.items.len(),
            used: index.used(),
        }
    }

    /// Keeps the content of `file` and its record: when this returns, both survive
    /// a power cut. The content must be what `item` says, and nothing is read
    /// beyond that. What is held of that very file already is replaced.
    ///
    /// # Errors
    /// Then the store is as it was.
    pub(super) fn put(
        &self,
        file: BorrowedFd<'_>,
        mut item: Item,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Item, Refusal> {
        let _changing = self.changing();
        let count = self.index().items.len();
        match self.held(&item) {
            Some(id) => item.id = id,
            None if count >= self.bounds.items => return Err(Refusal::TooMany(self.bounds.items)),
            None => {}
        }
        let size = self.put_object(file, &item, cancelled)?;
        // Even if the record fails now: what is on disk counts.
        self.index().objects.insert(item.sha256, size);
        passed(Step::ObjectNamed);
        if let Err(refusal) = self.write_record(&item) {
            self.drop_object(item.sha256);
            return Err(refusal);
        }
        passed(Step::ItemRecorded);
        Ok(item)
    }

    /// The item of the same file that could not be removed last time.
    fn held(&self, new: &Item) -> Option<Ulid> {
        let mut old = self.unsettled().into_iter().filter_map(|id| self.record(id).ok());
        let is_it = |old: &Item| {
            old.state == State::Held
                && old.sha256 == new.sha256
                && old.path == new.path
                && old.is_of(&new.container.namespace, &new.container.id)
        };
        old.find(is_it).map(|old| old.id)
    }

    /// Makes sure that there is an object with the content of `file`; returns its size.
    fn put_object(
        &self,
        file: BorrowedFd<'_>,
        item: &Item,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<u64, Refusal> {
        let source = Positioned { file, offset: 0 };
        let expected = Copied {
            sha256: item.sha256,
            size: item.size,
        };
        let copying = |error: io::Error| match error.kind() {
            io::ErrorKind::Interrupted => Refusal::Ending,
            _ => Refusal::io("copy the file into the quarantine")(error),
        };
        let as_expected = |copied| {
            if copied == expected {
                Ok(())
            } else {
                Err(Refusal::Changed)
            }
        };
        let path = self.object(item.sha256);
        let size = item.size.saturating_add(HEADER as u64);
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() == size) {
            as_expected(object::identify(source, item.size, cancelled).map_err(copying)?)?;
            return Ok(size);
        }
        let used = self.index().used();
        if used.saturating_add(size) > self.bounds.size {
            return Err(Refusal::Full {
                used,
                limit: self.bounds.size,
                size,
            });
        }
        let mut new = NewFile::create(self.objects.join(format!(".{}.new", item.id))).map_err(copying)?;
        as_expected(object::encode(source, &mut new.file, expected, cancelled).map_err(copying)?)?;
        new.file.sync_all().map_err(copying)?;
        passed(Step::ObjectWritten);
        new.name(&path).map_err(copying)?;
        Ok(size)
    }

    /// Notes how far an item is.
    pub(super) fn set_state(&self, mut item: Item, state: State) -> Result<Item, Refusal> {
        let _changing = self.changing();
        if !self.index().items.contains_key(&item.id) {
            return Err(Refusal::NoItem(item.id.to_string()));
        }
        item.state = state;
        self.write_record(&item)?;
        passed(Step::StateRecorded);
        Ok(item)
    }

    /// The ids of all items, oldest first.
    pub(super) fn ids(&self) -> Vec<Ulid> {
        self.index().items.keys().copied().collect()
    }

    /// The ids of those of which something may lie about in their containers.
    pub(super) fn unsettled(&self) -> Vec<Ulid> {
        let index = self.index();
        let unsettled = index.items.iter().filter(|(_, entry)| entry.unsettled);
        unsettled.map(|(id, _)| *id).collect()
    }

    /// An item.
    pub(super) fn get(&self, id: Ulid) -> Result<Item, Refusal> {
        if !self.index().items.contains_key(&id) {
            return Err(Refusal::NoItem(id.to_string()));
        }
        self.record(id).map_err(Refusal::io("read the item's record"))
    }

    /// Opens the object of an item, header and all.
    pub(super) fn open_object(&self, item: &Item) -> Result<File, Refusal> {
        File::open(self.object(item.sha256)).map_err(Refusal::io("open the item's content"))
    }

    /// Forgets an item, and its content if no other item has it.
    pub(super) fn remove(&self, id: Ulid) -> Result<(), Refusal> {
        let failed = || Refusal::io("remove the item's record");
        let _changing = self.changing();
        let Some(Entry { sha256, .. }) = self.index().items.get(&id).copied() else {
            return Err(Refusal::NoItem(id.to_string()));
        };
        remove_file(&self.record_path(id)).map_err(failed())?;
        self.index().items.remove(&id);
        durable::sync_folder(&self.items).map_err(failed())?;
        passed(Step::ItemForgotten);
        self.drop_object(sha256);
        Ok(())
    }

    /// Removes an object, unless an item needs it.
    fn drop_object(&self, sha256: Sha256) {
        let mut index = self.index();
        if index.needs(sha256) {
            return;
        }
        match remove_file(&self.object(sha256)) {
            Ok(()) => drop(index.objects.remove(&sha256)),
            // It goes on counting, and the next start sweeps it.
            Err(error) => {
                tracing::warn!(%sha256, %error, "a content stays in the quarantine that no item needs");
            }
        }
    }

    fn write_record(&self, item: &Item) -> Result<(), Refusal> {
        let failed = || Refusal::io("write the item's record");
        let mut json = serde_json::to_vec_pretty(item)
            .map_err(io::Error::from)
            .map_err(failed())?;
        json.push(b'\n');
        durable::replace(&self.record_path(item.id), &json, 0o600).map_err(failed())?;
        self.index().note(item);
        Ok(())
    }

    fn record(&self, id: Ulid) -> io::Result<Item> {
        let mut json = Vec::new();
        File::open(self.record_path(id))?
            .take(MAX_RECORD)
            .read_to_end(&mut json)?;
        let item: Item = serde_json::from_slice(&json)?;
        if item.id == id && item.schema == super::item::SCHEMA {
            Ok(item)
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "of another item or another version",
            ))
        }
    }

    fn record_path(&self, id: Ulid) -> PathBuf {
        self.items.join(format!("{id}.json"))
    }

    fn object(&self, sha256: Sha256) -> PathBuf {
        self.objects.join(sha256.to_string())
    }
}

fn record_id(name: &str) -> Option<Ulid> {
    Ulid::from_string(name.strip_suffix(".json")?).ok()
}

/// All names in a folder of ours, where every name is ASCII.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().into_string().ok());
    fs::read_dir(folder)?
        .filter_map(|entry| name(entry).transpose())
        .collect()
}

/// Removes what a crash left half-written. What is not ours stays.
fn sweep(folder: &Path, name: &str) -> io::Result<()> {
    if name.starts_with('.') && name.ends_with(".new") {
        remove_file(&folder.join(name))?;
    }
    Ok(())
}

/// Removes a file that may be gone already.
fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Reads with `pread`: the descriptor's offset is shared with others, and a map
/// would be a `SIGBUS` when the file is cut short.
pub(super) struct Positioned<'a> {
    pub(super) file: BorrowedFd<'a>,
    pub(super) offset: u64,
}

impl Read for Positioned<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = rustix::io::pread(self.file, buffer, self.offset)?;
        self.offset += length as u64;
        Ok(length)
    }
}

/// A file that is gone unless it gets its name.
struct NewFile {
    path: PathBuf,
    file: File,
    named: bool,
}

impl NewFile {
    fn create(path: PathBuf) -> io::Result<Self> {
        remove_file(&path)?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        Ok(Self {
            path,
            file,
            named: false,
        })
    }

    fn name(mut self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)?;
        self.named = true;
        path.parent().map_or(Ok(()), durable::sync_folder)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.named {
            // What stays is swept by the next start.
            drop(fs::remove_file(&self.path));
        }
    }
}
