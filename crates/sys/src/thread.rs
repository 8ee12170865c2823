//! Threads, as the scheduler sees them (proc(5)).

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::pidfd;

/// A thread at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thread {
    /// Its id in our pid namespace.
    pub id: i32,
    /// When it began, in clock ticks since the boot: tells it from others that get its id later.
    pub started: u64,
    /// What it does.
    pub state: State,
}

/// What a thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It runs, or waits for a processor.
    Runnable,
    /// It waits in the kernel for something that is sure to come: no signal ends the wait.
    Blocked,
    /// It sleeps until something happens, is stopped, or has ended.
    Resting,
}

impl Thread {
    /// Looks at a thread.
    ///
    /// # Errors
    /// `NotFound` when there is none of that id (any more).
    pub fn of(id: i32) -> io::Result<Self> {
        // Bytes: a thread gives itself a name, of any bytes.
        let stat = match fs::read(format!("/proc/{id}/stat")) {
            // It ended while we looked.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {
                return Err(io::ErrorKind::NotFound.into());
            }
            read => read?,
        };
        let (state, started) = parse(&stat).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { id, started, state })
    }

    /// Kills the process that it is a thread of (`SIGKILL`).
    ///
    /// # Errors
    /// `NotFound` when it has ended.
    pub fn kill_process(&self) -> io::Result<()> {
        let status = fs::read(format!("/proc/{}/status", self.id))?;
        let mut lines = status.split(|byte| *byte == b'\n');
        // A name of its own choice comes first, with its line ends escaped.
        let process = lines.find_map(|line| line.strip_prefix(b"Tgid:"));
        let process = process.and_then(|id| str::from_utf8(id).ok()?.trim().parse().ok());
        let process = pidfd::open(process.ok_or(io::ErrorKind::InvalidData)?)?;
        // It was still there after the process was found, so that is the right one.
        if Self::of(self.id)?.started != self.started {
            return Err(io::ErrorKind::NotFound.into());
        }
        pidfd::kill(process)
    }

    /// How long it has had a processor since it began.
    ///
    /// # Errors
    /// `NotFound` when it has ended, or the kernel keeps no such account (`CONFIG_SCHED_INFO`).
    pub fn ran_for(&self) -> io::Result<Duration> {
        // "RUNNING WAITING SLICES", the first two in nanoseconds
        // (Documentation/scheduler/sched-stats.rst).
        let account = fs::read_to_string(format!("/proc/{}/schedstat", self.id))?;
        let running = account.split_ascii_whitespace().next();
        let running = running.and_then(|nanoseconds| nanoseconds.parse().ok());
        running
            .map(Duration::from_nanos)
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// All threads of the machine that we can see, as of about now.
///
/// # Errors
/// As `read(2)` of `/proc`.
pub fn all() -> io::Result<Vec<i32>> {
    let numbers = |folder: &Path| -> io::Result<Vec<i32>> {
        let names = fs::read_dir(folder)?.flatten().map(|entry| entry.file_name());
        Ok(names.filter_map(|name| name.to_str()?.parse().ok()).collect())
    };
    let mut threads = Vec::new();
    for process in numbers(Path::new("/proc"))? {
        // One that ended meanwhile has none.
        threads
            .extend(numbers(&Path::new("/proc").join(process.to_string()).join("task")).unwrap_or_default());
    }
    Ok(threads)
}

/// `ID (NAME) STATE ...`, where a name may have parentheses, blanks and line ends of its own; the
/// start is the 22nd field.
fn parse(stat: &[u8]) -> Option<(State, u64)> {
    let end_of_name = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = str::from_utf8(stat.get(end_of_name + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = match fields.next()? {
        "R" => State::Runnable,
        "D" => State::Blocked,
        _ => State::Resting,
    };
    // From the 4th on, by now.
    let started = fields.nth(22 - 4)?.parse().ok()?;
    Some((state, started))
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    fn own() -> i32 {
        rustix::thread::gettid().as_raw_nonzero().get()
    }

    #[test]
    fn tells_what_runs_from_what_sleeps() {
        assert_eq!(Thread::of(own()).unwrap().state, State::Runnable);
        let (send, receive) = std::sync::mpsc::channel();
        thread::spawn(move || {
            send.send(own()).unwrap();
            thread::sleep(Duration::from_secs(60));
        });
        let sleeper = receive.recv().unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        while Thread::of(sleeper).unwrap().state != State::Resting {
            assert!(Instant::now() < until, "it never sleeps");
            thread::yield_now();
        }
    }

    #[test]
    fn accounts_for_processor_time() {
        let thread = Thread::of(own()).unwrap();
        let before = thread.ran_for().unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        while thread.ran_for().unwrap() < before + Duration::from_millis(5) {
            assert!(Instant::now() < until, "time stands still");
        }
    }

    #[test]
    fn all_are_found() {
        assert!(all().unwrap().contains(&own()));
    }

    #[test]
    fn a_process_is_killed_by_any_of_its_threads() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let thread = Thread::of(child.id().cast_signed()).unwrap();
        let later = Thread {
            started: thread.started + 1,
            ..thread
        };
        assert_eq!(later.kill_process().unwrap_err().kind(), io::ErrorKind::NotFound);
        thread.kill_process().unwrap();
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn none_is_not_found() {
        let error = Thread::of(i32::MAX).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_name_is_not_taken_for_anything_else() {
        let fields = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        let stat = format!("7 (a) S 0 (\n) R {fields}");
        assert_eq!(parse(stat.as_bytes()), Some((State::Runnable, 4711)));
        let cut = stat.len() - "4711 20".len();
        assert_eq!(parse(&stat.as_bytes()[..cut]), None);
        assert_eq!(parse(b"7 (a"), None);
        assert_eq!(parse(b""), None);
    }
}
