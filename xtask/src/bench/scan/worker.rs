//! Scan workers alone, by their protocol (`scan.proto`), without a daemon.

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lazaret_api::scan::v1::{
    Fork, FromWorker, FromZygote, Scan, ToWorker, ToZygote, from_worker, from_zygote,
};
use lazaret_sys::sealed::Draft;
use lazaret_sys::{priority, seqpacket, wait};
use lazaret_tests::binaries::Binaries;
use lazaret_tests::procs::Server;
use lazaret_tests::scratch::Places;
use prost::Message;

use super::scanner::{self, RULES, Scanner};
use super::tree::Tree;

/// For rules to be loaded, or for one file.
const PATIENCE: Duration = Duration::from_secs(60);

/// Larger contents, in bytes, go in memory of their own, as they do from lazaretd.
const IN_MESSAGE: usize = 32 << 10;

/// As many workers as threads, each with a thread of ours that hands it one file after the other.
/// A worker ends when its socket is closed.
pub(super) struct Workers(Vec<OwnedFd>);

pub(super) fn name(threads: usize) -> String {
    match threads {
        1 => "1 worker".to_owned(),
        many => format!("{many} workers"),
    }
}

impl Workers {
    pub(super) fn start(places: &Places, binaries: &Binaries, threads: usize) -> Result<Self> {
        let (socket, theirs) = seqpacket::pair()?;
        let mut command = scanner::program(&binaries.dir().join("lazaret-scan-worker"), places);
        command.args(["--rules", RULES]);
        command.stdin(Stdio::from(theirs));
        // Ended with this function; its workers go on.
        let _zygote = Server::start(&mut command)?;
        // The command holds the zygote's end, which must be the zygote's alone.
        drop(command);
        let (first, _) = hear::<FromZygote>(&socket)?;
        ensure!(
            matches!(first.message, Some(from_zygote::Message::Ready(_))),
            "the zygote is not ready: {first:?}"
        );
        (0..threads)
            .map(|_| fork(&socket))
            .collect::<Result<_>>()
            .map(Self)
    }
}

impl Scanner for Workers {
    fn name(&self) -> String {
        name(self.0.len())
    }

    fn scan(&self, tree: &Tree) -> Result<Duration> {
        let next = AtomicUsize::new(0);
        let begun = Instant::now();
        let found = std::thread::scope(|scope| {
            let threads = self
                .0
                .iter()
                .map(|worker| scope.spawn(|| drain(worker, tree, &next)));
            let threads: Vec<_> = threads.collect();
            let joined = threads
                .into_iter()
                .map(|thread| thread.join().ok().context("a thread failed")?);
            joined.sum::<Result<usize>>()
        })?;
        let took = begun.elapsed();
        ensure!(found > 0, "the workers found nothing bad");
        Ok(took)
    }
}

fn fork(zygote: &OwnedFd) -> Result<OwnedFd> {
    let fork = Fork::default();
    tell(zygote, &ToZygote { fork: Some(fork) }, None)?;
    match hear(zygote)? {
        (
            FromZygote {
                message: Some(from_zygote::Message::Forked(_)),
            },
            [Some(worker), ..],
        ) => Ok(worker),
        (other, _) => bail!("the zygote forked no worker: {other:?}"),
    }
}

/// Has files judged until there are no more; how many were bad.
fn drain(worker: &OwnedFd, tree: &Tree, next: &AtomicUsize) -> Result<usize> {
    // As lazaretd's threads do for a scan.
    priority::lower_thread()?;
    let mut bad = 0;
    while let Some(path) = tree.files.get(next.fetch_add(1, Ordering::Relaxed)) {
        let content = fs::read(path)?;
        bad += usize::from(is_bad(worker, content).with_context(|| path.display().to_string())?);
    }
    Ok(bad)
}

/// Has one content judged. Archives are not looked into: nobody else does.
fn is_bad(worker: &OwnedFd, content: Vec<u8>) -> Result<bool> {
    let mut scan = Scan::default();
    if content.len() > IN_MESSAGE {
        let mut memory = Draft::new("bench")?;
        memory.write_all(&content)?;
        let memory = memory.seal()?;
        tell(worker, &ToWorker { scan: Some(scan) }, Some(memory.as_fd()))?;
    } else {
        scan.content = Some(content);
        tell(worker, &ToWorker { scan: Some(scan) }, None)?;
    }
    match hear::<FromWorker>(worker)?.0.message {
        Some(from_worker::Message::Scanned(scanned)) => Ok(!scanned.findings.is_empty()),
        other => bail!("not scanned: {other:?}"),
    }
}

fn tell(socket: &OwnedFd, message: &impl Message, fd: Option<BorrowedFd<'_>>) -> Result<()> {
    Ok(seqpacket::send(socket, &message.encode_to_vec(), fd.as_slice())?)
}

fn hear<M: Message + Default>(socket: &OwnedFd) -> Result<(M, seqpacket::Fds)> {
    let in_time = wait::readable(socket.as_fd(), Some(Instant::now() + PATIENCE))?;
    ensure!(in_time, "a scan worker does not answer");
    let (mut buffer, mut fds) = (vec![0; seqpacket::MAX_MESSAGE], seqpacket::Fds::default());
    let length = seqpacket::receive(socket, &mut buffer, &mut fds)?;
    ensure!(length > 0, "a scan worker has ended");
    Ok((M::decode(buffer.get(..length).unwrap_or_default())?, fds))
}
