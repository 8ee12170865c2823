#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed test is a panic"
)]

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use lazaret_types::{
    Access, Action, Container, ContainerId, FileFields, Gap, Incident, Layers, Pod, ProcessFields, Role,
    Severity, Sha256,
};
use tempfile::TempDir;
use ulid::Ulid;

use super::{Draft, Follower, IncidentLog, Line, QUEUE, segment};
use crate::signatures::Signatures;

/// A log in a folder of its own.
struct Bench {
    state: TempDir,
    config: lazaret_config::Incidents,
    node: Ulid,
}

impl Bench {
    fn new() -> Self {
        Self {
            state: tempfile::tempdir().unwrap(),
            config: lazaret_config::Incidents::default(),
            node: Ulid::generate(),
        }
    }

    fn rotating(max_file_size: u64, keep: usize) -> Self {
        let config = lazaret_config::Incidents {
            max_file_size: ByteSize(max_file_size),
            keep,
        };
        Self {
            config,
            ..Self::new()
        }
    }

    fn folder(&self) -> PathBuf {
        self.state.path().join("incidents")
    }

    fn signatures(&self) -> Arc<Signatures> {
        Arc::new(Signatures::open(self.state.path().join("signatures")).unwrap())
    }

    /// Opens the log, and waits for the one before it to let go.
    fn open(&self) -> IncidentLog {
        let log = self.open_unchecked();
        wait_until(|| log.last_seq().is_some());
        log
    }

    fn open_unchecked(&self) -> IncidentLog {
        IncidentLog::open(self.folder(), &self.config, self.node, self.signatures()).unwrap()
    }

    fn newest(&self) -> PathBuf {
        segment::list(&self.folder()).unwrap().pop().unwrap().path
    }

    fn damage(&self, bytes: &[u8]) {
        OpenOptions::new()
            .append(true)
            .open(self.newest())
            .unwrap()
            .write_all(bytes)
            .unwrap();
    }
}

fn wait_until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "still not so after 60 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn draft(rule: &str) -> Draft {
    Draft::new(rule, Severity::Critical, Action::Deny, "Something bad was denied")
}

fn report(log: &IncidentLog, count: usize) {
    (0..count).for_each(|n| log.report(draft(&format!("rule {n}"))));
    wait_until(|| log.flush());
}

/// Reads everything that is there.
fn read(follower: &mut Follower) -> Vec<Line> {
    let mut all = Vec::new();
    loop {
        let lines = follower.read().unwrap();
        if lines.is_empty() {
            return all;
        }
        all.extend(lines);
    }
}

fn incidents(log: &IncidentLog) -> Vec<Incident> {
    read(&mut log.follow(0))
        .iter()
        .map(|line| serde_json::from_str(&line.json).unwrap())
        .collect()
}

fn seqs(lines: &[Line]) -> Vec<u64> {
    lines.iter().map(|line| line.seq).collect()
}

fn full_draft() -> Draft {
    let container = Container {
        namespace: "k8s.io".into(),
        id: ContainerId::new("0123456789abcdef".repeat(4)).unwrap(),
        image: Some("docker.io/library/busybox:1.36".into()),
        pod: Some(Pod {
            name: "web-0".into(),
            namespace: "shop".into(),
            uid: "u".into(),
            sandbox_id: "s".into(),
        }),
        role: Role::Workload,
        annotations: BTreeMap::new(),
        bundle: "/run/bundle".into(),
        layers: Layers::default(),
        containerd: None,
    };
    Draft {
        tags: vec!["malware".into(), "T1204".into()],
        access: Some(Access::Exec),
        container: Some(Arc::new(container)),
        process: Some(ProcessFields {
            pid: 4711,
            uid: Some(1000),
            comm: Some("sh\u{1b}[2J".into()),
            exe: Some("/bin/busybox".into()),
        }),
        file: Some(FileFields {
            path: "/tmp/a\nb".into(),
            path_escaped: false,
            host_path: Some("/var/lib/layers/1/fs/tmp/a\nb".into()),
            sha256: Some(Sha256::new([7; 32])),
            size: 68,
        }),
        gap: Some(Gap {
            lasted_ms: 5,
            allowed: 1,
            denied: 2,
        }),
        ..draft("EICAR test file")
    }
}

