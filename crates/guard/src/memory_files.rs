//! Files that are only memory (memfd_create(2)): they lie on a file system of the kernel's own,
//! which cannot be marked, so they are not to be run at all.

use std::io;
use std::os::fd::AsFd;

use lazaret_sys::{pidfd, pidns};

use crate::Target;

/// Since Linux 6.3, for each pid namespace and all below it (Documentation/admin-guide/sysctl/vm.rst).
const SETTING: &str = "vm/memfd_noexec";

/// A file that asks to be executable is refused, any other is sealed not to become so.
const ENFORCED: &[u8] = b"2";

/// Forbids it in a container whose init is blocked. Where that cannot be (no pid namespace of its
/// own, an older kernel) the container starts all the same, and it is logged.
pub(crate) fn forbid(target: &Target) {
    let container = &target.container.id;
    match try_forbid(target) {
        Ok(true) => {}
        Ok(false) => {
            tracing::info!(%container, "it may run files that are only memory: it has no pid namespace of its own");
        }
        Err(error) => {
            tracing::warn!(%container, %error, "it may run files that are only memory: {SETTING} cannot be set");
        }
    }
}

fn try_forbid(target: &Target) -> io::Result<bool> {
    let own = pidns::is_init(pidfd::pid(&target.init)?)?;
    if own {
        pidns::set(target.init.as_fd(), SETTING, ENFORCED)?;
    }
    Ok(own)
}
