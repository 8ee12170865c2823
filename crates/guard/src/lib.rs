//! Attach, keep and detach the guard of one container.
//!
//! [`attach`] marks every superblock that only this container has, hands the
//! fanotify group to lazaretd, and leaves a *keeper* behind: a thread that holds a
//! second descriptor of the group, so that the death of the daemon never opens the
//! container. Who reads the group changes hands by the protocol that
//! `handover.proto` describes.

#![forbid(unsafe_code)]

mod keeper;
mod memory_files;
mod survey;
mod wire;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use lazaret_config::Config;
use lazaret_sys::fanotify::Group;
use lazaret_types::{Container, ContainerId, LossPolicy};
use thiserror::Error;

pub use survey::SurveyError;

use keeper::{Keeper, Report};

/// Stack of a keeper thread, in bytes: it calls little and recurses never.
const KEEPER_STACK: usize = 64 << 10;

/// What a keeper may need beyond its own deadlines before it reports.
const SLACK: Duration = Duration::from_millis(500);

/// A container whose init is blocked before its first instruction.
#[derive(Debug)]
pub struct Target {
    /// Who it is.
    pub container: Container,
    /// A pidfd of its init.
    pub init: OwnedFd,
    /// An `O_PATH` descriptor of its root folder.
    pub root: OwnedFd,
}

/// The guard of one container. Dropping it without [`Guard::detach`] ends the
/// keeper; the daemon then guards on until the container's init has exited.
#[derive(Debug)]
pub struct Guard {
    control: OwnedFd,
    detach_timeout: Duration,
    unguarded: Option<String>,
}

/// Why a container cannot be guarded.
#[derive(Debug, Error)]
pub enum AttachError {
    /// What it mounts could not be found out.
    #[error("cannot guard container {container}: {source}")]
    Survey {
        /// Which container.
        container: ContainerId,
        /// Why.
        source: SurveyError,
    },
    /// The kernel refused the group, a mark or the keeper.
    #[error("cannot guard container {container}: {what}: {source}")]
    Kernel {
        /// Which container.
        container: ContainerId,
        /// What was refused, and what to do.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// Nobody judges.
    #[error(
        "container {container} was not started because it would run unguarded: {reason}; start lazaretd, \
         or set guard.on_daemon_loss = \"open\" to run containers without it"
    )]
    Unguarded {
        /// Which container.
        container: ContainerId,
        /// What the keeper met.
        reason: String,
    },
}

/// The daemon did not let go of a container.
#[derive(Debug, Error)]
#[error("lazaretd did not let go of the container within {0:?}; its file systems may be busy for a while")]
pub struct DetachError(Duration);

/// Guards a container: when this returns, its first instruction will be judged.
/// Blocks for at most about `config.guard.attach_timeout`.
///
/// # Errors
/// When it cannot be guarded. Under `on_daemon_loss = "open"` a missing daemon is
/// no error: see [`Guard::unguarded`].
pub fn attach(target: Target, config: &Config) -> Result<Guard, AttachError> {
    let container = target.container.id.clone();
    let kernel = |what: &str| {
        let (container, what) = (container.clone(), what.to_owned());
        move |source| AttachError::Kernel {
            container,
            what,
            source,
        }
    };
    let survey =
        survey::survey(&target, config.guard.on_daemon_loss).map_err(|source| AttachError::Survey {
            container: container.clone(),
            source,
        })?;
    if !config.guard.run_memory_files {
        memory_files::forbid(&target);
    }
    let group = Group::new().map_err(kernel(
        "no fanotify group (EMFILE: raise fs.fanotify.max_user_groups, which lazaretd does when it starts)",
    ))?;
    for (superblock, on) in &survey.private {
        let what = format!(
            "no mark on {} ({})",
            superblock.mount_point.display(),
            superblock.fs_type
        );
        group.mark_superblock(on.as_fd()).map_err(kernel(&what))?;
    }

    let (control, keepers_end) =
        lazaret_sys::seqpacket::pair().map_err(kernel("no socket for the keeper"))?;
    let keeper = Keeper::new(target, &survey, group, keepers_end, config);
    drop(survey); // Nothing of ours may hold the container's file systems.
    thread::Builder::new()
        .name("keeper".into())
        .stack_size(KEEPER_STACK)
        .spawn(move || keeper.run())
        .map_err(kernel("no thread for the keeper"))?;

    let mut guard = Guard {
        control,
        detach_timeout: config.guard.detach_timeout,
        unguarded: None,
    };
    match guard.wait_report(config.guard.attach_timeout + SLACK) {
        Some(Report::Guarded) => Ok(guard),
        Some(Report::Unguarded(reason)) if config.guard.on_daemon_loss == LossPolicy::Open => {
            guard.unguarded = Some(reason);
            Ok(guard)
        }
        Some(Report::Unguarded(reason)) => Err(AttachError::Unguarded { container, reason }),
        Some(Report::Detached | Report::Late) | None => Err(AttachError::Unguarded {
            container,
            reason: "the keeper ended without a word".into(),
        }),
    }
}

impl Guard {
    /// Why the container runs unguarded for now; none when it was guarded from its
    /// first instruction. The keeper goes on looking for the daemon.
    #[must_use]
    pub fn unguarded(&self) -> Option<&str> {
        self.unguarded.as_deref()
    }

    /// Ends the guard so that the container's file systems can be unmounted.
    /// Blocks for at most about `config.guard.detach_timeout`.
    ///
    /// # Errors
    /// When the daemon did not acknowledge in time.
    pub fn detach(self) -> Result<(), DetachError> {
        // A keeper that is gone needs no telling.
        let told = lazaret_sys::seqpacket::send(&self.control, keeper::DETACH, &[]).is_ok();
        // It is not joined: closing the last descriptor of a group takes the kernel
        // some 15 ms, for which no container's end has to wait.
        match told.then(|| self.wait_report(self.detach_timeout + SLACK)) {
            Some(Some(Report::Late)) => Err(DetachError(self.detach_timeout)),
            _ => Ok(()),
        }
    }

    fn wait_report(&self, timeout: Duration) -> Option<Report> {
        let deadline = Instant::now() + timeout;
        Report::receive(&self.control, deadline)
    }
}
