//! Peers that clamd never is, unless somebody has taken it over. The real one is in the
//! end-to-end tests.

#![allow(clippy::unwrap_used, reason = "a failed test is a panic")]

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use tempfile::TempDir;

use super::*;
use crate::engine::Priority;
use crate::signatures::Signatures;

/// What a peer does after it has read a command.
type Manners = fn(&str, UnixStream);

struct Bench {
    clamd: Clamd,
    _folder: TempDir,
}

impl Bench {
    fn new(manners: Option<Manners>, on_unavailable: OnUnavailable) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("clamd.sock");
        if let Some(manners) = manners {
            let listener = UnixListener::bind(&socket).unwrap();
            thread::spawn(move || {
                for mut connection in listener.incoming().flatten() {
                    let mut command = [0; 9];
                    connection.read_exact(&mut command).unwrap();
                    let command = str::from_utf8(&command).unwrap().to_owned();
                    thread::spawn(move || manners(command.trim_end_matches('\0'), connection));
                }
            });
        }
        let config = lazaret_config::Clamd {
            socket,
            timeout: Duration::from_millis(100),
            on_unavailable,
            ..lazaret_config::Clamd::default()
        };
        let signatures = Arc::new(Signatures::open(folder.path().join("signatures")).unwrap());
        let incidents = IncidentLog::open(
            folder.path().join("incidents"),
            &lazaret_config::Incidents::default(),
            ulid::Ulid::generate(),
            signatures,
        );
        Self {
            clamd: Clamd::new(&config, &Arc::new(incidents.unwrap()), 0),
            _folder: folder,
        }
    }

    fn judge(&self) -> Result<Found, Failure> {
        let limits = Limits {
            size: 1 << 20,
            deadline: Instant::now() + Duration::from_secs(5),
            priority: Priority::Opener,
        };
        self.clamd.judge(&Content::of_bytes(b"content"), limits)
    }

    fn is_away(&self) -> bool {
        self.clamd.gate.away().is_some()
    }
}

/// Says who it is, and `answer` of a file.
fn answers(command: &str, mut connection: UnixStream, answer: &[u8]) {
    let said = match command {
        "zVERSION" => connection.write_all(b"ClamAV 1.4.3/27800/now\0"),
        _ => connection.write_all(answer),
    };
    // Who asks may have heard enough.
    drop(said);
}

const OTHERS: OnUnavailable = OnUnavailable::Others;

#[test]
fn a_signature_a_suspicion_and_a_limit_are_three_things() {
    let found = |manners: Manners| Bench::new(Some(manners), OTHERS).judge().unwrap();
    let worst = |manners| found(manners).worst.unwrap();
    let known = worst(|command, connection| answers(command, connection, b"fd[9]: Unix.Test-1 FOUND\0"));
    assert_eq!(known.severity, Severity::Critical);
    assert_eq!((known.rule.as_str(), known.engine), ("Unix.Test-1", Name::Clamd));
    let suspicious =
        worst(|command, connection| answers(command, connection, b"fd[9]: PUA.Unix.Tool FOUND\0"));
    assert_eq!(suspicious.severity, Severity::Warning);
    let limit = found(|command, connection| {
        answers(
            command,
            connection,
            b"fd[9]: Heuristics.Limits.Exceeded.MaxScanTime FOUND\0",
        );
    });
    assert_eq!(
        (limit.worst, limit.limit),
        (None, Some(UnjudgedReason::EngineLimit))
    );
    let clean = found(|command, connection| answers(command, connection, b"fd[9]: OK\0"));
    assert_eq!(clean, Found::default());
}

#[test]
fn whoever_babbles_never_ends_or_hangs_up_gives_no_verdict_and_is_left_out() {
    let peers: [Manners; 3] = [
        |command, connection| answers(command, connection, b"fd[9]: everything is fine\0"),
        |_, mut connection| while connection.write_all(&[b'x'; 4096]).is_ok() {},
        |_, connection| drop(connection),
    ];
    for peer in peers {
        let bench = Bench::new(Some(peer), OTHERS);
        for _ in 0..3 {
            assert!(!bench.is_away());
            assert!(matches!(bench.judge(), Err(Failure::Engine(_))));
        }
        assert!(bench.is_away());
        assert_eq!(
            bench.judge().unwrap(),
            Found::default(),
            "the others' word counts"
        );
    }
}

#[test]
fn a_file_that_is_slow_or_cannot_be_judged_does_not_take_it_away() {
    let slow = Bench::new(
        Some(|command, connection| match command {
            "zVERSION" => answers(command, connection, b""),
            _ => thread::sleep(Duration::from_secs(1)),
        }),
        OTHERS,
    );
    let broken = Bench::new(
        Some(|command, connection| answers(command, connection, b"fd[9]: Can't map file ERROR\0")),
        OTHERS,
    );
    for _ in 0..4 {
        assert!(matches!(slow.judge(), Err(Failure::Timeout)));
        assert!(matches!(broken.judge(), Err(Failure::Engine(_))));
    }
    assert!(!slow.is_away() && !broken.is_away());
}

#[test]
fn who_is_silent_or_not_there_is_left_out() {
    let silent: Manners = |_, connection| {
        thread::sleep(Duration::from_secs(1));
        drop(connection);
    };
    for peer in [Some(silent), None] {
        let bench = Bench::new(peer, OTHERS);
        for _ in 0..3 {
            assert_eq!(bench.judge().unwrap(), Found::default());
        }
        assert!(bench.is_away());
        let begun = Instant::now();
        assert_eq!(bench.judge().unwrap(), Found::default());
        assert!(
            begun.elapsed() < Duration::from_millis(90),
            "nobody waits any more"
        );
        assert_eq!(bench.clamd.counts.lost.get(), 1);
    }
    let strict = Bench::new(None, OnUnavailable::Unjudged);
    assert!(matches!(strict.judge(), Err(Failure::Away)));
}

#[test]
fn what_is_judged_without_it_is_not_remembered_with_it() {
    let bench = Bench::new(None, OTHERS);
    let never = bench.clamd.set();
    assert!(!bench.judge().unwrap().left_out, "no set has it yet");
    bench.clamd.heard("ClamAV 1.4.3/1/now".into());
    let first = bench.clamd.set();
    assert!(bench.judge().unwrap().left_out);
    assert_eq!(bench.clamd.set(), first, "what it has judged is known");
    bench.clamd.heard("ClamAV 1.4.3/2/now".into());
    let second = bench.clamd.set();
    bench.clamd.forget(1);
    let sets = [never, first, second, bench.clamd.set()];
    for (at, set) in sets.iter().enumerate() {
        assert!(!sets.iter().skip(at + 1).any(|other| other == set), "{sets:?}");
    }
}
