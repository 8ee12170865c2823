//! The command as people and programs use it, against a daemon on a real socket.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed test is a panic"
)]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixListener;

use lazaret_api::control::v1::get_status_response::{Incidents, Signatures};
use lazaret_api::control::v1::{
    Container, Engine, Event, Gap, GetStatusResponse, QuarantineItem, QuarantineState, Superblock,
};
use lazaret_api::control::v1::{
    Scan, ScanBegun, ScanEvent, ScanFinding, ScanProgress, ScanState, scan_event,
};
use serde_json::{Value, json};
use tonic::Status;

use support::{Bench, Outcome, Script};

const DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn event(seq: u64, missed: u64) -> Event {
    let incident = json!({
        "time": "2026-02-03T04:05:06.000007Z", "rule": "EICAR", "priority": "Critical",
        "output": format!("deny: exec of /tmp/\u{1b}[2J\u{9b}x by sh (number {seq})"),
        "output_fields": {}, "tags": [], "id": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "schema": 1, "node": "n",
        "seq": seq, "signature_set": "0123456789ab", "action": "deny",
        "container": { "id": "web", "namespace": "default", "image": "busybox:1" },
        "process": { "pid": 1, "uid": 1000, "comm": "sh", "exe": null },
        "file": { "path": "/tmp/x", "host_path": "/layers/tmp/x", "sha256": DIGEST, "size": 3 },
    });
    Event {
        seq,
        json: incident.to_string(),
        missed,
    }
}

fn status() -> GetStatusResponse {
    let superblock = |path: &[u8], fs_type: &str| Superblock {
        mount_point: path.to_vec(),
        fs_type: fs_type.into(),
        reason: String::new(),
    };
    GetStatusResponse {
        daemon_version: "9.8.7".into(),
        node_id: "01ARZ3NDEKTSV4RRFFQ69G5FAV".into(),
        uptime_seconds: 90_061,
        signatures: Some(Signatures {
            version: "0123456789ab".into(),
            count: 2,
            problems: vec!["bad.sha256: line 1, column 1: not a digit".into()],
            problem_count: 8,
        }),
        incidents: Some(Incidents {
            last_seq: 5,
            lost: 1,
            trouble: "disk full".into(),
        }),
        counters: [("events".to_owned(), 10), ("denied".to_owned(), 4)].into(),
        containers: vec![Container {
            namespace: "k8s.io".into(),
            id: "web".into(),
            image: "busybox:1".into(),
            pod: "shop/web-0".into(),
            state: 2,
            guarded: vec![
                superblock(b"/", "overlay"),
                superblock(b"/a\x1b]0;x\x07\xff", "tmpfs"),
            ],
            node_guarded: vec![superblock(b"/etc/hosts", "ext4")],
            shared: vec![Superblock {
                reason: "no local file system".into(),
                ..superblock(b"/data", "nfs4")
            }],
            events: 7,
            denied: 3,
            gap: Some(Gap {
                lasted_ms: 120,
                allowed: 1,
                denied: 0,
            }),
            init_pid: 4711,
            ..Container::default()
        }],
        engines: vec![Engine {
            name: "clamd".into(),
            version: "ClamAV 1.4.3\x1b[2J".into(),
            trouble: "it does not answer".into(),
            away_since_unix_ms: 1,
            asked: 1,
            left_out: 2,
            ..Engine::default()
        }],
        ..GetStatusResponse::default()
    }
}

#[test]
fn a_daemon_that_is_not_there_is_told_with_the_way_out() {
    let bench = Bench::without_daemon();
    let expected = format!(
        "error: lazaretd is not running: nothing listens on {}; start it",
        bench.socket().display()
    );
    for args in [
        ["status"].as_slice(),
        &["events", "--follow"],
        &["signatures", "list"],
    ] {
        let told = bench.run(args);
        assert_eq!((told.code, told.out.as_str()), (1, ""));
        assert!(told.err.starts_with(&expected), "{told:?}");
    }
    // The socket of a daemon that was killed.
    drop(UnixListener::bind(bench.socket()).unwrap());
    assert!(bench.run(&["status"]).err.starts_with(&expected));
}

#[test]
fn wrong_usage_ends_with_2() {
    let bench = Bench::without_daemon();
    for args in [
        [].as_slice(),
        &["frobnicate"],
        &["signatures", "add"],
        &["signatures", "add", "abc"],
        &["signatures", "add", DIGEST, "--file", "x"],
        &["events", "--since", "-1"],
    ] {
        assert_eq!(bench.run(args).code, 2, "{args:?}");
    }
}

