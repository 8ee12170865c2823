//! An engine of others: a program that speaks the worker's side of `scan.proto`.
//!
//! The zygote does for it what it does for our own workers, and lazaretd sees no difference:
//! privileges are given up once, and a child is forked whenever one is wanted. This child runs
//! the program, whose standard input is the socket.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};

use anyhow::{Context, Result};
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use crate::zygote::{self, Work};
use crate::{Args, sandbox};

/// How the program is run.
pub(crate) struct Engine {
    program: PathBuf,
    args: Vec<String>,
    memory: u64,
}

impl Engine {
    /// None when rules judge.
    pub(crate) fn of(args: &Args) -> Option<Self> {
        Some(Self {
            program: args.engine.clone()?,
            args: args.args.clone(),
            memory: args.memory,
        })
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Another one when the program is another one. What else it judges by is its own affair.
    ///
    /// # Errors
    /// When the program cannot be read.
    pub(crate) fn version(&self) -> Result<String> {
        let mut hasher = Sha256::new();
        let mut file =
            File::open(&self.program).with_context(|| format!("cannot open {}", self.program.display()))?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = io::Read::read(&mut file, &mut buffer)?;
            if length == 0 {
                break;
            }
            hasher.update(buffer.get(..length).unwrap_or_default());
        }
        for argument in &self.args {
            hasher.update([0]);
            hasher.update(argument);
        }
        Ok(hasher
            .finalize()
            .iter()
            .take(6)
            .map(|byte| format!("{byte:02x}"))
            .collect())
    }

    /// Returns only when it cannot; what is wrong then is the value either way.
    fn exec(&self, socket: OwnedFd, background: bool) -> Result<anyhow::Error, anyhow::Error> {
        zygote::rank(background)?;
        sandbox::narrow_program(self.memory)?;
        // A program that waits for a message should not have to poll.
        let flags = rustix::fs::fcntl_getfl(&socket)?;
        rustix::fs::fcntl_setfl(&socket, flags - OFlags::NONBLOCK)?;
        // What it prints is nobody's: our own standard output leads nowhere.
        let nowhere = rustix::io::fcntl_dupfd_cloexec(io::stdout(), 3)?;
        let error = Command::new(&self.program)
            .args(&self.args)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .current_dir("/")
            .stdin(Stdio::from(socket))
            .stderr(Stdio::from(nowhere))
            .exec();
        Ok(error.into())
    }
}

impl Work for Engine {
    /// Becomes the program.
    fn run(&self, socket: OwnedFd, background: bool) -> ! {
        // By then standard error is the program's, which leads nowhere.
        let log = rustix::io::fcntl_dupfd_cloexec(io::stderr(), 3).map(File::from);
        let error = self.exec(socket, background).unwrap_or_else(|error| error);
        let program = self.program.display();
        if let Ok(mut log) = log {
            // Who cannot be told is told by the end of the socket.
            drop(writeln!(
                log,
                "lazaret-scan-worker: cannot run {program}: {error:#}"
            ));
        }
        process::exit(1)
    }
}
