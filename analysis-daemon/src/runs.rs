//! Who is about to run what.
//!
//! An execution asks twice: as one that runs the file, and at once again as one that opens it
//! (`fsnotify_open_perm()`, include/linux/fsnotify.h). Whoever answers the second question must
//! know that it is not an open like any other: the file may not be one that somebody writes to.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

/// More than a container has processes, as a rule.
const MAX: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();

/// The second question comes as soon as the process wakes up.
const AT_ONCE: Duration = Duration::from_secs(10);

/// A process, and an inode as it sees it.
type Run = (i32, InodeNumber);

/// `st_dev` and `st_ino`.
pub(crate) type InodeNumber = (u64, u64);

/// The executions of one container that were allowed a moment ago.
#[derive(Debug)]
pub(crate) struct Runs(Mutex<LruCache<Run, Instant>>);

impl Default for Runs {
    fn default() -> Self {
        // Grows as it is filled.
        let mut runs = LruCache::unbounded();
        runs.resize(MAX);
        Self(Mutex::new(runs))
    }
}

impl Runs {
    /// Before the first question is answered with yes.
    pub(crate) fn begin(&self, pid: i32, inode: InodeNumber) {
        let mut runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        runs.put((pid, inode), Instant::now());
    }

    /// Whether this is the second question.
    pub(crate) fn has(&self, pid: i32, inode: InodeNumber) -> bool {
        let runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        runs.peek(&(pid, inode))
            .is_some_and(|since| since.elapsed() < AT_ONCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_second_question_of_the_same_process_for_the_same_file() {
        let runs = Runs::default();
        runs.begin(7, (1, 2));
        assert!(runs.has(7, (1, 2)));
        assert!(!runs.has(8, (1, 2)));
        assert!(!runs.has(7, (1, 3)));
    }

    #[test]
    fn is_bounded() {
        let runs = Runs::default();
        (0..20_000).for_each(|pid| runs.begin(pid, (1, 1)));
        assert_eq!(runs.0.lock().unwrap().len(), MAX.get());
    }
}
