//! What differs on purpose, and why. A case that is here and does not differ fails: the list says
//! what is so.

/// Case, the releases of containerd (none for all), reason.
const DIFFERENCES: &[(&str, &[&str], &str)] = &[];

/// Why a case differs under a release, if it is to.
pub(super) fn reason(name: &str, series: &str) -> Option<&'static str> {
    let found = DIFFERENCES.iter().find(|(case, releases, _)| {
        name.strip_prefix("conformance::") == Some(case) && (releases.is_empty() || releases.contains(&series))
    });
    found.map(|(_, _, why)| *why)
}
