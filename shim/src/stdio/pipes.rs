//! A process on pipes: one for each stream that the client wants.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Mutex;

use rustix::fs::{Gid, Uid, fchown};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::net::unix::pipe::{Receiver, Sender};

use super::logger::{Inputs, Logger};
use super::relay::{Relay, Until};
use super::sink::Log;
use super::target::Target;
use super::{ChildEnds, Ends, Owner, Prepared, Request, Streams, fifo, log_failure};
use crate::error::{Context, Result};
use crate::options::Options;

/// Our side of the pipes, before they flow.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    input: Option<Relay>,
    outputs: Vec<Relay>,
    unread: Vec<OwnedFd>,
    logs: Vec<(Receiver, Log)>,
    logger: Option<Logger>,
}

impl Pipes {
    pub(super) async fn open(request: &Request, owner: Owner<'_>) -> Result<(Prepared, ChildEnds)> {
        let mut pipes = Self::default();
        let ends = match Target::of(request)? {
            Target::Fifos => pipes.fifos(request, owner.options)?,
            Target::File(path) => pipes.file(request, &Log::open(&path)?, owner.options)?,
            Target::Binary { program, arguments } => {
                let (logger, Inputs { stdout, stderr }) = Logger::start(&program, &arguments, owner).await?;
                pipes.logger = Some(logger);
                Ends {
                    stdin: None,
                    stdout: Some(stdout),
                    stderr: Some(stderr),
                }
            }
        };
        let ends = ChildEnds {
            pipes: Mutex::new(ends),
            console_socket: None,
        };
        Ok((Prepared::Pipes(pipes), ends))
    }

    fn fifos(&mut self, request: &Request, options: &Options) -> Result<Ends> {
        Ok(Ends {
            stdin: self.input(&request.stdin, options)?,
            stdout: self.output(&request.stdout, options)?,
            stderr: self.output(&request.stderr, options)?,
        })
    }

    fn file(&mut self, request: &Request, log: &Log, options: &Options) -> Result<Ends> {
        let mut logged = |wanted: &str| match wanted {
            "" => Ok(None),
            url => {
                let (from, child) = outward(url, options)?;
                self.logs.push((from, log.clone()));
                Ok(Some(child))
            }
        };
        let (stdout, stderr) = (logged(&request.stdout)?, logged(&request.stderr)?);
        Ok(Ends {
            stdin: self.input(&request.stdin, options)?,
            stdout,
            stderr,
        })
    }

    fn input(&mut self, path: &str, options: &Options) -> Result<Option<OwnedFd>> {
        if path.is_empty() {
            return Ok(None);
        }
        let from = fifo::input(path)?;
        let (child, to) = new_pipe(options).context(|| format!("no pipe for {path}"))?;
        let to = Sender::from_owned_fd(to).context(|| format!("no pipe for {path}"))?;
        self.input = Some(Relay { from, to });
        Ok(Some(child))
    }

    fn output(&mut self, path: &str, options: &Options) -> Result<Option<OwnedFd>> {
        if path.is_empty() {
            return Ok(None);
        }
        let fifo::Output { to, unread } = fifo::output(path)?;
        let (from, child) = outward(path, options)?;
        self.outputs.push(Relay { from, to });
        self.unread.push(unread);
        Ok(Some(child))
    }

    pub(super) fn start(self) -> Streams {
        let mut streams = Streams::new(self.unread);
        for relay in self.outputs {
            // When it ends it drops the fifo's last writer, which ends the client's read.
            streams
                .outputs
                .spawn(async move { log_failure(relay.run(Until::End).await) });
        }
        for (from, log) in self.logs {
            streams
                .outputs
                .spawn(async move { log_failure(log.copy(from).await) });
        }
        streams.logger = self.logger;
        if let Some(relay) = self.input {
            let close = streams.close_stdin.clone();
            streams
                ._input
                .spawn(async move { log_failure(relay.run_until_closed(&close).await) });
        }
        streams
    }
}

/// A pipe from the process to us: (our, its) end.
fn outward(path: &str, options: &Options) -> Result<(Receiver, OwnedFd)> {
    let (from, child) = new_pipe(options).context(|| format!("no pipe for {path}"))?;
    let from = Receiver::from_owned_fd(from).context(|| format!("no pipe for {path}"))?;
    Ok((from, child))
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
    use crate::reaper::Reaper;

    struct Client {
        dir: tempfile::TempDir,
    }

    async fn open(request: &Request) -> Result<(Prepared, ChildEnds)> {
        let owner = Owner {
            id: "c1",
            namespace: "default",
            options: &Options::default(),
            reaper: &Reaper::default(),
        };
        Prepared::open(request, owner).await
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

        async fn streams(&self) -> (Streams, Ends) {
            let request = Request {
                stdin: self.path("in"),
                stdout: self.path("out"),
                ..Request::default()
            };
            let (prepared, ends) = open(&request).await.unwrap();
            (prepared.start().await.unwrap(), ends.pipes.into_inner().unwrap())
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
            let (streams, ends) = client.streams().await;
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
            let (streams, ends) = client.streams().await;
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
            let (streams, ends) = client.streams().await;
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
            let (_streams, ends) = client.streams().await;
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
            let (streams, ends) = client.streams().await;
            streams.close_stdin();
            let mut stdin = File::from(ends.stdin.unwrap());
            let reader = std::thread::spawn(move || stdin.read(&mut [0]).unwrap());
            assert_eq!(join(reader).await, 0);
        });
    }

    #[test]
    fn both_outputs_are_added_to_a_file() {
        in_runtime(async {
            let client = Client::new();
            let log = client.dir.path().join("deep/log");
            std::fs::create_dir(log.parent().unwrap()).unwrap();
            std::fs::write(&log, "before,").unwrap();
            let url = format!("file://{}", log.display());
            let request = Request {
                stdout: url.clone(),
                stderr: url,
                ..Request::default()
            };
            let (prepared, ends) = open(&request).await.unwrap();
            let (streams, ends) = (prepared.start().await.unwrap(), ends.pipes.into_inner().unwrap());
            for end in [ends.stdout.unwrap(), ends.stderr.unwrap()] {
                File::from(end).write_all(&[b'x'; 40_000]).unwrap();
            }
            streams.drain().await;
            let text = std::fs::read_to_string(&log).unwrap();
            assert!(
                text.starts_with("before,x") && text.len() == 7 + 80_000,
                "{}",
                text.len()
            );
        });
    }

    #[test]
    fn the_process_gets_blocking_pipes() {
        in_runtime(async {
            let client = Client::new();
            let (_streams, ends) = client.streams().await;
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
                ("file:///proc/nonexistent/log", "cannot log to"),
            ] {
                let request = Request {
                    stdout: path.into(),
                    ..Request::default()
                };
                let error = open(&request).await.unwrap_err().to_string();
                assert!(error.contains(why), "{error}");
            }
        });
    }
}
