//! Literals that hide something: long, dense, and of an encoding's letters.

/// Shorter ones, in bytes, are keys, digests and colours.
const LONG: usize = 240;

/// Bits that a byte of a literal carries; English has 4, base64 of packed code 6.
const DENSE: f64 = 4.8;

/// Hexadecimal digits carry 4 bits at most.
const DENSE_HEX: f64 = 3.3;

/// Whether a literal is what a decoder is given.
#[must_use]
pub fn is_encoded(text: &str) -> bool {
    if text.len() < LONG {
        return false;
    }
    let strange = text.bytes().filter(|byte| !is_encoding(*byte)).count();
    // Line ends and escapes stand in between.
    if strange * 20 > text.len() {
        return false;
    }
    let is_hex = text
        .bytes()
        .all(|byte| byte.is_ascii_hexdigit() || byte.is_ascii_whitespace() || matches!(byte, b'\\' | b'x'));
    entropy(text.as_bytes()) > if is_hex { DENSE_HEX } else { DENSE }
}

fn is_encoding(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'\\' | b'%' | b'-' | b'_')
}

/// Shannon's entropy, in bits for each byte.
#[must_use]
pub fn entropy(bytes: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in bytes {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count += 1;
        }
    }
    let all = f64::from(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    let shares = counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| f64::from(*count) / all);
    -shares.map(|share| share * share.log2()).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_encoded_from_written() {
        let base64: String = (0..400_u32)
            .map(|n| {
                char::from(
                    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
                        [(n.wrapping_mul(2_654_435_761) >> 26) as usize],
                )
            })
            .collect();
        assert!(is_encoded(&base64));
        let hex: String = (0..400_u32)
            .map(|n| format!("{:x}", n.wrapping_mul(2_654_435_761) >> 28))
            .collect();
        assert!(is_encoded(&hex));
        assert!(!is_encoded(&base64[..200]));
        assert!(!is_encoded(
            &"the quick brown fox jumps over the lazy dog ".repeat(20)
        ));
        assert!(!is_encoded(&"AAAA".repeat(200)));
    }

    #[test]
    fn entropy_is_what_shannon_says() {
        assert!((entropy(b"abab") - 1.0).abs() < 1e-9);
        assert!(entropy(b"aaaa").abs() < 1e-9);
        assert!(entropy(b"").abs() < 1e-9);
    }
}
