//! The standard streams of a process: pipes on its side, the client's fifos on
//! the other, and the kernel moves the bytes between them (`splice`), so that no
//! buffer of ours holds them.
//!
//! We keep both ends of an output's fifo: a client may go away and come back, and
//! neither does the process die of `SIGPIPE` nor is what it wrote lost. An input
//! ends when its client closes it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Gid, Uid, fchown};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use tokio::net::unix::pipe::{OpenOptions, Receiver, Sender};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::task::coop::consume_budget;

use crate::error::{Context, Error, Result};
use crate::options::Options;
use crate::sync::lock;

/// What one `splice` moves at most: as much as a pipe holds.
const CHUNK: usize = 64 << 10;

/// How long a process that has ended may keep us waiting for its last output:
/// somebody else may have inherited its end of the pipe.
const DRAIN: Duration = Duration::from_secs(10);

/// Where the client wants the streams: paths of fifos, empty for none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
}

/// Our side of the streams of a process that the runtime is still making: what it
/// says about a failure is an error for containerd, and not the process's output.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    input: Option<Relay>,
    outputs: Vec<Relay>,
    unread: Vec<OwnedFd>,
}

/// Our side of a process's streams. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Streams {
    outputs: JoinSet<()>,
    /// Nobody waits for its end.
    _input: JoinSet<()>,
    close_stdin: Arc<Notify>,
    /// Reading ends of the output fifos, so that what nobody has read yet stays.
    _unread: Vec<OwnedFd>,
}

/// The process's side, for the runtime that starts it.
#[derive(Debug, Default)]
pub(crate) struct ChildEnds(Mutex<Ends>);

#[derive(Debug, Default)]
struct Ends {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

/// One stream: bytes go from a pipe to a fifo, or the other way.
#[derive(Debug)]
struct Relay {
    from: Receiver,
    to: Sender,
}

/// When a relay is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// The last writer has gone and all is read.
    End,
    /// All that is there now is read.
    Empty,
}

impl Prepared {
    /// Opens the client's fifos and makes a pipe for each.
    pub(crate) fn open(request: &Request, options: &Options) -> Result<(Self, ChildEnds)> {
        if request.terminal {
            return Err(Error::unimplemented(
                "terminals are not supported yet; run it without one",
            ));
        }
        let mut prepared = Self::default();
        let ends = Ends {
            stdin: prepared.input(&request.stdin, options)?,
            stdout: prepared.output(&request.stdout, options)?,
            stderr: prepared.output(&request.stderr, options)?,
        };
        Ok((prepared, ChildEnds(Mutex::new(ends))))
    }

    fn input(&mut self, path: &str, options: &Options) -> Result<Option<OwnedFd>> {
        if path.is_empty() {
            return Ok(None);
        }
        let from = open_fifo(path, OpenOptions::open_receiver)?;
        let (child, to) = new_pipe(options).context(|| format!("no pipe for {path}"))?;
        let to = Sender::from_owned_fd(to).context(|| format!("no pipe for {path}"))?;
        self.input = Some(Relay { from, to });
        Ok(Some(child))
    }

    fn output(&mut self, path: &str, options: &Options) -> Result<Option<OwnedFd>> {
        if path.is_empty() {
            return Ok(None);
        }
        let unread = open_fifo(path, OpenOptions::open_receiver)?;
        let to = open_fifo(path, OpenOptions::open_sender)?;
        let (from, child) = new_pipe(options).context(|| format!("no pipe for {path}"))?;
        let from = Receiver::from_owned_fd(from).context(|| format!("no pipe for {path}"))?;
        self.outputs.push(Relay { from, to });
        // Held, and no longer registered for events that nobody wants.
        self.unread.push(
            unread
                .into_nonblocking_fd()
                .context(|| format!("cannot hold {path}"))?,
        );
        Ok(Some(child))
    }

    /// Lets the bytes flow.
    pub(crate) fn start(self) -> Streams {
        let close_stdin = Arc::new(Notify::new());
        let mut outputs = JoinSet::new();
        for relay in self.outputs {
            // When it ends it drops the fifo's last writer, which ends the client's read.
            outputs.spawn(async move { log_failure(relay.run(Until::End).await) });
        }
        let mut input = JoinSet::new();
        if let Some(relay) = self.input {
            let close = close_stdin.clone();
            input.spawn(async move { log_failure(relay.run_until_closed(&close).await) });
        }
        Streams {
            outputs,
            _input: input,
            close_stdin,
            _unread: self.unread,
        }
    }
}

