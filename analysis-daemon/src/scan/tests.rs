#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed test is a panic"
)]

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicUsize;
use std::thread;

use lazaret_types::{Engine, Finding, Severity, UnjudgedReason};
use tempfile::TempDir;

use super::*;
use crate::engine::{Input, Limits, Priority};
use crate::judge::Verdict;
use crate::signatures::Signatures;

const PATIENCE: Duration = Duration::from_secs(20);

/// Judges contents that begin with `BAD` to be that.
struct Bench {
    state: TempDir,
    tree: TempDir,
    judged: Arc<AtomicUsize>,
    /// From the file after this one on, the judge waits until it is told to go on.
    gate: Arc<(Mutex<usize>, Condvar)>,
    set: Arc<Mutex<String>>,
    incidents: Arc<IncidentLog>,
}

impl Bench {
    fn new(files: &[(&str, &str)]) -> Self {
        let (state, tree) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (path, content) in files {
            fs::write(tree.path().join(path), content).unwrap();
        }
        let signatures = Arc::new(Signatures::open(state.path().join("signatures")).unwrap());
        let config = lazaret_config::Incidents::default();
        let folder = state.path().join("incidents");
        let incidents = IncidentLog::open(folder, &config, ulid::Ulid::generate(), signatures).unwrap();
        Self {
            state,
            tree,
            judged: Arc::default(),
            gate: Arc::new((Mutex::new(usize::MAX), Condvar::new())),
            set: Arc::new(Mutex::new("one".into())),
            incidents: Arc::new(incidents),
        }
    }

    fn target(&self) -> Target {
        Target::Path(self.tree.path().to_owned())
    }

    fn open_gate_after(&self, files: usize) {
        *self.gate.0.lock().unwrap() = files;
        self.gate.1.notify_all();
    }

    /// A daemon's scans, as a new one would open them.
    fn scans(&self) -> Arc<Scans> {
        let (judged, gate, set) = (
            Arc::clone(&self.judged),
            Arc::clone(&self.gate),
            Arc::clone(&self.set),
        );
        let version = Arc::clone(&set);
        let judge = move |file: BorrowedFd<'_>, _: Option<&Arc<Session>>, deadline: Instant| {
            judged.fetch_add(1, Ordering::SeqCst);
            // Not the order in which they come here: several are under judgement at once.
            let number = number(file);
            let closed = |open: &mut usize| number > *open;
            drop(gate.1.wait_while(gate.0.lock().unwrap(), closed).unwrap());
            judge(file, deadline, &set.lock().unwrap())
        };
        let means = Means {
            judge: Box::new(judge),
            quarantine: Box::new(|_, _, _| {}),
            is_sealed: Box::new(|_, _| false),
            set: Box::new(move || version.lock().unwrap().as_str().into()),
            allow: Arc::new(AllowList::open(self.state.path().join("allow")).unwrap()),
            incidents: Arc::clone(&self.incidents),
            counters: Arc::default(),
            registry: Arc::default(),
        };
        let config = lazaret_config::Scan {
            rate: bytesize::ByteSize::b(0),
            ..Default::default()
        };
        Scans::open(self.state.path().join("scans"), &config, means).unwrap()
    }
}

/// The place of a file in the walk: the last byte of its content.
fn number(file: BorrowedFd<'_>) -> usize {
    let mut content = [0; 16];
    let file = File::from(file.try_clone_to_owned().unwrap());
    // Not the offset, which all who have it share.
    let length = file.read_at(&mut content, 0).unwrap();
    let last = content[..length].last();
    let last = last.and_then(|last| char::from(*last).to_digit(10));
    usize::try_from(last.unwrap_or_default()).unwrap()
}

