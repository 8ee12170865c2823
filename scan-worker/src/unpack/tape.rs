//! Tar, by its headers alone: members are parts of the content, so nothing is copied.

use tar::{EntryType, Header};

use super::Walk;
use super::budget::Spent;

/// Header and content come in multiples of it, in bytes.
const BLOCK: usize = 512;

/// Longest name that an entry of its own gives to the next one, in bytes.
const MAX_NAME: usize = 4 << 10;

/// Whether a content begins with a header of tar: with a checksum that is right. Old ones
/// have nothing else.
pub(super) fn begins(content: &[u8]) -> bool {
    // A name comes first, and the checksum's digits stand at a place of their own.
    let plausible = content.first().is_some_and(|first| *first != 0)
        && content
            .get(148..156)
            .is_some_and(|digits| digits.iter().all(|digit| matches!(digit, b'0'..=b'7' | b' ' | 0)));
    plausible && content.first_chunk().is_some_and(|block| header(block).is_some())
}

/// The header in a block, if its checksum is right.
fn header(block: &[u8; BLOCK]) -> Option<&Header> {
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    let field: u32 = block.get(148..156)?.iter().map(|byte| u32::from(*byte)).sum();
    let header = Header::from_byte_slice(block);
    // The checksum is made with blanks in its own place.
    (header.cksum().ok()? == sum - field + 8 * u32::from(b' ')).then_some(header)
}

pub(super) fn read(mut content: &[u8], walk: &mut Walk<'_>) -> Result<(), Spent> {
    let mut long_name = None;
    while let Some((block, rest)) = content.split_first_chunk() {
        let Some(header) = header(block) else {
            // Zeros at the end, or damage: tar(1) looks for the next header, too.
            content = rest;
            continue;
        };
        let size = header
            .entry_size()
            .ok()
            .and_then(|size| usize::try_from(size).ok());
        let size = size.unwrap_or(usize::MAX);
        // One that was cut short is as long as it is.
        let data = rest.get(..size).unwrap_or(rest);
        match header.entry_type() {
            EntryType::GNULongName => long_name = Some(terminated(data)),
            EntryType::XHeader => long_name = pax_path(data).or(long_name),
            // They have no data, whatever their size says. Not everyone knows that, so that
            // what follows is looked at for headers.
            EntryType::Link | EntryType::Symlink | EntryType::Directory | EntryType::Fifo => {
                long_name = None;
                content = rest;
                continue;
            }
            EntryType::Char | EntryType::Block | EntryType::XGlobalHeader | EntryType::GNULongLink => {}
            _ => {
                let name = long_name.take().map_or(header.path_bytes(), Into::into);
                walk.member(&name, data)?;
            }
        }
        let padded = size.checked_next_multiple_of(BLOCK).unwrap_or(usize::MAX);
        content = rest.get(padded..).unwrap_or_default();
    }
    Ok(())
}

/// A name up to the zero that ends it.
fn terminated(data: &[u8]) -> &[u8] {
    let name = data.get(..MAX_NAME).unwrap_or(data);
    name.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The path in an extended header: lines of `LENGTH path=NAME\n`.
fn pax_path(mut records: &[u8]) -> Option<&[u8]> {
    while let Some(blank) = records.iter().take(20).position(|byte| *byte == b' ') {
        let digits = records.get(..blank)?;
        let length: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
        let record = records.get(blank + 1..length)?;
        if let Some(name) = record.strip_prefix(b"path=") {
            return Some(terminated(name.strip_suffix(b"\n").unwrap_or(name)));
        }
        records = records.get(length..)?;
    }
    None
}
