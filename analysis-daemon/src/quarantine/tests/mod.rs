#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed test is a panic"
)]

mod crash;
mod custody;
mod race;

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use lazaret_types::{ContainerFields, Engine, Finding, Severity, Sha256};
use sha2::Digest;
use tempfile::TempDir;

use super::custody::{Custody, Moved, Suspect};
use super::original::Original;
use super::refusal::Refusal;
use super::store::Bounds;
use crate::allow::{AllowList, Allowed};

const BAD: &[u8] = b"#!/bin/sh\necho bad\n";

const ROOMY: Bounds = Bounds {
    size: 64 << 20,
    items: 100,
};

/// A folder that stands for a container's root, one that stands for the host's
/// files beside it, and a store.
struct Bench {
    folder: TempDir,
    custody: Custody,
}

impl Bench {
    fn new() -> Self {
        Self::with(ROOMY)
    }

    fn with(bounds: Bounds) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("root/opt")).unwrap();
        fs::create_dir(folder.path().join("outside")).unwrap();
        let custody = Custody::open(&folder.path().join("quarantine"), bounds).unwrap();
        Self { folder, custody }
    }

    fn host(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Where the host has a path of the container.
    fn inside(&self, path: &str) -> PathBuf {
        self.folder.path().join("root").join(path.trim_start_matches('/'))
    }

    fn drop_bad(&self, path: &str) -> File {
        fs::write(self.inside(path), BAD).unwrap();
        File::open(self.inside(path)).unwrap()
    }

    /// Takes `file`, which was judged at `path` to be `content`.
    fn take(&self, file: &File, path: impl AsRef<Path>, content: &[u8]) -> Result<Option<Moved>, Refusal> {
        take(&self.custody, self.folder.path(), file, path.as_ref(), content)
    }

    fn allow(&self) -> AllowList {
        AllowList::open(self.host("allow")).unwrap()
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let names = fs::read_dir(self.host(folder)).unwrap();
        let mut names: Vec<_> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn root(folder: &Path) -> File {
    File::open(folder.join("root")).unwrap()
}

fn sha256(content: &[u8]) -> Sha256 {
    Sha256::new(sha2::Sha256::digest(content).into())
}

fn take(
    custody: &Custody,
    folder: &Path,
    file: &File,
    path: &Path,
    content: &[u8],
) -> Result<Option<Moved>, Refusal> {
    let root = root(folder);
    let suspect = Suspect {
        root: root.as_fd(),
        file: file.as_fd(),
        path: path.to_owned(),
        host_path: None,
        sha256: sha256(content),
        finding: Finding {
            severity: Severity::Critical,
            rule: "Test.Bad".into(),
            engine: Engine::HashList,
        },
        container: ContainerFields {
            id: "web".into(),
            namespace: "default".into(),
            image: None,
            pod: None,
        },
        by: "a test".into(),
        time: "2026-01-01T00:00:00.000000Z".into(),
    };
    custody.take(suspect, &|| false)
}

/// What the image has where [`BAD`] was.
const GOOD: &[u8] = b"#!/bin/sh\necho good\n";

/// The image's version, in a file of the host.
fn original(folder: &Path) -> Original {
    let path = folder.join("outside/original");
    fs::write(&path, GOOD).unwrap();
    Original::of(&File::open(path).unwrap().into()).unwrap()
}

fn allowed() -> Allowed {
    Allowed::new(sha256(BAD), "a test".into(), "uid 0".into(), None)
}
