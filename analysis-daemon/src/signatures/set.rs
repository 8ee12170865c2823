//! All signatures at one time, laid out for look-ups.

use std::collections::HashMap;
use std::sync::Arc;

use lazaret_types::{Engine, Finding, Severity, Sha256};
use sha2::Digest;

use super::line::Signature;

/// How many signatures are kept; 40 bytes each, plus each different name once.
pub(super) const MAX_SIGNATURES: usize = 1_000_000;

/// Problems that are kept word for word; all are counted.
const MAX_PROBLEMS: usize = 100;

/// An immutable set of signatures.
#[derive(Debug)]
pub(crate) struct SignatureSet {
    version: Arc<str>,
    /// Sorted by digest, each digest once.
    entries: Vec<Entry>,
    names: Vec<Box<str>>,
    problems: Vec<String>,
    problem_count: u64,
}

/// `name` is an index: lists of one family repeat one name a hundred thousand times.
#[derive(Debug, Clone, Copy)]
struct Entry {
    sha256: Sha256,
    name: u32,
    severity: Severity,
}

impl SignatureSet {
    /// Changes with the content and only with it: not with order, duplicates,
    /// comments or file names. 12 hexadecimal digits.
    pub(crate) fn version(&self) -> Arc<str> {
        Arc::clone(&self.version)
    }

    /// What the lists say of a content.
    pub(crate) fn lookup(&self, sha256: &Sha256) -> Option<Finding> {
        let at = self
            .entries
            .binary_search_by(|entry| entry.sha256.cmp(sha256))
            .ok()?;
        let signature = self.signature(self.entries.get(at)?);
        Some(Finding {
            severity: signature.severity,
            rule: signature.name,
            engine: Engine::HashList,
        })
    }

    /// All of them, ordered by digest.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Signature> {
        self.entries.iter().map(|entry| self.signature(entry))
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Lines and files that were skipped: the first ones, with file, line, column and reason.
    pub(crate) fn problems(&self) -> &[String] {
        &self.problems
    }

    /// How many lines and files were skipped.
    pub(crate) fn problem_count(&self) -> u64 {
        self.problem_count
    }

    fn signature(&self, entry: &Entry) -> Signature {
        let name = usize::try_from(entry.name).ok().and_then(|at| self.names.get(at));
        let name = name.map(ToString::to_string).unwrap_or_default();
        Signature {
            sha256: entry.sha256,
            name,
            severity: entry.severity,
        }
    }
}

/// Collects signatures until [`Builder::build`].
#[derive(Debug, Default)]
pub(super) struct Builder {
    entries: Vec<Entry>,
    names: HashMap<Box<str>, u32>,
    problems: Vec<String>,
    problem_count: u64,
}

impl Builder {
    /// Whether there is room for one more.
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= MAX_SIGNATURES
    }

    pub(super) fn add(&mut self, signature: Signature) {
        // As many names as entries at most, and these are far fewer than u32::MAX.
        let next = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        let name = *self.names.entry(signature.name.into_boxed_str()).or_insert(next);
        self.entries.push(Entry {
            sha256: signature.sha256,
            name,
            severity: signature.severity,
        });
    }

    pub(super) fn problem(&mut self, problem: String) {
        self.problem_count += 1;
        if self.problems.len() < MAX_PROBLEMS {
            tracing::warn!("signatures: {problem}");
            self.problems.push(problem);
        }
    }

    /// The set; of signatures with one digest the most severe counts, and of
    /// these the last one.
    pub(super) fn build(self) -> SignatureSet {
        let Self {
            mut entries,
            names,
            problems,
            problem_count,
        } = self;
        // Stable, so what was read last is last among equals; `dedup` keeps the first.
        entries.reverse();
        entries.sort_by(|a, b| a.sha256.cmp(&b.sha256).then(b.severity.cmp(&a.severity)));
        entries.dedup_by_key(|entry| entry.sha256);
        entries.shrink_to_fit();

        let mut by_index: Vec<_> = names.into_iter().collect();
        by_index.sort_by_key(|(_, index)| *index);
        let names = by_index.into_iter().map(|(name, _)| name).collect();

        let mut set = SignatureSet {
            version: Arc::from(""),
            entries,
            names,
            problems,
            problem_count,
        };
        set.version = version(&set);
        set
    }
}

fn version(set: &SignatureSet) -> Arc<str> {
    let mut hash = sha2::Sha256::new();
    for signature in set.iter() {
        hash.update(signature.sha256.as_bytes());
        // A severity holds no line end and neither does a name, so no two sets
        // give the same bytes.
        hash.update(format!("{} {}\n", signature.severity, signature.name));
    }
    let mut text = Sha256::new(hash.finalize().into()).to_string();
    text.truncate(12);
    Arc::from(text)
}
