//! `kill -9` at each step, of a real process: this test program, started again.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use super::super::item::State;
use super::super::object;
use super::super::step::{ALL, DIE_AT};
use super::*;

/// Where the child works.
const FOLDER: &str = "LAZARET_TEST_CRASH_FOLDER";

/// What the child does until it dies: takes a file, puts the image's version in its place, makes
/// room, restores it, takes it again and removes the item. Every step comes up.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    let custody = Custody::open(&folder.join("quarantine"), ROOMY).unwrap();
    let allow = AllowList::open(folder.join("allow")).unwrap();
    let bad = || File::open(folder.join("root/opt/bad")).unwrap();
    let take_bad = || {
        take(&custody, &folder, &bad(), Path::new("/opt/bad"), BAD)
            .unwrap()
            .unwrap()
            .item
    };
    let item = take_bad();
    let root = root(&folder);
    let item = custody
        .put_original(root.as_fd(), item, &original(&folder), sha256(GOOD), false)
        .unwrap();
    fs::remove_file(folder.join("root/opt/bad")).unwrap();
    custody
        .restore(root.as_fd(), item, false, &allow, allowed())
        .unwrap();
    custody.store.remove(take_bad().id).unwrap();
}

fn run_child(folder: &Path, die_at: &str) -> Option<i32> {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "quarantine::tests::crash::child"])
        .env(FOLDER, folder)
        .env(DIE_AT, die_at)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(
        status.success() || status.signal().is_some(),
        "{die_at}: {status}"
    );
    status.signal()
}

fn prepared() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("root/opt")).unwrap();
    fs::create_dir(folder.path().join("outside")).unwrap();
    fs::write(folder.path().join("root/opt/bad"), BAD).unwrap();
    folder
}

#[test]
fn a_kill_at_any_step_loses_nothing() {
    for step in ALL {
        let folder = prepared();
        let bad = folder.path().join("root/opt/bad");
        let step = format!("{step:?}");
        assert_eq!(run_child(folder.path(), &step), Some(9), "{step} never came");

        let content = fs::read(&bad).ok();
        let in_place = content.as_deref() == Some(BAD);
        let replaced = content.as_deref() == Some(GOOD);
        assert!(in_place || replaced || content.is_none(), "{step}: half a file");
        let custody = Custody::open(&folder.path().join("quarantine"), ROOMY).unwrap();
        let items: Vec<_> = custody
            .store
            .ids()
            .into_iter()
            .map(|id| custody.store.get(id).unwrap())
            .collect();
        assert!(
            in_place || items.len() == 1,
            "{step}: neither in place nor in the store"
        );
        for item in &items {
            let mut content = Vec::new();
            custody.export(item.id, true, &mut content).unwrap();
            assert_eq!(content, BAD, "{step}");
        }
        assert_swept(
            folder.path(),
            &items.iter().map(|item| item.sha256).collect::<Vec<_>>(),
            &step,
        );

        custody.settle(root(folder.path()).as_fd(), "default", "web");
        let left: Vec<_> = fs::read_dir(folder.path().join("root/opt"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        let expected: &[&str] = if in_place || replaced { &["bad"] } else { &[] };
        assert_eq!(left, expected, "{step}: something lies about in the container");
        for id in custody.store.ids() {
            let state = custody.store.get(id).unwrap().state;
            assert!(state == State::Moved || in_place, "{step}: {state:?}");
        }
    }
}

/// Nothing is in the store that no item needs.
fn assert_swept(folder: &Path, needed: &[Sha256], step: &str) {
    let names = |what: &str| -> Vec<_> {
        let entries = fs::read_dir(folder.join("quarantine").join(what)).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    for name in names("objects") {
        assert!(
            needed.iter().any(|sha256| sha256.to_string() == name),
            "{step}: {name} is left over"
        );
    }
    for name in names("items") {
        assert!(!name.starts_with('.'), "{step}: {name} is left over");
    }
}

#[test]
fn without_a_kill_the_child_does_all_of_it() {
    let folder = prepared();
    assert_eq!(run_child(folder.path(), "never"), None);
    assert_swept(folder.path(), &[], "none");
    assert!(!folder.path().join("root/opt/bad").exists());
}

#[test]
fn half_an_object_is_no_object() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("object");
    fs::write(&path, b"\x9bLZRTQ\x1a\n\x01").unwrap();
    let mut none = Vec::new();
    assert!(object::decode(File::open(path).unwrap(), &mut none).is_err());
}
