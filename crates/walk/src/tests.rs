#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed test is a panic"
)]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::fs::{Mode, OFlags, mkdirat, openat};
use tempfile::TempDir;

use super::*;
use crate::level::Level;
use crate::look::Identity;

/// Remembers what it is shown.
#[derive(Default)]
struct Seen {
    files: Vec<(PathBuf, Vec<u8>)>,
    skipped: Vec<(PathBuf, String)>,
    /// Stops after this many files.
    stop_after: Option<usize>,
}

impl Visitor for Seen {
    fn file(&mut self, file: &Regular<'_>) -> ControlFlow<()> {
        let mut content = Vec::new();
        let mut open = File::from(file.file.try_clone_to_owned().unwrap());
        open.read_to_end(&mut content).unwrap();
        self.files.push((file.path.to_owned(), content));
        if self.stop_after == Some(self.files.len()) {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn skipped(&mut self, path: &Path, why: Skip) -> ControlFlow<()> {
        self.skipped.push((path.to_owned(), why.to_string()));
        ControlFlow::Continue(())
    }
}

impl Seen {
    fn paths(&self) -> Vec<&Path> {
        self.files.iter().map(|(path, _)| path.as_path()).collect()
    }
}

fn options() -> Options {
    Options {
        mounts: Mounts::Stay,
        after: None,
    }
}

fn see(root: &Path) -> Seen {
    let mut seen = Seen::default();
    let root = File::open(root).unwrap();
    assert_eq!(walk(root.as_fd(), &options(), &mut seen).unwrap(), Walked::All);
    seen
}

/// Files with their own path as content.
fn tree(paths: &[&str]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for path in paths {
        let full = root.path().join(path);
        fs::create_dir_all(full.parent().unwrap()).unwrap();
        fs::write(full, path).unwrap();
    }
    root
}

const TREE: [&str; 6] = ["a/x", "a/y/z", "a.b", "b", "c/d/e/f", "c/g"];

#[test]
fn shows_every_file_in_the_order_of_its_names() {
    let root = tree(&TREE);
    let seen = see(root.path());
    assert_eq!(seen.paths(), TREE.map(Path::new));
    assert!(
        seen.files
            .iter()
            .all(|(path, content)| path.as_os_str().as_bytes() == content)
    );
    assert!(seen.skipped.is_empty());
}

#[test]
fn goes_on_behind_any_file_also_when_that_has_vanished() {
    for gone in [false, true] {
        for (index, after) in TREE.iter().enumerate() {
            let root = tree(&TREE);
            if gone {
                fs::remove_file(root.path().join(after)).unwrap();
            }
            let options = Options {
                after: Some(after.into()),
                ..options()
            };
            let mut seen = Seen::default();
            walk(File::open(root.path()).unwrap().as_fd(), &options, &mut seen).unwrap();
            let rest: Vec<_> = TREE[index + 1..].iter().map(Path::new).collect();
            assert_eq!(seen.paths(), rest, "behind {after}");
        }
    }
}

#[test]
fn stops_when_told() {
    let root = tree(&TREE);
    let mut seen = Seen {
        stop_after: Some(2),
        ..Seen::default()
    };
    let walked = walk(File::open(root.path()).unwrap().as_fd(), &options(), &mut seen);
    assert_eq!(walked.unwrap(), Walked::Stopped);
    assert_eq!(seen.paths(), [Path::new("a/x"), Path::new("a/y/z")]);
}

#[test]
fn opens_nothing_that_is_not_a_file_and_follows_no_link() {
    let root = tree(&["file"]);
    let fifo = root.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, Mode::RWXU).unwrap();
    let _socket = UnixListener::bind(root.path().join("socket")).unwrap();
    symlink("loop", root.path().join("loop")).unwrap();
    symlink(".", root.path().join("self")).unwrap();
    symlink("/etc/passwd", root.path().join("out")).unwrap();
    symlink("..", root.path().join("up")).unwrap();
    let seen = see(root.path());
    assert_eq!(seen.paths(), [Path::new("file")]);
    assert!(seen.skipped.is_empty(), "{:?}", seen.skipped);
}

#[test]
fn a_file_is_a_tree_of_its_own_and_a_fifo_is_none() {
    let root = tree(&["file"]);
    let seen = see(&root.path().join("file"));
    assert_eq!(seen.files, [(PathBuf::new(), b"file".to_vec())]);
    let fifo = root.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, Mode::RWXU).unwrap();
    let fifo = rustix::fs::open(&fifo, OFlags::PATH, Mode::empty()).unwrap();
    assert!(walk(fifo.as_fd(), &options(), &mut Seen::default()).is_err());
}