#[test]
fn an_incident_holds_what_is_known() {
    let bench = Bench::new();
    let log = bench.open();
    let draft = full_draft();
    log.report(draft.clone());
    wait_until(|| log.flush());

    let [incident] = incidents(&log).try_into().unwrap();
    assert_eq!(
        (incident.seq, incident.node, incident.schema),
        (1, bench.node.to_string(), 1)
    );
    assert_eq!(incident.signature_set, &*bench.signatures().current().version());
    assert_eq!(
        (incident.process, incident.file, incident.gap),
        (draft.process, draft.file, draft.gap)
    );
    assert_eq!(incident.container.unwrap().pod.unwrap(), "shop/web-0");
    let expected = serde_json::json!({
        "evt.type": "execve",
        "container.id": "0123456789ab",
        "container.full_id": "0123456789abcdef".repeat(4),
        "container.name": "0123456789abcdef".repeat(4),
        "container.image": "docker.io/library/busybox:1.36",
        "container.image.repository": "docker.io/library/busybox",
        "container.image.tag": "1.36",
        "k8s.ns.name": "shop",
        "k8s.pod.name": "web-0",
        "k8s.pod.uid": "u",
        "k8s.pod.sandbox_id": "s",
        "proc.pid": 4711,
        "proc.name": "sh\u{1b}[2J",
        "proc.exepath": "/bin/busybox",
        "user.uid": 1000,
        "fd.name": "/tmp/a\nb",
    });
    let mut fields = incident.output_fields;
    let nanoseconds = fields.remove("evt.time").unwrap().as_u64().unwrap();
    assert_eq!(serde_json::to_value(fields).unwrap(), expected);
    let time: jiff::Timestamp = incident.time.parse().unwrap();
    assert_eq!(time.as_microsecond(), i64::try_from(nanoseconds / 1000).unwrap());
}

/// Makes a schema refuse every key that it does not name.
fn close(schema: &mut serde_json::Value) {
    let serde_json::Value::Object(object) = schema else {
        return;
    };
    object.values_mut().for_each(close);
    if object.get("type").is_some_and(|kind| kind == "object") {
        object.insert("additionalProperties".into(), false.into());
    }
}

/// The published schema, which here accepts no key that it does not describe.
/// Readers must accept these: later versions add some.
fn schema() -> jsonschema::Validator {
    let mut schema = serde_json::from_str(include_str!("../../../docs/schema/incident-1.json")).unwrap();
    close(&mut schema);
    jsonschema::validator_for(&schema).unwrap()
}

#[test]
fn every_incident_fits_the_published_schema() {
    let schema = schema();
    let bench = Bench::new();
    let log = bench.open();
    log.report(full_draft());
    log.report(draft("Nothing but the required keys"));
    wait_until(|| log.flush());

    let lines = read(&mut log.follow(0));
    assert_eq!(lines.len(), 2);
    for line in &lines {
        let mut incident: serde_json::Value = serde_json::from_str(&line.json).unwrap();
        if let Err(error) = schema.validate(&incident) {
            panic!("{error}: {incident}");
        }
        incident["output_fields"]["surprise"] = true.into();
        assert!(!schema.is_valid(&incident));
    }
}

#[test]
fn the_documented_example_is_an_incident() {
    let page = include_str!("../../../docs/incidents.md");
    let (_, from_example) = page.split_once("```json").unwrap();
    let (example, _) = from_example.split_once("```").unwrap();
    schema()
        .validate(&serde_json::from_str(example).unwrap())
        .unwrap();
    let incident: Incident = serde_json::from_str(example).unwrap();
    // Nothing in it is unknown to us.
    assert_eq!(
        serde_json::to_value(incident).unwrap(),
        serde_json::from_str::<serde_json::Value>(example).unwrap()
    );
}

#[test]
fn numbers_and_ids_grow_over_restarts() {
    let bench = Bench::new();
    for round in 1..=3 {
        let log = bench.open();
        report(&log, 10);
        assert_eq!(log.last_seq(), Some(round * 10));
    }
    let log = bench.open();
    let incidents = incidents(&log);
    assert!(incidents.iter().map(|incident| incident.seq).eq(1..=30));
    assert!(incidents.is_sorted_by(|a, b| a.id < b.id));
}

