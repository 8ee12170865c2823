//! Archives within archives.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// The only member of each archive.
const NAME: &[u8] = b"z";
/// What is in the innermost one.
const KERNEL: &[u8] = b"the innermost file\n";

/// A zip file that holds a zip file, and so on. One more level costs as much as the first: what
/// is within is neither moved nor read again.
struct Nest {
    /// What comes before the kernel, the outermost level last.
    heads: Vec<Vec<u8>>,
    /// The kernel and what comes after it.
    body: Vec<u8>,
    size: usize,
    checksum: Checksum,
}

/// Writes a valid zip file that is `levels` deep.
pub(crate) fn zip(file: &Path, levels: usize) -> Result<Value> {
    let mut nest = Nest::new();
    for _ in 0..levels {
        nest.wrap().context("it is too large to be a zip file")?;
    }
    let bytes = nest.bytes();
    fs::write(file, &bytes)?;
    Ok(json!({ "levels": levels, "bytes": bytes.len() }))
}

impl Nest {
    fn new() -> Self {
        Self {
            heads: Vec::new(),
            body: KERNEL.to_owned(),
            size: KERNEL.len(),
            checksum: Checksum::of(KERNEL),
        }
    }

    /// Puts all of it into an archive; none when its sizes cannot be written.
    fn wrap(&mut self) -> Option<()> {
        let (size, name) = (u32::try_from(self.size).ok()?, u16::try_from(NAME.len()).ok()?);
        let mut about = vec![10, 0, 0, 0, 0, 0, 0, 0, 0x21, 0];
        about.extend(self.checksum.value().to_le_bytes());
        about.extend([size.to_le_bytes(), size.to_le_bytes()].concat());
        about.extend(name.to_le_bytes());

        let head = [b"PK\x03\x04", about.as_slice(), &[0; 2], NAME].concat();
        let entry = [b"PK\x01\x02\x0a\x00", about.as_slice(), &[0; 16], NAME].concat();
        let at = u32::try_from(head.len()).ok()?.checked_add(size)?;
        let mut end = b"PK\x05\x06\0\0\0\0\x01\0\x01\0".to_vec();
        end.extend(u32::try_from(entry.len()).ok()?.to_le_bytes());
        end.extend(at.to_le_bytes());
        end.extend([0; 2]);
        let tail = [entry, end].concat();

        let inner = std::mem::take(&mut self.checksum);
        self.checksum = Checksum::of(&head).then(inner).then(Checksum::of(&tail));
        self.size += head.len() + tail.len();
        self.heads.push(head);
        self.body.extend(tail);
        Some(())
    }

    fn bytes(&self) -> Vec<u8> {
        let heads = self.heads.iter().rev();
        heads.chain([&self.body]).flatten().copied().collect()
    }
}

/// A CRC-32 under way. Polynomials have their lowest power in the highest bit.
#[derive(Default)]
struct Checksum {
    /// As if it had begun with 0: then that of two pieces is a sum.
    sum: u32,
    /// How many bytes.
    length: usize,
}

impl Checksum {
    const GENERATOR: u32 = 0xedb8_8320;
    /// x to the power of 0, and of 8.
    const ONE: u32 = 1 << 31;
    const BYTE: u32 = 1 << 23;

    fn of(bytes: &[u8]) -> Self {
        let push = |sum: u32, byte: &u8| (0..8).fold(sum ^ u32::from(*byte), |sum, _| Self::times_x(sum));
        Self {
            sum: bytes.iter().fold(0, push),
            length: bytes.len(),
        }
    }

    fn then(&self, next: Self) -> Self {
        Self {
            sum: Self::shifted(self.sum, next.length) ^ next.sum,
            length: self.length + next.length,
        }
    }

    fn value(&self) -> u32 {
        !(Self::shifted(!0, self.length) ^ self.sum)
    }

    /// What `bytes` bytes of zeros make of a sum.
    fn shifted(sum: u32, bytes: usize) -> u32 {
        let bits = usize::BITS - bytes.leading_zeros();
        let powers = std::iter::successors(Some(Self::BYTE), |power| Some(Self::product(*power, *power)));
        let wanted = (0..bits).zip(powers).filter(|(bit, _)| bytes >> bit & 1 == 1);
        wanted.fold(sum, |sum, (_, power)| Self::product(sum, power))
    }

    fn product(a: u32, b: u32) -> u32 {
        let multiples = std::iter::successors(Some(b), |b| Some(Self::times_x(*b)));
        let wanted = (0..u32::BITS)
            .zip(multiples)
            .filter(|(power, _)| a & (Self::ONE >> power) != 0);
        wanted.fold(0, |sum, (_, multiple)| sum ^ multiple)
    }

    fn times_x(a: u32) -> u32 {
        (a >> 1) ^ if a & 1 == 1 { Self::GENERATOR } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_zip() {
        let known = 0xcbf4_3926;
        assert_eq!(Checksum::of(b"123456789").value(), known);
        let pieces = Checksum::of(b"1234").then(Checksum::of(b"56789"));
        assert_eq!(pieces.value(), known);
    }

    #[test]
    fn its_checksum_is_that_of_its_bytes() -> Result<()> {
        let mut nest = Nest::new();
        for _ in 0..5 {
            nest.wrap().context("small")?;
            let bytes = nest.bytes();
            assert_eq!(nest.size, bytes.len());
            assert_eq!(nest.checksum.value(), Checksum::of(&bytes).value());
        }
        Ok(())
    }
}
