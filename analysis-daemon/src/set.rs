//! The version of all that judges: hash lists, rules, and engines that are not a part of lazaret.

use std::sync::{Arc, PoisonError, RwLock};

use crate::engine::Engine;
use crate::signatures::Signatures;
use crate::workers::{Rules, Workers};

/// Names what judges now. Every judgement asks, so the name is made once for each set.
pub(crate) struct Set {
    signatures: Arc<Signatures>,
    workers: Arc<Workers>,
    others: Vec<Arc<dyn Engine>>,
    named: Named,
}

#[derive(Debug, Default)]
struct Named(RwLock<Option<Last>>);

/// The name that was made last, and of what.
#[derive(Debug)]
struct Last {
    parts: Parts,
    name: Arc<str>,
}

/// What a name is made of.
#[derive(Debug, Clone)]
struct Parts {
    hashes: Arc<str>,
    rules: Arc<Rules>,
    /// One of each engine that has one.
    others: Vec<Arc<str>>,
}

impl Set {
    pub(crate) fn new(
        signatures: Arc<Signatures>,
        workers: Arc<Workers>,
        others: Vec<Arc<dyn Engine>>,
    ) -> Self {
        Self {
            signatures,
            workers,
            others,
            named: Named::default(),
        }
    }

    /// Another one whenever a list, a rule, or what another engine judges by changes.
    pub(crate) fn version(&self) -> Arc<str> {
        self.named.of(Parts {
            hashes: self.signatures.current().version(),
            rules: self.workers.rules(),
            others: self.others.iter().filter_map(|engine| engine.set()).collect(),
        })
    }
}

impl Named {
    fn of(&self, parts: Parts) -> Arc<str> {
        let last = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = last.as_ref().filter(|last| last.parts.are(&parts)) {
            return Arc::clone(&last.name);
        }
        drop(last);
        let name = parts.name();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Last {
            parts,
            name: Arc::clone(&name),
        });
        name
    }
}

impl Parts {
    /// Whether they are the same ones: the first are held, so that nothing else can lie where they lie.
    fn are(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.hashes, &other.hashes)
            && Arc::ptr_eq(&self.rules, &other.rules)
            && self.others == other.others
    }

    fn name(&self) -> Arc<str> {
        let mut name = format!("{}-{}", self.hashes, self.rules.version);
        for other in &self.others {
            name.push('-');
            name.push_str(other);
        }
        name.into()
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
        let named = Named::default();
        let old = Parts {
            hashes: "a".into(),
            rules: rules("1"),
            others: vec!["x".into(), "y".into()],
        };
        let first = named.of(old.clone());
        assert_eq!(&*first, "a-1-x-y");
        assert!(Arc::ptr_eq(&first, &named.of(old.clone())));
        // An engine may have made its part anew, and it is the same.
        let again = Parts {
            others: vec!["x".into(), "y".into()],
            ..old.clone()
        };
        assert!(Arc::ptr_eq(&first, &named.of(again)));
        let named_of = |parts| named.of(parts).to_string();
        assert_eq!(
            named_of(Parts {
                rules: rules("2"),
                ..old.clone()
            }),
            "a-2-x-y"
        );
        assert_eq!(
            named_of(Parts {
                hashes: "b".into(),
                ..old.clone()
            }),
            "b-1-x-y"
        );
        assert_eq!(
            named_of(Parts {
                others: vec!["x".into(), "z".into()],
                ..old.clone()
            }),
            "a-1-x-z"
        );
        assert_eq!(
            named_of(Parts {
                others: Vec::new(),
                ..old.clone()
            }),
            "a-1"
        );
        // Read once more, and nothing has changed.
        assert_eq!(named.of(old), first);
    }
}
