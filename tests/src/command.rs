//! Running a program to its end: output kept, deadline kept.

use std::fmt;
use std::io::{Read, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long a program may take when nobody says otherwise.
pub const LIMIT: Duration = Duration::from_secs(120);

/// What a program left behind.
#[derive(Clone)]
pub struct Outcome {
    /// Exit code; 128+n when signal n ended it, as a shell has it.
    pub code: i32,
    /// Standard output, as it came.
    pub stdout: Vec<u8>,
    /// Standard error, as it came.
    pub stderr: Vec<u8>,
    /// From spawn to exit.
    pub took: Duration,
}

impl Outcome {
    /// Standard output as text, without white space around it.
    #[must_use]
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }

    /// Standard error as text, without white space around it.
    #[must_use]
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim().to_owned()
    }

    /// Standard output of a program that ended well.
    ///
    /// # Errors
    /// When it ended with another code than 0; the message holds its standard error.
    pub fn ok(&self) -> Result<String> {
        if self.code != 0 {
            bail!("exit code {}: {}{}", self.code, self.err(), self.out());
        }
        Ok(self.out())
    }
}

/// As text, and not all of it: outcomes end up in the messages of failed tests.
impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 2_000;
        let beginning = |text: String| text.chars().take(SHOWN).collect::<String>();
        writeln!(f, "exit code {} after {:?}", self.code, self.took)?;
        writeln!(
            f,
            "stdout, {} bytes: {}",
            self.stdout.len(),
            beginning(self.out())
        )?;
        writeln!(
            f,
            "stderr, {} bytes: {}",
            self.stderr.len(),
            beginning(self.err())
        )
    }
}

/// A running program whose output is being collected.
#[derive(Debug)]
pub struct Running {
    child: Child,
    started: Instant,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
}

impl Running {
    /// Starts `command` with its output collected and nothing on standard input.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        Self::spawn(command.stdin(Stdio::null()))
    }

    /// As [`Running::start`], with `input` on standard input.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_with(command: &mut Command, input: Vec<u8>) -> Result<Self> {
        let mut running = Self::spawn(command.stdin(Stdio::piped()))?;
        if let Some(mut pipe) = running.child.stdin.take() {
            // A program need not read all of it.
            spawn(move || drop(pipe.write_all(&input)));
        }
        Ok(running)
    }

    fn spawn(command: &mut Command) -> Result<Self> {
        let started = Instant::now();
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().display()))?;
        let stdout = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        Ok(Self {
            child,
            started,
            stdout,
            stderr,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end, at most `limit`; then it is killed.
    ///
    /// # Errors
    /// When it had to be killed.
    pub fn wait(mut self, limit: Duration) -> Result<Outcome> {
        let deadline = self.started.elapsed() + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break Some(status);
            }
            if self.started.elapsed() > deadline {
                self.child.kill()?;
                self.child.wait()?;
                break None;
            }
            sleep(Duration::from_millis(2));
        };
        let took = self.started.elapsed();
        let stdout = self.stdout.join().unwrap_or_default();
        let stderr = self.stderr.join().unwrap_or_default();
        let Some(status) = status else {
            bail!(
                "killed after {limit:?}; it had said: {}{}",
                String::from_utf8_lossy(&stdout),
                String::from_utf8_lossy(&stderr)
            );
        };
        Ok(Outcome {
            code: code(status),
            stdout,
            stderr,
            took,
        })
    }
}

/// Runs `command` to its end within [`LIMIT`].
///
/// # Errors
/// When it cannot be started or overruns the limit. Its exit code is the caller's to judge.
pub fn run(command: &mut Command) -> Result<Outcome> {
    let text = describe(command);
    Running::start(command)?.wait(LIMIT).with_context(|| text)
}

/// Runs `command` and expects exit code 0.
///
/// # Errors
/// When it cannot be started, overruns the limit or fails.
pub fn check(command: &mut Command) -> Result<String> {
    let text = describe(command);
    run(command)?.ok().with_context(|| text)
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(-1)
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What came before an error is still worth showing.
            drop(pipe.read_to_end(&mut bytes));
        }
        bytes
    })
}
