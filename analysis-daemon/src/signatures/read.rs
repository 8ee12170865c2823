//! Reads the files of a signature folder.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::SignaturesError;
use super::line;
use super::set::{Builder, MAX_SIGNATURES, SignatureSet};

const EXTENSION: &str = "sha256";

/// Largest list, in bytes: a full set with middling names.
const MAX_FILE: usize = 128 << 20;

/// Lists in one folder.
const MAX_FILES: usize = 1_000;

/// Reads all lists of a folder, in the order of their names.
///
/// # Errors
/// When the folder cannot be listed. Whatever is wrong with a file in it is a
/// problem of the set.
pub(super) fn folder(folder: &Path) -> Result<SignatureSet, SignaturesError> {
    let mut files = list(folder).map_err(|source| SignaturesError::Io {
        what: "list",
        path: folder.to_owned(),
        source,
    })?;
    let mut set = Builder::default();
    if files.len() > MAX_FILES {
        set.problem(format!(
            "{}: only the first {MAX_FILES} lists are read",
            folder.display()
        ));
        files.truncate(MAX_FILES);
    }
    for path in files {
        match bytes(&path) {
            Ok(bytes) => list_of(&path, &bytes, &mut set),
            Err(error) => set.problem(format!("{}: {error}", path.display())),
        }
    }
    Ok(set.build())
}

/// The content of a list. Anything but a regular file of a bounded size is an error.
pub(super) fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    // Not even a FIFO that somebody left here makes the daemon wait.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    check_size(usize::try_from(metadata.len()).unwrap_or(usize::MAX))?;
    read_at_most(file)
}

/// Refuses what would not be read back.
pub(super) fn check_size(size: usize) -> io::Result<()> {
    if size > MAX_FILE {
        let reason = format!("a list has at most {MAX_FILE} bytes, this one {size}");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    Ok(())
}

fn read_at_most(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // It may grow while it is read.
    file.take(u64::try_from(MAX_FILE).unwrap_or(u64::MAX))
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == EXTENSION) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn list_of(path: &Path, bytes: &[u8], set: &mut Builder) {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    for (line, number) in bytes.split(|byte| *byte == b'\n').zip(1_u64..) {
        let place = |column| format!("{}: line {number}, column {column}", path.display());
        let text = match std::str::from_utf8(line) {
            Ok(text) => text,
            Err(error) => {
                set.problem(format!("{}: not UTF-8", place(error.valid_up_to() + 1)));
                continue;
            }
        };
        match line::parse(text) {
            Ok(None) => {}
            Ok(Some(_)) if set.is_full() => {
                set.problem(format!(
                    "{}: more than {MAX_SIGNATURES} signatures; the rest is not read",
                    place(1)
                ));
                return;
            }
            Ok(Some(signature)) => set.add(signature),
            Err(bad) => set.problem(format!("{}: {}", place(bad.column), bad.reason)),
        }
    }
}