impl Streams {
    /// Lets the process see the end of its input once it has read what the client
    /// has written so far.
    pub(crate) fn close_stdin(&self) {
        self.close_stdin.notify_one();
    }

    /// Waits until all that the process wrote has reached the fifos.
    pub(crate) async fn drain(mut self) {
        let all = async { while self.outputs.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, all).await.is_err() {
            tracing::warn!("a process has ended, but another one holds its output open; it is cut off");
        }
    }
}

impl Relay {
    /// An input ends with its client, or when the client says so.
    async fn run_until_closed(&self, close: &Notify) -> io::Result<()> {
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
    async fn run(&self, until: Until) -> io::Result<()> {
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

#[async_trait]
impl runc::Io for ChildEnds {
    /// Moves the ends into the command, with which our copies are closed.
    async fn set(&self, command: &mut runc::Command) -> io::Result<()> {
        let ends = std::mem::take(&mut *lock(&self.0));
        let stdio = |end: Option<OwnedFd>| end.map_or_else(Stdio::null, Stdio::from);
        command
            .stdin(stdio(ends.stdin))
            .stdout(stdio(ends.stdout))
            .stderr(stdio(ends.stderr));
        Ok(())
    }

    async fn close_after_start(&self) {}
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

fn log_failure(done: io::Result<()>) {
    match done {
        // The process does not read its input any more.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => tracing::warn!("a standard stream broke: {error}"),
        Ok(()) => {}
    }
}

/// Opens one end of the client's fifo without waiting for the client. The reading
/// end must come first: there is no writing to a fifo that nobody reads.
fn open_fifo<'a, E>(path: &'a str, open: fn(&OpenOptions, &'a str) -> io::Result<E>) -> Result<E> {
    if let Some((scheme, _)) = path.split_once("://") {
        return Err(Error::unimplemented(format!(
            "{scheme}:// loggers are not supported yet; use a fifo"
        )));
    }
    if !Path::new(path).is_absolute() {
        return Err(Error::invalid_argument(format!(
            "the path {path} of a standard stream is not absolute"
        )));
    }
    open(&OpenOptions::new(), path)
        .map_err(|error| Error::invalid_argument(format!("cannot use {path} as a standard stream: {error}")))
}

/// A pipe that belongs to whom the runtime options say: (reading, writing) end.
fn new_pipe(options: &Options) -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    fchown(
        &read,
        Some(Uid::from_raw(options.io_uid)),
        Some(Gid::from_raw(options.io_gid)),
    )?;
    Ok((read, write))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::unix::fs::OpenOptionsExt;

    use nix::sys::stat::Mode;
    use rustix::fs::{OFlags, fcntl_getfl};

    use super::*;

    struct Client {
        dir: tempfile::TempDir,
    }

    impl Client {
        fn new() -> Self {
            let client = Self {
                dir: tempfile::tempdir().unwrap(),
            };
            for name in ["in", "out"] {
                nix::unistd::mkfifo(&client.dir.path().join(name), Mode::S_IRWXU).unwrap();
            }
            client
        }

        fn path(&self, name: &str) -> String {
            self.dir.path().join(name).to_str().unwrap().to_owned()
        }

        fn streams(&self) -> (Streams, Ends) {
            let request = Request {
                stdin: self.path("in"),
                stdout: self.path("out"),
                ..Request::default()
            };
            let (prepared, ends) = Prepared::open(&request, &Options::default()).unwrap();
            (prepared.start(), ends.0.into_inner().unwrap())
        }

        /// Reads in a thread, as a client would, until the end of the file.
        fn read_all(&self) -> std::thread::JoinHandle<Vec<u8>> {
            let mut fifo = File::open(self.path("out")).unwrap();
            std::thread::spawn(move || {
                let mut all = Vec::new();
                fifo.read_to_end(&mut all).unwrap();
                all
            })
        }
    }

    fn in_runtime(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(test);
    }

    async fn join<T: Send + 'static>(thread: std::thread::JoinHandle<T>) -> T {
        tokio::task::spawn_blocking(move || thread.join().unwrap())
            .await
            .unwrap()
    }

    #[test]
    fn output_arrives_whole_and_ends() {
        in_runtime(async {
            let client = Client::new();
            let (streams, ends) = client.streams();
            let reader = client.read_all();
            let sent: Vec<u8> = (0..1 << 20).map(|n: u32| (n % 251) as u8).collect();
            let (mut stdout, to_send) = (File::from(ends.stdout.unwrap()), sent.clone());
            let writer =
                std::thread::spawn(move || to_send.chunks(997).for_each(|c| stdout.write_all(c).unwrap()));
            join(writer).await;
            streams.drain().await;
            assert!(join(reader).await == sent);
        });
    }

    #[test]
    fn output_outlives_a_client_that_goes_away() {
        in_runtime(async {
            let client = Client::new();
            let (streams, ends) = client.streams();
            drop(File::open(client.path("out")).unwrap());
            File::from(ends.stdout.unwrap()).write_all(b"late").unwrap();
            let mut outputs = streams.outputs;
            outputs.join_next().await.unwrap().unwrap();
            // The fifo has it all; only the reading end that we keep holds it.
            let mut open = File::options();
            let mut client = open
                .read(true)
                .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
                .open(client.path("out"))
                .unwrap();
            let mut text = [0; 4];
            client.read_exact(&mut text).unwrap();
            assert_eq!(&text, b"late");
            drop(streams._unread);
        });
    }

    #[test]
    fn input_ends_after_all_that_was_written_before_it_was_closed() {
        in_runtime(async {
            let client = Client::new();
            let (streams, ends) = client.streams();
            let mut stdin = File::from(ends.stdin.unwrap());
            let mut writer = File::options().write(true).open(client.path("in")).unwrap();
            writer.write_all(&[7; 60_000]).unwrap();
            streams.close_stdin();
            // The client keeps its end open, and the process sees the end all the same.
            let reader = std::thread::spawn(move || {
                let mut all = Vec::new();
                stdin.read_to_end(&mut all).unwrap();
                all.len()
            });
            assert_eq!(join(reader).await, 60_000);
            drop(writer);
        });
    }

    #[test]
    fn input_waits_for_its_client_and_ends_with_it() {
        in_runtime(async {
            let client = Client::new();
            let (_streams, ends) = client.streams();
            let mut stdin = File::from(ends.stdin.unwrap());
            tokio::task::yield_now().await; // The relay waits; nobody has opened the fifo.
            let mut writer = File::options().write(true).open(client.path("in")).unwrap();
            let reader = std::thread::spawn(move || {
                let mut all = String::new();
                stdin.read_to_string(&mut all).unwrap();
                all
            });
            writer.write_all(b"all of it").unwrap();
            drop(writer);
            assert_eq!(join(reader).await, "all of it");
        });
    }

    #[test]
    fn input_ends_if_it_is_closed_before_there_is_a_client() {
        in_runtime(async {
            let client = Client::new();
            let (streams, ends) = client.streams();
            streams.close_stdin();
            let mut stdin = File::from(ends.stdin.unwrap());
            let reader = std::thread::spawn(move || stdin.read(&mut [0]).unwrap());
            assert_eq!(join(reader).await, 0);
        });
    }

    #[test]
    fn the_process_gets_blocking_pipes() {
        in_runtime(async {
            let client = Client::new();
            let (_streams, ends) = client.streams();
            for end in [ends.stdin.unwrap(), ends.stdout.unwrap()] {
                assert!(!fcntl_getfl(&end).unwrap().contains(OFlags::NONBLOCK));
            }
        });
    }

    #[test]
    fn refuses_what_is_no_fifo() {
        in_runtime(async {
            let client = Client::new();
            let file = client.path("file");
            std::fs::write(&file, "").unwrap();
            for (path, why) in [
                (file.as_str(), "not a pipe"),
                ("/nonexistent/fifo", "No such file"),
                ("relative", "not absolute"),
                ("binary:///bin/logger?a=b", "binary:// loggers"),
            ] {
                let request = Request {
                    stdout: path.into(),
                    ..Request::default()
                };
                let error = Prepared::open(&request, &Options::default())
                    .unwrap_err()
                    .to_string();
                assert!(error.contains(why), "{error}");
            }
        });
    }
}
