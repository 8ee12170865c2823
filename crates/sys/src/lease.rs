//! Read leases: whoever holds one is told *before* anybody may write to the file (fcntl(2),
//! "Leases").
//!
//! The kernel refuses a lease while the file is open for writing anywhere, which includes a
//! shared writable mapping whose descriptor was closed. It makes a later writer wait until the
//! lease is given back, at most `fs.lease-break-time` seconds.

use std::io;
use std::marker::PhantomData;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Instant;

use crate::wait;

/// What libc lacks (include/uapi/asm-generic/fcntl.h).
const F_SETSIG: libc::c_int = 10;
const F_SETOWN_EX: libc::c_int = 15;
const F_OWNER_TID: libc::c_int = 0;

/// Broken leases read at once.
const BATCH: usize = 64;

/// `struct signalfd_siginfo` (signalfd(2)).
const INFO: usize = size_of::<libc::signalfd_siginfo>();

/// What the kernel sends when a lease is to be given back. A real-time signal: it queues, and it
/// names the descriptor.
fn signal() -> libc::c_int {
    libc::SIGRTMIN() + 1
}

/// A file that nobody can write to unnoticed.
#[derive(Debug)]
pub struct Lease(OwnedFd);

impl Lease {
    /// Takes a lease through a descriptor that is open for reading only; `listener` will hear of
    /// its end.
    ///
    /// # Errors
    /// `EAGAIN` when the file is open for writing, `EACCES` without `CAP_LEASE`, `EINVAL` where
    /// the file system or `fs.leases-enable` has none.
    pub fn take(file: OwnedFd, listener: Listener) -> io::Result<Self> {
        fcntl(file.as_fd(), F_SETSIG, signal())?;
        listener.own(file.as_fd())?;
        fcntl(file.as_fd(), libc::F_SETLEASE, libc::F_RDLCK)?;
        Ok(Self(file))
    }

    /// Whether nobody has asked to write since the lease was taken.
    ///
    /// # Errors
    /// As `fcntl(2)`.
    pub fn is_whole(&self) -> io::Result<bool> {
        // While it is being broken, the kernel tells what it is to become.
        Ok(fcntl(self.as_fd(), libc::F_GETLEASE, 0)? == libc::F_RDLCK)
    }

    /// What [`Broken::File`] calls this lease.
    #[must_use]
    pub fn number(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Lease {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Not left to the close: another descriptor of the same open file may live on. It fails
        // when the kernel took the lease back already.
        let _taken_back = fcntl(self.as_fd(), libc::F_SETLEASE, libc::F_UNLCK);
    }
}

fn fcntl(fd: BorrowedFd<'_>, command: libc::c_int, argument: libc::c_int) -> io::Result<libc::c_int> {
    // SAFETY: these commands take and return integers, and touch no memory of ours.
    match unsafe { libc::fcntl(fd.as_raw_fd(), command, argument) } {
        -1 => Err(io::Error::last_os_error()),
        value => Ok(value),
    }
}

/// That signal, and what comes instead when the queue is full (fcntl(2), F_SETSIG).
fn signals() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: it initialises the set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: it was initialised just now.
    let mut set = unsafe { set.assume_init() };
    for signal in [libc::SIGIO, signal()] {
        // SAFETY: the set is initialised, and the signal exists.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    set
}

/// Whose lease is to be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// The one with this number, if it has not been given back meanwhile.
    File(RawFd),
    /// Some were lost because the queue of signals was full: any lease may be.
    Any,
}

/// Hears of the leases that are to be given back. Stays in the thread that made it: the signals
/// go to that thread alone, so no other has to know of them.
#[derive(Debug)]
pub struct Breaks {
    signals: OwnedFd,
    stays: PhantomData<*const ()>,
}

/// Names the thread of a [`Breaks`], which must live for as long as the leases.
#[derive(Debug, Clone, Copy)]
pub struct Listener(libc::pid_t);

