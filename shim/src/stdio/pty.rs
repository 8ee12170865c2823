//! The master side of a terminal: the runtime makes it inside the container and sends
//! it to us over a socket; we copy between it and the client's fifos.

use std::env;
use std::fs::Permissions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lazaret_sys::{seqpacket, watched};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::termios::{Winsize, isatty, tcsetwinsize};
use tempfile::TempDir;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;

use super::sink::Sink;
use crate::error::{Context, Error, Result};

/// What is copied at once: the kernel hands out no more of a terminal's output.
const CHUNK: usize = 4 << 10;

/// A runtime that has succeeded has sent the terminal before it returned.
const ARRIVAL: Duration = Duration::from_secs(5);

/// Where the runtime sends a terminal. The folder is root's alone and lies where
/// paths are short: a socket's has at most 107 bytes, and a bundle's may have more.
#[derive(Debug)]
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    _folder: TempDir,
}

/// The master side of a terminal.
#[derive(Debug)]
pub(super) struct Pty(AsyncFd<OwnedFd>);

impl Socket {
    pub(super) fn open() -> Result<Self> {
        Self::open_in(&env::temp_dir())
    }

    fn open_in(parent: &Path) -> Result<Self> {
        let cannot = || format!("cannot make a socket for a terminal in {}", parent.display());
        let folder = tempfile::Builder::new()
            .prefix("lazaret-pty-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(parent)
            .context(cannot)?;
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).context(cannot)?;
        Ok(Self {
            listener,
            path,
            _folder: folder,
        })
    }

    /// What the runtime is told.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the terminal that the runtime has sent.
    pub(super) async fn receive(self) -> Result<Pty> {
        let received = async {
            let (stream, _) = self.listener.accept().await?;
            Pty::new(receive(&stream).await?)
        };
        tokio::time::timeout(ARRIVAL, received)
            .await
            .map_err(|_late| Error::internal("the OCI runtime sent no terminal"))?
            .context(|| "the OCI runtime sent no terminal")
    }
}

/// One descriptor, and a name that nobody needs. The messages of a stream socket end
/// where descriptors are attached, so it is received like any other message.
async fn receive(stream: &UnixStream) -> io::Result<OwnedFd> {
    let (mut name, mut fds) = ([0; 256], seqpacket::Fds::default());
    stream
        .async_io(Interest::READABLE, || {
            seqpacket::receive(stream, &mut name, &mut fds)
        })
        .await?;
    let [first, ..] = fds;
    first.ok_or_else(|| io::Error::other("its message holds no descriptor"))
}

impl Pty {
    fn new(master: OwnedFd) -> io::Result<Self> {
        if !isatty(&master) {
            return Err(io::Error::other("what it sent is none"));
        }
        fcntl_setfl(&master, fcntl_getfl(&master)? | OFlags::NONBLOCK)?;
        watched::watch(master, Interest::READABLE | Interest::WRITABLE).map(Self)
    }

    /// Tells the processes how large their terminal is shown.
    pub(super) fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        let size = Winsize {
            ws_col: columns,
            ws_row: rows,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        Ok(tcsetwinsize(&self.0, size)?)
    }

    /// Copies to the client until no process has the terminal open any more. Without
    /// a client, too: a full terminal would stop the processes.
    pub(super) async fn copy_out(&self, mut to: Sink) -> io::Result<()> {
        let mut chunk = [0; CHUNK];
        loop {
            let length = self.read(&mut chunk).await?;
            match chunk.get(..length) {
                None | Some([]) => return Ok(()),
                Some(output) => to.write_all(output).await?,
            }
        }
    }

    /// Copies from the client. `held` keeps the fifo from ending when a client goes
    /// away; that ends with `close`, and then the last client's end is the end.
    pub(super) async fn copy_in(&self, mut from: Receiver, held: Sender, close: &Notify) -> io::Result<()> {
        let copy = async {
            let mut chunk = [0; CHUNK];
            loop {
                let length = from.read(&mut chunk).await?;
                match chunk.get(..length) {
                    None | Some([]) => return Ok(()),
                    Some(input) => self.write_all(input).await?,
                }
            }
        };
        tokio::pin!(copy);
        tokio::select! {
            done = &mut copy => return done,
            () = close.notified() => drop(held),
        }
        copy.await
    }

    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.async_io(Interest::READABLE, |master| {
            Ok(rustix::io::read(master, &mut *buffer)?)
        });
        match read.await {
            Err(error) if has_hung_up(&error) => Ok(0),
            done => done,
        }
    }

    async fn write_all(&self, mut input: &[u8]) -> io::Result<()> {
        while !input.is_empty() {
            let written = self
                .0
                .async_io(Interest::WRITABLE, |master| Ok(rustix::io::write(master, input)?))
                .await;
            let written = match written {
                Err(error) if has_hung_up(&error) => return Ok(()),
                done => done?,
            };
            input = input.get(written..).unwrap_or_default();
        }
        Ok(())
    }
}

