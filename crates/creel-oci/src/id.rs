//! Container ids as runc takes them.

use crate::error::{Error, Result};

/// The longest id.
const MOST: usize = 1024;

/// Checks an id: letters, digits, `_`, `+`, `-`, `.`; not `.` or `..`.
///
/// # Errors
/// [`Error::EmptyId`], [`Error::InvalidId`].
pub(crate) fn check(id: &str) -> Result<()> {
    if id.is_empty() {
        return Err(Error::EmptyId);
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    if id.len() > MOST || !id.bytes().all(allowed) || id == "." || id == ".." {
        return Err(Error::InvalidId);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_files_below_the_root() {
        for good in ["a", "A.b-c_d+1", "...", "-x", ".x", &"x".repeat(1024)] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [".", "..", "a/b", "../x", "a b", "a\0", "ä", "a\n", &"x".repeat(1025)] {
            assert!(matches!(check(bad), Err(Error::InvalidId)), "{bad}");
        }
        assert!(matches!(check(""), Err(Error::EmptyId)));
    }
}
