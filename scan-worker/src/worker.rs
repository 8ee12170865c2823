//! A worker: one file after the other, until lazaretd hangs up.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::process;

use lazaret_api::scan::v1::not_scanned::Reason;
use lazaret_api::scan::v1::{Finding, FromWorker, NotScanned, Scan, Scanned, ToWorker, from_worker};
use lazaret_sys::seqpacket::MAX_FDS;
use sha2::{Digest, Sha256};
use yara_x::{MetaValue, Rules, Scanner};

use crate::{sandbox, wire};

/// The metadata of a rule that lazaret understands.
pub(crate) const META: [&str; 3] = ["severity", "description", "attack"];

/// Findings in one answer; one is enough to convict.
const MAX_FINDINGS: usize = 16;

/// Bytes of a text in an answer.
const MAX_TEXT: usize = 200;

/// Matches of one pattern that are kept: conditions rarely count further, and
/// hostile content would make millions.
const MAX_MATCHES: usize = 10_000;

/// A buffer beyond this, in bytes, is given back after the scan.
const KEPT_BUFFER: usize = 4 << 20;

/// Never returns: the zygote's stack below is not the worker's.
pub(crate) fn run(socket: &OwnedFd, rules: &Rules, memory: u64) -> ! {
    if let Err(error) = sandbox::narrow(memory) {
        eprintln!("lazaret-scan-worker: {error:#}");
        process::exit(1);
    }
    let mut scanner = Scanner::new(rules);
    scanner.max_matches_per_pattern(MAX_MATCHES);
    let mut buffer = Vec::new();
    let mut fds = [const { None }; MAX_FDS];
    while let Ok(Some(ToWorker { scan: Some(scan) })) = wire::receive(socket, &mut fds) {
        let [file, ..] = &mut fds;
        let Some(file) = file.take().map(File::from) else {
            break;
        };
        let answer = match read(&file, scan, &mut buffer) {
            Ok(()) => judge(&mut scanner, &buffer),
            Err(not_scanned) => from_worker::Message::NotScanned(not_scanned),
        };
        // It must be closed before the answer: then lazaretd lets go of the container.
        drop(file);
        if wire::send(
            socket,
            &FromWorker {
                message: Some(answer),
            },
            &[],
        )
        .is_err()
        {
            break;
        }
        buffer.clear();
        buffer.shrink_to(KEPT_BUFFER);
    }
    process::exit(0);
}

/// Reads with `pread`, never maps: the file may be cut short meanwhile, which would
/// be a `SIGBUS`, and the descriptor's offset is the container's own business.
fn read(file: &File, scan: Scan, buffer: &mut Vec<u8>) -> Result<(), NotScanned> {
    let error = |error: std::io::Error| not_scanned(Reason::ReadError, &error.to_string());
    let size = file.metadata().map_err(error)?.len();
    if size > scan.max_size {
        return Err(not_scanned(Reason::TooLarge, ""));
    }
    let size = usize::try_from(size).map_err(|_too_large| not_scanned(Reason::TooLarge, ""))?;
    buffer.resize(size, 0);
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, filled as u64).map_err(error)? {
            0 => break,
            length => filled += length,
        }
    }
    buffer.truncate(filled);
    Ok(())
}

fn judge(scanner: &mut Scanner<'_>, content: &[u8]) -> from_worker::Message {
    match scanner.scan(content) {
        Ok(results) => {
            let findings = results
                .matching_rules()
                .take(MAX_FINDINGS)
                .map(|rule| finding(&rule))
                .collect();
            let sha256 = Sha256::digest(content).to_vec();
            from_worker::Message::Scanned(Scanned { findings, sha256 })
        }
        Err(error) => from_worker::Message::NotScanned(not_scanned(Reason::EngineError, &error.to_string())),
    }
}

fn finding(rule: &yara_x::Rule<'_, '_>) -> Finding {
    let [severity, description, attack] = META.map(|name| meta(rule, name));
    Finding {
        rule: rule.identifier().chars().take(MAX_TEXT).collect(),
        severity,
        description,
        attack,
    }
}

/// One text of a rule's metadata; empty when it has none.
pub(crate) fn meta(rule: &yara_x::Rule<'_, '_>, wanted: &str) -> String {
    let text = rule.metadata().find_map(|(name, value)| match value {
        MetaValue::String(text) if name == wanted => Some(text),
        _ => None,
    });
    text.unwrap_or_default().chars().take(MAX_TEXT).collect()
}

fn not_scanned(reason: Reason, message: &str) -> NotScanned {
    NotScanned {
        reason: reason.into(),
        message: message.chars().take(MAX_TEXT).collect(),
    }
}
