//! Where a shim listens: one socket for each group of containers.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use containerd_shim::StartOpts;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::{Mode, umask};

/// The kernel allows 107; containerd's own shim stays below that by one.
const MAX_PATH: usize = 106;

/// The scheme that containerd expects.
const SCHEME: &str = "unix://";

/// A shim's socket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Address(PathBuf);

impl Address {
    /// The socket of a group: hashed, so that no name of a container gets into it.
    pub(crate) fn new(
        containerd: &str,
        namespace: &str,
        group: &str,
        dir: Option<String>,
    ) -> anyhow::Result<Self> {
        let options = StartOpts {
            address: containerd.to_owned(),
            namespace: namespace.to_owned(),
            socket_dir: dir,
            ..Default::default()
        };
        let address = options.socket_address(group);
        let path = address.strip_prefix(SCHEME).unwrap_or(&address);
        ensure!(
            path.len() <= MAX_PATH,
            "the socket's path {path} has {} bytes of {MAX_PATH}; give containerd a shorter folder for sockets",
            path.len()
        );
        Ok(Self(path.into()))
    }

    /// As containerd is told.
    pub(crate) fn url(&self) -> String {
        format!("{SCHEME}{}", self.0.display())
    }

    /// Listens there; none when a living shim does already.
    pub(crate) fn claim(&self) -> anyhow::Result<Option<UnixListener>> {
        let path = &self.0;
        let dir = path.parent().context("a socket needs a folder")?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .with_context(|| format!("cannot make the folder {}", dir.display()))?;
        // Two starts must not both take the socket of a dead shim away.
        let folder = File::open(dir).with_context(|| format!("cannot open {}", dir.display()))?;
        let _one_at_a_time = Flock::lock(folder, FlockArg::LockExclusive)
            .map_err(|(_, error)| error)
            .with_context(|| format!("cannot lock {}", dir.display()))?;
        match bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            bound => {
                return bound
                    .map(Some)
                    .with_context(|| format!("cannot listen on {}", path.display()));
            }
        }
        if !self.remove_dead()? {
            return Ok(None);
        }
        bind(path)
            .map(Some)
            .with_context(|| format!("cannot listen on {}", path.display()))
    }

    /// Removes the socket if nobody listens on it; false when somebody does.
    pub(crate) fn remove_dead(&self) -> anyhow::Result<bool> {
        let path = &self.0;
        // connect(2) refuses a plain file just as it refuses a dead socket.
        let is_socket = || {
            path.symlink_metadata()
                .is_ok_and(|meta| meta.file_type().is_socket())
        };
        let removed = match UnixStream::connect(path) {
            Ok(_) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && is_socket() => {
                std::fs::remove_file(path)
            }
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot replace the dead socket {}", path.display()))
            }
            _ => Ok(true),
        }
    }

    /// The address that a URL names, if it is one of ours.
    pub(crate) fn from_url(url: &str) -> Option<Self> {
        let path = Path::new(url.trim().strip_prefix(SCHEME)?);
        path.is_absolute().then(|| Self(path.to_owned()))
    }
}

/// Binds a socket that nobody else could ever connect to. Called before there are
/// threads: the mask is the whole process's.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let before = umask(Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(path);
    umask(before);
    bound
}

/// The path of a socket that was handed to us.
pub(crate) fn of_listener(socket: &UnixListener) -> Option<PathBuf> {
    socket.local_addr().ok()?.as_pathname().map(Path::to_owned)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Mutex;

    use super::*;
    use crate::sync::lock;

    /// The mask is the whole process's, and tests are threads of one.
    static UMASK: Mutex<()> = Mutex::new(());

    fn address(dir: &Path) -> Address {
        let dir = dir.join("s").to_str().unwrap().to_owned();
        Address::new("/run/containerd/containerd.sock", "default", "g", Some(dir)).unwrap()
    }

    #[test]
    fn is_the_same_for_a_group_only() {
        let of = |containerd, namespace, group| Address::new(containerd, namespace, group, None).unwrap();
        let address = of("/run/c.sock", "k8s.io", "g");
        assert_eq!(address, of("/run/c.sock", "k8s.io", "g"));
        for other in [
            of("/run/d.sock", "k8s.io", "g"),
            of("/run/c.sock", "moby", "g"),
            of("/run/c.sock", "k8s.io", "h"),
        ] {
            assert_ne!(address, other);
        }
        assert!(
            address.url().starts_with("unix:///run/containerd/s/"),
            "{}",
            address.url()
        );
        assert_eq!(Address::from_url(&address.url()), Some(address));
    }

    #[test]
    fn refuses_what_the_kernel_would_refuse_later() {
        let error = Address::new("a", "b", "c", Some(format!("/{}", "x".repeat(60)))).unwrap_err();
        assert!(error.to_string().contains("shorter folder"), "{error}");
    }

    #[test]
    fn only_its_owner_can_reach_the_socket() {
        let _alone = lock(&UMASK);
        let dir = tempfile::tempdir().unwrap();
        let address = address(dir.path());
        let _listener = address.claim().unwrap().unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (mode(&address.0), mode(address.0.parent().unwrap())),
            (0o600, 0o700)
        );
    }

    #[test]
    fn a_living_shim_keeps_it_and_a_dead_one_is_replaced() {
        let _alone = lock(&UMASK);
        let dir = tempfile::tempdir().unwrap();
        let address = address(dir.path());
        let listener = address.claim().unwrap().unwrap();
        assert!(address.claim().unwrap().is_none());
        assert!(!address.remove_dead().unwrap());
        drop(listener);
        assert!(address.claim().unwrap().is_some());
        assert!(address.remove_dead().unwrap() && !address.0.exists());
        assert!(address.remove_dead().unwrap(), "what is gone is removed");
    }

    #[test]
    fn takes_no_file_away_that_is_no_socket() {
        let _alone = lock(&UMASK);
        let dir = tempfile::tempdir().unwrap();
        let address = address(dir.path());
        std::fs::create_dir(dir.path().join("s")).unwrap();
        std::fs::write(&address.0, "precious").unwrap();
        assert!(address.claim().is_err());
        assert!(address.0.exists());
    }
}
