//! The files of the machine that the tests run on: benign by assumption.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, thread};

use yara_x::{Rules, Scanner};

use crate::{denied, judge};

/// What an ordinary machine has, programs first.
const FOLDERS: &str = "/usr/bin:/usr/sbin:/usr/share/perl:/usr/share/perl5:/usr/share/python3:\
                       /usr/share/php:/usr/share/doc:/usr/lib";
/// Files without a question, so that the test ends in a minute without optimisation, too.
const MAX_FILES: usize = 4000;
const MAX_FILES_OPTIMISED: usize = 60_000;
const MAX_SIZE: u64 = 32 << 20;

pub(crate) struct Report {
    pub(crate) files: usize,
    pub(crate) bytes: usize,
    pub(crate) denied: Vec<String>,
    pub(crate) lower: Vec<String>,
}

/// The regular files to scan, and whether there were more.
pub(crate) fn files() -> (Vec<PathBuf>, bool) {
    let given = env::var("LAZARET_BENIGN_DIRS");
    let most = match given {
        Ok(_) => usize::MAX,
        Err(_) if cfg!(debug_assertions) => MAX_FILES,
        Err(_) => MAX_FILES_OPTIMISED,
    };
    let folders = given.unwrap_or_else(|_| FOLDERS.to_owned());
    let mut todo: VecDeque<PathBuf> = folders.split(':').map(PathBuf::from).collect();
    let mut files = Vec::new();
    while let Some(path) = todo.pop_front() {
        let Ok(kind) = fs::symlink_metadata(&path) else {
            continue;
        };
        if kind.is_dir() {
            let Ok(entries) = fs::read_dir(&path) else {
                continue;
            };
            todo.extend(entries.flatten().map(|entry| entry.path()));
        } else if kind.is_file() && kind.len() > 0 && kind.len() <= MAX_SIZE {
            if files.len() == most {
                return (files, true);
            }
            files.push(path);
        }
    }
    (files, false)
}

/// Scans them all with a few threads.
pub(crate) fn scan(rules: &Rules, files: &[PathBuf]) -> Report {
    let next = AtomicUsize::new(0);
    let report = Mutex::new(Report {
        files: 0,
        bytes: 0,
        denied: Vec::new(),
        lower: Vec::new(),
    });
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from).min(4) {
            scope.spawn(|| {
                let mut scanner = Scanner::new(rules);
                while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let Ok(content) = fs::read(path) else { continue };
                    let found = judge(&mut scanner, &content);
                    let mut report = report.lock().expect("no scan panics");
                    report.files += 1;
                    report.bytes += content.len();
                    if !found.is_empty() {
                        let line = format!("{}: {found:?}", path.display());
                        let list = if denied(&found) {
                            &mut report.denied
                        } else {
                            &mut report.lower
                        };
                        list.push(line);
                    }
                }
            });
        }
    });
    report.into_inner().expect("no scan panics")
}
