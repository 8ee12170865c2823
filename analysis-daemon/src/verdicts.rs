//! What is known of contents, for as long as the same signatures judge.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lazaret_types::{Sha256, UnjudgedReason};
use lru::LruCache;

use crate::judge::Verdict;

/// What came out for a content, and would again.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Known {
    Verdict(Verdict),
    /// It is over a limit of unpacking: it has no verdict, however often it is unpacked.
    Limit(UnjudgedReason),
}

impl Known {
    /// None of a limit that is met or not by how busy the machine is.
    pub(crate) fn limit(reason: UnjudgedReason) -> Option<Self> {
        match reason {
            UnjudgedReason::UnpackDepth
            | UnjudgedReason::UnpackMembers
            | UnjudgedReason::UnpackSize
            | UnjudgedReason::UnpackRatio => Some(Self::Limit(reason)),
            // One of an engine's own may be one of time.
            UnjudgedReason::EngineLimit
            | UnjudgedReason::UnpackTime
            | UnjudgedReason::TooLarge
            | UnjudgedReason::Timeout
            | UnjudgedReason::ReadError
            | UnjudgedReason::Changing
            | UnjudgedReason::EngineFailed => None,
        }
    }
}

/// By content, for one signature set; what was asked for longest ago is forgotten first.
#[derive(Debug)]
pub(crate) struct Verdicts(Mutex<Cache>);

#[derive(Debug)]
struct Cache {
    set: String,
    known: LruCache<Sha256, Known>,
}

impl Verdicts {
    pub(crate) fn new(entries: NonZeroUsize) -> Self {
        Self(Mutex::new(Cache {
            set: String::new(),
            known: LruCache::new(entries),
        }))
    }

    /// What this set said of a content. Forgets what another one said.
    pub(crate) fn get(&self, digest: &Sha256, set: &str) -> Option<Known> {
        let mut cache = self.cache();
        if cache.set != set {
            set.clone_into(&mut cache.set);
            cache.known.clear();
        }
        cache.known.get(digest).cloned()
    }

    /// Keeps what this set said, if it was asked last.
    pub(crate) fn put(&self, digest: Sha256, known: Known, set: &str) {
        let mut cache = self.cache();
        if cache.set == set {
            cache.known.put(digest, known);
        }
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_one_set_said_and_no_more_than_fits() {
        let verdicts = Verdicts::new(NonZeroUsize::new(2).unwrap());
        let digest = |byte| Sha256::new([byte; 32]);
        let clean = Known::Verdict(Verdict::Clean);
        let limit = Known::limit(UnjudgedReason::UnpackRatio).unwrap();
        assert_eq!(verdicts.get(&digest(1), "a"), None);
        verdicts.put(digest(1), clean.clone(), "a");
        verdicts.put(digest(2), limit.clone(), "a");
        assert_eq!(verdicts.get(&digest(1), "a"), Some(clean.clone()));
        verdicts.put(digest(3), clean.clone(), "a");
        assert_eq!(verdicts.get(&digest(2), "a"), None, "asked for longest ago");
        // Judged by a set that is no longer the one.
        verdicts.put(digest(4), clean, "b");
        assert_eq!(verdicts.get(&digest(4), "a"), None);
        verdicts.put(digest(4), limit.clone(), "a");
        assert_eq!(verdicts.get(&digest(4), "a"), Some(limit));
        assert_eq!(verdicts.get(&digest(4), "b"), None);
        assert_eq!(verdicts.get(&digest(1), "a"), None, "another set was asked");
    }

    #[test]
    fn what_depends_on_time_is_not_known() {
        assert_eq!(Known::limit(UnjudgedReason::UnpackTime), None);
        assert_eq!(Known::limit(UnjudgedReason::Timeout), None);
        assert_eq!(Known::limit(UnjudgedReason::EngineLimit), None);
    }
}
