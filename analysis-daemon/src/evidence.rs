//! What an incident says of an opener: gathered while it waits, so that its
//! process is still there to be asked.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lazaret_sys::{mounts, pidfd};
use lazaret_types::{Access, Action, FileFields, ProcessFields, Severity};

use crate::incidents::Draft;
use crate::judge::{Outcome, Verdict};
use crate::origin;
use crate::session::{Opening, Session};

/// What an incident is called that is about where a file comes from.
const DRIFT: &str = "Drift";

/// The incident of an opener whose answer is `action`.
pub(crate) fn of_opening(opening: &Opening, outcome: &Outcome, action: Action) -> Draft {
    let process = process(opening.event.pid, opening.event.pidfd.as_ref().map(AsFd::as_fd));
    let file = file(opening.event.file.as_fd(), outcome);
    draft(
        opening.session(),
        outcome,
        action,
        opening.access(),
        process,
        file,
    )
}

/// The incident of an opener that runs what its image does not have.
pub(crate) fn of_drift(opening: &Opening, outcome: &Outcome, action: Action) -> Draft {
    let draft = of_opening(opening, outcome, action);
    let severity = if action == Action::Deny {
        Severity::Error
    } else {
        Severity::Warning
    };
    let (path, container) = (
        draft.file.as_ref().map_or("", |file| &file.path),
        &opening.session().container.id,
    );
    let output = format!("{action}: exec of {path} in container {container}: it is not in the image");
    Draft {
        rule: DRIFT.into(),
        severity,
        // Ingress Tool Transfer.
        tags: ["file", "drift", "mitre_command_and_control", "T1105"]
            .map(str::to_owned)
            .to_vec(),
        output,
        engine: None,
        ..draft
    }
}

/// An incident about a file of a container.
pub(crate) fn draft(
    session: &Session,
    outcome: &Outcome,
    action: Action,
    access: Access,
    process: ProcessFields,
    file: FileFields,
) -> Draft {
    let (rule, severity, what) = match outcome {
        Outcome::Judged {
            verdict: Verdict::Bad(finding),
            ..
        } => (
            finding.rule.clone(),
            finding.severity,
            format!("known bad ({})", finding.rule),
        ),
        Outcome::Judged {
            verdict: Verdict::Clean,
            ..
        } => ("Clean".into(), Severity::Notice, "clean".into()),
        Outcome::Unjudged(reason) => ("Unjudged file".into(), Severity::Warning, reason.to_string()),
    };
    let who = process.comm.as_deref().unwrap_or("a process that is gone");
    let output = format!(
        "{action}: {access} of {} by {who} (pid {}) in container {}: {what}",
        file.path, process.pid, session.container.id
    );
    Draft {
        tags: tags(outcome, access),
        access: Some(access),
        engine: match outcome {
            Outcome::Judged {
                verdict: Verdict::Bad(finding),
                ..
            } => Some(finding.engine),
            _ => None,
        },
        signature_set: match outcome {
            Outcome::Judged { set, .. } => Some(Arc::clone(set)),
            Outcome::Unjudged(_) => None,
        },
        container: Some(Arc::clone(&session.container)),
        process: Some(process),
        file: Some(file),
        ..Draft::new(rule, severity, action, output)
    }
}

/// MITRE ATT&CK for Containers: T1204 is User Execution, T1105 Ingress Tool Transfer.
fn tags(outcome: &Outcome, access: Access) -> Vec<String> {
    let tags: &[&str] = match (outcome, access) {
        (Outcome::Unjudged(_), _) => &["file", "unjudged"],
        (Outcome::Judged { .. }, Access::Exec) => &["file", "malware", "mitre_execution", "T1204"],
        (Outcome::Judged { .. }, Access::Open | Access::Write) => {
            &["file", "malware", "mitre_command_and_control", "T1105"]
        }
    };
    tags.iter().map(|tag| (*tag).to_owned()).collect()
}

/// Adds where the host has the file. This opens folders of the host, so it comes
/// after the answer.
pub(crate) fn with_layer(mut draft: Draft, opening: &Opening) -> Draft {
    let session = opening.session();
    let path = origin::path_of(opening.event.file.as_fd()).ok();
    let host_path = path.and_then(|path| host_path(session, opening.event.file.as_fd(), &path));
    if let (Some(file), Some(host_path)) = (&mut draft.file, host_path) {
        file.host_path = Some(escape(&host_path).0);
    }
    draft
}

