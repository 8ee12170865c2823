//! What a worker says of a content.
//!
//! A worker parses hostile bytes and may have been taken over by them, so that its
//! messages are as hostile: whatever is not understood makes it a dead one.

use lazaret_api::scan::v1::{self as wire, Limit, Scanned};
use lazaret_types::{Engine, Finding, Severity, Sha256, UnjudgedReason};

/// A worker's last word on a content.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The worst finding about the content itself.
    pub(crate) finding: Option<Finding>,
    /// What kept something inside from being judged.
    pub(crate) limit: Option<UnjudgedReason>,
}

/// A content inside an archive.
#[derive(Debug)]
pub(crate) struct Member {
    /// `b.tar!/c.php`
    pub(crate) path: String,
    /// The archives around it but the file itself, and itself last. Never empty.
    pub(crate) digests: Vec<Sha256>,
    /// The worst finding about it.
    pub(crate) finding: Option<Finding>,
}

/// Longest path of a member that is told, in bytes. Workers keep to less.
const MAX_PATH: usize = 1 << 10;

/// Longest text of a rule or a detail, in bytes.
const MAX_TEXT: usize = 512;

impl Answer {
    pub(super) fn new(scanned: Scanned) -> Self {
        let limit = scanned.limit();
        Self {
            finding: worst(scanned.findings),
            limit: match limit {
                Limit::Unspecified => None,
                Limit::Depth => Some(UnjudgedReason::UnpackDepth),
                Limit::Members => Some(UnjudgedReason::UnpackMembers),
                Limit::Size => Some(UnjudgedReason::UnpackSize),
                Limit::Ratio => Some(UnjudgedReason::UnpackRatio),
                Limit::Time => Some(UnjudgedReason::UnpackTime),
            },
        }
    }
}

impl Member {
    /// None when a digest is none, or there is none.
    pub(super) fn new(member: wire::Member) -> Option<Self> {
        let digests = member.sha256.iter().map(|bytes| digest(bytes));
        let digests = digests.collect::<Option<Vec<_>>>()?;
        (!digests.is_empty()).then(|| Self {
            path: shown(&member.path, MAX_PATH),
            digests,
            finding: worst(member.findings),
        })
    }

    /// The same finding, which says where it is.
    pub(crate) fn locate(&self, finding: Finding) -> Finding {
        let rule = format!("{} in {}", finding.rule, self.path);
        Finding { rule, ..finding }
    }
}

fn digest(bytes: &[u8]) -> Option<Sha256> {
    bytes.try_into().ok().map(Sha256::new)
}

fn worst(findings: Vec<wire::Finding>) -> Option<Finding> {
    findings
        .into_iter()
        .map(understand)
        .max_by_key(|finding| finding.severity)
}

fn understand(finding: wire::Finding) -> Finding {
    let engine = match finding.engine() {
        wire::Engine::Yara | wire::Engine::Unspecified => Engine::Yara,
        wire::Engine::Tlsh => Engine::Tlsh,
        wire::Engine::Structure => Engine::Structure,
        wire::Engine::Unpack => Engine::Unpack,
    };
    let rule = shown(&finding.rule, MAX_TEXT);
    Finding {
        severity: severity(&finding.severity),
        rule: match shown(&finding.detail, MAX_TEXT) {
            detail if detail.is_empty() => rule,
            detail => format!("{rule} ({detail})"),
        },
        engine,
    }
}

/// A text for one line of a log.
fn shown(text: &str, most: usize) -> String {
    let text = text.get(..text.floor_char_boundary(most)).unwrap_or_default();
    text.replace(char::is_control, " ")
}

/// The `severity` of a rule's metadata. A rule that has none alerts and refuses
/// nothing: public collections hold many that only inform.
fn severity(text: &str) -> Severity {
    let known = [
        Severity::Notice,
        Severity::Warning,
        Severity::Error,
        Severity::Critical,
    ];
    let named = known
        .into_iter()
        .find(|severity| severity.to_string().eq_ignore_ascii_case(text));
    named.unwrap_or(Severity::Warning)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(rule: &str, severity: &str) -> wire::Finding {
        wire::Finding {
            rule: rule.into(),
            severity: severity.into(),
            ..wire::Finding::default()
        }
    }

    #[test]
    fn a_rule_without_severity_refuses_nothing() {
        assert_eq!(severity("critical"), Severity::Critical);
        assert_eq!(severity("Error"), Severity::Error);
        assert_eq!(severity(""), Severity::Warning);
        assert_eq!(severity("apocalyptic"), Severity::Warning);
    }

    #[test]
    fn the_worst_finding_counts_and_says_where_it_is() {
        let member = Member::new(wire::Member {
            path: "b.tar!/c\n.php".into(),
            sha256: vec![vec![1; 32], vec![2; 32]],
            findings: vec![finding("mild", "Notice"), finding("grave", "Error")],
        });
        let member = member.unwrap();
        let found = member.locate(member.finding.clone().unwrap());
        assert_eq!(
            (found.rule.as_str(), found.severity),
            ("grave in b.tar!/c .php", Severity::Error)
        );
    }

    #[test]
    fn a_member_without_digest_is_none() {
        assert!(Member::new(wire::Member::default()).is_none());
        let short = wire::Member {
            sha256: vec![vec![0; 31]],
            ..wire::Member::default()
        };
        assert!(Member::new(short).is_none());
    }

    #[test]
    fn texts_are_bounded() {
        let long = wire::Finding {
            detail: "é".repeat(5_000),
            ..finding(&"x".repeat(5_000), "Error")
        };
        assert!(understand(long).rule.len() <= 2 * MAX_TEXT + 3);
    }
}