#[test]
fn a_clock_that_goes_back_does_not_turn_ids_back() {
    let bench = Bench::new();
    let log = bench.open();
    let mut later = draft("later");
    later.time += Duration::from_secs(3600);
    log.report(later);
    report(&log, 3);
    assert!(incidents(&log).is_sorted_by(|a, b| a.id < b.id));
}

#[test]
fn a_crash_right_after_a_rotation_turns_nothing_back() {
    let bench = Bench::new();
    let log = bench.open();
    let mut later = draft("later");
    later.time += Duration::from_secs(3600);
    log.report(later);
    report(&log, 1);
    drop(log);
    fs::write(segment::Segment::new(&bench.folder(), 3).path, "").unwrap();

    let log = bench.open();
    report(&log, 1);
    let incidents = incidents(&log);
    assert!(incidents.iter().map(|incident| incident.seq).eq(1..=3));
    assert!(incidents.is_sorted_by(|a, b| a.id < b.id));
}

#[test]
fn files_of_other_making_do_no_harm() {
    let bench = Bench::new();
    fs::create_dir(bench.folder()).unwrap();
    for name in [
        "incidents-.jsonl",
        "incidents-x.jsonl",
        "incidents-00000000000000000000.jsonl",
        "notes",
    ] {
        fs::write(bench.folder().join(name), "").unwrap();
    }
    let log = bench.open();
    report(&log, 2);
    assert_eq!(seqs(&read(&mut log.follow(0))), [1, 2]);
}

#[test]
fn a_torn_line_is_set_aside_and_told() {
    let bench = Bench::new();
    report(&bench.open(), 2);
    bench.damage(b"{\"time\":\"2026-01-0");

    let log = bench.open();
    report(&log, 1);
    let incidents = incidents(&log);
    assert!(incidents.iter().map(|incident| incident.seq).eq(1..=4));
    assert_eq!(incidents[2].rule, "Incident log damaged");
    assert_eq!(
        fs::read(bench.folder().join("damaged")).unwrap(),
        b"{\"time\":\"2026-01-0"
    );
}

#[test]
fn an_unreadable_end_is_left_behind_and_no_number_is_given_twice() {
    let bench = Bench::new();
    report(&bench.open(), 5);
    bench.damage(&vec![b'\n'; 4 << 20]);
    let damaged = bench.newest();

    let log = bench.open();
    report(&log, 1);
    assert_ne!(bench.newest(), damaged);
    let lines = read(&mut log.follow(0));
    assert_eq!(seqs(&lines[..5]), [1, 2, 3, 4, 5]);
    assert!(lines[5].seq > 5 && lines[5].json.contains("Incident log damaged"));
    assert_eq!(lines[5].missed, lines[5].seq - 6);
}

#[test]
fn a_follower_reads_over_damage_in_the_middle() {
    let bench = Bench::new();
    let log = bench.open();
    report(&log, 3);
    let text = fs::read_to_string(bench.newest()).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    lines[1] = "\u{0}\u{0} not JSON";
    fs::write(bench.newest(), lines.join("\n") + "\n").unwrap();
    let read = read(&mut log.follow(1));
    assert_eq!(seqs(&read), [1, 3]);
    assert_eq!(read[1].missed, 1);
}

#[test]
fn followers_read_across_rotation_and_know_what_they_missed() {
    let bench = Bench::rotating(2000, 2);
    let log = bench.open();
    report(&log, 1);
    let (mut early, mut late) = (log.follow(1), log.follow(1));
    assert_eq!(seqs(&read(&mut early)), [1]);
    for _ in 0..30 {
        report(&log, 1);
        assert_eq!(read(&mut early).len(), 1);
    }
    assert_eq!(segment::list(&bench.folder()).unwrap().len(), 3);
    let lines = read(&mut late);
    assert_eq!(lines[0].missed, lines[0].seq - 1);
    assert!(lines[0].seq > 1);
    assert!(seqs(&lines).into_iter().eq(lines[0].seq..=31));
    // From the oldest: nothing was wanted that is not there.
    assert_eq!(read(&mut log.follow(0))[0].missed, 0);
}

#[test]
fn a_follower_finishes_a_file_that_rotation_removed() {
    let bench = Bench::rotating(1, 0);
    let log = bench.open();
    report(&log, 1);
    let mut follower = log.follow(1);
    follower.next_file(1).unwrap();
    report(&log, 1);
    assert_eq!(segment::list(&bench.folder()).unwrap().len(), 1);
    let lines = read(&mut follower);
    assert_eq!(seqs(&lines), [1, 2]);
    assert_eq!(lines[1].missed, 0);
}

