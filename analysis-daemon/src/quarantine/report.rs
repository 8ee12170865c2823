//! What incidents say of the quarantine. The denial itself was reported before.

use std::os::fd::AsFd;
use std::sync::Arc;

use lazaret_types::{Action, FileFields, Severity, Sha256};

use super::custody::Moved;
use super::item::Item;
use super::queue::Case;
use super::refusal::Refusal;
use crate::evidence;
use crate::incidents::Draft;
use crate::session::Session;

/// The incident of a file that was moved, or was not.
pub(super) fn draft(case: &Case, moved: Result<&Moved, &Refusal>) -> Draft {
    let file = file(case, moved.ok());
    let what = format!("{} of container {}", file.path, case.session.container.id);
    let rule = &case.finding.rule;
    let (name, severity, action, output) = match moved {
        Ok(Moved { item, remains: None }) => {
            let links = match item.links {
                0 | 1 => String::new(),
                names => format!(
                    "; it had {} more names (hard links), which are denied as before",
                    names - 1
                ),
            };
            let output = format!(
                "quarantine: {what} is item {} now: known bad ({rule}){links}",
                item.id
            );
            (rule.clone(), case.finding.severity, Action::Quarantine, output)
        }
        Ok(Moved {
            item,
            remains: Some(why),
        }) => {
            let output = format!(
                "deny: {what} is kept as item {} and was not removed: {why}",
                item.id
            );
            (NOT_QUARANTINED.into(), Severity::Error, Action::Deny, output)
        }
        Err(why) => {
            let output = format!("deny: {what} was not quarantined: {why}");
            (NOT_QUARANTINED.into(), Severity::Error, Action::Deny, output)
        }
    };
    Draft {
        tags: vec!["file".into(), "malware".into(), "quarantine".into()],
        signature_set: Some(Arc::clone(&case.set)),
        container: Some(Arc::clone(&case.session.container)),
        file: Some(file),
        item: moved.ok().map(|moved| moved.item.id),
        engine: Some(case.finding.engine),
        ..Draft::new(name, severity, action, output)
    }
}

/// The image's version of a file that is where an item was.
pub(super) struct Put<'a> {
    pub(super) item: &'a Item,
    /// Of the image's version, as is what follows.
    pub(super) digest: Sha256,
    /// Bytes.
    pub(super) size: u64,
    /// By which it is clean.
    pub(super) set: Arc<str>,
    /// Who had it put there.
    pub(super) by: &'a str,
}

impl Put<'_> {
    pub(super) fn draft(self, session: &Session) -> Draft {
        let (path, path_escaped) = evidence::escape(self.item.path());
        let output = format!(
            "allow: {path} of container {} is as in its image again, by {}; what was there stays item {}",
            session.container.id, self.by, self.item.id
        );
        Draft {
            tags: vec!["file".into(), "quarantine".into()],
            signature_set: Some(self.set),
            container: Some(Arc::clone(&session.container)),
            file: Some(FileFields {
                path,
                path_escaped,
                host_path: None,
                sha256: Some(self.digest),
                size: self.size,
            }),
            item: Some(self.item.id),
            ..Draft::new(ORIGINAL_RESTORED, Severity::Notice, Action::Allow, output)
        }
    }
}

/// The incident's `rule` when a container has a file of its image again.
const ORIGINAL_RESTORED: &str = "Original restored";

/// The incident's `rule` when a file stayed where it was.
const NOT_QUARANTINED: &str = "Not quarantined";

fn file(case: &Case, moved: Option<&Moved>) -> FileFields {
    let (path, path_escaped) = match moved {
        Some(moved) => evidence::escape(moved.item.path()),
        None => evidence::shown_path(case.file.as_fd()),
    };
    let size = rustix::fs::fstat(&case.file).map_or(0, |stat| stat.st_size.cast_unsigned());
    FileFields {
        path,
        path_escaped,
        host_path: None,
        sha256: Some(case.digest),
        size,
    }
}
