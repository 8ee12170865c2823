//! A worker: one file after the other, until lazaretd hangs up.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::process;
use std::time::{Duration, Instant};

use lazaret_api::scan::v1::not_scanned::Reason;
use lazaret_api::scan::v1::{
    FromWorker, Member, Members, NotScanned, Scan, ToWorker, Unpack, from_worker::Message,
};
use lazaret_scan_worker::judge::{Judge, bounded};
use lazaret_scan_worker::similar::Similar;
use lazaret_scan_worker::unpack::Limits;
use lazaret_sys::seqpacket::MAX_FDS;
use prost::Message as _;
use yara_x::Rules;

use crate::{sandbox, wire};

/// A buffer beyond this, in bytes, is given back after the scan.
const KEPT_BUFFER: usize = 4 << 20;

/// Members of so many bytes go together. One more, which is the largest, still fits.
const BATCH: usize = 24 << 10;

/// Never returns: the zygote's stack below is not the worker's.
pub(crate) fn run(socket: &OwnedFd, rules: &Rules, similar: &Similar, memory: u64) -> ! {
    if let Err(error) = sandbox::narrow(memory) {
        eprintln!("lazaret-scan-worker: {error:#}");
        process::exit(1);
    }
    let mut judge = Judge::new(rules, similar);
    let mut buffer = Vec::new();
    let mut fds = [const { None }; MAX_FDS];
    while let Ok(Some(ToWorker { scan: Some(scan) })) = wire::receive(socket, &mut fds) {
        let [file, ..] = &mut fds;
        let Some(file) = file.take().map(File::from) else {
            break;
        };
        let limits = scan.unpack.map(|unpack| limits(unpack, Instant::now()));
        let read = read(&file, scan, &mut buffer);
        // It must be closed before the answer: then lazaretd lets go of the container.
        drop(file);
        let answered = read.map_or_else(
            |not_scanned| send(socket, Message::NotScanned(not_scanned)),
            |()| answer(socket, &mut judge, &buffer, limits),
        );
        if answered.is_err() {
            break;
        }
        buffer.clear();
        buffer.shrink_to(KEPT_BUFFER);
    }
    process::exit(0);
}

/// Reads with `pread`, never maps: the file may be cut short meanwhile, which would
/// be a `SIGBUS`, and the descriptor's offset is the container's own business.
fn read(file: &File, scan: Scan, buffer: &mut Vec<u8>) -> Result<(), NotScanned> {
    let error = |error: io::Error| not_scanned(Reason::ReadError, &error.to_string());
    let size = file.metadata().map_err(error)?.len();
    if size > scan.max_size {
        return Err(not_scanned(Reason::TooLarge, ""));
    }
    let size = usize::try_from(size).map_err(|_too_large| not_scanned(Reason::TooLarge, ""))?;
    buffer.resize(size, 0);
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, filled as u64).map_err(error)? {
            0 => break,
            length => filled += length,
        }
    }
    buffer.truncate(filled);
    Ok(())
}

/// Judges a content and tells what came out, members as they come.
fn answer(socket: &OwnedFd, judge: &mut Judge<'_>, content: &[u8], limits: Option<Limits>) -> io::Result<()> {
    let mut batch = Batch::default();
    let mut told = Ok(());
    let scanned = judge.judge(content, limits, &mut |member| {
        if told.is_ok() {
            told = batch.add(socket, member);
        }
    });
    told?;
    batch.send(socket)?;
    send(
        socket,
        match scanned {
            Ok(scanned) => Message::Scanned(scanned),
            Err(error) => Message::NotScanned(not_scanned(Reason::EngineError, &error.to_string())),
        },
    )
}

/// Members that wait to be told together: a library has thousands.
#[derive(Default)]
struct Batch {
    members: Members,
    bytes: usize,
}

impl Batch {
    fn add(&mut self, socket: &OwnedFd, member: Member) -> io::Result<()> {
        self.bytes += member.encoded_len();
        self.members.members.push(member);
        if self.bytes > BATCH {
            self.send(socket)
        } else {
            Ok(())
        }
    }

    fn send(&mut self, socket: &OwnedFd) -> io::Result<()> {
        let Self { members, bytes } = std::mem::take(self);
        if bytes == 0 {
            return Ok(());
        }
        send(socket, Message::Members(members))
    }
}

fn send(socket: &OwnedFd, message: Message) -> io::Result<()> {
    let message = Some(message);
    wire::send(socket, &FromWorker { message }, &[])
}

fn limits(unpack: Unpack, now: Instant) -> Limits {
    let Unpack {
        depth,
        members,
        size,
        ratio,
        time_ms,
    } = unpack;
    Limits {
        depth,
        members,
        size,
        ratio,
        deadline: now + Duration::from_millis(time_ms.into()),
    }
}

fn not_scanned(reason: Reason, message: &str) -> NotScanned {
    NotScanned {
        reason: reason.into(),
        message: bounded(message),
    }
}
