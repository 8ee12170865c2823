//! What is scanned.

use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use lazaret_tests::malware::Malware;

/// Where programs and libraries are.
const PROGRAMS: [&str; 2] = ["/usr/bin", "/usr/lib"];

/// Larger files are left out, in bytes: a few of them would be most of the tree.
const LARGEST: u64 = 16 << 20;

/// Small files of a folder.
const IN_FOLDER: u32 = 200;

/// Sizes of small files, in bytes: most sources and settings are within.
const SMALL: Range<u64> = 256..8192;

/// What small files are made of: words that rules look for too, in no order that means anything.
const WORDS: &[&str] = &[
    "function ",
    "return ",
    "import ",
    "os",
    ".",
    "(",
    ")",
    ";\n",
    "if ",
    "else ",
    "$",
    "eval",
    "require",
    " = ",
    "\"",
    "/bin/sh",
    "socket",
    "exec",
    "http://",
    "<?php ",
    "class ",
    "0x41",
    "while ",
    "// ",
    "\n",
    "base64",
    "self",
    "name",
    "value",
    "{\n",
    "}\n",
    "4096",
    "password",
    "request",
    "the ",
    "of ",
    "and ",
];

/// A tree of regular files without links, one of which is bad.
pub(super) struct Tree {
    pub(super) name: &'static str,
    pub(super) root: PathBuf,
    pub(super) files: Vec<PathBuf>,
    /// One of the files.
    pub(super) bad: PathBuf,
    bytes: u64,
    /// What a rate counts.
    pub(super) unit: Unit,
}

/// What takes the time: the bytes of large files, and small files by their number.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unit {
    Bytes,
    Files,
}

impl Tree {
    /// Copies of this machine's programs and libraries, evenly drawn, of at most `size` bytes.
    pub(super) fn of_programs(root: &Path, size: u64) -> Result<Self> {
        let mut found = Vec::new();
        for folder in PROGRAMS {
            collect(Path::new(folder), &mut found)?;
        }
        found.sort();
        let all: u64 = found.iter().map(|(_, length)| length).sum();
        let each = usize::try_from(all.div_ceil(size.max(1)).max(1))?;
        let (mut files, mut left) = (Vec::new(), size);
        for (path, length) in found.iter().step_by(each) {
            if let Some(rest) = left.checked_sub(*length) {
                left = rest;
                files.push(copy(path, root)?);
            }
        }
        Self::new("programs", root, files, Unit::Bytes)
    }

    /// Made of words, the same ones each time.
    pub(super) fn of_small_files(root: &Path, count: u32) -> Result<Self> {
        let (mut random, mut files) = (Random(1), Vec::new());
        for number in 0..count {
            let folder = root.join((number / IN_FOLDER).to_string());
            fs::create_dir_all(&folder)?;
            let file = folder.join(number.to_string());
            fs::write(&file, random.text())?;
            files.push(file);
        }
        Self::new("small files", root, files, Unit::Files)
    }

    /// The bad file alone.
    pub(super) fn of_one_file(root: &Path) -> Result<Self> {
        Self::new("one file", root, Vec::new(), Unit::Files)
    }

    fn new(name: &'static str, root: &Path, mut files: Vec<PathBuf>, unit: Unit) -> Result<Self> {
        fs::create_dir_all(root)?;
        let bad = root.join("bad");
        fs::write(&bad, Malware::eicar().content)?;
        files.push(bad.clone());
        let sizes = files.iter().map(|file| Ok(fs::metadata(file)?.len()));
        Ok(Self {
            name,
            root: root.to_owned(),
            bytes: sizes.sum::<Result<u64>>()?,
            files,
            bad,
            unit,
        })
    }

    /// How much of it is scanned in a second when all of it takes so long.
    pub(super) fn rate(&self, took: Duration) -> f64 {
        let amount = match self.unit {
            Unit::Bytes => self.mib(),
            Unit::Files => self.files.len() as f64,
        };
        amount / took.as_secs_f64()
    }

    fn mib(&self) -> f64 {
        self.bytes as f64 / (1 << 20) as f64
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} files, {:.1} MiB",
            self.name,
            self.files.len(),
            self.mib()
        )
    }
}

impl Unit {
    pub(super) fn of_rate(self) -> &'static str {
        match self {
            Self::Bytes => "MiB/s",
            Self::Files => "files/s",
        }
    }
}

/// Regular files below a folder that are not too large, with their sizes; links are not followed.
fn collect(folder: &Path, found: &mut Vec<(PathBuf, u64)>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect(&entry.path(), found)?;
        } else if kind.is_file() {
            let length = entry.metadata()?.len();
            if length <= LARGEST {
                found.push((entry.path(), length));
            }
        }
    }
    Ok(())
}

/// Copies the content, and no mode that would keep anybody from reading it.
fn copy(path: &Path, root: &Path) -> Result<PathBuf> {
    let copy = root.join(path.strip_prefix("/")?);
    fs::create_dir_all(copy.parent().context("a file lies in a folder")?)?;
    let content = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    fs::write(&copy, content)?;
    Ok(copy)
}

/// A xorshift generator: chance that is the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn text(&mut self) -> String {
        let size = SMALL.start + self.below(SMALL.end - SMALL.start);
        let mut text = String::new();
        while (text.len() as u64) < size {
            let word = usize::try_from(self.below(WORDS.len() as u64)).unwrap_or_default();
            text.push_str(WORDS.get(word).copied().unwrap_or_default());
        }
        text
    }
}