#[test]
fn removed_files_end_neither_writing_nor_following() {
    let bench = Bench::new();
    let log = bench.open();
    report(&log, 3);
    for segment in segment::list(&bench.folder()).unwrap() {
        fs::remove_file(segment.path).unwrap();
    }
    let mut follower = log.follow(1);
    assert_eq!(read(&mut follower), []);
    report(&log, 1);
    let lines = read(&mut follower);
    assert_eq!((seqs(&lines), lines[0].missed), (vec![4], 3));
}

#[tokio::test]
async fn a_follower_waits_for_what_comes() {
    let bench = Bench::new();
    let log = bench.open();
    let mut follower = log.follow(0);
    let too_early = tokio::time::timeout(Duration::from_millis(50), follower.wait()).await;
    assert!(too_early.is_err());
    log.report(draft("now"));
    assert!(follower.wait().await);
    assert_eq!(seqs(&follower.read().unwrap()), [1]);
    drop(log);
    assert!(!follower.wait().await);
}

#[test]
fn what_cannot_be_written_is_kept_and_what_overflows_is_told() {
    let bench = Bench::new();
    // A file in the folder's place stops even root.
    fs::write(bench.folder(), "").unwrap();
    let log = bench.open_unchecked();
    wait_until(|| log.trouble().is_some());

    let reported = QUEUE * 2;
    let started = Instant::now();
    (0..reported).for_each(|_| log.report(draft("x")));
    assert!(
        started.elapsed() < Duration::from_secs(30),
        "{:?}",
        started.elapsed()
    );
    assert!(log.lost() > 0);
    assert_eq!(log.last_seq(), None);

    fs::remove_file(bench.folder()).unwrap();
    wait_until(|| log.trouble().is_none());
    // The queue is still full for a moment.
    wait_until(|| log.flush());
    report(&log, 1);
    let incidents = incidents(&log);
    let told: Vec<_> = incidents
        .iter()
        .filter(|incident| incident.rule == "Incidents lost")
        .collect();
    let lost = usize::try_from(log.lost()).unwrap();
    assert_eq!(incidents.len() - told.len() + lost, reported + 1);
    // Told once, however long it went on.
    let counts = told.iter().map(|incident| {
        incident
            .output
            .split(' ')
            .next()
            .unwrap()
            .parse::<usize>()
            .unwrap()
    });
    assert_eq!(counts.sum::<usize>(), lost);
}

#[test]
fn only_one_writes_and_the_next_one_takes_over() {
    let bench = Bench::new();
    let first = bench.open();
    report(&first, 1);
    let second = bench.open_unchecked();
    wait_until(|| {
        second
            .trouble()
            .is_some_and(|trouble| trouble.contains("another lazaretd"))
    });
    second.report(draft("waits"));
    report(&first, 1);
    drop(first);
    wait_until(|| second.last_seq() == Some(3));
}

#[test]
fn many_threads_report_at_once() {
    let bench = Bench::rotating(64 << 10, 1000);
    let log = bench.open();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..400).for_each(|n| log.report(draft(&format!("rule {n}")))));
        }
    });
    wait_until(|| log.flush());
    assert_eq!(log.lost(), 0);
    assert!(incidents(&log).iter().map(|incident| incident.seq).eq(1..=3200));
}

#[test]
fn the_longest_possible_incident_fits_a_line() {
    let bench = Bench::new();
    let log = bench.open();
    // The worst a path can be: 4095 bytes that JSON writes with six characters each.
    let worst = "\u{1}".repeat(4095);
    let mut draft = full_draft();
    draft.output = format!("exec of {worst} by {worst}");
    draft.file = draft.file.map(|file| FileFields {
        path: worst.clone(),
        host_path: Some(worst.clone()),
        ..file
    });
    draft.process = draft.process.map(|process| ProcessFields {
        exe: Some(worst.clone()),
        ..process
    });
    log.report(draft);
    wait_until(|| log.flush());
    assert_eq!((incidents(&log).len(), log.lost()), (1, 0));
}

#[test]
fn files_are_not_for_everybody() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new();
    report(&bench.open(), 1);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o007;
    assert_eq!((mode(&bench.folder()), mode(&bench.newest())), (0, 0));
}
