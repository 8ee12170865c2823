//! What an engine is, and the first one: the lists of SHA-256 digests.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

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
    /// The engine is away, which was told when it went.
    Away,
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
    /// An engine that takes part was left out this once.
    pub(crate) left_out: bool,
}

/// How an engine that is not a part of lazaret gets on.
#[derive(Debug, Default)]
pub(crate) struct Status {
    pub(crate) name: String,
    /// In its own words.
    pub(crate) version: String,
    /// Since when it is away, and why.
    pub(crate) away: Option<(SystemTime, String)>,
    /// Files that it was asked about.
    pub(crate) asked: u64,
    /// Of these, those that it found something in.
    pub(crate) found: u64,
    /// Of these, those that it gave no verdict on.
    pub(crate) failed: u64,
    /// Files that were judged, or not judged, without it because it was away.
    pub(crate) left_out: u64,
    /// Times that it went away.
    pub(crate) lost: u64,
}

/// Judges content by its digest and by itself.
pub(crate) trait Engine: Send + Sync {
    /// # Errors
    /// When it cannot say within the limits.
    fn judge(&self, content: &Content, limits: Limits) -> Result<Found, Failure>;

    /// Names what it judges by, where that may change at any time without lazaretd's doing. Every
    /// judgement asks: it is made anew only when it is another one.
    fn set(&self) -> Option<Arc<str>> {
        None
    }

    /// How it gets on, where that is not lazaretd's own affair.
    fn status(&self) -> Option<Status> {
        None
    }
}

/// Asks engines in turn until one finds what is denied. Whatever else they find does not end
/// it, and neither does a limit or a failure: a harmless finding, or a file that one of them
/// cannot take, would else keep the others from being asked.
///
/// # Errors
/// When one of them cannot say, and no other finds what is denied.
pub(crate) fn ask_all(
    engines: &[Arc<dyn Engine>],
    content: &Content,
    limits: Limits,
) -> Result<Found, Failure> {
    let (mut all, mut failed) = (Found::default(), None);
    for engine in engines {
        match engine.judge(content, limits) {
            Ok(found) => all = all.join(found),
            Err(failure) => {
                failed.get_or_insert(failure);
            }
        }
        if all.is_denied() {
            return Ok(all);
        }
    }
    // Rather than a limit: that may be remembered, and who failed would not be asked again.
    failed.map_or(Ok(all), Err)
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
    /// What an engine says that only judges a content as a whole.
    pub(crate) fn worst(worst: Option<Finding>) -> Self {
        Self {
            worst,
            ..Self::default()
        }
    }

    /// What two engines say of one content.
    fn join(self, other: Self) -> Self {
        let limit = self.limit.or(other.limit);
        let mut both = Self {
            by_allow_list: self.by_allow_list || other.by_allow_list,
            left_out: self.left_out || other.left_out,
            ..self
        };
        both.add(other.worst);
        both.limited(limit)
    }

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
    pub(crate) fn limited(self, limit: Option<UnjudgedReason>) -> Self {
        let limit = limit.filter(|_| !self.is_denied());
        Self { limit, ..self }
    }

    fn is_denied(&self) -> bool {
        self.severity() >= Some(Severity::Error)
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

    type Say = fn() -> Result<Found, Failure>;

    struct Says(Say);

    impl Engine for Says {
        fn judge(&self, _: &Content, _: Limits) -> Result<Found, Failure> {
            (self.0)()
        }
    }

    fn all_say(says: &[Say]) -> Result<Found, Failure> {
        let engines: Vec<Arc<dyn Engine>> = says
            .iter()
            .map(|say| -> Arc<dyn Engine> { Arc::new(Says(*say)) })
            .collect();
        let limits = Limits {
            size: 1,
            deadline: Instant::now(),
            priority: Priority::Opener,
        };
        ask_all(&engines, &Content::of_bytes(b""), limits)
    }

    #[test]
    fn a_harmless_finding_a_limit_and_a_failure_do_not_keep_others_from_being_asked() {
        fn found(severity: Severity) -> Result<Found, Failure> {
            Ok(Found::worst(Some(finding(severity))))
        }
        const LIMIT: UnjudgedReason = UnjudgedReason::UnpackDepth;
        let notice = || found(Severity::Notice);
        let critical = || found(Severity::Critical);
        let clean = || Ok(Found::default());
        let limited = || Ok(Found::default().limited(Some(LIMIT)));
        let late = || Ok(Found::default().limited(Some(UnjudgedReason::EngineLimit)));
        let fails = || Err(Failure::Timeout);
        let worst = |says: &[Say]| {
            all_say(says)
                .map(|found| (found.severity(), found.limit))
                .unwrap()
        };
        assert_eq!(worst(&[notice, critical]), (Some(Severity::Critical), None));
        assert_eq!(worst(&[fails, critical]), (Some(Severity::Critical), None));
        assert_eq!(worst(&[notice, clean]), (Some(Severity::Notice), None));
        // What is denied outweighs a limit, whoever says it; nothing else does.
        assert_eq!(worst(&[limited, critical]), (Some(Severity::Critical), None));
        assert_eq!(worst(&[limited, notice]), (Some(Severity::Notice), Some(LIMIT)));
        assert_eq!(worst(&[limited, late]), (None, Some(LIMIT)), "the first one");
        // A failure may be over next time: a limit is not remembered instead.
        assert!(matches!(all_say(&[limited, fails]), Err(Failure::Timeout)));
        assert!(matches!(all_say(&[fails, clean, notice]), Err(Failure::Timeout)));
        // Who is denied anyway costs the others nothing.
        assert_eq!(
            worst(&[critical, || unreachable!()]),
            (Some(Severity::Critical), None)
        );
    }
}
