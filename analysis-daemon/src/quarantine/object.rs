//! How content lies in the store: behind a header, and masked.
//!
//! This is no secrecy, the key is in the header. It is so that nothing on the
//! node, another scanner or a careless hand, meets content that it knows or can
//! run. The key is random, so that whoever made the content has no say in what
//! the masked bytes are. `docs/quarantine.md` is the reference of the format.

use std::io::{self, Read, Write};

use lazaret_types::Sha256;
use sha2::Digest;
use ulid::Ulid;

use super::step::{Step, passed};

/// Bytes before the content.
pub(super) const HEADER: usize = 64;

/// Begins with a byte that begins no text, no script and no program.
const MAGIC: [u8; 8] = *b"\x9bLZRTQ\x1a\n";

const VERSION: u32 = 1;

/// Bytes worked on at once.
const CHUNK: usize = 128 << 10;

/// The first [`HEADER`] bytes of an object; all numbers are little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    key: u64,
    /// Of the content, in bytes.
    size: u64,
    sha256: Sha256,
}

impl Header {
    fn to_bytes(self) -> [u8; HEADER] {
        let fields: [&[u8]; 6] = [
            &MAGIC,
            &VERSION.to_le_bytes(),
            &[0; 4],
            &self.key.to_le_bytes(),
            &self.size.to_le_bytes(),
            self.sha256.as_bytes(),
        ];
        let mut bytes = [0; HEADER];
        for (byte, field) in bytes.iter_mut().zip(fields.into_iter().flatten()) {
            *byte = *field;
        }
        bytes
    }

    fn from_bytes(bytes: &[u8; HEADER]) -> Option<Self> {
        let rest = bytes.strip_prefix(&MAGIC)?;
        let rest = rest.strip_prefix(&VERSION.to_le_bytes())?.get(4..)?;
        let (key, rest) = rest.split_first_chunk()?;
        let (size, sha256) = rest.split_first_chunk()?;
        Some(Self {
            key: u64::from_le_bytes(*key),
            size: u64::from_le_bytes(*size),
            sha256: Sha256::new(*sha256.first_chunk()?),
        })
    }
}

/// Adds the mask, or takes it off: the two are the same. `offset` is where in the
/// content `bytes` begin.
///
/// SplitMix64 as a counter: word n of the mask is `mix(key + (n + 1) * GAMMA)`.
fn mask(key: u64, offset: u64, bytes: &mut [u8]) {
    let word = |n: u64| mix(key.wrapping_add(n.wrapping_add(1).wrapping_mul(GAMMA))).to_le_bytes();
    let xor = |bytes: &mut [u8], mask: &[u8]| bytes.iter_mut().zip(mask).for_each(|(byte, m)| *byte ^= m);
    let first = word(offset / 8);
    // Less than 8, so it fits.
    let begun = first.get((offset % 8) as usize..).unwrap_or_default();
    let (head, body) = bytes.split_at_mut(begun.len().min(bytes.len()));
    xor(head, begun);
    for (n, chunk) in (offset / 8 + 1..).zip(body.chunks_mut(8)) {
        xor(chunk, &word(n));
    }
}

/// 2^64 divided by the golden ratio, made odd.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What became of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Copied {
    pub(super) sha256: Sha256,
    /// Of the content, in bytes.
    pub(super) size: u64,
}

/// Copies content into an object that is to hold `expected`, and tells what it
/// was. Whoever calls compares the two before the object gets its name. Reads
/// one byte more than expected, to see that there are no more.
pub(super) fn encode(
    source: impl Read,
    sink: &mut impl Write,
    expected: Copied,
    cancelled: &dyn Fn() -> bool,
) -> io::Result<Copied> {
    // The lower half of a ULID is random.
    let [.., a, b, c, d, e, f, g, h] = Ulid::generate().to_bytes();
    let header = Header {
        key: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        size: expected.size,
        sha256: expected.sha256,
    };
    sink.write_all(&header.to_bytes())?;
    let source = source.take(expected.size.saturating_add(1));
    transfer(source, cancelled, |offset, bytes| {
        mask(header.key, offset, bytes);
        sink.write_all(bytes)?;
        passed(Step::PartOfObjectWritten);
        Ok(())
    })
}

/// Reads content and tells what it is, without keeping it.
pub(super) fn identify(source: impl Read, expected: u64, cancelled: &dyn Fn() -> bool) -> io::Result<Copied> {
    transfer(source.take(expected.saturating_add(1)), cancelled, |_, _| Ok(()))
}

/// Copies content as it is, and tells what it was. Reads one byte more than expected, as above.
pub(super) fn copy(source: impl Read, sink: &mut impl Write, expected: u64) -> io::Result<Copied> {
    let source = source.take(expected.saturating_add(1));
    transfer(source, &|| false, |_, bytes| sink.write_all(bytes))
}

