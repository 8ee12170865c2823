//! What an engine is, and the first one: the lists of SHA-256 digests.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

use lazaret_types::{Finding, Severity, Sha256, UnjudgedReason};

use crate::allow::AllowList;
use crate::content::Content;
use crate::signatures::Signatures;
use crate::workers::{Member, WorkerError, Workers};

/// What is judged.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Input<'a> {
    /// A file that somebody wants to open.
    File(BorrowedFd<'a>),
    /// A range of addresses of a process, by its pidfd.
    #[expect(
        dead_code,
        reason = "part of the engine's contract; who scans memory comes with the engines"
    )]
    Memory(BorrowedFd<'a>, &'a Range<u64>),
}

/// What bounds a judgement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes.
    pub(crate) size: u64,
    pub(crate) deadline: Instant,
    pub(crate) priority: Priority,
}

/// Who waits for a judgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Priority {
    /// Somebody who wants to open or run a file.
    Opener,
    /// Nobody: it comes after all openers, and takes nothing that they may need.
    Background,
}

/// Why there is no verdict.
#[derive(Debug)]
pub(crate) enum Failure {
    TooLarge,
    Timeout,
    /// It is not the content any more that was asked about.
    Changed,
    /// Something inside it was not judged.
    Limit(UnjudgedReason),
    /// The engine, not the file, is to blame.
    Engine(String),
    Read(io::Error),
}

/// What an engine found.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Found {
    pub(crate) worst: Option<Finding>,
    /// It is about what is inside, and would be another if the allow-list were: the list
    /// may change at any time, and is asked again.
    pub(crate) by_allow_list: bool,
    /// Something inside was not judged, and nothing outweighs that.
    pub(crate) limit: Option<UnjudgedReason>,
}

/// Judges content by its digest and by itself. Engines are asked in turn until
/// one finds something.
pub(crate) trait Engine: Send + Sync {
    /// # Errors
    /// When it cannot say within the limits.
    fn judge(&self, content: &Content, limits: Limits) -> Result<Found, Failure>;
}

/// Finds content whose SHA-256 is listed.
pub(crate) struct HashList(pub(crate) Arc<Signatures>);

impl Engine for HashList {
    fn judge(&self, content: &Content, _: Limits) -> Result<Found, Failure> {
        Ok(Found {
            worst: self.0.current().lookup(&content.digest),
            ..Found::default()
        })
    }
}

/// Judges a file by what is in it, in a sandboxed process: rules, similarity, structure,
/// and the same for what an archive holds. Digests of members are looked up here.
pub(crate) struct Contents {
    pub(crate) workers: Arc<Workers>,
    pub(crate) signatures: Arc<Signatures>,
    pub(crate) allow: Arc<AllowList>,
}

impl Engine for Contents {
    fn judge(&self, content: &Content, limits: Limits) -> Result<Found, Failure> {
        let lists = self.signatures.current();
        let mut found = Found::default();
        let mut inside = |member: Member| {
            let allows = |digest: &Sha256| self.allow.allows(digest);
            found.add_member(&member, |digest| lists.lookup(digest), allows);
        };
        let answer = self
            .workers
            .scan(&content.bytes, limits, &mut inside)
            .map_err(|error| match error {
                WorkerError::Late => Failure::Timeout,
                error => Failure::Engine(error.to_string()),
            })?;
        found.add(answer.finding);
        Ok(found.limited(answer.limit))
    }
}

impl Found {
    fn add(&mut self, finding: Option<Finding>) {
        // The first of equals stays: what is about the file itself comes last and says less.
        if finding.as_ref().map(|finding| finding.severity) > self.severity() {
            self.worst = finding;
        }
    }

    /// Adds what is known of a member. Who allows an archive allows what is in it.
    fn add_member(
        &mut self,
        member: &Member,
        listed: impl Fn(&Sha256) -> Option<Finding>,
        allows: impl Fn(&Sha256) -> bool,
    ) {
        let listed = member.digests.last().and_then(listed);
        for finding in [listed, member.finding.clone()].into_iter().flatten() {
            self.by_allow_list = true;
            if !member.digests.iter().any(&allows) {
                self.add(Some(member.locate(finding)));
            }
        }
    }

    /// A limit hides what lies beyond it, so that only what is denied anyway outweighs it:
    /// a harmless finding would else be a key.
    fn limited(self, limit: Option<UnjudgedReason>) -> Self {
        let limit = limit.filter(|_| self.severity() < Some(Severity::Error));
        Self { limit, ..self }
    }

    fn severity(&self) -> Option<Severity> {
        self.worst.as_ref().map(|finding| finding.severity)
    }
}

impl Input<'_> {
    /// Reads it.
    ///
    /// # Errors
    /// When it is larger or slower than the limits, or cannot be read.
    pub(crate) fn read(self, limits: Limits) -> Result<Content, Failure> {
        match self {
            Input::File(file) => Content::of_file(file, limits),
            Input::Memory(..) => Err(Failure::Read(io::ErrorKind::Unsupported.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(severity: Severity) -> Finding {
        Finding {
            severity,
            rule: severity.to_string(),
            engine: lazaret_types::Engine::Yara,
        }
    }

    fn member(path: &str, digests: &[u8], severity: Option<Severity>) -> Member {
        Member {
            path: path.into(),
            digests: digests.iter().map(|byte| Sha256::new([*byte; 32])).collect(),
            finding: severity.map(finding),
        }
    }

    #[test]
    fn the_worst_member_counts_unless_it_or_what_is_around_it_is_allowed() {
        let listed = |digest: &Sha256| (digest.as_bytes()[0] == 9).then(|| finding(Severity::Critical));
        let bad = [
            member("a", &[1], Some(Severity::Error)),
            member("t.tar", &[2], None),
            member("t.tar!/b", &[2, 9], Some(Severity::Notice)),
        ];
        let judge = |allowed: &[u8]| {
            let mut found = Found::default();
            for member in &bad {
                found.add_member(member, listed, |digest| allowed.contains(&digest.as_bytes()[0]));
            }
            (found.worst.map(|finding| finding.rule), found.by_allow_list)
        };
        assert_eq!(judge(&[]), (Some("Critical in t.tar!/b".into()), true));
        assert_eq!(judge(&[9]), (Some("Error in a".into()), true));
        assert_eq!(judge(&[2]), (Some("Error in a".into()), true));
        assert_eq!(judge(&[1, 2]), (None, true));
    }

    #[test]
    fn a_limit_is_outweighed_only_by_what_is_denied() {
        let limited = |severity: Option<Severity>| {
            let found = Found {
                worst: severity.map(finding),
                ..Found::default()
            };
            found.limited(Some(UnjudgedReason::UnpackRatio)).limit
        };
        for severity in [None, Some(Severity::Notice), Some(Severity::Warning)] {
            assert_eq!(limited(severity), Some(UnjudgedReason::UnpackRatio));
        }
        assert_eq!(limited(Some(Severity::Error)), None);
    }
}
