#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed test is a panic"
)]

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lazaret_types::{Severity, Sha256};
use tempfile::TempDir;

use super::{OWN_FILE, Signature, Signatures};

fn digest(n: u8) -> Sha256 {
    Sha256::new([n; 32])
}

fn signature(n: u8, name: &str) -> Signature {
    Signature::new(digest(n), name, None).unwrap()
}

fn folder_with(files: &[(&str, &str)]) -> (TempDir, Signatures) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let signatures = Signatures::open(folder.path()).unwrap();
    (folder, signatures)
}

#[test]
fn reads_every_list_and_nothing_else() {
    let (_folder, signatures) = folder_with(&[
        ("a.sha256", &format!("{}  one\n{}  two", digest(1), digest(2))),
        ("b.sha256", &format!("\u{feff}{}  three\r\n", digest(3))),
        ("c.txt", &format!("{}  four\n", digest(4))),
        (".d.sha256", &format!("{}  five\n", digest(5))),
        (".e.sha256.new", &format!("{}  six\n", digest(6))),
    ]);
    let set = signatures.current();
    let names: Vec<_> = set.iter().map(|signature| signature.name).collect();
    assert_eq!(names, ["one", "two", "three"]);
    assert_eq!(set.lookup(&digest(2)).unwrap().rule, "two");
    assert_eq!(set.lookup(&digest(4)), None);
}

#[test]
fn a_bad_line_is_told_and_disarms_nothing() {
    let (folder, signatures) = folder_with(&[(
        "a.sha256",
        &format!("{}  one\n  nonsense\n{}  two\n", digest(1), digest(2)),
    )]);
    let set = signatures.current();
    assert_eq!((set.len(), set.problem_count()), (2, 1));
    let file = folder.path().join("a.sha256");
    let expected = format!(
        "{}: line 2, column 3: not a hexadecimal digit; a line begins with a SHA-256",
        file.display()
    );
    assert_eq!(set.problems(), [expected]);
}

#[test]
fn what_is_no_list_is_told_and_disarms_nothing() {
    let (folder, signatures) = folder_with(&[("z.sha256", &format!("{}  one\n", digest(1)))]);
    fs::create_dir(folder.path().join("folder.sha256")).unwrap();
    fs::write(folder.path().join("latin1.sha256"), b"# caf\xe9\n").unwrap();
    fs::File::create(folder.path().join("huge.sha256"))
        .unwrap()
        .set_len(1 << 32)
        .unwrap();
    nix::unistd::mkfifo(&folder.path().join("fifo.sha256"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let set = signatures.reload().unwrap();
    assert_eq!((set.len(), set.problem_count()), (1, 4), "{:?}", set.problems());
}

#[test]
fn many_problems_are_counted_but_not_kept() {
    let (_folder, signatures) = folder_with(&[("a.sha256", &"x\n".repeat(100_000))]);
    let set = signatures.current();
    assert_eq!((set.problems().len(), set.problem_count()), (100, 100_000));
}

#[test]
fn the_version_is_the_contents() {
    let [one, two] = [1, 2].map(|n| format!("{}  {n}\n", digest(n)));
    let version = |files: &[(&str, &str)]| folder_with(files).1.current().version();
    let together = version(&[("a.sha256", &format!("{one}{two}"))]);
    assert_eq!(
        version(&[("a.sha256", &two), ("b.sha256", &format!("# again\n{one}{two}"))]),
        together
    );
    assert_ne!(version(&[("a.sha256", &one)]), together);
    assert_ne!(
        version(&[("a.sha256", &format!("{one}{} severity=notice 2", digest(2)))]),
        together
    );
    assert_eq!(together.len(), 12);
}

#[test]
fn of_two_severities_the_higher_counts() {
    let (_folder, signatures) = folder_with(&[(
        "a.sha256",
        &format!(
            "{0} severity=error b\n{0} severity=notice c\n{0} severity=error d\n",
            digest(1)
        ),
    )]);
    let finding = signatures.current().lookup(&digest(1)).unwrap();
    assert_eq!((finding.severity, finding.rule.as_str()), (Severity::Error, "d"));
}

#[test]
fn what_was_added_judges_at_once_and_after_a_restart() {
    let (folder, signatures) = folder_with(&[(OWN_FILE, "# mine, without a line end")]);
    let added = signatures.add(&signature(1, "one")).unwrap();
    assert!(!added.known);
    assert_eq!(signatures.current().lookup(&digest(1)).unwrap().rule, "one");
    assert_eq!(added.set.version(), signatures.current().version());

    let again = Signatures::open(folder.path()).unwrap();
    assert_eq!(again.current().version(), added.set.version());
    let text = fs::read_to_string(folder.path().join(OWN_FILE)).unwrap();
    assert_eq!(text, format!("# mine, without a line end\n{}  one\n", digest(1)));
}

#[test]
fn adding_twice_writes_once() {
    let (folder, signatures) = folder_with(&[]);
    signatures.add(&signature(1, "one")).unwrap();
    let text = fs::read(folder.path().join(OWN_FILE)).unwrap();
    assert!(signatures.add(&signature(1, "one")).unwrap().known);
    let milder = Signature::new(digest(1), "mild", Some(Severity::Notice)).unwrap();
    assert!(signatures.add(&milder).unwrap().known);
    assert_eq!(fs::read(folder.path().join(OWN_FILE)).unwrap(), text);
}

#[test]
fn what_cannot_be_kept_does_not_judge() {
    let (folder, signatures) = folder_with(&[]);
    // A folder in the file's place stops even root.
    fs::create_dir(folder.path().join(OWN_FILE)).unwrap();
    let error = signatures.add(&signature(1, "one")).unwrap_err();
    assert!(error.to_string().contains(OWN_FILE), "{error}");
    assert_eq!(signatures.current().lookup(&digest(1)), None);
}

#[test]
fn a_folder_that_vanished_leaves_the_old_set() {
    let (folder, signatures) = folder_with(&[("a.sha256", &format!("{}  one\n", digest(1)))]);
    fs::remove_dir_all(folder.path()).unwrap();
    assert!(signatures.reload().is_err());
    assert_eq!(signatures.current().len(), 1);
}

#[test]
fn look_ups_go_on_while_signatures_are_added() {
    let (_folder, signatures) = folder_with(&[]);
    signatures.add(&signature(0, "first")).unwrap();
    let (signatures, done) = (Arc::new(signatures), Arc::new(AtomicBool::new(false)));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert!(signatures.current().lookup(&digest(0)).is_some());
                }
            });
        }
        let adders: Vec<_> = (1..=4_u8)
            .map(|adder| {
                let signatures = &signatures;
                scope.spawn(move || {
                    (0..5).for_each(|n| drop(signatures.add(&signature(adder * 10 + n, "x")).unwrap()));
                })
            })
            .collect();
        adders.into_iter().for_each(|adder| adder.join().unwrap());
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(signatures.current().len(), 21);
}
