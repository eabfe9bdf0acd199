//! The forms in which the kernel writes its control files (`cgroup-v2.rst`, "Format").

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use creel_sys::kernelfs;

use crate::error::{Error, Result};

/// Reads a whole control file; `None` if it, or the controller behind it, is not there.
pub(crate) fn read(path: &Path) -> Result<Option<String>> {
    match kernelfs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(cause) if gone(&cause) || cause.raw_os_error() == Some(EOPNOTSUPP) => Ok(None),
        Err(cause) => Err(Error::file("read", path, cause)),
    }
}

const ENODEV: i32 = 19;
const EOPNOTSUPP: i32 = 95;

/// Whether an error says that the file or its group is not there (any more): ENOENT, or ENODEV when the group was
/// removed between open and read.
pub(crate) fn gone(cause: &io::Error) -> bool {
    cause.kind() == io::ErrorKind::NotFound || cause.raw_os_error() == Some(ENODEV)
}

/// A single number; `max` is [`u64::MAX`], a negative one 0.
pub(crate) fn number(what: &Path, text: &str) -> Result<u64> {
    let text = text.trim();
    match text {
        "max" => Ok(u64::MAX),
        _ if text.len() > 1 && text.starts_with('-') && text[1..].bytes().all(|b| b.is_ascii_digit()) => {
            Ok(0)
        }
        _ => text.parse().map_err(|_| Error::parse(what.display().to_string(), text)),
    }
}

/// [`number`] of a file; `None` if it is not there.
pub(crate) fn read_number(path: &Path) -> Result<Option<u64>> {
    read(path)?.map(|text| number(path, &text)).transpose()
}

/// "Flat keyed": a key and a number in each line. Lines of another form are passed over: new kernels add some.
pub(crate) fn flat_keyed(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        let value = value.trim();
        let value = if value == "max" { u64::MAX } else { value.parse().ok()? };
        Some((key.to_owned(), value))
    };
    text.lines().filter_map(pair).collect()
}

/// [`flat_keyed`] of a file; empty if it is not there.
pub(crate) fn read_keyed(path: &Path) -> Result<BTreeMap<String, u64>> {
    Ok(read(path)?.map(|text| flat_keyed(&text)).unwrap_or_default())
}

/// Process ids, one a line; 0 (a process that this pid namespace cannot see) is left out.
pub(crate) fn pids(what: &Path, text: &str) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        match line.trim().parse::<i32>() {
            Ok(0) => {}
            Ok(pid) if pid > 0 => found.push(pid),
            _ => return Err(Error::parse(what.display().to_string(), line)),
        }
    }
    Ok(found)
}

/// A device number `major:minor`.
pub(crate) fn device(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms() {
        let what = Path::new("f");
        assert_eq!(number(what, "max\n").unwrap(), u64::MAX);
        assert_eq!(number(what, "-1\n").unwrap(), 0);
        assert_eq!(number(what, "42\n").unwrap(), 42);
        assert!(number(what, "-").is_err());
        assert!(number(what, "4 2").is_err());
        let keyed = flat_keyed("a 1\nb max\nodd\nc x\n");
        assert_eq!(keyed.into_iter().collect::<Vec<_>>(), [("a".into(), 1), ("b".into(), u64::MAX)]);
        assert_eq!(pids(what, "1\n0\n22\n").unwrap(), [1, 22]);
        assert!(pids(what, "1\n-2\n").is_err());
        assert_eq!(device("8:16"), Some((8, 16)));
        assert_eq!(device("8"), None);
    }

    proptest! {
        #[test]
        fn never_panic(text in "(?s).{0,200}") {
            let what = Path::new("f");
            let _ = (number(what, &text), flat_keyed(&text), pids(what, &text), device(&text));
        }

        #[test]
        fn keyed_round_trip(pairs in proptest::collection::btree_map("[a-z_]{1,12}", any::<u64>(), 0..20)) {
            let text: String = pairs.iter().map(|(k, v)| format!("{k} {v}\n")).collect();
            prop_assert_eq!(flat_keyed(&text), pairs);
        }

        #[test]
        fn pids_round_trip(list in proptest::collection::vec(1i32.., 0..50)) {
            let text: String = list.iter().map(|pid| format!("{pid}\n")).collect();
            prop_assert_eq!(pids(Path::new("f"), &text).unwrap(), list);
        }
    }
}
