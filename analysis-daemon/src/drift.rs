//! Drift: a container runs a file that its image does not have.
//!
//! No signature is needed to see it, and a container that is left as it was built has none. What
//! an interpreter reads, or `ld.so FILE` loads, is opened and not run: that is not drift here.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use lazaret_config::Drift as Config;
use lazaret_sys::fanotify::Unasked;
use lazaret_sys::stat::{self, Stat};
use lazaret_types::{Access, Action};
use rustix::fs::{Mode, OFlags};

use crate::origin::{self, Below, Origin, path_of};
use crate::session::{Opening, Session};

/// Parents that are asked about, at most.
const MAX_PARENTS: usize = 16;

/// Tells drift from what may run though the image does not have it.
#[derive(Debug)]
pub(crate) struct Drift {
    programs: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

/// What is to be done about where one file comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opinion {
    pub(crate) action: Action,
    /// Who may go on unasked when the file is clean, too.
    pub(crate) unasked: Unasked,
}

impl Opinion {
    pub(crate) const INDIFFERENT: Self = Self {
        action: Action::Allow,
        unasked: Unasked::All,
    };
}

impl Drift {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            programs: config.programs.clone(),
            folders: config.folders.clone(),
        }
    }

    /// What the policy says of opening or running this file. `same` tells whether it has the content
    /// of the one in the image.
    pub(crate) fn examine(
        &self,
        opening: &Opening,
        origin: &Origin,
        same: impl FnOnce(&Below) -> bool,
    ) -> Opinion {
        let policy = opening.session().policy.drift;
        if !is_of_interest(opening.session()) || is_of_image(opening, origin, same) {
            Opinion::INDIFFERENT
        } else if self.is_excepted(opening) {
            // The next one may run it, from elsewhere, or by another program.
            Opinion {
                action: Action::Allow,
                unasked: Unasked::Opens,
            }
        } else {
            // Once it has run, it is known; and the second question of an execution is no news.
            Opinion {
                action: if opening.event.exec { policy } else { Action::Allow },
                unasked: Unasked::All,
            }
        }
    }

    /// Whether it is no drift this time, or not yet.
    fn is_excepted(&self, opening: &Opening) -> bool {
        // Where drift is denied, whoever got as far as a second question was an exception.
        let second = !opening.event.exec && opening.session().policy.drift == Action::Deny;
        opening.access() != Access::Exec
            || second
            || self.is_in_folder(opening)
            || self.is_by_program(opening)
    }

    fn is_in_folder(&self, opening: &Opening) -> bool {
        let path = path_of(opening.event.file.as_fd());
        path.is_ok_and(|path| self.folders.iter().any(|folder| path.starts_with(folder)))
    }

    /// Whether the opener, or who started it, is one of the programs: as the image has it, not
    /// what the container put in its place.
    fn is_by_program(&self, opening: &Opening) -> bool {
        if self.programs.is_empty() {
            return false;
        }
        let session = opening.session();
        let mut pid = opening.event.pid;
        for _ in 0..=MAX_PARENTS {
            if self.is_program(session, pid).unwrap_or(false) {
                return true;
            }
            if pid == session.init_pid {
                return false;
            }
            match stat::of(pid) {
                Ok(Stat { parent, .. }) if parent > 1 => pid = parent,
                _ => return false,
            }
        }
        false
    }

    fn is_program(&self, session: &Session, pid: i32) -> io::Result<bool> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let program = rustix::fs::open(format!("/proc/{pid}/exe"), flags, Mode::empty())?;
        let path = path_of(program.as_fd())?;
        let listed = self.programs.contains(&path);
        Ok(listed && matches!(Origin::of(program.as_fd(), pid, session), Origin::Image(_)))
    }
}

fn is_of_image(opening: &Opening, origin: &Origin, same: impl FnOnce(&Below) -> bool) -> bool {
    let runs = opening.access() == Access::Exec;
    match origin {
        Origin::Image(_) => true,
        // Its mode or owner may be all that was changed.
        Origin::Copied(copied) => runs && same(&copied.image),
        // Written anew as the image has it there, for one by `quarantine restore --original`.
        Origin::Layer(_) if runs => {
            let below = origin::below(opening.event.file.as_fd(), opening.event.pid, opening.session());
            below.is_some_and(|below| same(&below))
        }
        Origin::Layer(_) | Origin::Plain | Origin::Nameless | Origin::Unknown => false,
    }
}

/// Whether anything is to be done about drift. Without layers nothing tells what is of the image.
fn is_of_interest(session: &Session) -> bool {
    session.policy.drift != Action::Allow && !session.container.layers.lower.is_empty()
}
