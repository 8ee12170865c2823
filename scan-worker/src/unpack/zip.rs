//! Zip, by its directory and, where that says nothing, by what lies there.
//!
//! Programs disagree on what is in a zip: some believe the directory at its end, some the
//! headers before each member. What only headers tell of is read, too: the rest of an
//! archive that was cut short, and what was hidden from the directory.

use std::ops::Range;

use flate2::read::DeflateDecoder;
use memchr::memmem;
use rawzip::{CompressionMethod, ZipArchive, ZipFileHeaderRecord, ZipSliceArchive};

use super::budget::Spent;
use super::{Unreadable, Walk, stream};

const MEMBER: &[u8] = b"PK\x03\x04";
const END: &[u8] = b"PK\x05\x06";

/// A header before a member has at least so many bytes.
const HEADER: usize = 30;

/// How far from its end the end of a zip is looked for when it begins as something else.
const TAIL: usize = 1 << 10;

/// Whether a content that begins as something else ends as a zip.
pub(super) fn ends(content: &[u8]) -> bool {
    let tail = content
        .get(content.len().saturating_sub(TAIL)..)
        .unwrap_or_default();
    memmem::find(tail, END).is_some()
}

pub(super) fn read(content: &[u8], walk: &mut Walk<'_>) -> Result<(), Spent> {
    let mut archive = Archive::default();
    let mut seen = Vec::new();
    if let Ok(zip) = ZipArchive::from_slice(content) {
        for record in zip.entries() {
            // After the first error there are no more.
            let Ok(record) = record else { break };
            if let Some((member, range)) = listed(&zip, &record) {
                seen.push(range);
                archive.member(&member, walk)?;
            }
        }
    }
    for gap in gaps(content.len(), seen) {
        archive.unlisted(content.get(gap).unwrap_or_default(), walk)?;
    }
    Ok(())
}

/// What one zip was found to hold.
#[derive(Default)]
struct Archive {
    encrypted: bool,
    unknown: bool,
}

struct Member<'a> {
    name: &'a [u8],
    method: CompressionMethod,
    encrypted: bool,
    data: &'a [u8],
}

/// A member as the directory describes it, and where it lies with its header.
fn listed<'a>(
    zip: &'a ZipSliceArchive<&'a [u8]>,
    record: &ZipFileHeaderRecord<'a>,
) -> Option<(Member<'a>, Range<usize>)> {
    let entry = zip.get_entry(record.wayfinder()).ok()?;
    let (_, end) = entry.compressed_data_range();
    let start = usize::try_from(record.local_header_offset()).ok()?;
    let member = Member {
        name: record.file_path().as_bytes(),
        method: record.compression_method(),
        encrypted: record.flags().is_encrypted(),
        data: entry.data(),
    };
    Some((member, start..usize::try_from(end).ok()?))
}

/// What no range covers.
fn gaps(length: usize, mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.sort_by_key(|range| range.start);
    let mut gaps = Vec::new();
    let mut covered = 0;
    for range in ranges {
        if range.start > covered {
            gaps.push(covered..range.start);
        }
        covered = covered.max(range.end);
    }
    gaps.push(covered..length.max(covered));
    gaps
}

impl Archive {
    fn member(&mut self, member: &Member<'_>, walk: &mut Walk<'_>) -> Result<(), Spent> {
        let Member {
            name, method, data, ..
        } = *member;
        if name.ends_with(b"/") && data.is_empty() {
            return Ok(());
        }
        if member.encrypted {
            if !std::mem::replace(&mut self.encrypted, true) {
                walk.unreadable(name, Unreadable::Encrypted);
            }
            return Ok(());
        }
        match method {
            CompressionMethod::STORE => walk.member(name, data),
            CompressionMethod::DEFLATE => walk.packed(name, data.len(), DeflateDecoder::new(data)),
            CompressionMethod::XZ => walk.packed(name, data.len(), stream::xz(data)),
            CompressionMethod::ZSTD => walk.packed(name, data.len(), stream::zstd(data)),
            _ => {
                if !std::mem::replace(&mut self.unknown, true) {
                    walk.unreadable(name, Unreadable::Method);
                }
                Ok(())
            }
        }
    }

    /// The members in a part that the directory does not tell of.
    fn unlisted(&mut self, mut part: &[u8], walk: &mut Walk<'_>) -> Result<(), Spent> {
        while let Some(at) = memmem::find(part, MEMBER) {
            part = part.get(at..).unwrap_or_default();
            let mut next = MEMBER.len();
            if let Some((member, end)) = unlisted(part) {
                self.member(&member, walk)?;
                next = end;
            }
            part = part.get(next..).unwrap_or_default();
        }
        Ok(())
    }
}

/// A member as the header at the start of `part` describes it, and where to look for the next.
fn unlisted(part: &[u8]) -> Option<(Member<'_>, usize)> {
    let header: &[u8; HEADER] = part.first_chunk()?;
    let [
        _,
        _,
        _,
        _,
        _,
        _,
        flags,
        _,
        m0,
        m1,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        s0,
        s1,
        s2,
        s3,
        _,
        _,
        _,
        _,
        n0,
        n1,
        e0,
        e1,
    ] = *header;
    let name_end = HEADER + usize::from(u16::from_le_bytes([n0, n1]));
    let start = name_end + usize::from(u16::from_le_bytes([e0, e1]));
    let size = usize::try_from(u32::from_le_bytes([s0, s1, s2, s3])).ok()?;
    let rest = part.get(start..)?;
    // Written as a stream, it has its size behind it; then only its own end is known.
    let known = flags & 8 == 0 && size <= rest.len();
    let (data, next) = if known {
        (rest.get(..size)?, start + size)
    } else {
        (rest, start)
    };
    let member = Member {
        name: part.get(HEADER..name_end)?,
        method: CompressionMethod::new(u16::from_le_bytes([m0, m1])),
        encrypted: flags & 1 != 0,
        data,
    };
    Some((member, next))
}
