//! Many containers alive at once on one node.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, ensure};
use nix::unistd::Pid;
use serde_json::Value;

use crate::node::Node;
use crate::procs;
use crate::run::Run;
use crate::{command, interrupt};

/// Annotations by which containerd's CRI tells the containers of a pod, and both runtimes their
/// common shim.
const SANDBOX: &str = "io.kubernetes.cri.sandbox-id";
const TYPE: &str = "io.kubernetes.cri.container-type";

/// How many containers one call of `ctr` deletes.
const AT_ONCE: usize = 50;

/// Containers that sleep.
#[derive(Debug)]
pub struct Herd<'a> {
    node: &'a Node,
    template: Run,
    /// Containers of a pod, its sandbox with them: they share a shim. 1 is a shim for each.
    pod: usize,
    /// How many are worked on at a time.
    together: usize,
    /// In the order of their start.
    ids: Vec<String>,
}

impl<'a> Herd<'a> {
    /// None yet. All will be as `template`, but for its id.
    #[must_use]
    pub fn new(node: &'a Node, template: Run, pod: usize, together: usize) -> Self {
        Self {
            node,
            template,
            pod: pod.max(1),
            together: together.max(1),
            ids: Vec::new(),
        }
    }

    /// Starts containers until there are `count`.
    ///
    /// # Errors
    /// When one does not start.
    pub fn grow(&mut self, count: usize) -> Result<()> {
        let old = self.ids.len();
        for number in old..count {
            self.ids.push(format!("{}-{number}", self.template.id()));
        }
        let new: Vec<_> = (old..count).collect();
        // A pod begins with its sandbox, whose shim the others then share.
        let (sandboxes, others): (Vec<_>, Vec<_>) =
            new.into_iter().partition(|number| self.is_sandbox(*number));
        for numbers in [sandboxes, others] {
            together(self.together, &numbers, |number| self.start(*number))?;
        }
        Ok(())
    }

    fn is_sandbox(&self, number: usize) -> bool {
        self.pod > 1 && number.is_multiple_of(self.pod)
    }

    fn start(&self, number: usize) -> Result<()> {
        let id = self.id(number)?;
        let mut run = self.template.clone().with_id(id);
        if self.pod > 1 {
            let sandbox = self.id(number - number % self.pod)?;
            let kind = if self.is_sandbox(number) {
                "sandbox"
            } else {
                "container"
            };
            run = run.option("--annotation", &format!("{SANDBOX}={sandbox}"));
            run = run.option("--annotation", &format!("{TYPE}={kind}"));
        }
        self.node.detach(&run).with_context(|| format!("starting {id}"))
    }

    fn id(&self, number: usize) -> Result<&str> {
        Ok(self.ids.get(number).context("no such container")?)
    }