#[test]
fn a_file_with_two_names_comes_once() {
    let root = tree(&["a/one", "z"]);
    fs::hard_link(root.path().join("a/one"), root.path().join("a/two")).unwrap();
    assert_eq!(see(root.path()).paths(), [Path::new("a/one"), Path::new("z")]);
}

#[test]
fn names_need_not_be_utf8() {
    let root = tempfile::tempdir().unwrap();
    let name = OsStr::from_bytes(b"\xff\n\x1b[2J");
    fs::write(root.path().join(name), "x").unwrap();
    assert_eq!(see(root.path()).paths(), [Path::new(name)]);
}

/// Makes folders called `name` in each other, with a file in the last one.
fn deep(root: &Path, name: &str, depth: usize) {
    let mut here: OwnedFd = File::open(root).unwrap().into();
    for _ in 0..depth {
        mkdirat(&here, name, Mode::RWXU).unwrap();
        here = openat(&here, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    openat(&here, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap();
}

/// Removes what [`deep`] made, without a descriptor for each level.
fn flatten(root: &Path, name: &str) {
    let (this, next) = (root.join(name), root.join("next"));
    while fs::rename(this.join(name), &next).is_ok() {
        fs::remove_dir(&this).unwrap();
        fs::rename(&next, &this).unwrap();
    }
}

#[test]
fn a_path_may_be_longer_than_any_call_takes() {
    let root = tempfile::tempdir().unwrap();
    let name = "n".repeat(255);
    // The path itself is of exactly 4,096 bytes at some level, and goes on.
    deep(root.path(), &name, 40);
    fs::write(root.path().join("z"), "").unwrap();
    let seen = see(root.path());
    let lengths: Vec<_> = seen.paths().iter().map(|path| path.as_os_str().len()).collect();
    assert_eq!(lengths, [40 * 256 + 4, 1]);
    let options = Options {
        after: Some(seen.files[0].0.clone()),
        ..options()
    };
    let mut rest = Seen::default();
    walk(File::open(root.path()).unwrap().as_fd(), &options, &mut rest).unwrap();
    assert_eq!(rest.paths(), [Path::new("z")]);
}

#[test]
fn a_bottomless_tree_has_an_end() {
    let root = tempfile::tempdir().unwrap();
    deep(root.path(), "d", MAX_DEPTH + 5);
    fs::write(root.path().join("z"), "").unwrap();
    let seen = see(root.path());
    flatten(root.path(), "d");
    assert_eq!(seen.paths(), [Path::new("z")]);
    assert_eq!(seen.skipped.len(), 1);
    assert!(seen.skipped[0].1.contains("deep"));
}

#[test]
fn a_huge_folder_is_listed_in_parts() {
    let names: Vec<String> = (0..100).map(|n| format!("{n:03}")).collect();
    let root = tree(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let folder = File::open(root.path()).unwrap();
    let identity = Identity { device: 0, inode: 0 };
    let mut level = Level::new("".into(), identity, Some("004".into()));
    let mut taken = Vec::new();
    while let Some(name) = level.take(folder.as_fd(), 7).unwrap() {
        assert!(level.held() < 7);
        taken.push(name);
        if taken.len() % 5 == 0 {
            level.forget();
        }
    }
    assert_eq!(taken, names[5..].iter().map(OsStr::new).collect::<Vec<_>>());
}

#[test]
fn renames_lead_nowhere_else() {
    let root = tree(&["in/a/b/c/file", "in/z/file"]);
    let outside = tree(&["secret"]);
    let (stop, inside) = (AtomicBool::new(false), root.path().join("in"));
    thread::scope(|scope| {
        scope.spawn(|| {
            let (folder, link) = (inside.join("a/b"), inside.join("link"));
            symlink(outside.path(), &link).unwrap();
            while !stop.load(Ordering::Relaxed) {
                // The folder turns into a link that leads out, and moves elsewhere.
                fs::rename(&folder, inside.join("z/b")).unwrap();
                fs::rename(&link, &folder).unwrap();
                fs::rename(&folder, &link).unwrap();
                fs::rename(inside.join("z/b"), &folder).unwrap();
            }
        });
        for _ in 0..2_000 {
            let seen = see(&inside);
            assert!(!seen.paths().iter().any(|path| path.ends_with("secret")));
            assert!(seen.paths().len() <= 3, "{:?}", seen.paths());
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn what_vanishes_meanwhile_is_no_failure() {
    struct Remove<'a>(&'a Path, Seen);
    impl Visitor for Remove<'_> {
        fn file(&mut self, file: &Regular<'_>) -> ControlFlow<()> {
            // What comes next, and the folder that this file is in.
            drop(fs::remove_file(self.0.join("a/y")));
            drop(fs::remove_dir_all(self.0.join("c")));
            self.1.file(file)
        }
        fn skipped(&mut self, path: &Path, why: Skip) -> ControlFlow<()> {
            self.1.skipped(path, why)
        }
    }
    let root = tree(&["a/x", "a/y", "a/z", "c/d", "e"]);
    let mut visitor = Remove(root.path(), Seen::default());
    walk(File::open(root.path()).unwrap().as_fd(), &options(), &mut visitor).unwrap();
    assert_eq!(visitor.1.paths(), ["a/x", "a/z", "e"].map(Path::new));
    assert!(visitor.1.skipped.is_empty());
}

/// Runs `test` where mounts are private; false without the privilege.
fn with_mounts(test: impl FnOnce() + Send + 'static) -> bool {
    let ran = thread::spawn(move || {
        if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).is_err() {
            return false;
        }
        let private =
            rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).unwrap();
        test();
        true
    });
    ran.join().unwrap()
}

#[test]
fn mounts_are_entered_only_when_named_and_never_in_circles() {
    let ran = with_mounts(|| {
        let root = tree(&["a/x", "tmp/hidden", "y"]);
        let [circle, tmp] = ["a/circle", "tmp"].map(|name| root.path().join(name));
        fs::create_dir(&circle).unwrap();
        rustix::mount::mount_bind(root.path(), &circle).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", &tmp, "tmpfs", flags, None).unwrap();
        fs::write(tmp.join("t"), "").unwrap();

        let seen = see(root.path());
        assert_eq!(seen.paths(), ["a/x", "y"].map(Path::new));
        assert_eq!(seen.skipped.len(), 2, "{:?}", seen.skipped);

        let device = |path: &Path| rustix::fs::stat(path).unwrap().st_dev;
        let devices = BTreeSet::from([device(root.path()), device(&tmp)]);
        let options = Options {
            mounts: Mounts::Into(devices),
            after: None,
        };
        let mut seen = Seen::default();
        walk(File::open(root.path()).unwrap().as_fd(), &options, &mut seen).unwrap();
        assert_eq!(seen.paths(), ["a/x", "tmp/t", "y"].map(Path::new));
        assert_eq!(seen.skipped[0].1, Skip::Cycle.to_string());
        for mount in [circle, tmp] {
            rustix::mount::unmount(mount, rustix::mount::UnmountFlags::DETACH).unwrap();
        }
    });
    if !ran {
        eprintln!("not run: mounting needs root");
    }
}
