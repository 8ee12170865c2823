//! Scans for people: a bar on a terminal, lines elsewhere.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use lazaret_api::control::v1::{Scan, ScanCause, ScanFinding, ScanProgress, ScanState, Severity};

use super::json;
use crate::failure::Failure;
use crate::print::{BAD, DIM, GOOD, ODD, Printer, Styled, remark};
use crate::signatures::severity_name;
use crate::text::{Safe, count, duration, path};

/// Between two lines of progress where there is no terminal.
const LINE: Duration = Duration::from_secs(10);

/// Characters of a path that fit beside a bar; the end says most.
const PATH: usize = 40;

const KNOWN: &str = "{spinner} {wide_bar} {bytes}/{total_bytes} {msg}";
const UNKNOWN: &str = "{spinner} {bytes} {wide_msg}";

pub(super) struct Show<'a> {
    printer: &'a mut Printer,
    json: bool,
    bar: Option<ProgressBar>,
    line_at: Instant,
}

impl<'a> Show<'a> {
    pub(super) fn new(printer: &'a mut Printer, json: bool) -> Self {
        let bar = (!json && stderr().is_terminal()).then(ProgressBar::no_length);
        Self {
            printer,
            json,
            bar,
            line_at: Instant::now(),
        }
    }

    pub(super) fn begun(&mut self, id: &str, target: &str) -> Result<(), Failure> {
        if self.json {
            return self.printer.json(&json::begun(id, target));
        }
        Ok(())
    }

    pub(super) fn detached(&mut self, id: &str, target: &str) -> Result<(), Failure> {
        if self.json {
            return self.printer.json(&json::begun(id, target));
        }
        self.line(format!("{} scans {} on its own", Safe(id), Safe(target)))
    }

    pub(super) fn progress(&mut self, target: &str, progress: &ScanProgress) -> Result<(), Failure> {
        if self.json {
            return self.printer.json(&json::progress(target, progress));
        }
        let files = count(progress.files, "file");
        let here = shorten(&Safe(&path(&progress.path)).to_string());
        if let Some(bar) = &self.bar {
            let known = progress.total_bytes > 0;
            let style = ProgressStyle::with_template(if known { KNOWN } else { UNKNOWN });
            // The templates are ours; without a style the bar looks plainer.
            style.into_iter().for_each(|style| bar.set_style(style));
            // An estimate may be too low, but no bar is longer than its frame.
            bar.set_length(progress.total_bytes.max(progress.bytes));
            bar.set_position(progress.bytes);
            bar.set_message(format!("{files} {here}"));
        } else if self.line_at.elapsed() >= LINE {
            self.line_at = Instant::now();
            let bytes = HumanBytes(progress.bytes);
            remark(&format!("{target}: {files}, {bytes} so far, at {here}"));
        }
        Ok(())
    }

    pub(super) fn finding(&mut self, id: &str, finding: &ScanFinding) -> Result<(), Failure> {
        if self.json {
            return self.printer.json(&json::finding(id, finding));
        }
        let style = match finding.severity() {
            Severity::Critical | Severity::Error => BAD,
            _ => ODD,
        };
        let severity = severity_name(finding.severity());
        let path = path(&finding.path);
        self.line(format!(
            "{} {}: {}{}",
            Styled(style, format_args!("{severity:8}")),
            Safe(&path),
            Safe(&finding.rule),
            Styled(DIM, format_args!("  sha256 {}", Safe(&finding.sha256)))
        ))
    }

    pub(super) fn ended(&mut self, id: &str, scan: &Scan) -> Result<(), Failure> {
        if self.json {
            return self.printer.json(&json::ended(id, scan));
        }
        self.line(summary(scan))?;
        for problem in &scan.problems {
            self.line(format!("    {} {}", Styled(ODD, "not judged"), Safe(problem)))?;
        }
        let untold = scan.unjudged.saturating_sub(scan.problems.len() as u64);
        if untold > 0 {
            self.line(format!("    {} {untold} more", Styled(ODD, "not judged")))?;
        }
        Ok(())
    }

    /// Takes the bar away until there is progress again.
    pub(super) fn pause(&self) {
        self.bar.iter().for_each(ProgressBar::reset);
    }

    pub(super) fn finish(&self) {
        self.bar.iter().for_each(ProgressBar::finish_and_clear);
    }

    /// One line, above the bar.
    fn line(&mut self, text: String) -> Result<(), Failure> {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.printer.line(text)),
            None => self.printer.line(text),
        }
    }
}

/// What came of a scan, in one line.
fn summary(scan: &Scan) -> String {
    let word = match (scan.state(), scan.findings, scan.unjudged) {
        (ScanState::Failed, ..) => Styled(BAD, "failed".to_owned()),
        (ScanState::Cancelled, ..) => Styled(ODD, "cancelled".to_owned()),
        (_, 0, 0) => Styled(GOOD, "clean".to_owned()),
        (_, 0, _) => Styled(ODD, "nothing bad, but not everything was judged".to_owned()),
        (_, bad, _) => Styled(BAD, format!("{bad} bad")),
    };
    let took = scan.ended_at_unix_ms.saturating_sub(scan.began_at_unix_ms) / 1000;
    let when = if scan.from_record {
        "known from an earlier scan; --force scans again".to_owned()
    } else {
        duration(took)
    };
    let size = format!("{}, {}", count(scan.files, "file"), HumanBytes(scan.bytes));
    let set = Safe(&scan.signature_set);
    let current = match scan.current {
        0 => String::new(),
        current => format!("{current} judged before, "),
    };
    let rest = format!(
        "{size}, {current}{} not judged, {when}, signature set {set}",
        scan.unjudged
    );
    let why = match scan.cause() {
        ScanCause::NewSignatures => ", by new signatures",
        ScanCause::Asked | ScanCause::Unspecified => "",
    };
    format!(
        "{}{why}: {word} {}",
        Safe(&scan.target),
        Styled(DIM, format!("({rest})"))
    )
}

/// One scan in a list.
pub(super) fn line(scan: &Scan, printer: &mut Printer) -> Result<(), Failure> {
    let state = json::state(scan.state());
    printer.line(format_args!(
        "{} {state:9} {}",
        Styled(DIM, Safe(&scan.id)),
        summary(scan)
    ))?;
    if scan.error.is_empty() {
        return Ok(());
    }
    printer.line(format_args!("    {}", Safe(&scan.error)))
}

fn shorten(text: &str) -> String {
    let length = text.chars().count();
    if length <= PATH {
        return text.to_owned();
    }
    let end: String = text.chars().skip(length - PATH + 3).collect();
    format!("...{end}")
}
