//! The program as lazaretd runs it: sandboxed, over its socket, with archives.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that meets what it did not expect must fail"
)]

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use lazaret_api::scan::v1::{
    Engine, Fork, FromWorker, FromZygote, Limit, Member, Scan, Scanned, ToWorker, ToZygote, Unpack,
    from_worker, from_zygote, not_scanned::Reason,
};
use lazaret_sys::sealed::{Draft, Sealed};
use lazaret_sys::seqpacket::{self, Fds, MAX_MESSAGE};
use prost::Message;

const RULE: &str = "rule marker { meta: severity = \"Error\" strings: $a = \"the marker\" condition: $a }";

struct Worker {
    zygote: Child,
    /// It lives as long as its socket.
    _zygotes: OwnedFd,
    socket: OwnedFd,
    pidfd: OwnedFd,
    _rules: tempfile::TempDir,
}

impl Worker {
    fn start() -> Self {
        Self::fork(false)
    }

    fn fork(background: bool) -> Self {
        let rules = tempfile::tempdir().expect("a folder");
        std::fs::write(rules.path().join("a.yar"), RULE).expect("a rule");
        let (ours, theirs) = seqpacket::pair().expect("a pair");
        let zygote = Command::new(env!("CARGO_BIN_EXE_lazaret-scan-worker"))
            .arg("--rules")
            .arg(rules.path())
            .stdin(Stdio::from(theirs))
            .spawn()
            .expect("the program");
        let (ready, _) = hear::<FromZygote>(&ours);
        assert!(
            matches!(ready.message, Some(from_zygote::Message::Ready(_))),
            "{ready:?}"
        );
        let fork = Fork { background };
        tell(&ours, &ToZygote { fork: Some(fork) }, None);
        let (_, [socket, pidfd, _]) = hear::<FromZygote>(&ours);
        let (socket, pidfd) = (socket.expect("a worker's socket"), pidfd.expect("its pidfd"));
        Self {
            zygote,
            _zygotes: ours,
            socket,
            pidfd,
            _rules: rules,
        }
    }

    /// Hands a content over, in a message or in memory.
    fn tell(&self, content: Option<Vec<u8>>, memory: Option<BorrowedFd<'_>>) {
        let unpack = Unpack {
            depth: 6,
            members: 10_000,
            size: 64 << 20,
            ratio: 100,
            time_ms: 60_000,
        };
        let scan = Scan {
            content,
            unpack: Some(unpack),
        };
        tell(&self.socket, &ToWorker { scan: Some(scan) }, memory);
    }

    fn scan(&self, content: &[u8]) -> (Vec<Member>, Scanned) {
        self.tell(None, Some(sealed(content).as_fd()));
        self.hear()
    }

    fn hear(&self) -> (Vec<Member>, Scanned) {
        let mut members = Vec::new();
        loop {
            match hear::<FromWorker>(&self.socket).0.message {
                Some(from_worker::Message::Members(some)) => members.extend(some.members),
                Some(from_worker::Message::Scanned(scanned)) => return (members, scanned),
                other => panic!("{other:?}"),
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.zygote.kill().expect("it runs");
        self.zygote.wait().expect("it was ours");
    }
}

fn draft(content: &[u8]) -> Draft {
    let mut draft = Draft::new("test").expect("memory");
    draft.write_all(content).expect("filled");
    draft
}

fn sealed(content: &[u8]) -> Sealed {
    draft(content).seal().expect("sealed")
}

fn tell(socket: &OwnedFd, message: &impl Message, memory: Option<BorrowedFd<'_>>) {
    seqpacket::send(socket, &message.encode_to_vec(), memory.as_slice()).expect("sent");
}

fn hear<M: Message + Default>(socket: &OwnedFd) -> (M, Fds) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let (mut buffer, mut fds) = (vec![0; MAX_MESSAGE], Fds::default());
    assert!(
        lazaret_sys::wait::readable(socket.as_fd(), Some(deadline)).expect("a wait"),
        "no answer"
    );
    let length = seqpacket::receive(socket, &mut buffer, &mut fds).expect("a message");
    (M::decode(&buffer[..length]).expect("a message of ours"), fds)
}

fn tar(files: impl Iterator<Item = (String, Vec<u8>)>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        builder
            .append_data(&mut header, name, &content[..])
            .expect("an entry");
    }
    builder.into_inner().expect("an archive")
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content).expect("packed");
    encoder.finish().expect("packed")
}

