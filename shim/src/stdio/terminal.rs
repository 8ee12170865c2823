//! A process on a terminal: the runtime makes it, and it has one output.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::net::unix::pipe::{Receiver, Sender};

use super::logger::Logger;
use super::sink::{Log, Sink};
use super::target::Target;
use super::{ChildEnds, Owner, Prepared, Request, Streams, fifo, log_failure, pty};
use crate::error::{Context, Result};

/// The client's side, before there is a terminal; what it wants of standard error stays
/// empty.
#[derive(Debug)]
pub(crate) struct Terminal {
    socket: pty::Socket,
    input: Option<(Receiver, Sender)>,
    output: Sink,
    unread: Vec<OwnedFd>,
    logger: Option<Logger>,
}

impl Terminal {
    pub(super) async fn open(request: &Request, owner: Owner<'_>) -> Result<(Prepared, ChildEnds)> {
        let mut terminal = Self {
            socket: pty::Socket::open()?,
            input: match request.stdin.as_str() {
                "" => None,
                path => Some((fifo::input(path)?, fifo::hold(path)?)),
            },
            output: Sink::Nowhere,
            unread: Vec::new(),
            logger: None,
        };
        match Target::of(request)? {
            Target::Fifos if request.stdout.is_empty() => {}
            Target::Fifos => {
                let fifo::Output { to, unread } = fifo::output(&request.stdout)?;
                terminal.output = Sink::Pipe(to);
                terminal.unread.push(unread);
            }
            Target::File(path) => terminal.output = Sink::File(Log::open(&path)?),
            Target::Binary { program, arguments } => {
                let (logger, inputs) = Logger::start(&program, &arguments, owner).await?;
                let to = Sender::from_owned_fd(inputs.stdout);
                terminal.output = Sink::Pipe(to.context(|| format!("no pipe to {}", program.display()))?);
                terminal.logger = Some(logger);
            }
        }
        let ends = ChildEnds {
            console_socket: Some(terminal.socket.path().to_owned()),
            ..ChildEnds::default()
        };
        Ok((Prepared::Terminal(terminal), ends))
    }

    pub(super) async fn start(self) -> Result<Streams> {
        let pty = Arc::new(self.socket.receive().await?);
        let mut streams = Streams::new(self.unread);
        streams.logger = self.logger;
        let (outward, to) = (pty.clone(), self.output);
        streams
            .outputs
            .spawn(async move { log_failure(outward.copy_out(to).await) });
        if let Some((from, held)) = self.input {
            let (inward, close) = (pty.clone(), streams.close_stdin.clone());
            streams
                ._input
                .spawn(async move { log_failure(inward.copy_in(from, held, &close).await) });
        }
        streams.terminal = Some(pty);
        Ok(streams)
    }
}
