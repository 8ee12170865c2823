//! Where bytes go that we hold: a pipe, a file, or nowhere.

use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe::{Receiver, Sender};

use crate::error::{Error, Result};

/// What is written to a file at once: a quarter of what a pipe holds.
const CHUNK: usize = 16 << 10;

/// The modes with which containerd's own shim makes logs and their folders.
const FOLDER: u32 = 0o755;
const LOG: u32 = 0o644;

/// The end of a stream.
#[derive(Debug)]
pub(super) enum Sink {
    Nowhere,
    Pipe(Sender),
    File(Log),
}

/// A file that grows at its end. Writing to it may wait for a disk, so another thread does.
#[derive(Debug, Clone)]
pub(super) struct Log(Arc<File>);

impl Sink {
    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Nowhere => Ok(()),
            Self::Pipe(pipe) => pipe.write_all(bytes).await,
            Self::File(log) => log.write_all(bytes.to_vec()).await.map(drop),
        }
    }
}

impl Log {
    /// Opens a file, and makes it and its folders if need be.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let folder = path.parent().unwrap_or(path);
        let opened = DirBuilder::new()
            .recursive(true)
            .mode(FOLDER)
            .create(folder)
            .and_then(|()| File::options().append(true).create(true).mode(LOG).open(path));
        match opened {
            Ok(file) => Ok(Self(Arc::new(file))),
            Err(error) => Err(Error::invalid_argument(format!(
                "cannot log to {}: {error}",
                path.display()
            ))),
        }
    }

    /// Copies to its end all that comes out of a pipe.
    pub(super) async fn copy(self, from: Receiver) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        loop {
            from.readable().await?;
            match from.try_read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(length) => {
                    chunk.truncate(length);
                    chunk = self.write_all(chunk).await?;
                    chunk.resize(CHUNK, 0);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives the buffer back.
    async fn write_all(&self, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let file = Arc::clone(&self.0);
        let written = tokio::task::spawn_blocking(move || (&*file).write_all(&bytes).map(|()| bytes));
        written.await.map_err(io::Error::other)?
    }
}
