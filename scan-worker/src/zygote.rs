//! The zygote: loads, gives up its privileges, forks.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use lazaret_api::scan::v1::{Failed, Forked, FromZygote, Problem, Ready, ToZygote, from_zygote};
use lazaret_scan_worker::rules::{self, Loaded};
use lazaret_scan_worker::similar::Similar;
use lazaret_sys::fork::{Side, fork};
use lazaret_sys::seqpacket::{self, MAX_FDS};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use yara_x::Rules;

use crate::engine::Engine;
use crate::{Args, load_lists, sandbox, wire, worker};

/// Problems that fit into one message.
const MAX_PROBLEMS: usize = 64;

/// Bytes of a problem's message.
const MAX_TEXT: usize = 400;

/// Serves lazaretd, whose socket is standard input, until it hangs up.
///
/// # Errors
/// When it cannot load, give up its privileges, or talk to lazaretd, which is told.
pub(crate) fn run(args: &Args) -> Result<()> {
    let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
    let served = match Engine::of(args) {
        Some(engine) => prepare_engine(&engine, args, &socket).and_then(|()| serve(&socket, &engine)),
        None => prepare(args, &socket).and_then(|signatures| serve(&socket, &signatures)),
    };
    if let Err(error) = &served {
        let failed = from_zygote::Message::Failed(Failed {
            reason: format!("{error:#}"),
        });
        tell(&socket, failed)?;
    }
    served
}

/// What a forked process does to its end.
pub(crate) trait Work {
    /// Judges what comes through the socket, behind all others if nobody waits for it.
    fn run(&self, socket: OwnedFd, background: bool) -> !;
}

/// Has a process that nobody waits for come after all others. It cannot be taken back.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn rank(background: bool) -> Result<()> {
    if background {
        lazaret_sys::priority::lower_thread().context("cannot run behind all others")?;
    }
    Ok(())
}

/// All that content is compared with. Workers share it.
struct Signatures {
    rules: Rules,
    similar: Similar,
    /// Bytes that a worker may use.
    memory: u64,
}

impl Work for Signatures {
    fn run(&self, socket: OwnedFd, background: bool) -> ! {
        worker::run(&socket, &self.rules, &self.similar, || {
            rank(background)?;
            sandbox::narrow(self.memory)
        })
    }
}

fn prepare(args: &Args, socket: &OwnedFd) -> Result<Signatures> {
    let Loaded {
        rules,
        mut problems,
        version,
    } = rules::load(&args.folders, args.cache.as_deref())?;
    let similar = load_lists(args)?;
    sandbox::enter(args.uid)?;
    problems.extend_from_slice(&similar.problems);
    let ready = Ready {
        rules: u32::try_from(rules.iter().len())?,
        problems: problems.into_iter().take(MAX_PROBLEMS).map(shortened).collect(),
        version: similar.version(&version),
        similar: u32::try_from(similar.len())?,
    };
    tell(socket, from_zygote::Message::Ready(ready))?;
    Ok(Signatures {
        rules,
        similar,
        memory: args.memory,
    })
}

fn prepare_engine(engine: &Engine, args: &Args, socket: &OwnedFd) -> Result<()> {
    let version = engine.version()?;
    sandbox::enter_for_program(args.uid, &args.paths, engine.program())?;
    let ready = Ready {
        version,
        ..Ready::default()
    };
    tell(socket, from_zygote::Message::Ready(ready))
}

fn shortened(mut problem: Problem) -> Problem {
    for text in [&mut problem.file, &mut problem.message] {
        *text = text.chars().take(MAX_TEXT).collect();
    }
    problem
}

/// Forks whenever it is asked to.
fn serve(socket: &OwnedFd, work: &impl Work) -> Result<()> {
    let (mut buffer, mut fds) = (wire::buffer(), [const { None }; MAX_FDS]);
    while let Some(ToZygote { fork: Some(wanted) }) = wire::receive(socket, &mut buffer, &mut fds)? {
        reap();
        let (ours, theirs) = seqpacket::pair()?;
        match fork().context("cannot fork a worker")? {
            Side::Child => {
                drop(ours);
                work.run(theirs, wanted.background);
            }
            Side::Parent { child } => {
                // It is ours to reap, so its pid is nobody else's yet.
                let pidfd = lazaret_sys::pidfd::open(child)?;
                let forked = FromZygote {
                    message: Some(from_zygote::Message::Forked(Forked {})),
                };
                wire::send(socket, &forked, &[ours.as_fd(), pidfd.as_fd()])?;
            }
        }
    }
    Ok(())
}

/// Reaps the workers that have ended.
fn reap() {
    let ended = || waitpid(None, Some(WaitPidFlag::WNOHANG));
    while matches!(ended(), Ok(status) if status != WaitStatus::StillAlive) {}
}

fn tell(socket: &OwnedFd, message: from_zygote::Message) -> Result<()> {
    wire::send(
        socket,
        &FromZygote {
            message: Some(message),
        },
        &[],
    )
    .context("lazaretd is gone")
}