fn judge(file: BorrowedFd<'_>, deadline: Instant, set: &str) -> Outcome {
    let limits = Limits {
        size: 1 << 20,
        deadline,
        priority: Priority::Background,
    };
    let Ok(content) = Input::File(file).read(limits) else {
        return Outcome::Unjudged(UnjudgedReason::ReadError);
    };
    let mut begin = Vec::new();
    let file = File::from(file.try_clone_to_owned().unwrap());
    drop(file.take(3).read_to_end(&mut begin));
    let finding = Finding {
        severity: Severity::Critical,
        rule: "Test".into(),
        engine: Engine::HashList,
    };
    Outcome::Judged {
        digest: content.digest,
        verdict: if begin == b"BAD" {
            Verdict::Bad(finding)
        } else {
            Verdict::Clean
        },
        set: set.into(),
        known: false,
    }
}

fn end_of(watching: &Watching) -> Record {
    wait_for(watching, Record::is_over)
}

fn wait_for(watching: &Watching, is_it: impl Fn(&Record) -> bool) -> Record {
    let until = Instant::now() + PATIENCE;
    loop {
        let record = watching.snapshot().record;
        if is_it(&record) {
            return record;
        }
        assert!(Instant::now() < until, "{record:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// More than are under judgement at once.
const FILES: [(&str, &str); 8] = [
    ("a", "1"),
    ("b", "BAD 2"),
    ("c", "3"),
    ("d", "BAD 4"),
    ("e", "5"),
    ("f", "6"),
    ("g", "7"),
    ("h", "8"),
];

#[test]
fn what_is_bad_is_recorded_and_told() {
    let bench = Bench::new(&FILES);
    let scans = bench.scans();
    let record = end_of(&scans.start(bench.target(), false, false).unwrap());
    assert_eq!(record.state, State::Done);
    assert_eq!((record.counts.files, record.counts.findings), (8, 2));
    assert_eq!(record.found[0].path, bench.tree.path().join("b"));
    assert_eq!(scans.list(), [record]);

    while !bench.incidents.flush() {}
    let lines = bench.incidents.follow(0).read().unwrap();
    let incident: serde_json::Value = serde_json::from_str(&lines[0].json).unwrap();
    assert_eq!(lines.len(), 2);
    assert_eq!(incident["action"], "alert");
    assert_eq!(incident["tags"], serde_json::json!(["file", "malware", "scan"]));
}

#[test]
fn the_next_daemon_goes_on_behind_the_last_file() {
    let bench = Bench::new(&FILES);
    bench.open_gate_after(3);
    let scans = bench.scans();
    let watching = scans.start(bench.target(), false, false).unwrap();
    wait_for(&watching, |record| record.counts.files == 3);
    scans.stop();
    bench.open_gate_after(usize::MAX);
    scans.wait(PATIENCE);
    // As the daemon goes, so does who watches through it.
    drop(watching);
    // What was under judgement is not judged again.
    let [left] = scans.list().try_into().unwrap();
    let judged = bench.judged.load(Ordering::SeqCst);
    assert_eq!(left.state, State::Running);
    assert_eq!(left.counts.files, u64::try_from(judged).unwrap());
    assert!((3..=3 + LANES).contains(&judged), "{judged}");

    let next = bench.scans();
    next.resume();
    let record = end_of(&next.join(&left.id).unwrap());
    assert_eq!((record.state, record.resumed), (State::Done, 1));
    assert_eq!((record.counts.files, record.counts.findings), (8, 2));
    assert_eq!(bench.judged.load(Ordering::SeqCst), 8);
}

#[test]
fn other_signatures_begin_anew() {
    let bench = Bench::new(&FILES);
    bench.open_gate_after(3);
    let scans = bench.scans();
    let watching = scans.start(bench.target(), false, true).unwrap();
    wait_for(&watching, |record| record.counts.files == 3);
    scans.stop();
    bench.open_gate_after(usize::MAX);
    scans.wait(PATIENCE);
    *bench.set.lock().unwrap() = "two".into();
    let next = bench.scans();
    next.resume();
    let record = end_of(&next.join(watching.id()).unwrap());
    assert_eq!(record.basis.unwrap().set, "two");
    assert_eq!((record.counts.files, record.counts.findings), (8, 2));
    assert!(!record.mixed);
}

#[test]
fn signatures_that_change_on_the_way_are_remembered() {
    let bench = Bench::new(&FILES);
    bench.open_gate_after(2);
    let scans = bench.scans();
    let watching = scans.start(bench.target(), false, false).unwrap();
    wait_for(&watching, |record| record.counts.files == 2);
    *bench.set.lock().unwrap() = "two".into();
    bench.open_gate_after(usize::MAX);
    assert!(end_of(&watching).mixed);
}

#[test]
fn a_scan_ends_with_its_last_watcher_unless_it_is_detached() {
    for detach in [false, true] {
        let bench = Bench::new(&FILES);
        bench.open_gate_after(1);
        let scans = bench.scans();
        let first = scans.start(bench.target(), false, detach).unwrap();
        let second = scans.start(bench.target(), false, false).unwrap();
        assert_eq!(first.id(), second.id());
        let id = first.id().to_owned();
        drop(first);
        drop(second);
        bench.open_gate_after(usize::MAX);
        let expected = if detach { State::Done } else { State::Cancelled };
        assert_eq!(end_of(&scans.join(&id).unwrap()).state, expected);
    }
}

#[test]
fn more_scans_than_run_at_once_wait_their_turn() {
    let bench = Bench::new(&FILES);
    bench.open_gate_after(0);
    let scans = bench.scans();
    let file = |name| Target::Path(bench.tree.path().join(name));
    let watched: Vec<_> = ["a", "b", "c", "d", "e"]
        .map(|name| scans.start(file(name), false, false).unwrap())
        .into();
    assert_eq!(watched[4].snapshot().record.state, State::Waiting);
    bench.open_gate_after(usize::MAX);
    let findings = watched.iter().map(|watching| end_of(watching).counts.findings);
    assert_eq!(findings.collect::<Vec<_>>(), [0, 1, 0, 1, 0]);
}

#[test]
fn a_file_that_grows_and_shrinks_ends_a_scan_as_any_other() {
    let bench = Bench::new(&FILES);
    let path = bench.tree.path().join("changing");
    let file = File::create(&path).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // Up to twice what is judged.
                for size in [0, 2 << 20, 4096, 1 << 19] {
                    file.set_len(size).unwrap();
                }
            }
        });
        for _ in 0..50 {
            let record = end_of(&bench.scans().start(bench.target(), false, false).unwrap());
            assert_eq!((record.state, record.counts.findings), (State::Done, 2));
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn targets_that_are_not_there_fail_with_a_reason() {
    let bench = Bench::new(&[]);
    let scans = bench.scans();
    let container = Target::Container {
        namespace: "default".into(),
        id: "gone".into(),
    };
    let image = Target::Image(ImageTarget {
        reference: "image".into(),
        namespace: None,
        containerd: "/nonexistent/containerd.sock".into(),
        snapshotter: "overlayfs".into(),
    });
    for target in [Target::Path("/nonexistent".into()), container, image] {
        let record = end_of(&scans.start(target, false, false).unwrap());
        assert_eq!(record.state, State::Failed);
        assert!(record.error.is_some());
    }
    // Devices are not files, and a descriptor on one was never opened.
    let device = Target::Path("/dev/null".into());
    assert_eq!(
        end_of(&scans.start(device, false, false).unwrap()).state,
        State::Failed
    );
}

#[test]
fn only_the_same_image_by_the_same_judges_is_an_answer() {
    let mut record = Record::new(Target::Path("/srv".into()), false);
    let basis = Basis {
        set: "one".into(),
        allowed: Sha256::new([0; 32]),
    };
    record.digest = Some("sha256:a".into());
    record.basis = Some(basis.clone());
    assert!(!record.answers("sha256:a", &basis), "it has not ended");
    record.end(State::Done, None);
    assert!(record.answers("sha256:a", &basis));
    assert!(!record.answers("sha256:b", &basis));
    let allowed = Sha256::new([1; 32]);
    assert!(!record.answers(
        "sha256:a",
        &Basis {
            allowed,
            ..basis.clone()
        }
    ));
    record.mixed = true;
    assert!(!record.answers("sha256:a", &basis));
}

/// The renewals, as the records have them.
fn renewals(scans: &Scans) -> Vec<Record> {
    let mut records = scans.list();
    records.retain(|record| record.cause == Cause::NewSignatures);
    records
}

#[test]
fn a_newer_change_supersedes_and_nothing_is_piled_up() {
    let bench = Bench::new(&FILES);
    bench.open_gate_after(3);
    let scans = bench.scans();
    scans.renew(vec![bench.target()], "one");
    let [renewal] = renewals(&scans).try_into().unwrap();
    let watching = scans.join(&renewal.id).unwrap();
    wait_for(&watching, |record| record.counts.files == 3);
    // It judges by this one already.
    scans.renew(vec![bench.target()], "one");
    *bench.set.lock().unwrap() = "two".into();
    scans.renew(vec![bench.target()], "two");
    scans.renew(vec![bench.target()], "two");
    bench.open_gate_after(usize::MAX);
    let record = end_of(&watching);
    assert_eq!((record.state, record.mixed), (State::Done, false));
    assert_eq!((record.counts.files, record.counts.findings), (8, 2));
    assert_eq!(record.basis.clone().unwrap().set, "two");
    assert_eq!(renewals(&scans), [record]);
    let judged = bench.judged.load(Ordering::SeqCst);
    assert!((8 + 4..=8 + 3 + LANES).contains(&judged), "{judged}");
}

#[test]
fn the_newest_renewal_of_a_container_is_kept() {
    let bench = Bench::new(&FILES);
    let scans = bench.scans();
    for set in ["one", "two"] {
        *bench.set.lock().unwrap() = set.into();
        scans.renew(vec![bench.target()], set);
        // It is over before its record says so, and before its thread has let go of it.
        let until = Instant::now() + PATIENCE;
        while !scans.jobs().live.is_empty() {
            assert!(Instant::now() < until, "{:?}", scans.list());
            thread::sleep(Duration::from_millis(5));
        }
    }
    let [left] = renewals(&scans).try_into().unwrap();
    assert_eq!(left.basis.unwrap().set, "two");
}

#[test]
fn who_asks_for_a_scan_does_not_wait_for_renewals() {
    let bench = Bench::new(&FILES);
    bench.open_gate_after(0);
    let scans = bench.scans();
    let file = |name| Target::Path(bench.tree.path().join(name));
    scans.renew(["a", "b", "c"].map(file).into(), "one");
    let asked = scans.start(file("d"), false, false).unwrap();
    wait_for(&asked, |record| record.state == State::Running);
    let running = renewals(&scans)
        .iter()
        .filter(|record| record.state == State::Running)
        .count();
    assert!(running <= 1, "{running} at once");
    bench.open_gate_after(usize::MAX);
    assert_eq!(end_of(&asked).counts.findings, 1);
    for renewal in renewals(&scans) {
        end_of(&scans.join(&renewal.id).unwrap());
    }
}

#[test]
fn a_renewal_goes_on_after_a_restart_and_without_a_watcher() {
    let bench = Bench::new(&FILES);
    bench.open_gate_after(3);
    let scans = bench.scans();
    scans.renew(vec![bench.target()], "one");
    let [renewal] = renewals(&scans).try_into().unwrap();
    wait_for(&scans.join(&renewal.id).unwrap(), |record| {
        record.counts.files == 3
    });
    scans.stop();
    bench.open_gate_after(usize::MAX);
    scans.wait(PATIENCE);
    let next = bench.scans();
    next.resume();
    let record = end_of(&next.join(&renewal.id).unwrap());
    assert_eq!(
        (record.state, record.resumed, record.counts.files),
        (State::Done, 1, 8)
    );
    assert_eq!(bench.judged.load(Ordering::SeqCst), 8);
}
