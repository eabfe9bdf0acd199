//! pax extended headers: records of `length key=value\n` (POSIX.1-2017, `pax`, "pax Extended Header").

use std::collections::HashSet;

use super::{Segment, Timestamp};

const XATTR: &[u8] = b"SCHILY.xattr.";

/// What extended headers say about an entry. `None`: nothing, so the header itself holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) linkpath: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: PaxSparse,
}

/// GNU tar's keys for sparse files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PaxSparse {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    /// `GNU.sparse.size` or `GNU.sparse.realsize`.
    pub(super) size: Option<u64>,
    /// Formats 0.0 and 0.1: the map, offset and length in turn.
    pub(super) map: Option<Vec<u64>>,
}

impl Pax {
    /// Adds the records of one header's data to what is known. A `global` one holds for all entries that follow, so
    /// what belongs to one file only is refused there: no writer does it, and readers disagree on its meaning.
    pub(super) fn read(&mut self, mut data: &[u8], global: bool) -> Result<(), String> {
        while !data.is_empty() {
            let (key, value, rest) = record(data).ok_or("a record is not `length key=value`")?;
            data = rest;
            if global && !matches!(key, b"uid" | b"gid" | b"mtime") {
                if matches!(key, b"path" | b"linkpath" | b"size")
                    || key.starts_with(b"GNU.sparse.")
                    || key.starts_with(XATTR)
                {
                    return Err(format!(
                        "a global header sets `{}`, which belongs to one file",
                        key.escape_ascii()
                    ));
                }
                continue;
            }
            self.set(key, value).map_err(|why| format!("`{}` {why}", key.escape_ascii()))?;
        }
        self.keep_last_xattrs();
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        match key {
            b"path" => self.path = text(value)?,
            b"linkpath" => self.linkpath = text(value)?,
            b"size" => self.size = number(value)?,
            b"uid" => self.uid = number(value)?,
            b"gid" => self.gid = number(value)?,
            b"mtime" => {
                self.mtime = if value.is_empty() {
                    None
                } else {
                    Some(time(value).ok_or("is not a time in seconds")?)
                };
            }
            b"GNU.sparse.major" => self.sparse.major = number(value)?,
            b"GNU.sparse.minor" => self.sparse.minor = number(value)?,
            b"GNU.sparse.name" => self.sparse.name = text(value)?,
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.size = number(value)?,
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                let map = self.sparse.map.get_or_insert_default();
                if map.len() % 2 != usize::from(key == b"GNU.sparse.numbytes") {
                    return Err("is out of turn");
                }
                map.push(number(value)?.ok_or("is empty")?);
            }
            b"GNU.sparse.map" => {
                let mut map = Vec::new();
                if !value.is_empty() {
                    for part in value.split(|byte| *byte == b',') {
                        map.push(number(part)?.ok_or("has an empty number")?);
                    }
                }
                self.sparse.map = Some(map);
            }
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    if name.is_empty() || name.contains(&0) {
                        return Err("has no usable attribute name");
                    }
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }

    /// Of attributes of one name the last holds. A header has room for tens of thousands: comparing each with each
    /// would take seconds.
    fn keep_last_xattrs(&mut self) {
        let mut seen = HashSet::new();
        self.xattrs.reverse();
        self.xattrs.retain(|(name, _)| seen.insert(name.clone()));
        self.xattrs.reverse();
    }
}

/// The first record's key and value, and what follows it.
fn record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    // A length has at most seven digits in data of at most 1 MiB.
    let space = data.iter().take(8).position(|byte| *byte == b' ')?;
    let length = usize::try_from(number(&data[..space]).ok()??).ok()?;
    let body = data.get(space + 1..length)?;
    let body = body.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&body[..equals], &body[equals + 1..]);
    (!key.is_empty() && !key.contains(&0)).then_some((key, value, &data[length..]))
}

/// Empty means that the key is to be as if it had never been given (POSIX).
fn text(value: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    if value.contains(&0) {
        return Err("contains a NUL byte");
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

fn number(value: &[u8]) -> Result<Option<u64>, &'static str> {
    if value.is_empty() {
        return Ok(None);
    }
    let mut sum = 0u64;
    for digit in value {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return Err("is not a decimal number");
        }
        sum = sum.checked_mul(10).and_then(|sum| sum.checked_add(u64::from(digit))).ok_or("is too large")?;
    }
    Ok(Some(sum))
}

