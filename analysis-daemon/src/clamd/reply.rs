//! What clamd says of a file: one short line, of which nothing is guessed.

/// Longest name of a signature that is believed, in bytes.
const MAX_NAME: usize = 256;

/// Begins the names of what clamd did not look at: `AlertExceedsMax` in clamd.conf(5).
const LIMITS: &str = "Heuristics.Limits.Exceeded";

/// clamd's answer to one file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// It found nothing.
    Clean,
    /// A signature's name.
    Found(String),
    /// It stopped at a limit of its own.
    Limit,
    /// It could not judge it, and says why.
    Failed(String),
}

/// Understands the reply to `FILDES`: `fd[12]: OK`, `fd[12]: NAME FOUND` or
/// `fd[12]: REASON ERROR`. None for anything else.
pub(super) fn of_file(line: &[u8]) -> Option<Reply> {
    let line = std::str::from_utf8(line).ok()?;
    let (number, said) = line.strip_prefix("fd[")?.split_once("]: ")?;
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if said == "OK" {
        return Some(Reply::Clean);
    }
    let (what, kind) = said.rsplit_once(' ')?;
    match kind {
        "FOUND" if what.starts_with(LIMITS) => is_name(what).then_some(Reply::Limit),
        "FOUND" => is_name(what).then(|| Reply::Found(what.to_owned())),
        "ERROR" => is_text(what).then(|| Reply::Failed(what.to_owned())),
        _ => None,
    }
}

/// Understands the reply to `VERSION`: `ClamAV 1.4.3`, and `/27800/Fri Nov 21 ...` behind it
/// when there is a database that has a version.
pub(super) fn of_version(line: &[u8]) -> Option<String> {
    let line = std::str::from_utf8(line).ok()?;
    (line.starts_with("ClamAV ") && is_text(line)).then(|| line.to_owned())
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_text(text: &str) -> bool {
    text.len() <= MAX_NAME && !text.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_answers_are_understood() {
        assert_eq!(of_file(b"fd[9]: OK"), Some(Reply::Clean));
        let found = of_file(b"fd[12]: Win.Test.EICAR_HDB-1 FOUND");
        assert_eq!(found, Some(Reply::Found("Win.Test.EICAR_HDB-1".into())));
        let failed = of_file(b"fd[9]: Not a regular file ERROR");
        assert_eq!(failed, Some(Reply::Failed("Not a regular file".into())));
    }

    #[test]
    fn a_limit_is_no_malware() {
        for name in ["MaxFileSize", "MaxScanTime", "MaxRecursion"] {
            let line = format!("fd[9]: Heuristics.Limits.Exceeded.{name} FOUND");
            assert_eq!(of_file(line.as_bytes()), Some(Reply::Limit));
        }
        let macros = "Heuristics.OLE2.ContainsMacros";
        let line = format!("fd[9]: {macros} FOUND");
        assert_eq!(of_file(line.as_bytes()), Some(Reply::Found(macros.into())));
    }

    #[test]
    fn anything_else_is_nothing() {
        let long = format!("fd[9]: {} FOUND", "x".repeat(MAX_NAME + 1));
        for line in [
            &b""[..],
            b"OK",
            b"fd[9]:OK",
            b"fd[]: OK",
            b"fd[-1]: OK",
            b"fd[9]: ok",
            b"fd[9]: OK OK",
            b"fd[9]:  FOUND",
            b"fd[9]: two words FOUND",
            b"fd[9]: na\x1bme FOUND",
            b"fd[9]: \xff FOUND",
            b"fd[9]: a\nb ERROR",
            b"stream: OK",
            b"UNKNOWN COMMAND",
            long.as_bytes(),
        ] {
            assert_eq!(of_file(line), None, "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn versions_are_versions() {
        let whole = "ClamAV 1.4.3/27800/Fri Nov 21 08:00:00 2026";
        assert_eq!(of_version(whole.as_bytes()), Some(whole.into()));
        assert_eq!(of_version(b"ClamAV 1.4.3"), Some("ClamAV 1.4.3".into()));
        assert_eq!(of_version(b"ENGINE VERSION MISMATCH: 1 != 2. ERROR"), None);
        assert_eq!(of_version(b"ClamAV 1\x07"), None);
    }
}
