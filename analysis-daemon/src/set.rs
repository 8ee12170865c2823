//! The version of all that judges: hash lists and rules.

use std::sync::{Arc, PoisonError, RwLock};

use crate::signatures::Signatures;
use crate::workers::{Rules, Workers};

/// Names what judges now. Every judgement asks, so the name is made once for each set.
#[derive(Debug)]
pub(crate) struct Set {
    signatures: Arc<Signatures>,
    workers: Arc<Workers>,
    named: Named,
}

#[derive(Debug, Default)]
struct Named(RwLock<Option<Last>>);

/// The name that was made last, and of what.
#[derive(Debug)]
struct Last {
    hashes: Arc<str>,
    rules: Arc<Rules>,
    name: Arc<str>,
}

impl Set {
    pub(crate) fn new(signatures: Arc<Signatures>, workers: Arc<Workers>) -> Self {
        Self {
            signatures,
            workers,
            named: Named::default(),
        }
    }

    /// Another one whenever a list or a rule changes.
    pub(crate) fn version(&self) -> Arc<str> {
        self.named
            .of(self.signatures.current().version(), self.workers.rules())
    }
}

impl Named {
    fn of(&self, hashes: Arc<str>, rules: Arc<Rules>) -> Arc<str> {
        // Both are held there, so that nothing else can lie where they lie.
        let same = |last: &&Last| Arc::ptr_eq(&last.hashes, &hashes) && Arc::ptr_eq(&last.rules, &rules);
        let last = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = last.as_ref().filter(same) {
            return Arc::clone(&last.name);
        }
        drop(last);
        let name: Arc<str> = format!("{hashes}-{}", rules.version).into();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Last {
            hashes,
            rules,
            name: Arc::clone(&name),
        });
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_once_for_each_set() {
        let rules = |version: &str| {
            Arc::new(Rules {
                version: version.into(),
                ..Rules::default()
            })
        };
        let (named, hashes) = (Named::default(), Arc::<str>::from("a"));
        let (old, new) = (rules("1"), rules("2"));
        let first = named.of(Arc::clone(&hashes), Arc::clone(&old));
        assert_eq!(&*first, "a-1");
        assert!(Arc::ptr_eq(
            &first,
            &named.of(Arc::clone(&hashes), Arc::clone(&old))
        ));
        assert_eq!(&*named.of(Arc::clone(&hashes), new), "a-2");
        assert_eq!(&*named.of("b".into(), Arc::clone(&old)), "b-1");
        // Read once more, and nothing has changed.
        assert_eq!(named.of(hashes, old), first);
    }
}
