//! The walk itself.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::ops::ControlFlow::{self, Break, Continue};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use crate::level::{BATCH, Level};
use crate::look::{self, Found, Identity};
use crate::{MAX_DEPTH, MAX_LINKS, Options, Regular, Skip, Visitor, Walked};

/// Names held by all levels together. More than one level's batch, so that only
/// a tree with several huge folders above each other is listed more than once.
const MAX_HELD: usize = 2 * BATCH;

pub(crate) fn walk(root: BorrowedFd<'_>, options: &Options, visitor: &mut dyn Visitor) -> io::Result<Walked> {
    let flow = match look::root(root)? {
        Found::Folder { fd, identity, .. } => Walker::new(fd, identity, options, visitor)?.run(),
        Found::File { fd, stat } => visitor.file(&Regular {
            path: Path::new(""),
            file: fd.as_fd(),
            size: stat.st_size.cast_unsigned(),
        }),
        Found::Nothing => {
            let why = "neither a folder nor a regular file";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
    };
    Ok(match flow {
        Continue(()) => Walked::All,
        Break(()) => Walked::Stopped,
    })
}

struct Walker<'a> {
    root: OwnedFd,
    /// The folder of the last level.
    here: OwnedFd,
    /// From the root's to `here`'s; never empty while the walk goes on.
    levels: Vec<Level>,
    /// Bytes of the path of `here`, or of what is looked at in it.
    path: Vec<u8>,
    /// Names that `levels` hold.
    held: usize,
    /// Roots of mounts that were entered.
    entered: HashSet<Identity>,
    /// Files with several names that were shown.
    links: HashSet<Identity>,
    options: &'a Options,
    visitor: &'a mut dyn Visitor,
}

impl<'a> Walker<'a> {
    fn new(
        here: OwnedFd,
        identity: Identity,
        options: &'a Options,
        visitor: &'a mut dyn Visitor,
    ) -> io::Result<Self> {
        Ok(Self {
            root: here.try_clone()?,
            here,
            levels: vec![Level::new(OsString::new(), identity, None)],
            path: Vec::new(),
            held: 0,
            entered: HashSet::from([identity]),
            links: HashSet::new(),
            options,
            visitor,
        })
    }

    fn run(&mut self) -> ControlFlow<()> {
        if let Some(after) = &self.options.after {
            self.go_behind(after)?;
        }
        while !self.levels.is_empty() {
            match self.next_name() {
                Ok(Some(name)) => self.look_at(name)?,
                Ok(None) => self.leave()?,
                Err(error) => {
                    self.skip(Skip::Failed(error))?;
                    self.levels.last_mut().into_iter().for_each(Level::finish);
                }
            }
        }
        Continue(())
    }

    /// Rebuilds the levels as they were when the file `after` had been shown. What
    /// of its path has vanished meanwhile comes before everything that is left.
    fn go_behind(&mut self, after: &Path) -> ControlFlow<()> {
        let mut names = after.components().filter_map(|component| match component {
            Component::Normal(name) => Some(name),
            _ => None,
        });
        let Some(first) = names.next() else {
            return Continue(());
        };
        self.begin_behind(first);
        let mut folder = first;
        for name in names {
            let depth = self.levels.len();
            self.look_at_folder(folder)?;
            if self.levels.len() == depth {
                break;
            }
            self.begin_behind(name);
            folder = name;
        }
        Continue(())
    }

    fn begin_behind(&mut self, name: &OsStr) {
        if let Some(level) = self.levels.last_mut() {
            *level = Level::new(
                std::mem::take(&mut level.name),
                level.identity,
                Some(name.to_owned()),
            );
        }
    }

    fn next_name(&mut self) -> io::Result<Option<OsString>> {
        let Some(level) = self.levels.last_mut() else {
            return Ok(None);
        };
        let before = level.held();
        let name = level.take(self.here.as_fd(), BATCH)?;
        self.held = self.held + level.held() - before;
        // What is farthest away is needed last.
        let mut farthest = self.levels.iter_mut();
        while self.held > MAX_HELD
            && let Some(level) = farthest.next()
        {
            self.held -= level.held();
            level.forget();
        }
        Ok(name)
    }

