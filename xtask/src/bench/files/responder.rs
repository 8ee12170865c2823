//! A guard that lets everything pass: the least that asking can cost.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use lazaret_sys::fanotify::{EVENT_SIZE, Group, Response};
use lazaret_sys::wait;
use nix::unistd::Pid;

/// Events read at once.
const BATCH: usize = 64;

/// How often it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);

/// Answers for one container until it is dropped.
pub(super) struct Responder {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    pub(super) fn start(init: Pid) -> Result<Self> {
        let group = Group::new()?;
        group.mark_superblock(File::open(format!("/proc/{init}/root"))?.as_fd())?;
        let over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; BATCH * EVENT_SIZE];
            while !ends.load(Ordering::Relaxed) {
                if wait::readable(group.as_fd(), Some(Instant::now() + LOOK)).unwrap_or(false) {
                    // What cannot be read or answered is answered by the kernel when the group closes.
                    let _read = group.read(&mut buffer, |event| {
                        let _answered = group.respond(event.number(), Response::Allow);
                    });
                }
            }
        });
        Ok(Self {
            over,
            thread: Some(thread),
        })
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // It has nothing to fail with.
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}