impl Listener {
    fn own(self, file: BorrowedFd<'_>) -> io::Result<()> {
        // struct f_owner_ex { int type; pid_t pid; } (fcntl(2), F_SETOWN_EX)
        let owner: [libc::c_int; 2] = [F_OWNER_TID, self.0];
        // SAFETY: the kernel reads the two integers, which outlive the call.
        match unsafe { libc::fcntl(file.as_raw_fd(), F_SETOWN_EX, owner.as_ptr()) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

impl Breaks {
    /// Begins to listen in this thread.
    ///
    /// # Errors
    /// As `pthread_sigmask(3)` and `signalfd(2)`.
    pub fn listen() -> io::Result<Self> {
        let signals = signals();
        // SAFETY: the set is initialised, and the old one is not asked for.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals, std::ptr::null_mut()) } {
            0 => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
        // SAFETY: as above.
        match unsafe { libc::signalfd(-1, &raw const signals, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) } {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(Self {
                // SAFETY: the kernel has just returned this descriptor, and nobody else has it.
                signals: unsafe { OwnedFd::from_raw_fd(fd) },
                stays: PhantomData,
            }),
        }
    }

    /// Whom leases are to be taken for.
    #[must_use]
    pub fn listener(&self) -> Listener {
        Listener(rustix::thread::gettid().as_raw_nonzero().get())
    }

    /// Waits for broken leases and gives each to `each`; none when the deadline came first.
    ///
    /// # Errors
    /// As `poll(2)` and `read(2)`.
    pub fn wait(&self, deadline: Option<Instant>, mut each: impl FnMut(Broken)) -> io::Result<()> {
        if !wait::readable(self.signals.as_fd(), deadline)? {
            return Ok(());
        }
        let mut buffer = [0; BATCH * INFO];
        let length = match rustix::io::read(&self.signals, &mut buffer) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(()),
            read => read?,
        };
        let infos = buffer.get(..length).unwrap_or_default().chunks_exact(INFO);
        infos.filter_map(broken).for_each(&mut each);
        Ok(())
    }
}

/// `ssi_signo u32, ssi_errno s32, ssi_code s32, ssi_pid u32, ssi_uid u32, ssi_fd s32, ...`
fn broken(info: &[u8]) -> Option<Broken> {
    let number = |at: usize| Some(i32::from_ne_bytes(*info.get(at..)?.first_chunk()?));
    if number(0)? == signal() {
        Some(Broken::File(number(20)?))
    } else {
        Some(Broken::Any)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, OpenOptions};
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn file() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "content").unwrap();
        (folder, path)
    }

    fn lease(path: &Path, breaks: &Breaks) -> io::Result<Lease> {
        Lease::take(File::open(path).unwrap().into(), breaks.listener())
    }

    fn impatient() -> OpenOptions {
        let mut writer = File::options();
        writer.write(true).custom_flags(libc::O_NONBLOCK);
        writer
    }

    #[test]
    fn a_writer_is_told_of_and_waits() {
        let (_folder, path) = file();
        let breaks = Breaks::listen().unwrap();
        let lease = lease(&path, &breaks).unwrap();
        assert!(lease.is_whole().unwrap());
        let refused = impatient().open(&path).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EAGAIN));
        assert!(!lease.is_whole().unwrap());
        let mut heard = Vec::new();
        let deadline = Some(Instant::now() + SOON);
        breaks.wait(deadline, |broken| heard.push(broken)).unwrap();
        assert_eq!(heard, [Broken::File(lease.number())]);
        drop(lease);
        impatient().open(&path).unwrap();
    }

    #[test]
    fn none_while_somebody_may_write() {
        let (_folder, path) = file();
        let breaks = Breaks::listen().unwrap();
        let writer = File::options().write(true).open(&path).unwrap();
        let refused = lease(&path, &breaks).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EAGAIN));
        drop(writer);
        assert!(lease(&path, &breaks).is_ok());
    }

    #[test]
    fn given_back_though_the_open_file_lives_on() {
        let (_folder, path) = file();
        let breaks = Breaks::listen().unwrap();
        let file = File::open(&path).unwrap();
        drop(Lease::take(file.try_clone().unwrap().into(), breaks.listener()).unwrap());
        assert!(impatient().open(&path).is_ok());
    }
}
