//! One line of Docker's json-file log.

use std::io::Write;

use jiff::Timestamp;

/// Appends `{"log":TEXT,"stream":STREAM,"time":TIME}` and a newline to `out`, escaped as Docker's encoder does.
///
/// Control characters but `\n` and `\r` and the characters `<`, `>` and `&` become `\u00XX`; each byte that is not
/// part of valid UTF-8 becomes U+FFFD; the time is RFC 3339 with as many digits as it needs.
pub(crate) fn encode_line(out: &mut Vec<u8>, stream: &str, text: &[u8], time: Timestamp) {
    out.extend_from_slice(br#"{"log":""#);
    for chunk in text.utf8_chunks() {
        escape(out, chunk.valid());
        for _ in chunk.invalid() {
            out.extend_from_slice(br"\ufffd");
        }
    }
    // Writing to a Vec cannot fail.
    let _ = writeln!(out, r#"","stream":"{stream}","time":"{time}"}}"#);
}

fn escape(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    let mut plain = 0;
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        let mut width = 1;
        match byte {
            b'"' | b'\\' | b'\n' | b'\r' | 0..0x20 | b'<' | b'>' | b'&' => {}
            // U+2028 and U+2029 are line ends in JavaScript; Go escapes them.
            0xe2 if matches!(bytes.get(at + 1..at + 3), Some([0x80, 0xa8 | 0xa9])) => width = 3,
            _ => {
                at += 1;
                continue;
            }
        }
        out.extend_from_slice(&bytes[plain..at]);
        match byte {
            b'"' => out.extend_from_slice(br#"\""#),
            b'\\' => out.extend_from_slice(br"\\"),
            b'\n' => out.extend_from_slice(br"\n"),
            b'\r' => out.extend_from_slice(br"\r"),
            0xe2 => {
                out.extend_from_slice(br"\u202");
                out.push(HEX[usize::from(bytes[at + 2] & 0xf)]);
            }
            _ => {
                out.extend_from_slice(br"\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 0xf)]);
            }
        }
        at += width;
        plain = at;
    }
    out.extend_from_slice(&bytes[plain..]);
}