/// Decimal seconds with a sign and a fraction; digits beyond the nanosecond are cut off.
pub(super) fn time(value: &[u8]) -> Option<Timestamp> {
    let (negative, digits) = match value.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, value),
    };
    let (whole, fraction) = match digits.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&digits[..dot], &digits[dot + 1..]),
        None => (digits, &[][..]),
    };
    let seconds = number(whole).ok()??;
    let mut nanoseconds = 0u32;
    for place in 0..9 {
        let digit =
            fraction.get(place).map_or(Some(0), |digit| digit.is_ascii_digit().then(|| digit - b'0'))?;
        nanoseconds = nanoseconds * 10 + u32::from(digit);
    }
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    if !negative {
        return Some(Timestamp { seconds: i64::try_from(seconds).ok()?, nanoseconds });
    }
    let seconds = 0i64.checked_sub_unsigned(seconds)?;
    Some(match nanoseconds {
        0 => Timestamp { seconds, nanoseconds },
        _ => Timestamp { seconds: seconds.checked_sub(1)?, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

/// Appends one record; its length counts itself.
pub(super) fn push(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + digits(length) {
        length = rest + digits(length);
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Appends an extended attribute.
pub(super) fn push_xattr(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    push(out, &[XATTR, name].concat(), value);
}

/// A time as pax writes it, with a fraction only if there is one.
pub(super) fn time_text(time: Timestamp) -> String {
    let (seconds, nanoseconds) = (i128::from(time.seconds), i128::from(time.nanoseconds));
    let total = seconds * 1_000_000_000 + nanoseconds;
    let sign = if total < 0 { "-" } else { "" };
    let (whole, fraction) = (total.unsigned_abs() / 1_000_000_000, total.unsigned_abs() % 1_000_000_000);
    if fraction == 0 {
        return format!("{sign}{whole}");
    }
    format!("{sign}{whole}.{fraction:09}").trim_end_matches('0').to_owned()
}

/// The map of a sparse file of format 1.0 as it stands before the data, filled up to whole blocks. A hole at the end is
/// closed by an empty segment, without which GNU tar would make the file end before it.
pub(super) fn sparse_map(segments: &[Segment], size: u64) -> Vec<u8> {
    let open = segments.last().is_none_or(|last| last.offset + last.length < size);
    let end = open.then_some(Segment { offset: size, length: 0 });
    let mut map = format!("{}\n", segments.len() + usize::from(open));
    for segment in segments.iter().chain(&end) {
        map.push_str(&format!("{}\n{}\n", segment.offset, segment.length));
    }
    let mut map = map.into_bytes();
    map.resize(map.len().next_multiple_of(super::BLOCK), 0);
    map
}

fn digits(number: usize) -> usize {
    number.to_string().len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times() {
        let at = |text: &str| time(text.as_bytes()).map(|time| (time.seconds, time.nanoseconds));
        assert_eq!(at("0"), Some((0, 0)));
        assert_eq!(at("1350244992.023960108"), Some((1_350_244_992, 23_960_108)));
        assert_eq!(at("-1.5"), Some((-2, 500_000_000)));
        assert_eq!(at("-0.1"), Some((-1, 900_000_000)));
        assert_eq!(at("5."), Some((5, 0)));
        assert_eq!(at("1.0000000009"), Some((1, 0)));
        assert_eq!(at(".5"), None);
        assert_eq!(at("1.x"), None);
        assert_eq!(at("1.000000000x"), None);
        assert_eq!(at("9223372036854775808"), None);
        assert_eq!(at("--1"), None);
    }

    #[test]
    fn records() {
        let read = |data: &[u8], global| {
            let mut pax = Pax::default();
            pax.read(data, global).map(|()| pax)
        };
        let pax = read(b"12 path=a/b\n25 SCHILY.xattr.user.x=1\n", false);
        let pax = pax.unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a/b"[..]));
        assert_eq!(pax.xattrs, [(b"user.x".to_vec(), b"1".to_vec())]);
        let twice = b"25 SCHILY.xattr.user.a=1\n25 SCHILY.xattr.user.b=2\n25 SCHILY.xattr.user.a=3\n";
        let pax = read(twice, false).unwrap();
        assert_eq!(pax.xattrs, [(b"user.b".to_vec(), b"2".to_vec()), (b"user.a".to_vec(), b"3".to_vec())]);
        assert_eq!(read(b"7 uid=\n", false).unwrap(), Pax::default());
        assert_eq!(read(b"12 path=a\0b\n", false).unwrap_err(), "`path` contains a NUL byte");
        assert_eq!(read(b"9 uid=-1\n", false).unwrap_err(), "`uid` is not a decimal number");
        assert!(read(b"12 path=a/b\n", true).unwrap_err().contains("global"));
        assert_eq!(read(b"8 uid=7\n", true).unwrap().uid, Some(7));
        for bad in [
            &b"12 path=a/b"[..],
            b"5 a=b\n",
            b"x a=b\n",
            b"99 a=b\n",
            b"6 a-b\n",
            b"5 =b\n",
            b"0 a=b\n",
            b"1 ",
        ] {
            assert!(read(bad, false).is_err(), "{}", bad.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn times_come_back(seconds in prop_oneof![any::<i64>(), Just(i64::MIN)], nanoseconds in 0..1_000_000_000u32) {
            let stamp = Timestamp { seconds, nanoseconds };
            prop_assert_eq!(time(time_text(stamp).as_bytes()), Some(stamp));
        }

        #[test]
        fn records_come_back(key in "[a-z.]{1,120}", value in proptest::collection::vec(any::<u8>(), 0..1200)) {
            let mut data = Vec::new();
            push(&mut data, key.as_bytes(), &value);
            let (k, v, rest) = record(&data).unwrap();
            prop_assert_eq!((k, v, rest), (key.as_bytes(), &value[..], &b""[..]));
        }

        #[test]
        fn any_bytes_are_read_or_refused(data in proptest::collection::vec(any::<u8>(), 0..300), global in any::<bool>()) {
            let _ = Pax::default().read(&data, global);
        }
    }
}
