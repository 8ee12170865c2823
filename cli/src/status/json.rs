//! The status for programs. Keys are only ever added.

use std::collections::BTreeMap;

use lazaret_api::control::v1::{Container, GetStatusResponse, GuardState, Superblock};
use serde_json::{Value, json};

use super::engines;
use crate::text::{path, safe_json};

/// One JSON object over several lines.
pub(super) fn of(status: &GetStatusResponse) -> String {
    let signatures = status.signatures.clone().unwrap_or_default();
    let incidents = status.incidents.clone().unwrap_or_default();
    let json = json!({
        "daemon_version": status.daemon_version,
        "node_id": status.node_id,
        "uptime_seconds": status.uptime_seconds,
        "signatures": {
            "version": signatures.version,
            "count": signatures.count,
            "problems": signatures.problems,
            "problem_count": signatures.problem_count,
        },
        "incidents": {
            "last_seq": incidents.last_seq,
            "lost": incidents.lost,
            "trouble": non_empty(&incidents.trouble),
        },
        "quarantine": status.quarantine.map(|usage| json!({ "items": usage.items, "used": usage.used })),
        "engines": status.engines.iter().map(engines::json).collect::<Vec<_>>(),
        // In an order that does not change from call to call.
        "counters": status.counters.iter().collect::<BTreeMap<_, _>>(),
        "containers": status.containers.iter().map(container).collect::<Vec<_>>(),
    });
    // `:#` breaks lines, which must stay what they are.
    format!("{json:#}\n")
        .split_inclusive('\n')
        .map(|line| safe_json(line.trim_end_matches('\n')) + "\n")
        .collect()
}

fn container(container: &Container) -> Value {
    json!({
        "namespace": container.namespace,
        "id": container.id,
        "image": non_empty(&container.image),
        "pod": non_empty(&container.pod),
        "sandbox": container.sandbox,
        "state": match container.state() {
            GuardState::Guarded => "guarded",
            GuardState::CatchingUp => "catching-up",
            GuardState::Unspecified => "unknown",
        },
        "attached_at_unix_ms": container.attached_at_unix_ms,
        "guarded": superblocks(&container.guarded),
        "node_guarded": superblocks(&container.node_guarded),
        "shared": container.shared.iter().map(unguarded).collect::<Vec<_>>(),
        "events": container.events,
        "denied": container.denied,
        "unjudged": container.unjudged,
        "sealed": container.sealed,
        "gap": container.gap.map(|gap| {
            json!({ "lasted_ms": gap.lasted_ms, "allowed": gap.allowed, "denied": gap.denied })
        }),
        "init_pid": container.init_pid,
        "cgroup": container.cgroup,
    })
}

fn superblocks(superblocks: &[Superblock]) -> Vec<Value> {
    superblocks.iter().map(superblock).collect()
}

fn superblock(superblock: &Superblock) -> Value {
    json!({ "mount_point": path(&superblock.mount_point), "fs_type": superblock.fs_type })
}

fn unguarded(superblock: &Superblock) -> Value {
    json!({
        "mount_point": path(&superblock.mount_point),
        "fs_type": superblock.fs_type,
        "reason": non_empty(&superblock.reason),
    })
}

fn non_empty(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}
