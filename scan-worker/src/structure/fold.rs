//! What literals come to when a program puts them together: names that it would not show.

/// What a decoder makes of a literal; none when it is no decoder, or the literal is not its.
pub(super) fn decode(function: &str, text: &str) -> Option<String> {
    let bytes = match function.to_ascii_lowercase().as_str() {
        "base64_decode" | "b64decode" | "decode_base64" | "atob" | "frombase64string" => base64(text)?,
        "strrev" | "reverse" => text.bytes().rev().collect(),
        "str_rot13" => text.bytes().map(rot13).collect(),
        "hex2bin" | "unhexlify" | "fromhex" | "pack" => hex(text)?,
        "urldecode" | "rawurldecode" | "decodeuricomponent" | "unescape" => percent(text),
        "strtolower" | "lc" | "trim" | "ucfirst" => text.to_ascii_lowercase().into_bytes(),
        "chr" => vec![text.parse().ok()?],
        _ => return None,
    };
    String::from_utf8(bytes).ok()
}

/// A literal without its escapes.
pub(super) fn unescape(text: &str) -> String {
    if !text.contains('\\') {
        return text.to_owned();
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let (byte, next) = match (first, after) {
            (b'\\', [b'x', a, b, next @ ..]) => match (digit(*a, 16), digit(*b, 16)) {
                (Some(a), Some(b)) => (a * 16 + b, next),
                _ => (*first, after),
            },
            (b'\\', [a @ b'0'..=b'1', b, c, next @ ..]) => match (digit(*b, 8), digit(*c, 8)) {
                (Some(b), Some(c)) => ((a - b'0') * 64 + b * 8 + c, next),
                _ => (*first, after),
            },
            (b'\\', [escaped, next @ ..]) => (*escaped, next),
            _ => (*first, after),
        };
        out.push(byte);
        rest = next;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn digit(byte: u8, radix: u32) -> Option<u8> {
    char::from(byte)
        .to_digit(radix)
        .and_then(|digit| u8::try_from(digit).ok())
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text
        .bytes()
        .filter(|byte| !matches!(byte, b'=' | b'\n' | b'\r' | b' '))
    {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xff_ffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xff).to_le_bytes()[0]);
        }
    }
    Some(out)
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = text
        .bytes()
        .map(|byte| digit(byte, 16))
        .collect::<Option<Vec<_>>>()?;
    Some(
        digits
            .chunks_exact(2)
            .filter_map(|pair| Some(pair.first()? * 16 + pair.last()?))
            .collect(),
    )
}

fn percent(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        out.push(match after {
            [a, b, next @ ..] if *first == b'%' => match (digit(*a, 16), digit(*b, 16)) {
                (Some(a), Some(b)) => {
                    rest = next;
                    a * 16 + b
                }
                _ => *first,
            },
            _ => *first,
        });
    }
    out
}

fn rot13(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' => (byte - b'a' + 13) % 26 + b'a',
        b'A'..=b'Z' => (byte - b'A' + 13) % 26 + b'A',
        _ => byte,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_what_shells_are_written_with() {
        for (function, text) in [
            ("base64_decode", "c3lz¦dGVt"),
            ("strrev", "met¦sys"),
            ("str_rot13", "flf¦grz"),
            ("hex2bin", "7379¦7374656d"),
            ("urldecode", "%73%79s¦tem"),
        ] {
            let text = text.replace('¦', "");
            assert_eq!(
                decode(function, &text).as_deref(),
                Some("sys\u{74}em"),
                "{function}"
            );
        }
        assert_eq!(unescape(r"\x73\171s\tem"), "system");
        assert_eq!(decode("chr", "115").as_deref(), Some("s"));
    }

    #[test]
    fn what_is_not_encoded_is_refused() {
        assert_eq!(decode("base64_decode", "a b!"), None);
        assert_eq!(decode("hex2bin", "xy"), None);
        assert_eq!(decode("hex2bin", "é"), None);
        assert_eq!(decode("chr", "300"), None);
        assert_eq!(decode("unknown", "x"), None);
        assert_eq!(unescape("\\"), "\\");
        assert_eq!(unescape("\\x"), "x");
    }
}
