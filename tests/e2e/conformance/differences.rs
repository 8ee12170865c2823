//! What differs on purpose, and why. A case that is here and does not differ fails: the list says
//! what is so.

/// runc-v2 has codes for few refusals.
const CODE: &str = "runc-v2 answers UNKNOWN to whatever it has no code for; lazaret says that it is the state of the \
     container that does not allow it";

/// Case, the releases of containerd (none for all), reason.
const DIFFERENCES: &[(&str, &[&str], &str)] = &[
    ("init::start_twice", &[], CODE),
    ("init::start_after_exit", &[], CODE),
    ("init::delete_while_running", &[], CODE),
    ("init::kill_never_started", &[], CODE),
    ("exec::after_init_has_ended", &[], CODE),
    ("exec::start_twice", &[], CODE),
    ("exec::delete_while_running", &[], CODE),
    ("exec::into_a_paused_container", &[], CODE),
    (
        "pods::delete_action_of_what_never_was",
        &[],
        "runc-v2 tells -1 as a pid, by an unsigned number; lazaret tells 0 for none",
    ),
    (
        "options::criu_path",
        &["1.7", "2.1"],
        "runc-v2 ignores the option since 1.7",
    ),
    (
        "stdio::only_standard_error",
        &[],
        "runc-v2 refuses a process that has a standard error and no standard output; lazaret runs it",
    ),
];

/// Why a case differs under a release, if it is to.
pub(super) fn reason(name: &str, series: &str) -> Option<&'static str> {
    let found = DIFFERENCES.iter().find(|(case, releases, _)| {
        name.strip_prefix("conformance::") == Some(case)
            && (releases.is_empty() || releases.contains(&series))
    });
    found.map(|(_, _, why)| *why)
}