#[test]
fn what_an_archive_holds_is_judged_in_the_sandbox() {
    let worker = Worker::start();
    let shell = ["<?php ev", "al($_PO", "ST['p']);"].concat().into_bytes();
    let files = [
        ("a.txt", b"the marker".to_vec()),
        ("b.php", shell),
        ("c.txt", b"nothing".to_vec()),
    ];
    let files = files.map(|(name, content)| (name.to_owned(), content));
    let (members, scanned) = worker.scan(&gzip(&tar(files.into_iter())));
    let found: Vec<_> = members
        .iter()
        .flat_map(|member| {
            member
                .findings
                .iter()
                .map(|finding| (member.path.as_str(), finding.engine()))
        })
        .collect();
    assert!(found.contains(&("gzip!/a.txt", Engine::Yara)), "{found:?}");
    assert!(found.contains(&("gzip!/b.php", Engine::Structure)), "{found:?}");
    assert_eq!((members.len(), scanned.limit()), (4, Limit::Unspecified));
    let inner = members
        .iter()
        .find(|member| member.path == "gzip!/c.txt")
        .expect("told");
    assert_eq!(inner.sha256.len(), 2);
}

#[test]
fn thousands_of_members_and_a_bomb_are_answered_by_the_same_worker() {
    let worker = Worker::start();
    let many = (0..5_000).map(|n| {
        (
            format!("folder/member-{n}.txt"),
            format!("content {n}").into_bytes(),
        )
    });
    assert_eq!(worker.scan(&tar(many)).0.len(), 5_000);
    let start = Instant::now();
    let (_, scanned) = worker.scan(&gzip(&vec![0; 60 << 20]));
    assert_eq!(scanned.limit(), Limit::Ratio);
    println!("a bomb was answered after {:?}", start.elapsed());
    let (members, scanned) = worker.scan(b"the marker");
    assert!(members.is_empty());
    assert_eq!(scanned.findings.len(), 1);
}

#[test]
fn a_content_in_a_message_is_judged_as_one_in_memory() {
    let worker = Worker::start();
    worker.tell(Some(b"the marker".to_vec()), None);
    assert_eq!(worker.hear().1, worker.scan(b"the marker").1);
    worker.tell(Some(b"nothing".to_vec()), None);
    assert!(worker.hear().1.findings.is_empty());
}

#[test]
fn what_could_still_change_is_not_judged() {
    let worker = Worker::start();
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(b"the marker").expect("a full file");
    worker.tell(None, Some(file.as_fd()));
    let not_scanned = match hear::<FromWorker>(&worker.socket).0.message {
        Some(from_worker::Message::NotScanned(not)) => not,
        other => panic!("{other:?}"),
    };
    assert_eq!(not_scanned.reason(), Reason::ReadError);
    assert_eq!(worker.scan(b"the marker").1.findings.len(), 1, "it goes on");
}

#[test]
fn a_worker_for_the_background_runs_behind_all_others() {
    let nice = |worker: &Worker| {
        let pid = lazaret_sys::pidfd::pid(&worker.pidfd).expect("it lives");
        rustix::process::getpriority_process(rustix::process::Pid::from_raw(pid)).expect("it lives")
    };
    let (opener, background) = (Worker::start(), Worker::fork(true));
    // Forked does not say that it is ready.
    for worker in [&opener, &background] {
        worker.scan(b"nothing");
    }
    assert_eq!(
        nice(&opener),
        rustix::process::getpriority_process(None).expect("ours")
    );
    assert_eq!(nice(&background), 19);
}