    fn look_at(&mut self, name: OsString) -> ControlFlow<()> {
        let length = self.push(&name);
        self.visitor.next(path(&self.path))?;
        let found = look::at(self.here.as_fd(), &name, &self.options.mounts);
        match found {
            Ok(Found::Folder { fd, identity, mount }) => {
                return self.enter(name, length, fd, identity, mount);
            }
            Ok(Found::File { fd, stat }) => {
                if stat.st_nlink < 2 || self.is_first_link(Identity::of(&stat)) {
                    self.visitor.file(&Regular {
                        path: path(&self.path),
                        file: fd.as_fd(),
                        size: stat.st_size.cast_unsigned(),
                    })?;
                }
            }
            Ok(Found::Nothing) => {}
            Err(why) => self.skip(why)?,
        }
        self.path.truncate(length);
        Continue(())
    }

    /// As [`Walker::look_at`], where a file has been shown already.
    fn look_at_folder(&mut self, name: &OsStr) -> ControlFlow<()> {
        match look::at(self.here.as_fd(), name, &self.options.mounts) {
            Ok(Found::Folder { fd, identity, mount }) => {
                let length = self.push(name);
                self.enter(name.to_owned(), length, fd, identity, mount)
            }
            // A failure was told when the walk came by for the first time.
            Ok(_) | Err(_) => Continue(()),
        }
    }

    /// Makes a folder, whose path is at hand, the last level. `length` is that of
    /// the path without it.
    fn enter(
        &mut self,
        name: OsString,
        length: usize,
        fd: OwnedFd,
        identity: Identity,
        mount: bool,
    ) -> ControlFlow<()> {
        let why = if self.levels.len() > MAX_DEPTH {
            Some(Skip::TooDeep)
        } else if mount && !self.is_new_mount(identity) {
            Some(Skip::Cycle)
        } else {
            None
        };
        if let Some(why) = why {
            self.skip(why)?;
            self.path.truncate(length);
            return Continue(());
        }
        self.here = fd;
        self.levels.push(Level::new(name, identity, None));
        Continue(())
    }

    fn is_new_mount(&mut self, identity: Identity) -> bool {
        self.levels.iter().all(|level| level.identity != identity) && self.entered.insert(identity)
    }

    fn is_first_link(&mut self, identity: Identity) -> bool {
        if self.links.len() < MAX_LINKS {
            self.links.insert(identity)
        } else {
            !self.links.contains(&identity)
        }
    }

    /// Goes back to the level above, or as far up as it takes to find one again.
    fn leave(&mut self) -> ControlFlow<()> {
        loop {
            let Some(left) = self.levels.pop() else {
                return Continue(());
            };
            self.held -= left.held();
            let length = self.path.len().saturating_sub(left.name.len());
            self.path.truncate(length);
            if self.path.last() == Some(&b'/') {
                self.path.pop();
            }
            let Some(level) = self.levels.last() else {
                return Continue(());
            };
            let parent = look::parent(self.here.as_fd(), level.identity);
            if let Some(parent) = parent.or_else(|| self.reopen()) {
                self.here = parent;
                return Continue(());
            }
            self.skip(Skip::Moved)?;
        }
    }

    /// The folder of the last level, by its path; none when another one is there.
    fn reopen(&self) -> Option<OwnedFd> {
        let mut here = self.root.try_clone().ok()?;
        for level in self.levels.iter().skip(1) {
            match look::at(here.as_fd(), &level.name, &self.options.mounts) {
                Ok(Found::Folder { fd, identity, .. }) if identity == level.identity => here = fd,
                _ => return None,
            }
        }
        Some(here)
    }

    /// Appends a name to the path; returns the length before.
    fn push(&mut self, name: &OsStr) -> usize {
        let length = self.path.len();
        if length > 0 {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name.as_bytes());
        length
    }

    fn skip(&mut self, why: Skip) -> ControlFlow<()> {
        self.visitor.skipped(path(&self.path), why)
    }
}

fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}