/// Takes the content out of an object.
///
/// # Errors
/// `InvalidData` when the object is not one, or not what it says: what `sink` got
/// is worth nothing then.
pub(super) fn decode(mut source: impl Read, sink: &mut impl Write) -> io::Result<Copied> {
    let damaged = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut header = [0; HEADER];
    source.read_exact(&mut header)?;
    let header = Header::from_bytes(&header).ok_or_else(|| damaged("not an object of the quarantine"))?;
    let mut hash = sha2::Sha256::new();
    let source = source.take(header.size.saturating_add(1));
    let copied = transfer_raw(source, &|| false, |offset, bytes| {
        mask(header.key, offset, bytes);
        hash.update(&*bytes);
        sink.write_all(bytes)
    })?;
    let copied = Copied {
        sha256: Sha256::new(hash.finalize().into()),
        size: copied,
    };
    let Header { size, sha256, .. } = header;
    if copied == (Copied { sha256, size }) {
        Ok(copied)
    } else {
        Err(damaged(
            "the object is damaged: its content is not what its header says",
        ))
    }
}

/// As [`transfer_raw`], and tells what the content was before `each` changed it.
fn transfer(
    source: impl Read,
    cancelled: &dyn Fn() -> bool,
    mut each: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
) -> io::Result<Copied> {
    let mut hash = sha2::Sha256::new();
    let size = transfer_raw(source, cancelled, |offset, bytes| {
        hash.update(&*bytes);
        each(offset, bytes)
    })?;
    Ok(Copied {
        sha256: Sha256::new(hash.finalize().into()),
        size,
    })
}

/// Reads to the end, chunk by chunk; returns how many bytes there were.
fn transfer_raw(
    mut source: impl Read,
    cancelled: &dyn Fn() -> bool,
    mut each: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
) -> io::Result<u64> {
    let mut buffer = vec![0; CHUNK];
    let mut offset = 0;
    loop {
        if cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let length = match source.read(&mut buffer) {
            Ok(0) => return Ok(offset),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        each(offset, buffer.get_mut(..length).unwrap_or_default())?;
        offset += length as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(content: &[u8]) -> Copied {
        identify(content, u64::MAX - 1, &|| false).unwrap()
    }

    fn object(content: &[u8]) -> Vec<u8> {
        let mut object = Vec::new();
        let copied = encode(content, &mut object, described(content), &|| false).unwrap();
        assert_eq!(copied, described(content));
        object
    }

    #[test]
    fn content_comes_back_and_is_not_to_be_seen() {
        let content: Vec<u8> = (0..=250).cycle().take(3 * CHUNK + 5).collect();
        for content in [content.as_slice(), b"", b"x", &[0; 4096]] {
            let object = object(content);
            assert_eq!(object.len(), HEADER + content.len());
            assert!(content.len() < 16 || !object.windows(16).any(|seen| seen == &content[..16]));
            let mut back = Vec::new();
            assert_eq!(decode(&*object, &mut back).unwrap(), described(content));
            assert_eq!(back, content);
        }
        assert_ne!(object(b"twice"), object(b"twice"), "the key is random");
    }

    #[test]
    fn the_mask_does_not_depend_on_how_it_is_cut() {
        let mut whole = [0; 61];
        mask(7, 0, &mut whole);
        for cut in 0..whole.len() {
            let mut parts = [0; 61];
            let (head, tail) = parts.split_at_mut(cut);
            mask(7, 0, head);
            mask(7, cut as u64, tail);
            assert_eq!(parts, whole, "cut at {cut}");
        }
        // The first word of SplitMix64 seeded with 0, from its reference code.
        let mut word = [0; 8];
        mask(0, 0, &mut word);
        assert_eq!(u64::from_le_bytes(word), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn a_damaged_object_is_refused() {
        let sound = object(b"some content");
        let mut none = Vec::new();
        for at in [0, 9, 24, 33, HEADER, sound.len() - 1] {
            let mut damaged = sound.clone();
            damaged[at] ^= 1;
            assert!(decode(&*damaged, &mut none).is_err(), "byte {at}");
        }
        assert!(decode(&sound[..sound.len() - 1], &mut none).is_err());
        assert!(decode(&*[sound.as_slice(), b"x"].concat(), &mut none).is_err());
        assert!(decode(&sound[..10], &mut none).is_err());
    }

    #[test]
    fn no_more_than_one_byte_too_many_is_read() {
        let expected = Copied {
            size: 3,
            ..described(b"abc")
        };
        let mut object = Vec::new();
        let copied = encode(io::repeat(b'a'), &mut object, expected, &|| false).unwrap();
        assert_eq!(copied.size, 4);
    }
}
