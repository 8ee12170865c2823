//! The `delete` action: containerd calls it for a container whose shim has died or
//! was never there, and all that is left of the container goes.

use std::env;
use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;
use containerd_shim::Flags;
use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::protobuf::Message;

use crate::address::Address;
use crate::bundle::Bundle;
use crate::cgroup;
use crate::events::timestamp;
use crate::mounts::Rootfs;
use crate::options::Options;
use crate::process::number;
use crate::reaper::Reaper;
use crate::runtime::{self, Runtime};
use crate::start::ADDRESS_FILE;

/// Killed: nobody is left who could know better.
const KILLED: u32 = 137;

/// Answers on standard output. What could not be removed is said on standard
/// error, which containerd logs, and does not keep the rest from being removed.
pub(crate) fn run(flags: &Flags) -> anyhow::Result<()> {
    let bundle = match flags.bundle.as_str() {
        "" => env::current_dir()?,
        bundle => PathBuf::from(bundle),
    };
    let pid = runtime::init_pid(&bundle).ok();
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    tokio.block_on(delete(flags, &bundle, pid.is_some()))?;
    let response = DeleteResponse {
        pid: pid.map(number).unwrap_or_default(),
        exit_status: KILLED,
        exited_at: timestamp(SystemTime::now()),
        ..Default::default()
    };
    std::io::stdout()
        .write_all(&response.write_to_bytes()?)
        .context("cannot answer")
}

async fn delete(flags: &Flags, bundle: &Path, created: bool) -> anyhow::Result<()> {
    let reaper = Reaper::start()?;
    match Runtime::new(&flags.id, &flags.namespace, bundle, Options::load(bundle), reaper) {
        // Without a pid of ours the runtime may never have come to know our container.
        Ok(runtime) if !created && runtime.knows_another().await => {}
        Ok(runtime) => match runtime.delete(true).await {
            Err(error) if !error.is_not_found() => warn(&error),
            _ => {}
        },
        Err(error) => warn(&error),
    }
    let cgroup = Bundle::read(bundle).ok().and_then(|bundle| bundle.cgroup);
    if let Some(cgroup) = cgroup
        && let Err(error) = cgroup::remove(&cgroup).await
    {
        warn(&format!("cannot remove the cgroup {}: {error}", cgroup.display()));
    }
    if let Err(error) = Rootfs::of(bundle).unmount().await {
        warn(&error);
    }
    // A pod's other containers may have a living shim behind the same socket.
    let address = std::fs::read_to_string(bundle.join(ADDRESS_FILE)).ok();
    if let Some(address) = address.and_then(|url| Address::from_url(&url))
        && let Err(error) = address.remove_dead()
    {
        warn(&error);
    }
    Ok(())
}

fn warn(error: &dyn Display) {
    eprintln!("cleaning up after a dead shim: {error}");
}
