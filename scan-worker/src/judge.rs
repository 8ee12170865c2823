//! All that judges, on one content and on what is inside it.

use lazaret_api::scan::v1::{Engine, Finding, Member, Scanned};
use lazaret_types::Severity;
use sha2::{Digest, Sha256};
use yara_x::{MetaValue, Rules, ScanError, Scanner};

use crate::similar::{Similar, severity};
use crate::structure;
use crate::unpack::{self, Budget, Limits, Unreadable, Visitor};

/// The metadata of a rule that lazaret understands.
pub const META: [&str; 3] = ["severity", "description", "attack"];

/// Findings about one content: the worst ones.
const MAX_FINDINGS: usize = 16;

/// Bytes of a text in a finding.
const MAX_TEXT: usize = 200;

/// Matches of one pattern that are kept: conditions rarely count further, and
/// hostile content would make millions.
const MAX_MATCHES: usize = 10_000;

/// Judges contents, one after the other.
pub struct Judge<'r> {
    scanner: Scanner<'r>,
    similar: &'r Similar,
}

impl<'r> Judge<'r> {
    /// By these rules and lists.
    #[must_use]
    pub fn new(rules: &'r Rules, similar: &'r Similar) -> Self {
        let mut scanner = Scanner::new(rules);
        scanner.max_matches_per_pattern(MAX_MATCHES);
        // Which rules match counts, not where: a pattern that a condition only asks to be there is
        // not looked for any further once it was found.
        scanner.fast_scan(true);
        Self { scanner, similar }
    }

    /// Judges a content and, as far as the limits go, what is inside it. Each member is told
    /// when it was judged.
    ///
    /// # Errors
    /// When an engine fails: then nothing is known.
    pub fn judge(
        &mut self,
        content: &[u8],
        limits: Option<Limits>,
        tell: &mut dyn FnMut(Member),
    ) -> Result<Scanned, ScanError> {
        let findings = self.findings(content)?;
        let mut inside = Inside {
            judge: self,
            open: vec![Member {
                findings,
                ..Member::default()
            }],
            tell,
            failed: None,
        };
        let mut limit = None;
        if let Some(limits) = limits {
            let mut budget = Budget::new(limits);
            unpack::walk(content, &mut budget, &mut inside);
            limit = budget.limit();
        }
        match inside.failed {
            Some(error) => Err(error),
            None => Ok(Scanned {
                findings: inside.open.pop().unwrap_or_default().findings,
                limit: limit.unwrap_or_default().into(),
            }),
        }
    }

    /// What all engines say of one content.
    fn findings(&mut self, content: &[u8]) -> Result<Vec<Finding>, ScanError> {
        let results = self.scanner.scan(content)?;
        let rules = results.matching_rules().filter(|rule| !is_condition(rule));
        let mut findings: Vec<_> = rules.map(|rule| by_rule(&rule)).collect();
        findings.extend(self.similar.find(content).map(|found| Finding {
            rule: bounded(&found.entry.name),
            severity: found.entry.severity.to_string(),
            engine: Engine::Tlsh.into(),
            detail: format!("distance {}", found.distance),
            ..Finding::default()
        }));
        findings.extend(structure::judge(content).map(|found| Finding {
            rule: found.rule.to_owned(),
            severity: found.severity.to_string(),
            attack: "T1505.003".to_owned(),
            engine: Engine::Structure.into(),
            detail: bounded(&found.reasons),
            ..Finding::default()
        }));
        // Whoever meets many harmless rules must not hide a grave one behind them.
        findings.sort_by_key(|finding| {
            std::cmp::Reverse(severity(&finding.severity).unwrap_or(Severity::Warning))
        });
        findings.truncate(MAX_FINDINGS);
        Ok(findings)
    }
}

/// The members that are being walked: the file itself first, then what is in each other.
struct Inside<'j, 'r, 't> {
    judge: &'j mut Judge<'r>,
    open: Vec<Member>,
    tell: &'t mut dyn FnMut(Member),
    failed: Option<ScanError>,
}

impl Visitor for Inside<'_, '_, '_> {
    fn enter(&mut self, path: &str, content: &[u8]) {
        let around = self.open.last().map(|member| member.sha256.clone());
        let mut sha256 = around.unwrap_or_default();
        sha256.push(Sha256::digest(content).to_vec());
        let findings = self.judge.findings(content).unwrap_or_else(|error| {
            self.failed = Some(error);
            Vec::new()
        });
        let path = path.to_owned();
        self.open.push(Member {
            path,
            sha256,
            findings,
        });
    }

    fn unreadable(&mut self, path: &str, why: Unreadable) {
        let Some(archive) = self.open.last_mut() else {
            return;
        };
        archive.findings.push(Finding {
            rule: match why {
                Unreadable::Encrypted => "encrypted_member",
                Unreadable::Method => "unknown_compression",
            }
            .to_owned(),
            severity: Severity::Notice.to_string(),
            engine: Engine::Unpack.into(),
            detail: bounded(path),
            ..Finding::default()
        });
    }

    fn leave(&mut self) {
        if let Some(member) = self.open.pop() {
            (self.tell)(member);
        }
    }
}

fn by_rule(rule: &yara_x::Rule<'_, '_>) -> Finding {
    let [severity, description, attack] = META.map(|name| meta(rule, name));
    Finding {
        rule: bounded(rule.identifier()),
        severity,
        description,
        attack,
        engine: Engine::Yara.into(),
        ..Finding::default()
    }
}

/// Whether a rule only says when others count: a global one that is worth nothing by itself.
fn is_condition(rule: &yara_x::Rule<'_, '_>) -> bool {
    rule.is_global() && meta(rule, "severity").is_empty()
}

/// One text of a rule's metadata; empty when it has none.
#[must_use]
pub fn meta(rule: &yara_x::Rule<'_, '_>, wanted: &str) -> String {
    let text = rule.metadata().find_map(|(name, value)| match value {
        MetaValue::String(text) if name == wanted => Some(text),
        _ => None,
    });
    bounded(text.unwrap_or_default())
}

/// A text as long as an answer may hold.
#[must_use]
pub fn bounded(text: &str) -> String {
    text.get(..text.floor_char_boundary(MAX_TEXT))
        .unwrap_or_default()
        .to_owned()
}