/// What `/proc` says of a process, as long as it certainly is the same one.
pub(crate) fn process(pid: i32, pidfd: Option<BorrowedFd<'_>>) -> ProcessFields {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok();
    let exe = fs::read_link(format!("/proc/{pid}/exe")).ok();
    let alive = pidfd.is_some_and(|pidfd| pidfd::has_exited(pidfd).is_ok_and(|exited| !exited));
    let gone = ProcessFields {
        pid,
        ..ProcessFields::default()
    };
    let (true, Some(status)) = (alive, status) else {
        return gone;
    };
    let line = |key: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .map(str::trim)
    };
    ProcessFields {
        pid,
        // "Uid:  real  effective  saved  filesystem"
        uid: line("Uid:").and_then(|uids| uids.split_whitespace().nth(1)?.parse().ok()),
        comm: line("Name:").map(str::to_owned),
        exe: exe.map(|exe| escape(&exe).0),
    }
}

/// What the descriptor says of a file.
pub(crate) fn file(file: BorrowedFd<'_>, outcome: &Outcome) -> FileFields {
    let (path, path_escaped) = shown_path(file);
    let size = rustix::fs::fstat(file).map_or(0, |stat| stat.st_size.cast_unsigned());
    let sha256 = match outcome {
        Outcome::Judged { digest, .. } => Some(*digest),
        Outcome::Unjudged(_) => None,
    };
    FileFields {
        path,
        path_escaped,
        host_path: None,
        sha256,
        size,
    }
}

/// Told instead of a path that is longer than the kernel tells. None that it tells begins so.
const TOO_LONG: &str = "(a path longer than 4095 bytes)";

/// The path of an open file for a person, and whether it had to be escaped.
pub(crate) fn shown_path(file: BorrowedFd<'_>) -> (String, bool) {
    match origin::path_of(file) {
        Ok(path) => escape(&path),
        Err(_too_long) => (TOO_LONG.into(), false),
    }
}

/// Where a file of the rootfs lies in the overlay's layers.
pub(crate) fn host_path(session: &Session, file: BorrowedFd<'_>, path: &Path) -> Option<PathBuf> {
    let on_rootfs = mounts::id_of(file).ok()? == mounts::id_of(session.root.as_fd()).ok()?;
    on_rootfs
        .then(|| origin::host_path(&session.container.layers, path))
        .flatten()
}

/// A path as text, and whether it had to be escaped: see `FileFields`.
pub(crate) fn escape(path: &Path) -> (String, bool) {
    match path.to_str() {
        Some(text) => (text.to_owned(), false),
        None => {
            let chunks = path.as_os_str().as_bytes().utf8_chunks();
            let text = chunks.fold(String::new(), |mut text, chunk| {
                text.push_str(&chunk.valid().replace('\\', "\\\\"));
                text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
                text
            });
            (text, true)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn paths_that_are_not_utf8_can_be_told_apart() {
        let path = |bytes| Path::new(OsStr::from_bytes(bytes));
        assert_eq!(escape(path(b"/a\\b")), ("/a\\b".into(), false));
        assert_eq!(escape(path(b"/a\\\xff!")), ("/a\\\\\\xff!".into(), true));
    }

    #[test]
    fn a_path_that_is_too_long_is_told_as_such() {
        use rustix::fs::{Mode, OFlags, mkdirat, openat};
        let folder = tempfile::tempdir().unwrap();
        let mut here: std::os::fd::OwnedFd = fs::File::open(folder.path()).unwrap().into();
        let name = "d".repeat(255);
        for _ in 0..16 {
            mkdirat(&here, &name, Mode::RWXU).unwrap();
            here = openat(&here, &name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        assert_eq!(shown_path(here.as_fd()), (TOO_LONG.into(), false));
    }

    #[test]
    fn knows_a_living_process_and_says_nothing_of_a_dead_one() {
        let own = std::process::id().cast_signed();
        let pidfd = pidfd::open(own).unwrap();
        let fields = process(own, Some(pidfd.as_fd()));
        assert_eq!(fields.uid, Some(rustix::process::geteuid().as_raw()));
        assert!(fields.exe.unwrap().contains("lazaretd"));
        assert_eq!(
            process(own, None),
            ProcessFields {
                pid: own,
                ..ProcessFields::default()
            }
        );
    }
}