    /// Where they are.
    #[must_use]
    pub fn node(&self) -> &'a Node {
        self.node
    }

    /// Their ids, in the order of their start.
    #[must_use]
    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    /// Does something with each of them, several at a time.
    ///
    /// # Errors
    /// The first one; what has not begun by then is left out.
    pub fn each(&self, work: impl Fn(&str) -> Result<()> + Sync) -> Result<()> {
        together(self.together, &self.ids, |id| {
            work(id).with_context(|| format!("with {id}"))
        })
    }

    /// Ends and removes all of them, sandboxes last.
    ///
    /// # Errors
    /// When one stays.
    pub fn stop(&mut self) -> Result<()> {
        self.shrink(0)
    }

    /// Ends and removes the youngest until there are `count`, sandboxes last.
    ///
    /// # Errors
    /// When one stays.
    pub fn shrink(&mut self, count: usize) -> Result<()> {
        let numbers = count..self.ids.len();
        let (sandboxes, others): (Vec<_>, Vec<_>) = numbers.partition(|number| self.is_sandbox(*number));
        for numbers in [others, sandboxes] {
            together(self.together, &numbers, |number| {
                let id = self.id(*number)?;
                self.node.ctr(&["task", "delete", "--force", id])?.ok().map(drop)
            })?;
        }
        let gone = self.ids.split_off(count.min(self.ids.len()));
        for ids in gone.chunks(AT_ONCE) {
            let ids = ids.iter().map(String::as_str);
            let args: Vec<_> = ["container", "delete"].into_iter().chain(ids).collect();
            self.node.ctr(&args)?.ok()?;
        }
        Ok(())
    }

    /// Checks that lazaretd guards every one of them, and refused something in each when it was
    /// `used`.
    ///
    /// # Errors
    /// It names the first that is not so.
    pub fn is_guarded(&self, used: bool) -> Result<()> {
        let status = self.node.daemon()?.status()?;
        let known = status.pointer("/containers").and_then(Value::as_array);
        let known = known.context("no containers in the status")?;
        ensure!(
            known.len() == self.ids.len(),
            "{} of {} are guarded",
            known.len(),
            self.ids.len()
        );
        for id in &self.ids {
            let container = known
                .iter()
                .find(|it| it.get("id") == Some(&Value::from(id.as_str())));
            let container = container.with_context(|| format!("{id} is not guarded"))?;
            let number = |key: &str| container.get(key).and_then(Value::as_u64).unwrap_or_default();
            let superblocks = container.get("guarded").and_then(Value::as_array);
            ensure!(
                container.get("state") == Some(&Value::from("guarded"))
                    && superblocks.is_some_and(|list| !list.is_empty())
                    && container.get("gap").is_none_or(Value::is_null)
                    && number("unjudged") == 0
                    && (!used || number("denied") > 0),
                "{container}"
            );
        }
        Ok(())
    }
}

/// What lazaretd holds for containers: nothing when there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Held {
    /// Containers that it knows.
    pub containers: usize,
    /// fanotify groups, with all their marks; one may be the node's.
    pub groups: usize,
    /// Descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
}

impl Held {
    /// By a node's lazaretd.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn by(node: &Node) -> Result<Self> {
        let daemon = node.daemon()?;
        let pid = daemon.pid().context("lazaretd does not run")?;
        // Before it is asked: a connection is held for a moment longer than it is used.
        let (weight, groups) = (procs::Weight::of([pid]), fanotify_groups(pid));
        let status = daemon.status()?;
        let containers = status.pointer("/containers").and_then(Value::as_array);
        Ok(Self {
            containers: containers.context("no containers in the status")?.len(),
            groups,
            descriptors: weight.descriptors,
            threads: weight.threads,
        })
    }
}

/// fanotify groups that a process holds.
#[must_use]
pub fn fanotify_groups(pid: Pid) -> usize {
    procs::descriptors(pid)
        .filter(|kind| kind.as_os_str() == "anon_inode:[fanotify]")
        .count()
}

/// Works on all of `items`, on `threads` threads.
fn together<T: Sync>(threads: usize, items: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    let lock = || failed.lock().unwrap_or_else(PoisonError::into_inner);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if lock().is_some() {
                        return;
                    }
                    if let Err(error) = work(item) {
                        lock().get_or_insert(error);
                    }
                    interrupt::yield_to_cleanup();
                }
            });
        }
    });
    lock().take().map_or(Ok(()), Err)
}

/// What an exec in each container shows: a bad file is refused, and the rest works.
///
/// # Errors
/// When it is not so.
pub fn refuses(node: &Node, id: &str, bad: &str) -> Result<()> {
    let effect = crate::malware::EFFECT;
    let script = format!("{bad} -c 'echo {effect}'; cat {bad} > /dev/null; echo went on");
    let outcome: command::Outcome = node.exec(id, &["/bin/sh", "-c", &script])?;
    let refusals = outcome
        .err()
        .to_lowercase()
        .matches("operation not permitted")
        .count();
    ensure!(
        outcome.out() == "went on" && refusals == 2,
        "not refused as it should be: {outcome:?}"
    );
    Ok(())
}
