//! Opens or execs without a pause, each timed.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::files;

/// Opened in turn; `fill` made them before: under a storm of its own it would come too late.
const FILES: usize = 64;
/// The exit code by which a file that ran tells so.
const RAN: i32 = 42;

enum End {
    /// Opened, or executed to its end.
    Done,
    Denied,
    Failed(String),
}

#[derive(Default)]
struct Tally {
    waits: Vec<Duration>,
    done: usize,
    denied: usize,
    failed: Vec<String>,
}

/// Opens the files of `dir` from many threads.
pub(crate) fn opens(dir: &Path, time: Duration, threads: usize) -> Value {
    storm(time, threads, |turn| {
        judge(File::open(files::path(dir, turn % FILES)))
    })
}

/// Executes `file`, an applet shell, from many threads.
pub(crate) fn execs(file: &Path, time: Duration, threads: usize) -> Value {
    storm(time, threads, |_| execute(file))
}

fn execute(file: &Path) -> End {
    let script = format!("exit {RAN}");
    let mut command = Command::new(file);
    match command.args(["-c", &script]).stdin(Stdio::null()).status() {
        Ok(status) if status.code() == Some(RAN) => End::Done,
        Ok(status) => End::Failed(status.to_string()),
        Err(error) => judge::<()>(Err(error)),
    }
}

fn judge<T>(result: io::Result<T>) -> End {
    match result {
        Ok(_) => End::Done,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => End::Denied,
        Err(error) => End::Failed(error.to_string()),
    }
}

fn storm(time: Duration, threads: usize, act: impl Fn(usize) -> End + Sync) -> Value {
    let end = Instant::now() + time;
    let mut sum = Tally::default();
    thread::scope(|scope| {
        let act = &act;
        let workers: Vec<_> = (0..threads)
            .map(|number| scope.spawn(move || work(end, number, act)))
            .collect();
        for worker in workers {
            sum.add(worker.join().unwrap_or_default());
        }
    });
    sum.summary()
}

fn work(end: Instant, first: usize, act: impl Fn(usize) -> End) -> Tally {
    let mut tally = Tally::default();
    for turn in first.. {
        let started = Instant::now();
        if started >= end {
            break;
        }
        match act(turn) {
            End::Done => tally.done += 1,
            End::Denied => tally.denied += 1,
            End::Failed(why) => tally.failed.push(why),
        }
        tally.waits.push(started.elapsed());
    }
    tally
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.waits.extend(other.waits);
        self.done += other.done;
        self.denied += other.denied;
        self.failed.extend(other.failed);
    }

    fn summary(mut self) -> Value {
        self.waits.sort_unstable();
        let at = |percent: usize| {
            let index = self.waits.len().saturating_sub(1) * percent / 100;
            self.waits.get(index).map(Duration::as_micros)
        };
        self.failed.truncate(5);
        json!({
            "done": self.done,
            "denied": self.denied,
            "failed": self.failed,
            "p50_us": at(50),
            "p99_us": at(99),
            "max_us": at(100),
        })
    }
}
