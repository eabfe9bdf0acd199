//! Files that the kernel writes as they are read: procfs, sysfs, control groups.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// What most of them fit into.
const USUAL: usize = 8192;

/// As [`read`], for text.
///
/// # Errors
/// The kernel's; [`io::ErrorKind::InvalidData`] for what is no UTF-8.
pub fn read_to_string(path: impl AsRef<Path>) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// Reads a whole file whose size the kernel does not tell beforehand. `std::fs::read` feels its way with small reads then,
/// for each of which the kernel may make the text anew; this takes two for most files.
///
/// # Errors
/// The kernel's.
pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let file = rustix::fs::open(path.as_ref(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::with_capacity(USUAL);
    loop {
        let spare = rustix::buffer::spare_capacity(&mut bytes);
        match rustix::io::read(&file, spare) {
            Ok(0) => break,
            Ok(_) if bytes.len() == bytes.capacity() => bytes.reserve(bytes.len()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(bytes)
}

/// Undoes the octal escapes of mountinfo (`\\040` for a space; proc_pid_mountinfo(5)).
pub fn unescape(text: &str) -> OsString {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'\\'
            && let Some(digits) = tail.get(..3).and_then(|d| std::str::from_utf8(d).ok())
            // A sign is no digit.
            && !digits.starts_with('+')
            && let Ok(value) = u8::from_str_radix(digits, 8)
        {
            out.push(value);
            rest = &tail[3..];
        } else {
            out.push(byte);
            rest = tail;
        }
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn garbage_is_unescaped_without_panic(text in ".{0,200}") {
            super::unescape(&text);
        }

        #[test]
        fn escapes_return(path in "[a-z \t\n\\\\/+0-9]{0,30}") {
            let escaped =
                path.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011").replace('\n', "\\012");
            prop_assert_eq!(super::unescape(&escaped), path.as_str());
        }
    }

    #[test]
    fn only_three_octal_digits_are_an_escape() {
        for text in ["\\+12", "\\08", "\\-12", "\\400x", "\\"] {
            assert_eq!(super::unescape(text), text);
        }
    }

    #[test]
    fn long_and_short_files_are_whole() {
        let long = super::read_to_string("/proc/kallsyms").unwrap();
        assert_eq!(long.lines().count(), std::fs::read_to_string("/proc/kallsyms").unwrap().lines().count());
        assert!(super::read_to_string("/proc/self/cgroup").unwrap().ends_with('\n'));
        assert_eq!(super::read_to_string("/nowhere").unwrap_err().kind(), std::io::ErrorKind::NotFound);
    }
}