/// Linux's way to say that the last process has closed its side.
fn has_hung_up(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::IO)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::{AsFd, BorrowedFd};
    use std::os::unix::net::UnixStream as StdStream;
    use std::sync::Arc;

    use nix::pty::openpty;
    use rustix::termios::tcgetwinsize;
    use tokio::net::unix::pipe;

    use super::*;

    /// As a runtime does it.
    fn send(socket: &Socket, fds: &[BorrowedFd<'_>]) {
        let stream = StdStream::connect(socket.path()).unwrap();
        seqpacket::send(&stream, b"/dev/ptmx", fds).unwrap();
    }

    async fn received() -> (Pty, File) {
        let socket = Socket::open().unwrap();
        let pair = openpty(None, None).unwrap();
        send(&socket, &[pair.master.as_fd()]);
        drop(pair.master);
        (socket.receive().await.unwrap(), pair.slave.into())
    }

    #[tokio::test(flavor = "current_thread")]
    async fn output_arrives_and_ends_with_the_last_process() {
        let (pty, mut process) = received().await;
        let (to, mut client) = pipe::pipe().unwrap();
        process.write_all(b"one\ntwo").unwrap();
        drop(process);
        pty.copy_out(Sink::Pipe(to)).await.unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "one\r\ntwo");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn output_without_a_client_stops_no_process() {
        let (pty, mut process) = received().await;
        let writer = std::thread::spawn(move || process.write_all(&[b'x'; 100_000]).unwrap());
        pty.copy_out(Sink::Nowhere).await.unwrap();
        writer.join().unwrap();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn input_arrives_until_it_is_closed() {
        let (pty, mut process) = received().await;
        let (held, from) = pipe::pipe().unwrap();
        let (pty, close) = (Arc::new(pty), Arc::new(Notify::new()));
        let (copying, closing) = (pty.clone(), close.clone());
        let path = lazaret_sys::fd_path(&held);
        let mut client = File::options().write(true).open(path).unwrap();
        let copy = tokio::spawn(async move { copying.copy_in(from, held, &closing).await });
        client.write_all(b"hello\n").unwrap();
        let read = tokio::task::spawn_blocking(move || {
            let mut line = [0; 6];
            process.read_exact(&mut line).unwrap();
            (line, process)
        });
        let (line, _process) = read.await.unwrap();
        assert_eq!(&line, b"hello\n");
        close.notify_one();
        drop(client);
        copy.await.unwrap().unwrap();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn has_the_size_that_it_is_given() {
        let (pty, process) = received().await;
        pty.resize(101, 37).unwrap();
        let size = tcgetwinsize(&process).unwrap();
        assert_eq!((size.ws_col, size.ws_row), (101, 37));
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn says_that_no_terminal_came() {
        let silent = Socket::open().unwrap().receive().await;
        let empty = Socket::open().unwrap();
        send(&empty, &[]);
        let other = Socket::open().unwrap();
        send(&other, &[File::open("/dev/null").unwrap().as_fd()]);
        for result in [silent, empty.receive().await, other.receive().await] {
            let error = result.unwrap_err().to_string();
            assert!(error.contains("sent no terminal"), "{error}");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn its_socket_is_roots_alone_and_goes() {
        let socket = Socket::open().unwrap();
        let folder = socket.path().parent().unwrap().to_owned();
        assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        drop(socket);
        assert!(!folder.exists());
        let long = env::temp_dir().join("x".repeat(120));
        std::fs::create_dir_all(&long).unwrap();
        let error = Socket::open_in(&long).unwrap_err().to_string();
        std::fs::remove_dir_all(&long).unwrap();
        assert!(error.contains("cannot make a socket for a terminal"), "{error}");
    }
}
