//! Container ids as runc takes them.

use crate::error::{Error, Result};

/// The longest id.
const MOST: usize = 1024;

/// Checks an id: letters, digits, `_`, `+`, `-`, `.`; no `.` at the beginning.
///
/// # Errors
/// [`Error::EmptyId`], [`Error::InvalidId`].
pub(crate) fn check(id: &str) -> Result<()> {
    if id.is_empty() {
        return Err(Error::EmptyId);
    }
    let allowed = |c: &char| c.is_ascii_alphanumeric() || "_+-.".contains(*c);
    let wrong = match id.chars().find(|c| !allowed(c)) {
        Some(c) => format!("invalid character {c:?}"),
        None if id.starts_with('.') => "a dot at the beginning".into(),
        None if id.len() > MOST => format!("more than {MOST} characters"),
        None => return Ok(()),
    };
    Err(Error::InvalidId(wrong))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_files_below_the_root() {
        for good in ["a", "A.b-c_d+1", "a..", "-x", "_", &"x".repeat(1024)] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [".", "..", ".x", "a/b", "../x", "a b", "a\0", "ä", "a\n", &"x".repeat(1025)] {
            assert!(matches!(check(bad), Err(Error::InvalidId(_))), "{bad}");
        }
        assert!(matches!(check(""), Err(Error::EmptyId)));
    }
}
