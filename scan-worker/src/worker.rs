//! A worker: one content after the other, until lazaretd hangs up.

use std::io;
use std::os::fd::OwnedFd;
use std::process;
use std::time::{Duration, Instant};

use lazaret_api::scan::v1::not_scanned::Reason;
use lazaret_api::scan::v1::{
    FromWorker, Member, Members, NotScanned, ToWorker, Unpack, from_worker::Message,
};
use lazaret_scan_worker::judge::{Judge, bounded};
use lazaret_scan_worker::similar::Similar;
use lazaret_scan_worker::unpack::Limits;
use lazaret_sys::sealed::{Mapped, Sealed};
use lazaret_sys::seqpacket::MAX_FDS;
use prost::Message as _;
use yara_x::Rules;

use crate::wire;

/// Members of so many bytes go together. One more, which is the largest, still fits.
const BATCH: usize = 24 << 10;

/// Never returns: the zygote's stack below is not the worker's. `enter` makes a worker of this
/// process.
pub(crate) fn run(
    socket: &OwnedFd,
    rules: &Rules,
    similar: &Similar,
    enter: impl FnOnce() -> anyhow::Result<()>,
) -> ! {
    if let Err(error) = enter() {
        eprintln!("lazaret-scan-worker: {error:#}");
        process::exit(1);
    }
    let mut judge = Judge::new(rules, similar);
    let (mut buffer, mut fds) = (wire::buffer(), [const { None }; MAX_FDS]);
    while let Ok(Some(ToWorker { scan: Some(scan) })) = wire::receive(socket, &mut buffer, &mut fds) {
        let limits = scan.unpack.map(|unpack| limits(unpack, Instant::now()));
        let [memory, ..] = &mut fds;
        let answered = match (scan.content, memory.take()) {
            (Some(content), _) => answer(socket, &mut judge, &content, limits),
            (None, Some(memory)) => match map(memory) {
                Ok(content) => answer(socket, &mut judge, &content, limits),
                Err(error) => send(socket, not_scanned(Reason::ReadError, &error.to_string())),
            },
            (None, None) => break,
        };
        if answered.is_err() {
            break;
        }
    }
    process::exit(0);
}

fn map(memory: OwnedFd) -> io::Result<Mapped> {
    Sealed::accept(memory)?.map()
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
            Err(error) => not_scanned(Reason::EngineError, &error.to_string()),
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

fn not_scanned(reason: Reason, message: &str) -> Message {
    Message::NotScanned(NotScanned {
        reason: reason.into(),
        message: bounded(message),
    })
}
