//! From the daemon's types to those of the API.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::time::{SystemTime, UNIX_EPOCH};

use lazaret_api::control::v1 as api;
use lazaret_types::{Gap, Role, Severity, Superblock};

use super::State;
use crate::counters::Counters;
use crate::engine::Status;
use crate::quarantine::Usage;
use crate::registry::{ContainerStatus, GuardState};
use crate::signatures::{Signature, SignatureSet};

pub(super) const DAEMON_VERSION: &str = env!("CARGO_PKG_VERSION");

pub(super) fn status(state: &State) -> api::GetStatusResponse {
    api::GetStatusResponse {
        daemon_version: DAEMON_VERSION.into(),
        node_id: state.node.clone(),
        uptime_seconds: state.started_at.elapsed().unwrap_or_default().as_secs(),
        signatures: Some(signatures(&state.signatures.current())),
        incidents: Some(api::get_status_response::Incidents {
            last_seq: state.incidents.last_seq().unwrap_or_default(),
            lost: state.incidents.lost(),
            trouble: state.incidents.trouble().unwrap_or_default(),
        }),
        counters: counters(&state.counters),
        containers: (state.containers)().into_iter().map(container).collect(),
        quarantine: Some(quarantine(state.quarantine.usage())),
        engines: (state.engines)().into_iter().map(engine).collect(),
    }
}

fn signatures(set: &SignatureSet) -> api::get_status_response::Signatures {
    api::get_status_response::Signatures {
        version: set.version().to_string(),
        count: set.len() as u64,
        problems: set.problems().to_vec(),
        problem_count: set.problem_count(),
    }
}

fn engine(status: Status) -> api::Engine {
    let (since, trouble) = status.away.unzip();
    api::Engine {
        name: status.name,
        version: status.version,
        trouble: trouble.unwrap_or_default(),
        away_since_unix_ms: since.map(unix_ms).unwrap_or_default(),
        asked: status.asked,
        found: status.found,
        failed: status.failed,
        left_out: status.left_out,
        lost: status.lost,
    }
}

/// Milliseconds since 1970, UTC.
fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn quarantine(usage: Usage) -> api::QuarantineUsage {
    api::QuarantineUsage {
        items: usage.items as u64,
        used: usage.used,
    }
}

fn counters(counters: &Counters) -> HashMap<String, u64> {
    [
        ("events", &counters.events),
        ("allowed", &counters.allowed),
        ("denied", &counters.denied),
        ("alerts", &counters.alerts),
        ("unjudged", &counters.unjudged),
        ("refused_by_kernel", &counters.refused_by_kernel),
        ("written", &counters.written),
        ("writes_lost", &counters.writes_lost),
        ("bystanders", &counters.bystanders),
        ("incidents_suppressed", &counters.incidents_suppressed),
    ]
    .map(|(name, counter)| (name.to_owned(), counter.get()))
    .into()
}

fn container(status: ContainerStatus) -> api::Container {
    let state = match status.state {
        GuardState::Guarded => api::GuardState::Guarded,
        GuardState::CatchingUp => api::GuardState::CatchingUp,
    };
    let container = &status.container;
    api::Container {
        namespace: container.namespace.clone(),
        id: container.id.to_string(),
        image: container.image.clone().unwrap_or_default(),
        pod: container
            .pod
            .as_ref()
            .map(|pod| format!("{}/{}", pod.namespace, pod.name))
            .unwrap_or_default(),
        sandbox: container.role == Role::Sandbox,
        state: state.into(),
        attached_at_unix_ms: unix_ms(status.attached_at),
        guarded: status.guarded.into_iter().map(superblock).collect(),
        shared: status.unguarded.into_iter().map(unguarded).collect(),
        node_guarded: status.node_guarded.into_iter().map(superblock).collect(),
        events: status.events,
        denied: status.denied,
        unjudged: status.unjudged,
        sealed: status.sealed,
        gap: status.gap.map(
            |Gap {
                 lasted_ms,
                 allowed,
                 denied,
             }| api::Gap {
                lasted_ms,
                allowed,
                denied,
            },
        ),
        init_pid: status.init_pid,
        cgroup: status.cgroup.map(|cgroup| cgroup.0),
    }
}

fn superblock(Superblock { mount_point, fs_type }: Superblock) -> api::Superblock {
    api::Superblock {
        mount_point: mount_point.as_os_str().as_bytes().to_vec(),
        fs_type,
        reason: String::new(),
    }
}

fn unguarded((shared, reason): (Superblock, String)) -> api::Superblock {
    api::Superblock {
        reason,
        ..superblock(shared)
    }
}

pub(super) fn signature(signature: Signature) -> api::Signature {
    api::Signature {
        sha256: signature.sha256.to_string(),
        name: signature.name,
        severity: api_severity(signature.severity).into(),
    }
}

pub(super) fn api_severity(severity: Severity) -> api::Severity {
    match severity {
        Severity::Notice => api::Severity::Notice,
        Severity::Warning => api::Severity::Warning,
        Severity::Error => api::Severity::Error,
        Severity::Critical => api::Severity::Critical,
    }
}

/// None means the default.
pub(super) fn severity(severity: api::Severity) -> Option<Severity> {
    match severity {
        api::Severity::Unspecified => None,
        api::Severity::Notice => Some(Severity::Notice),
        api::Severity::Warning => Some(Severity::Warning),
        api::Severity::Error => Some(Severity::Error),
        api::Severity::Critical => Some(Severity::Critical),
    }
}

/// The rules that judge now.
pub(super) fn rules(rules: &crate::workers::Rules) -> api::ReloadRulesResponse {
    let problems = rules.problems.iter().cloned().map(|problem| api::RuleProblem {
        file: problem.file,
        line: problem.line,
        column: problem.column,
        message: problem.message,
        warning: problem.warning,
    });
    api::ReloadRulesResponse {
        rules: rules.count,
        version: rules.version.clone(),
        problems: problems.collect(),
    }
}