#[test]
fn a_broken_configuration_names_itself() {
    let bench = Bench::without_daemon();
    std::fs::write(
        bench.folder.path().join("lazaret.toml"),
        "[node]\nrundir = '/x'\n",
    )
    .unwrap();
    let told = bench.run(&["status"]);
    assert_eq!(told.code, 1);
    assert!(
        told.err
            .contains("lazaret.toml: line 2, column 1: unknown key node.rundir"),
        "{told:?}"
    );
}

#[test]
fn status_tells_what_is_guarded_and_what_is_not() {
    let bench = Bench::new(Script {
        status: status(),
        ..Script::default()
    });
    let told = bench.run(&["status"]);
    assert_eq!((told.code, told.err.as_str()), (0, ""));
    for part in [
        "lazaretd 9.8.7, up 1 d 1 h, node 01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "2 signatures, set 0123456789ab",
        "skipped bad.sha256: line 1, column 1",
        "skipped 7 more lines",
        "10 opens judged: 0 allowed, 4 denied",
        "lost 1 could not be written",
        "cannot be written now: disk full",
        "k8s.io/web  catching up",
        "guarded     / (overlay), /a\\u{1b}]0;x\\u{7}\\xff (tmpfs)",
        "            /etc/hosts (ext4), shared with the host",
        "not guarded /data (nfs4): no local file system",
        "clamd: ClamAV 1.4.3\\u{1b}[2J; 1 file asked about, 0 found, 0 without a verdict",
        ": it does not answer",
        "left out 2 files came while it was away",
        "gap         120 ms without a judge: 1 open let through, 0 refused",
    ] {
        assert!(told.out.contains(part), "no {part:?} in\n{}", told.out);
    }
    assert!(!told.out.contains(['\u{1b}', '\u{7}']), "{}", told.out);
}

#[test]
fn status_for_programs_is_json() {
    let bench = Bench::new(Script {
        status: status(),
        ..Script::default()
    });
    let told = bench.run(&["status", "--json"]);
    let json: Value = serde_json::from_str(&told.out).unwrap();
    assert_eq!(json["counters"]["denied"], 4);
    let web = &json["containers"][0];
    assert_eq!(
        (&web["state"], &web["init_pid"]),
        (&json!("catching-up"), &json!(4711))
    );
    assert_eq!(
        web["shared"],
        json!([{ "mount_point": "/data", "fs_type": "nfs4", "reason": "no local file system" }])
    );
    assert_eq!(
        web["node_guarded"],
        json!([{ "mount_point": "/etc/hosts", "fs_type": "ext4" }])
    );
    assert_eq!(web["guarded"][1]["mount_point"], "/a\u{1b}]0;x\u{7}\\xff");
    assert_eq!(web["cgroup"], Value::Null);
    let clamd = &json["engines"][0];
    assert_eq!(
        (&clamd["name"], &clamd["state"]),
        (&json!("clamd"), &json!("away"))
    );
}

#[test]
fn no_container_is_an_answer() {
    let bench = Bench::new(Script::default());
    let told = bench.run(&["status"]);
    assert_eq!(told.code, 0);
    assert!(
        told.out.ends_with("No container runs under lazaret.\n"),
        "{told:?}"
    );
}

#[test]
fn events_for_people_are_safe_to_show() {
    let bench = Bench::new(Script {
        events: vec![event(4, 3), event(5, 0)],
        ..Script::default()
    });
    let told = bench.run(&["events", "--since", "3", "--container", "web"]);
    assert_eq!(told.code, 0, "{told:?}");
    assert_eq!(told.err, "3 incidents before #4 not shown: no longer on disk\n");
    let lines: Vec<_> = told.out.lines().collect();
    assert_eq!(lines.len(), 4);
    let first =
        "2026-02-03T04:05:06.000007Z #4 Critical deny: exec of /tmp/\\u{1b}[2J\\u{9b}x by sh (number 4)";
    assert_eq!(lines[0], first);
    let details = format!("    image busybox:1  uid 1000  sha256 {DIGEST}  on the host /layers/tmp/x");
    assert_eq!(lines[1], details);
    let asked = bench.asked();
    assert!(
        asked[0].contains("from_seq: 4, follow: false, container_id: \"web\""),
        "{asked:?}"
    );
}

