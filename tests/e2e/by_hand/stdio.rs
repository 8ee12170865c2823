//! The client's side of a process's streams.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::thread::{JoinHandle, spawn};

use anyhow::{Context as _, Result};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use rustix::fs::{OFlags, fcntl_setfl};

/// Paths, or URLs, as a client sends them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stdio {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
}

/// The reading end of an output.
#[derive(Debug)]
pub(crate) struct Output(File);

impl Stdio {
    /// Nothing in, nothing out.
    pub(crate) fn null() -> Self {
        Self::default()
    }

    /// Both outputs to one URL, as `ctr --log-uri` has them.
    pub(crate) fn logged(url: &str) -> Self {
        Self {
            stdout: url.to_owned(),
            stderr: url.to_owned(),
            ..Self::default()
        }
    }

    /// Fifos in a fresh folder.
    pub(crate) fn fifos(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let fifo = |name: &str| -> Result<String> {
            let path = dir.join(name);
            mkfifo(&path, Mode::S_IRWXU).with_context(|| path.display().to_string())?;
            Ok(path.display().to_string())
        };
        Ok(Self {
            stdin: fifo("in")?,
            stdout: fifo("out")?,
            stderr: fifo("err")?,
            terminal: false,
        })
    }

    /// Fifos for the outputs alone.
    pub(crate) fn outputs(dir: &Path) -> Result<Self> {
        Ok(Self {
            stdin: String::new(),
            ..Self::fifos(dir)?
        })
    }

    /// Fifos for a terminal.
    pub(crate) fn terminal(dir: &Path) -> Result<Self> {
        Ok(Self {
            stderr: String::new(),
            terminal: true,
            ..Self::fifos(dir)?
        })
    }

    /// Opened before the shim opens its end: neither waits for the other.
    pub(crate) fn open_stdout(&self) -> Result<Output> {
        Output::open(&self.stdout)
    }

    pub(crate) fn open_stderr(&self) -> Result<Output> {
        Output::open(&self.stderr)
    }

    /// The writing end of the input, once the shim has opened its own.
    pub(crate) fn open_stdin(&self) -> Result<Input> {
        let path = PathBuf::from(&self.stdin);
        let opened = File::options().write(true).open(&path);
        Ok(Input(opened.with_context(|| path.display().to_string())?))
    }
}

impl Output {
    pub(crate) fn open(path: &str) -> Result<Self> {
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let opened = File::options().read(true).custom_flags(flags).open(path);
        Ok(Self(opened.with_context(|| path.to_owned())?))
    }

    /// Reads in a thread until the shim closes its end. It must have opened it.
    pub(crate) fn collect(self) -> Result<JoinHandle<Vec<u8>>> {
        let mut file = self.blocking()?;
        Ok(spawn(move || {
            let mut all = Vec::new();
            // What came before an error is what there is.
            drop(file.read_to_end(&mut all));
            all
        }))
    }

    /// The file itself, reads of which wait.
    pub(crate) fn blocking(self) -> Result<File> {
        fcntl_setfl(&self.0, OFlags::empty())?;
        Ok(self.0)
    }
}

/// The writing end of an input.
#[derive(Debug)]
pub(crate) struct Input(File);

impl Input {
    pub(crate) fn write(&mut self, text: &str) -> Result<()> {
        Ok(self.0.write_all(text.as_bytes())?)
    }
}

/// What a thread has read, as text.
pub(crate) fn text(thread: JoinHandle<Vec<u8>>) -> String {
    String::from_utf8_lossy(&thread.join().unwrap_or_default()).into_owned()
}
