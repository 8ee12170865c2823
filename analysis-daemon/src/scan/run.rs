//! One scan, from its beginning or from where it was left to its end.

use std::ops::ControlFlow::{Break, Continue};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use lazaret_walk::image::{Containerd, ImageError};
use lazaret_walk::{Mounts, Options, Walked, walk};

use super::lanes::Lanes;
use super::target::ImageTarget;
use super::tree::{self, Tree};
use super::visit::{Judging, Leave, Running};
use super::{Job, Scans, State, Target};

/// How long a container may take to be guarded again after a restart.
pub(super) const RETURN: Duration = Duration::from_secs(15);

/// Between two looks for it.
const LOOK: Duration = Duration::from_millis(50);

/// How a scan ended.
enum End {
    Done,
    Cancelled,
    Failed(String),
    /// Not at all: the next daemon goes on.
    Left,
    /// Not yet: what judges has changed.
    Superseded,
    /// By the record of an earlier one, which the job holds now.
    Answered,
}

/// Runs a scan; when this returns, its record says how it ended.
pub(super) fn run(scans: &Scans, job: &Job) {
    while !run_once(scans, job) {}
}

/// False when it is to begin anew.
fn run_once(scans: &Scans, job: &Job) -> bool {
    job.begin(scans.basis());
    scans.save(job);
    let end = match &job.target {
        Target::Path(path) => tree::of_path(path).map_or_else(failed, |tree| judge(scans, job, &tree)),
        Target::Container { namespace, id } => {
            wait_for_container(scans, job, namespace, id);
            let tree = tree::of_container(&scans.means.registry, namespace, id);
            tree.map_or_else(failed, |tree| judge(scans, job, &tree))
        }
        Target::Image(image) => judge_image(scans, job, image).unwrap_or_else(failed),
    };
    let (state, error) = match end {
        End::Done => (State::Done, None),
        End::Cancelled => (State::Cancelled, None),
        End::Failed(why) => (State::Failed, Some(why)),
        End::Left => {
            scans.save(job);
            return true;
        }
        End::Answered => {
            job.tell();
            return true;
        }
        End::Superseded => return false,
    };
    if !job.end(state, error) {
        return false;
    }
    scans.save(job);
    job.tell();
    true
}

fn failed(error: impl std::fmt::Display) -> End {
    End::Failed(error.to_string())
}

/// After a restart the keepers need a moment to offer their containers again.
fn wait_for_container(scans: &Scans, job: &Job, namespace: &str, id: &str) {
    if job.snapshot().record.resumed == 0 {
        return;
    }
    let until = scans.opened_at + RETURN;
    let running = Running {
        scans,
        job,
        session: None,
    };
    while scans.means.registry.find(namespace, id).is_none() && Instant::now() < until && running.goes_on() {
        std::thread::sleep(LOOK);
    }
}

fn judge(scans: &Scans, job: &Job, tree: &Tree) -> End {
    let running = Running {
        scans,
        job,
        session: tree.session.as_ref(),
    };
    let options = Options {
        mounts: tree.mounts.clone(),
        after: job.snapshot().record.cursor.map(|cursor| cursor.0),
    };
    let judge = |file: BorrowedFd<'_>| running.look(file);
    let walked = Lanes::open(
        judge,
        || running.goes_on(),
        |lanes| {
            let mut judging = Judging::new(running, lanes);
            let walked = walk(tree.root.as_fd(), &options, &mut judging)?;
            Ok(match judging.finish() {
                Continue(()) => walked,
                Break(()) => Walked::Stopped,
            })
        },
    );
    match walked.flatten() {
        Err(error) => failed(error),
        Ok(Walked::All) => {
            let basis = Some(scans.basis());
            job.count(|record| record.mixed |= record.basis != basis);
            End::Done
        }
        Ok(Walked::Stopped) => match running.leave() {
            Some(Leave::Stopping) => End::Left,
            Some(Leave::Superseded) => End::Superseded,
            Some(Leave::ContainerEnded) => End::Failed("the container has ended".into()),
            Some(Leave::Cancelled) | None => End::Cancelled,
        },
    }
}

fn judge_image(scans: &Scans, job: &Job, target: &ImageTarget) -> Result<End, ImageError> {
    release_old(scans, job, target);
    let (containerd, lease, image) = tree::find_image(target)?;
    let now = job.change(|now| {
        // The name may have moved to another image since the scan was left.
        if now.record.digest.as_ref() != Some(&image.digest) {
            now.record.restart();
        }
        now.record.digest = Some(image.digest.clone());
    });
    if !now.force && now.cursor.is_none() && answer(scans, job, &image.digest) {
        return Ok(End::Answered);
    }
    // Before containerd makes anything: whoever comes after a crash must know of it.
    job.count(|record| record.lease = Some(lease.clone()));
    scans.save(job);
    let total = containerd.size(&image);
    job.change(|now| now.total = total);
    let end = containerd.view(&image, &lease.id).map(|root| {
        let tree = Tree {
            root,
            mounts: Mounts::Stay,
            session: None,
        };
        judge(scans, job, &tree)
    });
    release(job, &containerd, &lease.id);
    end
}

/// What a killed daemon left in containerd.
fn release_old(scans: &Scans, job: &Job, target: &ImageTarget) {
    let Some(lease) = job.snapshot().record.lease else {
        return;
    };
    match Containerd::connect(&target.containerd, &lease.namespace, &target.snapshotter) {
        Ok(containerd) => release(job, &containerd, &lease.id),
        Err(error) => tracing::warn!(%error, lease = lease.id, "a view of an image is left to expire"),
    }
    scans.save(job);
}

fn release(job: &Job, containerd: &Containerd, lease: &str) {
    match containerd.release(lease) {
        Ok(()) => job.count(|record| record.lease = None),
        Err(error) => tracing::warn!(%error, lease, "a view of an image is left to expire"),
    }
}

/// Answers with the record of an earlier scan of the same image by the same signatures.
fn answer(scans: &Scans, job: &Job, digest: &str) -> bool {
    let (basis, records) = (scans.basis(), scans.store.list());
    let mut newest = records.into_iter().rev();
    let Some(earlier) = newest.find(|record| record.answers(digest, &basis)) else {
        return false;
    };
    let own = job.snapshot().record;
    if let Err(error) = scans.store.remove(&own) {
        tracing::warn!(%error, scan = own.id, "the record of a scan that was answered stays");
    }
    job.change(|now| {
        now.record = earlier;
        now.is_answer = true;
    });
    true
}