#[test]
fn events_for_programs_are_the_incidents() {
    let bench = Bench::new(Script {
        events: vec![event(1, 0), event(2, 0)],
        ..Script::default()
    });
    let told = bench.run(&["events", "--json"]);
    assert!(!told.out.contains(['\u{1b}', '\u{9b}']));
    let lines: Vec<Value> = told
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let expected: Vec<Value> = [event(1, 0), event(2, 0)]
        .iter()
        .map(|event| serde_json::from_str(&event.json).unwrap())
        .collect();
    assert_eq!(lines, expected);
}

#[test]
fn following_survives_the_daemon() {
    let mut bench = Bench::new(Script {
        events: vec![event(1, 0)],
        ..Script::default()
    });
    let mut child = bench.command(&["events", "--follow", "--json"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("number 1"));
    bench.kill();
    std::fs::remove_file(bench.socket()).unwrap();
    bench.start(Script {
        events: vec![event(1, 0), event(2, 0)],
        ..Script::default()
    });
    assert!(lines.next().unwrap().unwrap().contains("number 2"));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_file_is_added_by_its_content() {
    let bench = Bench::new(Script::default());
    let empty = bench.folder.path().join("empty.bin");
    std::fs::write(&empty, "").unwrap();
    let told = bench.run(&[
        "signatures",
        "add",
        "--file",
        empty.to_str().unwrap(),
        "--severity",
        "warning",
    ]);
    assert_eq!(told.out, format!("{DIGEST} added; signature set 0123456789ab\n"));
    let asked = bench.asked();
    let expected = format!("sha256: \"{DIGEST}\", name: \"empty.bin\", severity: Warning");
    assert!(asked[0].contains(&expected), "{asked:?}");

    bench.run(&["signatures", "add", &DIGEST.to_uppercase(), "--name", "a name"]);
    assert!(
        bench.asked()[1].contains("name: \"a name\", severity: Critical"),
        "{:?}",
        bench.asked()
    );
}

#[test]
fn what_is_not_a_file_is_told() {
    let bench = Bench::new(Script::default());
    let fifo = bench.folder.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [fifo.to_str().unwrap(), "/nonexistent", "/proc"] {
        let told = bench.run(&["signatures", "add", "--file", path]);
        assert_eq!(told.code, 1);
        assert!(
            told.err.starts_with(&format!("error: cannot read {path}: ")),
            "{told:?}"
        );
    }
}

#[test]
fn a_refusal_is_told_and_safe() {
    let refuse = Some(Status::invalid_argument("name: \u{1b}[2J is no name"));
    let bench = Bench::new(Script {
        refuse,
        ..Script::default()
    });
    let told = bench.run(&["signatures", "add", DIGEST]);
    assert_eq!((told.code, told.out.as_str()), (1, ""));
    assert_eq!(told.err, "error: lazaretd refused: name: \\u{1b}[2J is no name\n");
}

#[test]
fn signatures_are_listed() {
    let bench = Bench::new(Script {
        signatures: 2,
        ..Script::default()
    });
    let told = bench.run(&["signatures", "list"]);
    let lines: Vec<_> = told.out.lines().collect();
    assert_eq!(lines[2], format!("{:064x}  critical  name 1\\u{{1b}}[31m", 1));
    let told = bench.run(&["signatures", "list", "--json"]);
    let second: Value = serde_json::from_str(told.out.lines().nth(1).unwrap()).unwrap();
    assert_eq!(
        second,
        json!({ "sha256": format!("{:064x}", 1), "severity": "critical", "name": "name 1\u{1b}[31m" })
    );
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let bench = Bench::new(Script {
        signatures: 100_000,
        ..Script::default()
    });
    for args in [
        ["signatures", "list"].as_slice(),
        &["signatures", "list", "--json"],
    ] {
        let mut child = bench.command(args).spawn().unwrap();
        let mut first = [0; 64];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let told = Outcome::of(child.wait_with_output().unwrap());
        assert_eq!((told.code, told.err.as_str()), (0, ""), "{args:?}");
    }
}

#[test]
fn colour_is_for_terminals_or_by_order() {
    let bench = Bench::new(Script {
        status: status(),
        ..Script::default()
    });
    assert!(!bench.run(&["status"]).out.contains('\u{1b}'));
    let coloured = Outcome::of(
        bench
            .command(&["status"])
            .env("CLICOLOR_FORCE", "1")
            .output()
            .unwrap(),
    );
    assert!(coloured.out.contains("\u{1b}[33mcatching up"), "{}", coloured.out);
    // Ours are the only ones.
    assert!(!coloured.out.contains("\u{1b}]0;x"), "{}", coloured.out);
    let mut plain = bench.command(&["status"]);
    let plain = Outcome::of(
        plain
            .env("CLICOLOR_FORCE", "1")
            .env("NO_COLOR", "1")
            .output()
            .unwrap(),
    );
    assert!(!plain.out.contains('\u{1b}'), "{}", plain.out);
}

#[test]
fn versions_are_told_with_and_without_a_daemon() {
    let ours = format!("lazaret  {}\n", env!("CARGO_PKG_VERSION"));
    let told = Bench::new(Script::default()).run(&["version"]);
    assert_eq!(
        told.out,
        format!("{ours}lazaretd 9.8.7 (control API 1.2, incident schema 3)\n")
    );
    let told = Bench::without_daemon().run(&["version"]);
    assert_eq!(told.code, 0);
    assert!(
        told.out
            .starts_with(&format!("{ours}lazaretd unknown: lazaretd is not running")),
        "{told:?}"
    );
}

fn scan_event(event: scan_event::Event) -> ScanEvent {
    ScanEvent {
        scan_id: "01ARZ3NDEKTSV4RRFFQ69G5FAV".into(),
        event: Some(event),
    }
}

fn scanned(scan: Scan, finding: Option<ScanFinding>) -> Vec<ScanEvent> {
    let target = "/srv\u{1b}[2J".to_owned();
    let begun = scan_event::Event::Begun(ScanBegun {
        target: target.clone(),
    });
    let ended = scan_event::Event::Ended(Scan { target, ..scan });
    let progress = scan_event::Event::Progress(ScanProgress::default());
    let finding = finding.map(scan_event::Event::Finding);
    [Some(begun), Some(progress), finding, Some(ended)]
        .into_iter()
        .flatten()
        .map(scan_event)
        .collect()
}

#[test]
fn a_scan_ends_in_what_it_came_to() {
    let done = Scan {
        state: ScanState::Done.into(),
        ..Scan::default()
    };
    let bad = Scan {
        findings: 1,
        ..done.clone()
    };
    let finding = ScanFinding {
        path: b"/srv/\x1b]0;x\x07\xff".to_vec(),
        rule: "Evil\u{202e}".into(),
        severity: 4,
        sha256: DIGEST.into(),
        size: 1,
    };
    let unjudged = Scan {
        unjudged: 1,
        problems: vec!["/srv/large: larger than scan.max_file_size".into()],
        ..done.clone()
    };
    let failed = Scan {
        state: ScanState::Failed.into(),
        error: "gone".into(),
        ..done.clone()
    };
    for (scan, finding, code) in [
        (done, None, 0),
        (bad, Some(finding), 3),
        (unjudged, None, 4),
        (failed, None, 1),
    ] {
        let bench = Bench::new(Script {
            scan: scanned(scan, finding),
            ..Script::default()
        });
        let told = bench.run(&["scan", "/srv"]);
        assert_eq!(told.code, code, "{told:?}");
        let shown = told.out.clone() + &told.err;
        assert!(!shown.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{shown}");
        let json = bench.run(&["scan", "/srv", "--json"]);
        assert_eq!(json.code, code);
        assert!(!json.out.contains('\u{202e}'), "{}", json.out);
        for line in json.out.lines() {
            serde_json::from_str::<Value>(line).unwrap();
        }
    }
}

#[test]
fn a_scan_needs_exactly_one_target() {
    let bench = Bench::without_daemon();
    for wrong in [
        &["scan"][..],
        &["scan", "/srv", "--all"],
        &["scan", "/srv", "--force"],
        &["scan", "--all", "--namespace", "x"],
    ] {
        assert_eq!(bench.run(wrong).code, 2, "{wrong:?}");
    }
}

#[test]
fn completions_are_made_for_each_shell() {
    let bench = Bench::without_daemon();
    for shell in ["bash", "zsh", "fish", "elvish"] {
        let told = bench.run(&["completions", shell]);
        assert!(told.code == 0 && told.out.contains("signatures"), "{shell}");
    }
}

const ITEM: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

fn quarantined(content: &[u8]) -> Script {
    let item = QuarantineItem {
        id: ITEM.into(),
        state: QuarantineState::Held.into(),
        container_id: "web".into(),
        container_namespace: "default".into(),
        path: b"/tmp/\x1b[2J\xff".to_vec(),
        sha256: DIGEST.into(),
        rule: "EICAR\u{202e}".into(),
        severity: 4,
        mode: 0o4755,
        ..QuarantineItem::default()
    };
    Script {
        items: vec![item],
        content: content.to_vec(),
        ..Script::default()
    }
}

#[test]
fn quarantined_files_are_shown_without_obeying_their_names() {
    let bench = Bench::new(quarantined(b""));
    for args in [["quarantine", "list"].as_slice(), &["quarantine", "show", ITEM]] {
        let told = bench.run(args);
        assert_eq!(told.code, 0, "{told:?}");
        assert!(told.out.contains("/tmp/\\u{1b}[2J\\xff"), "{told:?}");
        assert!(told.out.contains("may still be in its container"), "{told:?}");
        assert!(!told.out.contains(['\u{1b}', '\u{202e}']), "{told:?}");
        let told = bench.run(&[args, &["--json"]].concat());
        let json: Value = serde_json::from_str(&told.out).unwrap();
        assert_eq!(json["path_hex"], "2f746d702f1b5b324aff");
        assert_eq!((&json["mode"], &json["state"]), (&json!("4755"), &json!("held")));
    }
    let other = ITEM.replace('V', "W");
    let told = bench.run(&["quarantine", "show", &other]);
    assert_eq!(
        (told.code, told.err.as_str()),
        (
            1,
            &*format!("error: there is no item {other} in the quarantine\n")
        )
    );
}

#[test]
fn an_original_is_asked_for_by_a_call_of_its_own() {
    let bench = Bench::new(quarantined(b""));
    let restore = ["quarantine", "restore", "--original", ITEM];
    let told = bench.run(&restore);
    assert!(
        told.code == 0 && told.out.contains("as in its image again"),
        "{told:?}"
    );
    assert!(!told.out.contains('\u{1b}'), "{told:?}");
    let told = bench.run(&[&restore[..], &["--force", "--json"]].concat());
    let json: Value = serde_json::from_str(&told.out).unwrap();
    assert_eq!(
        (&json["id"], &json["original_sha256"]),
        (&json!(ITEM), &json!("0".repeat(64)))
    );
    let request = |force| format!("RestoreOriginalRequest {{ id: {ITEM:?}, force: {force} }}");
    assert_eq!(bench.asked(), [request(false), request(true)]);
}

#[test]
fn an_export_is_whole_and_overwrites_nothing() {
    // DIGEST is that of no bytes at all.
    for (content, code) in [(&b""[..], 0), (b"other", 1)] {
        let bench = Bench::new(quarantined(content));
        let path = bench.folder.path().join("out");
        let args = ["quarantine", "export", ITEM, path.to_str().unwrap(), "--plain"];
        let told = bench.run(&args);
        assert_eq!((told.code, path.exists()), (code, code == 0), "{told:?}");
    }
    let bench = Bench::new(quarantined(b"masked"));
    let path = bench.folder.path().join("out");
    let args = ["quarantine", "export", ITEM, path.to_str().unwrap()];
    assert_eq!(bench.run(&args).code, 0);
    assert_eq!(std::fs::read(&path).unwrap(), b"masked");
    let again = bench.run(&args);
    assert_eq!(again.code, 1);
    assert!(again.err.contains("File exists"), "{again:?}");
}

#[test]
fn what_is_allowed_is_asked_for_exactly() {
    let bench = Bench::new(Script::default());
    let told = bench.run(&["allow", "add", DIGEST, "--reason", "ours", "--for", "12h"]);
    assert_eq!((told.code, told.out), (0, format!("{DIGEST} allowed\n")));
    let request =
        format!("AddAllowedRequest {{ sha256: {DIGEST:?}, reason: \"ours\", lifetime_seconds: 43200 }}");
    assert_eq!(bench.asked(), [request]);
    let told = bench.run(&["allow", "rm", DIGEST]);
    assert_eq!(
        (told.code, told.err),
        (1, format!("error: {DIGEST} is not on the allow-list\n"))
    );
    assert_eq!(bench.run(&["allow", "add", DIGEST, "--for", "soon"]).code, 2);
    assert_eq!(bench.run(&["quarantine", "rm", "not-an-item"]).code, 2);
}
