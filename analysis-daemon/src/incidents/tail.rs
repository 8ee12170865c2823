//! What the end of a file says after a crash.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use serde::Deserialize;
use ulid::Ulid;

/// How far back is looked, in bytes: beyond what one write may have left undone
/// ([`super::MAX_BATCH`]), plus one whole line before it.
const WINDOW: u64 = (super::MAX_BATCH + 2 * super::MAX_LINE) as u64;

/// What of an incident the log itself needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) struct Mark {
    pub(super) seq: u64,
    pub(super) id: Ulid,
}

/// The end of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// Sound up to `len` bytes; `last` is the last line, none in a file without lines.
    /// `rest` is what follows it: empty unless the daemon or the machine died.
    Sound {
        len: u64,
        last: Option<Mark>,
        rest: Vec<u8>,
    },
    /// No line within the window can be read.
    Lost,
}

/// Reads the end of `file`, which has `len` bytes.
pub(super) fn read(file: &File, len: u64) -> io::Result<Tail> {
    let start = len.saturating_sub(WINDOW);
    let mut bytes = vec![0; usize::try_from(len - start).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, start)?;

    let mut before = bytes.as_slice();
    while let Some(newline) = rfind_newline(before) {
        before = before.get(..newline).unwrap_or_default();
        let start_of_line = rfind_newline(before).map_or(0, |previous| previous + 1);
        // A line that the window cuts is no JSON, like any other damage.
        if let Ok(last) = serde_json::from_slice(before.get(start_of_line..).unwrap_or_default()) {
            let rest = bytes.split_off(newline + 1);
            return Ok(Tail::Sound {
                len: len - rest.len() as u64,
                last: Some(last),
                rest,
            });
        }
    }
    Ok(if start == 0 {
        Tail::Sound {
            len: 0,
            last: None,
            rest: bytes,
        }
    } else {
        Tail::Lost
    })
}

fn rfind_newline(bytes: &[u8]) -> Option<usize> {
    bytes.iter().rposition(|byte| *byte == b'\n')
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed test is a panic"
)]
mod tests {
    use std::io::Write;

    use super::*;

    const ID: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

    fn line(seq: u64) -> String {
        format!("{{\"rule\":\"x\",\"seq\":{seq},\"id\":\"{ID}\"}}\n")
    }

    fn tail(bytes: &[u8]) -> Tail {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        read(&file, bytes.len() as u64).unwrap()
    }

    fn sound(len: usize, seq: Option<u64>, rest: &[u8]) -> Tail {
        let last = seq.map(|seq| Mark {
            seq,
            id: Ulid::from_string(ID).unwrap(),
        });
        Tail::Sound {
            len: len as u64,
            last,
            rest: rest.to_vec(),
        }
    }

    #[test]
    fn finds_the_last_line() {
        let text = line(7) + &line(8);
        assert_eq!(tail(text.as_bytes()), sound(text.len(), Some(8), b""));
        assert_eq!(tail(b""), sound(0, None, b""));
    }

    #[test]
    fn finds_the_last_whole_line_before_any_damage() {
        let good = line(7) + &line(8);
        let next = line(9);
        // Cut at every byte, as a full disk would; and what a file system may
        // show after a power cut: zeros, or garbage that ends lines.
        let mut damages: Vec<Vec<u8>> = (1..next.len())
            .map(|cut| next.as_bytes()[..cut].to_vec())
            .collect();
        damages.push(vec![0; 4096]);
        damages.push(b"\0\0\n\xff\n{\"seq\":1}\n\n".to_vec());
        for damage in damages {
            let text = [good.as_bytes(), &damage].concat();
            assert_eq!(tail(&text), sound(good.len(), Some(8), &damage), "{damage:?}");
        }
    }

    #[test]
    fn a_file_of_nothing_but_damage_has_no_last_line() {
        assert_eq!(tail(b"\0\0\0"), sound(0, None, b"\0\0\0"));
        assert_eq!(
            tail(&vec![b'\n'; usize::try_from(WINDOW).unwrap() + 1]),
            Tail::Lost
        );
    }
}
