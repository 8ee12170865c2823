//! The incident of a bad file that a scan found.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lazaret_types::{Action, FileFields};

use super::record::Cause;
use super::{Found, Job, Target};
use crate::evidence::escape;
use crate::incidents::Draft;
use crate::session::Session;

/// Longest path that is told whole, in bytes: what a system call takes.
const MAX_PATH: usize = 4096;

/// It stays where it is: nobody opens it now, and when somebody does, the guard
/// judges again.
pub(super) fn incident(job: &Job, session: Option<&Arc<Session>>, found: &Found, set: &Arc<str>) -> Draft {
    let (path, path_escaped) = escape(&found.path);
    let why = match job.cause {
        Cause::Asked => "",
        Cause::NewSignatures => " by new signatures",
    };
    let output = format!(
        "{}: {path} found by a scan of {}{why}: known bad ({})",
        Action::Alert,
        job.target,
        found.rule
    );
    Draft {
        tags: ["file", "malware", "scan"].map(String::from).to_vec(),
        signature_set: Some(Arc::clone(set)),
        container: session.map(|session| Arc::clone(&session.container)),
        file: Some(FileFields {
            path,
            path_escaped,
            host_path: None,
            sha256: Some(found.sha256),
            size: found.size,
        }),
        ..Draft::new(found.rule.clone(), found.severity, Action::Alert, output)
    }
}

/// A path as whoever uses the target sees it. One that is longer than a system
/// call takes is cut in its middle.
pub(super) fn shown(target: &Target, path: &Path) -> PathBuf {
    let root = match target {
        Target::Path(root) => root,
        Target::Container { .. } | Target::Image(_) => Path::new("/"),
    };
    // Joined with nothing it would end in a slash.
    if path.as_os_str().is_empty() {
        shorten(root)
    } else {
        shorten(&root.join(path))
    }
}

fn shorten(path: &Path) -> PathBuf {
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() <= MAX_PATH {
        return path.to_owned();
    }
    let half = MAX_PATH / 2 - 2;
    let (head, tail) = (bytes.get(..half), bytes.get(bytes.len() - half..));
    let parts = [head.unwrap_or_default(), b"...", tail.unwrap_or_default()];
    OsString::from_vec(parts.concat()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_keeps_its_ends() {
        let path = PathBuf::from(format!("a{}z", "/long".repeat(2_000)));
        let short = shorten(&path);
        let bytes = short.as_os_str().as_bytes();
        assert!(bytes.len() <= MAX_PATH);
        assert!(bytes.starts_with(b"a/long") && bytes.ends_with(b"longz"));
        assert_eq!(shorten(Path::new("a/b")), Path::new("a/b"));
    }

    #[test]
    fn paths_are_those_of_the_target() {
        let path = |root: &str, path: &str| shown(&Target::Path(root.into()), Path::new(path));
        assert_eq!(path("/srv", "a/b"), Path::new("/srv/a/b"));
        assert_eq!(path("/srv/file", "").as_os_str(), "/srv/file");
    }
}
