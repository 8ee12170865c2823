//! Lists of TLSH digests: what is similar to something known to be bad.
//!
//! A digest of a file's trigrams whose distance to another says how much of it was changed
//! (<https://tlsh.org>). Lists are the `*.tlsh` files of a folder.

mod line;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lazaret_api::scan::v1::Problem;
use lazaret_types::Severity;
use sha2::{Digest, Sha256};
use tlsh::{FuzzyHashType, GeneratorType, Tlsh, TlshGenerator};

pub use line::{BadLine, Entry, parse};

/// Entries, all lists together: each is compared with each content, in some 30 ns.
const MAX_ENTRIES: usize = 20_000;

/// Bytes of all lists together, at most.
const MAX_BYTES: u64 = 16 << 20;

/// Problems that are told; the rest is not.
const MAX_PROBLEMS: usize = 100;

/// Larger contents, in bytes, have no digest: making it takes 10 ms for each MiB.
const MAX_CONTENT: usize = 16 << 20;

/// What was loaded.
#[derive(Debug, Default)]
pub struct Similar {
    entries: Vec<Entry>,
    /// What is wrong with which list.
    pub problems: Vec<Problem>,
    /// The lists as they were read.
    text: Vec<u8>,
}

/// An entry that a content is similar to.
#[derive(Debug, Clone, Copy)]
pub struct Match<'a> {
    /// How far it is; 0 for what is nearly the same.
    pub distance: u32,
    /// The nearest of the most severe.
    pub entry: &'a Entry,
}

impl Similar {
    /// Reads the lists of a folder, in the order of their names. One that is absent has none.
    ///
    /// # Errors
    /// When a list cannot be read, or there is more than the limits. A bad line is a problem.
    pub fn load(folder: &Path) -> Result<Self> {
        let mut similar = Self::default();
        for path in lists(folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let (before, left) = (
                similar.text.len(),
                MAX_BYTES.saturating_sub(similar.text.len() as u64),
            );
            File::open(&path)
                .and_then(|file| file.take(left).read_to_end(&mut similar.text))
                .with_context(|| format!("cannot read {}", path.display()))?;
            let text = similar.text.get(before..).unwrap_or_default().to_owned();
            similar.add(&path.to_string_lossy(), &String::from_utf8_lossy(&text));
        }
        Ok(similar)
    }

    /// The version of rules together with these lists.
    #[must_use]
    pub fn version(&self, rules: &str) -> String {
        if self.text.is_empty() {
            return rules.to_owned();
        }
        let digest = Sha256::digest(&self.text);
        let digest: String = digest.iter().take(3).map(|byte| format!("{byte:02x}")).collect();
        format!("{rules}.{digest}")
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is similar to anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The worst that a content is similar to. What is short, uniform or very large is not.
    #[must_use]
    pub fn find(&self, content: &[u8]) -> Option<Match<'_>> {
        if self.entries.is_empty() || content.len() > MAX_CONTENT {
            return None;
        }
        let mut generator = TlshGenerator::new();
        generator.update(content);
        self.nearest(&generator.finalize().ok()?)
    }

    fn nearest(&self, digest: &Tlsh) -> Option<Match<'_>> {
        let matches = self.entries.iter().filter_map(|entry| {
            let distance = entry.digest.compare(digest);
            (distance <= entry.max_distance).then_some(Match { distance, entry })
        });
        matches.max_by_key(|found| (found.entry.severity, std::cmp::Reverse(found.distance)))
    }

    fn add(&mut self, file: &str, text: &str) {
        for (line, number) in text.lines().zip(1_u32..) {
            let (column, message) = match parse(line) {
                Ok(None) => continue,
                Ok(Some(entry)) if self.entries.len() < MAX_ENTRIES => {
                    self.entries.push(entry);
                    continue;
                }
                Ok(Some(_)) => (
                    1,
                    format!("more than {MAX_ENTRIES} TLSH digests; the rest is not read"),
                ),
                Err(BadLine { column, reason }) => (column, reason),
            };
            if self.problems.len() >= MAX_PROBLEMS {
                return;
            }
            self.problems.push(Problem {
                file: file.to_owned(),
                line: number,
                column: u32::try_from(column).unwrap_or(u32::MAX),
                message,
                warning: false,
            });
        }
    }
}

