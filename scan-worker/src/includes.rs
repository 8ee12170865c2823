//! Which files a rule file includes.
//!
//! Collections have index files, which include others, and files that include the private
//! rules that they build on. Both work as they are, as long as what is included lies in the
//! folders of the rules: the zygote still reads as root, and a message about a rule shows the
//! lines around it.

use std::fs;
use std::path::{Path, PathBuf};

/// Files that include each other, at most.
const DEEPEST: usize = 8;

/// How a rule file may be compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Includes {
    /// It includes nothing, or what it must not.
    Refused,
    /// It includes files of the folders.
    Allowed,
    /// It does nothing but that: they are read anyway.
    Index,
}

/// Says what a rule file includes. `folders` are canonical.
pub(crate) fn of(path: &Path, text: &str, folders: &[PathBuf]) -> Includes {
    let names: Vec<_> = text.lines().filter_map(included).collect();
    if names.is_empty() || !are_inside(path, text, folders, 0) {
        return Includes::Refused;
    }
    let is_idle = |line: &str| {
        let line = line.trim();
        line.is_empty()
            || line.starts_with("//")
            || line.starts_with("/*")
            || line.starts_with('*')
            || included(line).is_some()
    };
    if text.lines().all(is_idle) {
        Includes::Index
    } else {
        Includes::Allowed
    }
}

/// The file that a line includes, as it is written.
fn included(line: &str) -> Option<&str> {
    let rest = line
        .trim_start()
        .strip_prefix("include")?
        .trim_start()
        .strip_prefix('"')?;
    rest.split_once('"').map(|(name, _)| name)
}

fn are_inside(path: &Path, text: &str, folders: &[PathBuf], depth: usize) -> bool {
    let beside = path.parent().unwrap_or(Path::new("/"));
    depth < DEEPEST
        && text.lines().filter_map(included).all(|name| {
            let Ok(file) = beside.join(name).canonicalize() else {
                return false;
            };
            folders.iter().any(|folder| file.starts_with(folder))
                && fs::read(&file)
                    .is_ok_and(|text| are_inside(&file, &String::from_utf8_lossy(&text), folders, depth + 1))
        })
}
