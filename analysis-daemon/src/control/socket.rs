//! The socket: who may connect, and what becomes of an old one.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// How long no connection is taken when the node is out of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens on `path`, whose folder must be closed to others already. The socket
/// of a daemon that is gone is replaced; that of a living one is not.
pub(super) fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Ok(found) = fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "something that is not a socket is there",
            ));
        }
        if StdUnixStream::connect(path).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another lazaretd answers there",
            ));
        }
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// The connections of users who may give orders.
///
/// Ends when the receiver is dropped. Never yields an error, because the server
/// would take one for the end.
pub(super) fn accept(listener: UnixListener) -> ReceiverStream<io::Result<UnixStream>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            match accepted {
                Ok((peer, _)) if may_command(&peer) => {
                    if sender.send(Ok(peer)).await.is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot take a control connection");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    });
    ReceiverStream::new(receiver)
}

/// The socket's mode says the same. It would not hold if somebody opened the
/// folder up, or handed a connected descriptor to another user's process before
/// that one used it; the kernel remembers who connected.
fn may_command(peer: &UnixStream) -> bool {
    match peer.peer_cred() {
        Ok(peer) if is_trusted(peer.uid()) => true,
        Ok(peer) => {
            tracing::warn!(
                uid = peer.uid(),
                pid = peer.pid(),
                "a control connection of another user was refused"
            );
            false
        }
        Err(error) => {
            tracing::warn!(%error, "a control connection of an unknown user was refused");
            false
        }
    }
}

fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == nix::unistd::geteuid().as_raw()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test is a panic")]
mod tests {
    use std::os::unix::net::UnixListener as StdUnixListener;

    use super::*;

    #[test]
    fn trusts_root_and_itself() {
        assert!(is_trusted(0));
        assert!(is_trusted(nix::unistd::geteuid().as_raw()));
        assert!(!is_trusted(65_534));
    }

    #[tokio::test]
    async fn replaces_the_socket_of_a_dead_daemon_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        drop(StdUnixListener::bind(&path).unwrap());
        let living = listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(listen(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(living);
        listen(&path).unwrap();
    }

    #[tokio::test]
    async fn replaces_nothing_but_a_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        fs::write(&path, "mine").unwrap();
        assert_eq!(listen(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }
}