/// The `*.tlsh` files of a folder.
fn lists(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        // A FIFO would hold the daemon's start; a link leads to a file in ConfigMaps.
        let is_list = path.extension().is_some_and(|extension| extension == "tlsh");
        if is_list && fs::metadata(&path).is_ok_and(|metadata| metadata.is_file()) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// A severity by its name.
pub(crate) fn severity(text: &str) -> Option<Severity> {
    [
        Severity::Notice,
        Severity::Warning,
        Severity::Error,
        Severity::Critical,
    ]
    .into_iter()
    .find(|severity| severity.to_string().eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text that no two numbers share.
    fn text(seed: u64, words: usize) -> Vec<u8> {
        let mut state = seed;
        let mut text = Vec::new();
        for _ in 0..words {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            text.extend(format!("{:x} ", state >> 40).bytes());
        }
        text
    }

    fn digest(content: &[u8]) -> String {
        let mut generator = TlshGenerator::new();
        generator.update(content);
        generator.finalize().unwrap().to_string()
    }

    fn similar(lists: &str) -> Similar {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.tlsh"), lists).unwrap();
        fs::write(folder.path().join("a.txt"), "!").unwrap();
        Similar::load(folder.path()).unwrap()
    }

    #[test]
    fn finds_what_was_changed_a_little_and_nothing_else() {
        let known = text(1, 2_000);
        let similar = similar(&format!(
            "{} severity=error distance=40 Dropper\n",
            digest(&known)
        ));
        let mut changed = known.clone();
        changed.splice(100..140, *b"another word");
        let found = similar.find(&changed).unwrap();
        assert_eq!(
            (found.entry.name.as_str(), found.entry.severity),
            ("Dropper", Severity::Error)
        );
        assert!(found.distance <= 40, "{}", found.distance);
        assert!(similar.find(&text(2, 2_000)).is_none());
        assert_eq!(similar.find(&known).unwrap().distance, 0);
    }

    #[test]
    fn what_has_no_digest_is_similar_to_nothing() {
        let similar = similar(&format!("{} distance=999\n", digest(&text(1, 2_000))));
        assert!(similar.find(b"").is_none());
        assert!(similar.find(&[0; 100_000]).is_none());
    }

    #[test]
    fn the_most_severe_of_the_near_ones_counts() {
        let (known, digest) = (text(1, 2_000), digest(&text(1, 2_000)));
        let similar = similar(&format!(
            "{digest} severity=notice A\n{digest} severity=critical B\n{digest} C\n"
        ));
        assert_eq!(similar.find(&known).unwrap().entry.name, "B");
    }

    #[test]
    fn a_bad_line_is_told_and_the_rest_works() {
        let similar = similar(&format!("# a list\n\nT1beef\n{}\n", digest(&text(1, 2_000))));
        assert_eq!(similar.len(), 1);
        let [problem] = similar.problems.as_slice() else {
            panic!("{:?}", similar.problems)
        };
        assert_eq!((problem.line, problem.column), (3, 1));
        assert!(Similar::load(Path::new("/nonexistent")).unwrap().is_empty());
    }

    #[test]
    fn thousands_of_entries_cost_little() {
        use std::time::{Duration, Instant};
        let some: String = (1..50).map(|seed| digest(&text(seed, 100)) + "\n").collect();
        let lists = some.repeat(205);
        let (similar, content) = (similar(&lists), text(0, 2_000));
        assert!(similar.len() > 10_000);
        let start = Instant::now();
        let _nothing = similar.find(&content).is_none();
        let took = start.elapsed();
        println!("{} bytes against 10,000 entries: {took:?}", content.len());
        // Without optimisation; with it, 2 ms.
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
}
