//! The zygote: loads, gives up its privileges, forks.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use lazaret_api::scan::v1::{Failed, Forked, FromZygote, Problem, Ready, ToZygote, from_zygote};
use lazaret_sys::fork::{Side, fork};
use lazaret_sys::seqpacket::{self, MAX_FDS};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use yara_x::Rules;

use crate::{Args, rules, sandbox, wire, worker};

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
    let served = prepare(args, &socket).and_then(|rules| serve(&socket, &rules, args.memory));
    if let Err(error) = &served {
        let failed = from_zygote::Message::Failed(Failed {
            reason: format!("{error:#}"),
        });
        tell(&socket, failed)?;
    }
    served
}

fn prepare(args: &Args, socket: &OwnedFd) -> Result<Rules> {
    let loaded = rules::load(&args.folders, args.cache.as_deref())?;
    sandbox::enter(args.uid)?;
    let ready = Ready {
        rules: u32::try_from(loaded.rules.iter().len())?,
        problems: loaded
            .problems
            .into_iter()
            .take(MAX_PROBLEMS)
            .map(shortened)
            .collect(),
        version: loaded.version,
    };
    tell(socket, from_zygote::Message::Ready(ready))?;
    Ok(loaded.rules)
}

fn shortened(mut problem: Problem) -> Problem {
    for text in [&mut problem.file, &mut problem.message] {
        *text = text.chars().take(MAX_TEXT).collect();
    }
    problem
}

fn serve(socket: &OwnedFd, rules: &Rules, memory: u64) -> Result<()> {
    let mut fds = [const { None }; MAX_FDS];
    while let Some(ToZygote { fork: Some(_) }) = wire::receive(socket, &mut fds)? {
        reap();
        let (ours, theirs) = seqpacket::pair()?;
        match fork().context("cannot fork a worker")? {
            Side::Child => {
                drop(ours);
                worker::run(&theirs, rules, memory);
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
