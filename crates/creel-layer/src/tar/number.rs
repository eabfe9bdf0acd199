//! Numbers as tar headers write them: octal digits, or GNU's base 256.

/// Reads a numeric field. Octal: digits, with spaces or NULs around (POSIX, "ustar"); an empty field is 0. GNU: the
/// first byte's highest bit is set and the rest is a big-endian two's complement number. `None` if it is neither, or
/// does not fit.
pub(super) fn parse(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // Bit 6 of the first byte is the sign, its lower six bits are the number's highest.
        let mut value: i128 =
            if first & 0x40 != 0 { i128::from(first & 0x3f) - 64 } else { i128::from(first & 0x3f) };
        for byte in rest {
            value = value.checked_mul(256)? | i128::from(*byte);
        }
        return i64::try_from(value).ok();
    }
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    let mut value: i64 = 0;
    for digit in &digits[..end] {
        if !(b'0'..=b'7').contains(digit) {
            return None;
        }
        value = value.checked_mul(8)?.checked_add(i64::from(digit - b'0'))?;
    }
    Some(value)
}

/// Writes `value` as octal digits with a NUL behind. `false`, with the field left zero, if it does not fit.
pub(super) fn put_octal(field: &mut [u8], value: u64) -> bool {
    let digits = field.len() - 1;
    if digits * 3 < 64 && value >> (digits * 3) != 0 {
        field[..digits].fill(b'0');
        return false;
    }
    for (place, byte) in field[..digits].iter_mut().rev().enumerate() {
        // 21 digits hold all of a u64, and no field has more than 11.
        *byte = b'0' + (value >> (place * 3) & 7) as u8;
    }
    true
}

/// Writes `value` in GNU's base 256. The field must have eight bytes at least.
pub(super) fn put_base256(field: &mut [u8], value: u64) {
    let (last, head) = (field.len() - 8, field.len());
    field[..last].fill(0);
    field[last..head].copy_from_slice(&value.to_be_bytes());
    field[0] |= 0x80;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_tars_write() {
        assert_eq!(parse(b"0000644\0"), Some(0o644));
        assert_eq!(parse(b"   644 \0"), Some(0o644));
        assert_eq!(parse(b"        "), Some(0));
        assert_eq!(parse(b"\0\0\0\0"), Some(0));
        assert_eq!(parse(b"77777777777\0"), Some(0o77777777777));
        assert_eq!(parse(b"0000648\0"), None);
        assert_eq!(parse(b"-000001\0"), None);
        assert_eq!(parse(b"\x80\0\0\0\x02\0\0\0\0\0\0\0"), Some(0x200_0000_0000_0000));
        assert_eq!(parse(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe"), Some(-2));
        assert_eq!(parse(b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe"), None);
        assert_eq!(parse(b""), None);
    }

    proptest! {
        #[test]
        fn octal_and_base256_come_back(value in 0..=i64::MAX as u64) {
            let mut field = [0; 12];
            if put_octal(&mut field, value) {
                prop_assert_eq!(parse(&field), Some(value as i64));
            } else {
                prop_assert!(value >= 1 << 33);
            }
            put_base256(&mut field, value);
            prop_assert_eq!(parse(&field), Some(value as i64));
        }

        #[test]
        fn anything_is_a_number_or_none(field in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse(&field);
        }
    }
}
