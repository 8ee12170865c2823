//! Being told when a container runs out of memory.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use lazaret_sys::watched;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Cgroup;
use super::files::Folder;

/// An eventfd has 8 bytes; some events of inotify that have no name fit into these.
const BUFFER: usize = 512;

/// Armed for one cgroup.
#[derive(Debug)]
pub(crate) struct Watch {
    fd: AsyncFd<OwnedFd>,
    source: Source,
}

/// What makes the descriptor readable.
#[derive(Debug)]
enum Source {
    /// The kernel counts up an eventfd, and once more when the cgroup is removed.
    Control(PathBuf),
    /// `memory.events` has changed: for this reason if more were killed than before.
    Events { folder: Folder, killed: AtomicU64 },
}

impl Watch {
    /// Begins to watch.
    pub(crate) fn arm(cgroup: &Cgroup) -> io::Result<Self> {
        match cgroup {
            Cgroup::V1(controllers) => match controllers.get("memory") {
                Some(memory) => Self::control(memory),
                None => Err(io::Error::other("the memory controller is not mounted")),
            },
            Cgroup::V2(folder) => Self::events(folder.clone()),
        }
    }

    fn control(memory: &Folder) -> io::Result<Self> {
        let path = memory.path("memory.oom_control");
        let control = File::open(&path)?;
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let arm = format!("{} {}", fd.as_raw_fd(), control.as_raw_fd());
        fs::write(memory.path("cgroup.event_control"), arm)?;
        Self::new(fd, Source::Control(path))
    }

    fn events(folder: Folder) -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(&fd, folder.path("memory.events"), inotify::WatchFlags::MODIFY)?;
        let killed = AtomicU64::new(killed(&folder));
        Self::new(fd, Source::Events { folder, killed })
    }

    fn new(fd: OwnedFd, source: Source) -> io::Result<Self> {
        let fd = watched::watch(fd, Interest::READABLE)?;
        Ok(Self { fd, source })
    }

    /// Waits for the next time that memory runs out; for ever if there is none.
    pub(crate) async fn next(&self) {
        loop {
            let Ok(mut ready) = self.fd.readable().await else {
                return std::future::pending().await;
            };
            let happened = self.happened();
            // Emptied just now: what comes later makes it ready once more.
            ready.clear_ready();
            if happened {
                return;
            }
        }
    }

    /// Whether memory has run out since it was asked last.
    pub(crate) fn happened(&self) -> bool {
        let mut buffer = [0; BUFFER];
        let mut signalled = false;
        while rustix::io::read(&self.fd, &mut buffer).is_ok_and(|length| length > 0) {
            signalled = true;
        }
        signalled
            && match &self.source {
                Source::Control(path) => path.exists(),
                Source::Events {
                    folder,
                    killed: known,
                } => {
                    let now = killed(folder);
                    known.swap(now, Ordering::Relaxed) < now
                }
            }
    }
}

fn killed(folder: &Folder) -> u64 {
    folder.keyed("memory.events").get("oom_kill")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::super::files::tests::folder;
    use super::*;

    async fn tells(watch: &Watch) -> bool {
        tokio::time::timeout(Duration::from_millis(50), watch.next())
            .await
            .is_ok()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn version_2_tells_once_that_somebody_was_killed() {
        let (_dir, folder) = folder(&[("memory.events", "oom 1\noom_kill 1\n")]);
        let watch = Watch::arm(&Cgroup::V2(folder.clone())).unwrap();
        let events = |text: &str| fs::write(folder.path("memory.events"), text).unwrap();
        assert!(!tells(&watch).await, "what was before is not told");
        events("max 5\noom 2\noom_kill 1\n");
        assert!(!tells(&watch).await, "nobody was killed");
        events("max 5\noom 2\noom_kill 2\n");
        assert!(tells(&watch).await);
        assert!(!tells(&watch).await && !watch.happened(), "it is told once");
        events("max 5\noom 3\noom_kill 3\n");
        assert!(watch.happened(), "also who does not wait is told");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn version_1_tells_no_removal() {
        let (dir, folder) = folder(&[("memory.oom_control", ""), ("cgroup.event_control", "")]);
        let watch = Watch::control(&folder).unwrap();
        let armed = folder.text("cgroup.event_control");
        assert!(
            armed.starts_with(&format!("{} ", watch.fd.as_raw_fd())),
            "{armed}"
        );
        let kernel = || rustix::io::write(&watch.fd, &1_u64.to_ne_bytes()).unwrap();
        kernel();
        assert!(tells(&watch).await && !watch.happened());
        dir.close().unwrap();
        kernel();
        assert!(!tells(&watch).await);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn says_why_it_cannot_watch() {
        let error = Watch::arm(&Cgroup::V1(super::super::Controllers::new())).unwrap_err();
        assert!(error.to_string().contains("memory controller"));
        let (_dir, folder) = folder(&[]);
        assert!(Watch::arm(&Cgroup::V2(folder)).is_err());
    }
}
