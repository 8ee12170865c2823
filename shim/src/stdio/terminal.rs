//! A process on a terminal: the runtime makes it, and it has one output.

use std::sync::Arc;

use tokio::net::unix::pipe::{Receiver, Sender};

use super::{ChildEnds, Prepared, Request, Streams, fifo, log_failure, pty};
use crate::error::Result;

/// The client's fifos, before there is a terminal; what it wants of standard error
/// stays empty.
#[derive(Debug)]
pub(crate) struct Terminal {
    socket: pty::Socket,
    input: Option<(Receiver, Sender)>,
    output: Option<fifo::Output>,
}

impl Terminal {
    pub(super) fn open(request: &Request) -> Result<(Prepared, ChildEnds)> {
        let terminal = Self {
            socket: pty::Socket::open()?,
            input: match request.stdin.as_str() {
                "" => None,
                path => Some((fifo::input(path)?, fifo::hold(path)?)),
            },
            output: match request.stdout.as_str() {
                "" => None,
                path => Some(fifo::output(path)?),
            },
        };
        let ends = ChildEnds {
            console_socket: Some(terminal.socket.path().to_owned()),
            ..ChildEnds::default()
        };
        Ok((Prepared::Terminal(terminal), ends))
    }

    pub(super) async fn start(self) -> Result<Streams> {
        let pty = Arc::new(self.socket.receive().await?);
        let (to, unread) = match self.output {
            Some(output) => (Some(output.to), vec![output.unread]),
            None => (None, Vec::new()),
        };
        let mut streams = Streams::new(unread);
        let outward = pty.clone();
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
