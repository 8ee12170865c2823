#![allow(clippy::unwrap_used, reason = "a failed test is a panic")]

use super::*;

fn sha256(n: u8) -> Sha256 {
    Sha256::new([n; 32])
}

fn entry(n: u8, lifetime: Option<u64>) -> Allowed {
    Allowed::new(sha256(n), "a false alarm".into(), "uid 0".into(), lifetime)
}

#[test]
fn what_is_allowed_survives_a_restart_and_can_be_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let list = AllowList::open(folder.path().join("new/allow")).unwrap();
    assert_eq!(list.add(entry(1, None)).unwrap(), None);
    let again = AllowList::open(folder.path().join("new/allow")).unwrap();
    assert!(again.allows(&sha256(1)) && !again.allows(&sha256(2)));
    assert_eq!(again.list(), list.list());
    assert_eq!(again.remove(&sha256(1)).unwrap(), list.list().pop());
    assert!(!again.allows(&sha256(1)));
    assert_eq!(again.remove(&sha256(1)).unwrap(), None);
    let last = AllowList::open(folder.path().join("new/allow")).unwrap();
    assert_eq!(last.list(), []);
}

#[test]
fn an_entry_ends_when_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let list = AllowList::open(folder.path()).unwrap();
    list.add(entry(1, Some(0))).unwrap();
    list.add(entry(2, Some(60))).unwrap();
    assert!(!list.allows(&sha256(1)) && list.allows(&sha256(2)));
    assert_eq!(list.list().len(), 1);
    // The next change cleans up.
    list.add(entry(3, Some(u64::MAX))).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    assert!(list.allows(&sha256(3)));
}

#[test]
fn a_record_that_is_not_sound_allows_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = |n| folder.path().join(format!("{}.json", sha256(n)));
    fs::write(path(1), "{").unwrap();
    fs::write(path(2), serde_json::to_vec(&entry(3, None)).unwrap()).unwrap();
    fs::write(folder.path().join(".x.json.new"), "").unwrap();
    let list = AllowList::open(folder.path()).unwrap();
    assert_eq!(list.list(), []);
    list.add(entry(1, None)).unwrap();
    assert!(AllowList::open(folder.path()).unwrap().allows(&sha256(1)));
}

#[test]
fn what_cannot_be_kept_does_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let list = AllowList::open(folder.path().join("allow")).unwrap();
    for reason in ["x".repeat(MAX_REASON + 1), "a\nb".into()] {
        let bad = Allowed {
            reason,
            ..entry(1, None)
        };
        assert!(matches!(list.add(bad), Err(AllowError::Reason)));
    }
    fs::remove_dir(folder.path().join("allow")).unwrap();
    assert!(matches!(list.add(entry(1, None)), Err(AllowError::Io { .. })));
    assert!(!list.allows(&sha256(1)));
}
