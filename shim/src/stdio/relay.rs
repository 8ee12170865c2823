//! Bytes between a pipe and a fifo, moved by the kernel (`splice`), so that no buffer
//! of ours holds them.

use std::io;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::Notify;
use tokio::task::coop::consume_budget;

/// What one `splice` moves at most: as much as a pipe holds.
const CHUNK: usize = 64 << 10;

/// One stream: bytes go from a pipe to a fifo, or the other way.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) from: Receiver,
    pub(super) to: Sender,
}

/// When a relay is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// The last writer has gone and all is read.
    End,
    /// All that is there now is read.
    Empty,
}

impl Relay {
    /// An input ends with its client, or when the client says so.
    pub(super) async fn run_until_closed(&self, close: &Notify) -> io::Result<()> {
        let with_the_client = async {
            // A fifo that nobody has opened yet reads as one that has ended.
            self.until_readable().await?;
            self.run(Until::End).await
        };
        tokio::select! {
            done = with_the_client => done,
            () = close.notified() => self.run(Until::Empty).await,
        }
    }

    /// Moves bytes as they come, and waits without a wake-up while there are none.
    pub(super) async fn run(&self, until: Until) -> io::Result<()> {
        let Self { from, to } = self;
        loop {
            match splice(from, None, to, None, CHUNK, SpliceFlags::NONBLOCK) {
                Ok(0) => return Ok(()),
                // A stream that never pauses must not keep the other tasks from running.
                Ok(_) => consume_budget().await,
                Err(Errno::INTR) => {}
                // One of the two sides is not ready; the kernel does not say which.
                Err(Errno::AGAIN) if is_ready(from, PollFlags::IN).is_ok() => self.until_writable().await?,
                Err(Errno::AGAIN) if until == Until::Empty => return Ok(()),
                Err(Errno::AGAIN) => self.until_readable().await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn until_readable(&self) -> io::Result<()> {
        while self.from.try_io(|| is_ready(&self.from, PollFlags::IN)).is_err() {
            self.from.readable().await?;
        }
        Ok(())
    }

    async fn until_writable(&self) -> io::Result<()> {
        while self.to.try_io(|| is_ready(&self.to, PollFlags::OUT)).is_err() {
            self.to.writable().await?;
        }
        Ok(())
    }
}

/// Asks the kernel, and says `WouldBlock` for no. What has lost its other side is
/// ready too: the next call will tell.
fn is_ready(end: impl AsFd, flags: PollFlags) -> io::Result<()> {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    match poll(&mut [PollFd::new(&end, flags)], Some(&now))? {
        0 => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(()),
    }
}
