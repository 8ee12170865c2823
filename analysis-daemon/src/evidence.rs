//! What an incident says of an opener: gathered while it waits, so that its
//! process is still there to be asked.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lazaret_sys::{fd_path, mounts, pidfd};
use lazaret_types::{Access, Action, FileFields, Layers, ProcessFields, Severity};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::incidents::Draft;
use crate::judge::{Outcome, Verdict};
use crate::session::{Opening, Session};

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
        (Outcome::Judged { .. }, Access::Open) => &["file", "malware", "mitre_command_and_control", "T1105"],
    };
    tags.iter().map(|tag| (*tag).to_owned()).collect()
}

/// Adds where the host has the file. This opens folders of the host, so it comes
/// after the answer.
pub(crate) fn with_layer(mut draft: Draft, opening: &Opening) -> Draft {
    let session = opening.session();
    let path = fs::read_link(fd_path(&opening.event.file)).ok();
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
    let path = fs::read_link(fd_path(file)).unwrap_or_default();
    let (path, path_escaped) = escape(&path);
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

/// The path of an open file, as its container sees it.
pub(crate) fn path_of(file: BorrowedFd<'_>) -> io::Result<PathBuf> {
    fs::read_link(fd_path(file))
}

/// Where a file of the rootfs lies in the overlay's layers.
pub(crate) fn host_path(session: &Session, file: BorrowedFd<'_>, path: &Path) -> Option<PathBuf> {
    let on_rootfs = mounts::id_of(file).ok()? == mounts::id_of(session.root.as_fd()).ok()?;
    let relative = path.strip_prefix("/").ok().filter(|_| on_rootfs)?;
    let Layers { upper, lower } = &session.container.layers;
    for layer in upper.iter().chain(lower) {
        match kind_in(layer, relative) {
            Ok(kind) if kind.is_file() => return Some(layer.join(relative)),
            // A whiteout: the layers below do not show.
            Ok(_) => return None,
            Err(_) => {}
        }
    }
    None
}

/// Looks a path up in a layer without following any link out of it.
fn kind_in(layer: &Path, relative: &Path) -> io::Result<rustix::fs::FileType> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let layer = rustix::fs::open(layer, flags | OFlags::DIRECTORY, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let file = rustix::fs::openat2(layer, relative, flags | OFlags::NOFOLLOW, Mode::empty(), resolve)?;
    Ok(rustix::fs::FileType::from_raw_mode(
        rustix::fs::fstat(file)?.st_mode,
    ))
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

    #[test]
    fn a_link_does_not_lead_out_of_a_layer() {
        let layer = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", layer.path().join("etc")).unwrap();
        fs::write(layer.path().join("file"), "").unwrap();
        assert!(kind_in(layer.path(), Path::new("file")).unwrap().is_file());
        assert!(kind_in(layer.path(), Path::new("etc/passwd")).is_err());
        assert!(kind_in(layer.path(), Path::new("../../etc/passwd")).is_err());
    }
}
