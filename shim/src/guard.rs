//! The guard of a container, between `runc create` and `runc start`.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use lazaret_config::Config;
use lazaret_guard::{AttachError, Guard, Target};
use lazaret_types::Container;
use rustix::fs::OFlags;
use rustix::process::Pid;

use crate::error::{Context, Error, Result};
use crate::process::number;
use crate::reaper::Reaper;

/// Guards a container whose init is blocked by the runtime.
pub(crate) async fn attach(
    container: Container,
    init: Pid,
    config: Arc<Config>,
    reaper: &Reaper,
) -> Result<Guard> {
    let id = container.id.clone();
    let vanished = |error: &dyn std::fmt::Display| {
        Error::failed_precondition(format!(
            "container {id} was not started: its init (pid {}) vanished before it could be guarded: {error}",
            number(init)
        ))
    };
    let pidfd = lazaret_sys::pidfd::open(init.as_raw_pid()).map_err(|error| vanished(&error))?;
    let root = File::options()
        .read(true)
        .custom_flags((OFlags::PATH | OFlags::DIRECTORY).bits().cast_signed())
        .open(format!("/proc/{}/root", number(init)))
        .map_err(|error| vanished(&error))?;
    // Both were opened by pid. It is still our child's, so they are its own.
    if !reaper.has_child(init) {
        return Err(vanished(&"it has ended"));
    }
    let target = Target {
        container,
        init: pidfd,
        root: root.into(),
    };
    let guard = tokio::task::spawn_blocking(move || lazaret_guard::attach(target, &config))
        .await
        .context(|| format!("guarding container {id} was interrupted"))?
        .map_err(|error| match error {
            AttachError::Unguarded { .. } => Error::unavailable(error.to_string()),
            error => Error::failed_precondition(error.to_string()),
        })?;
    if let Some(reason) = guard.unguarded() {
        tracing::error!(container = %id, "the container runs UNGUARDED: {reason}");
    }
    Ok(guard)
}

/// Ends a guard, so that nothing of it holds the container's file systems. A late
/// daemon is told of and not waited for: the container is dead.
pub(crate) async fn detach(guard: Guard, id: &str) {
    match tokio::task::spawn_blocking(move || guard.detach()).await {
        Ok(Ok(())) => {}
        Ok(Err(late)) => tracing::error!(container = id, "{late}"),
        Err(error) => tracing::error!(container = id, "ending the guard was interrupted: {error}"),
    }
}
