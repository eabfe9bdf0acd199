//! POSIX extended regular expressions of the C library (regex(7)).

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;

/// A compiled expression.
pub struct Regex {
    compiled: Box<libc::regex_t>,
}

impl std::fmt::Debug for Regex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Regex")
    }
}

impl Regex {
    /// Compiles an expression (regcomp(3), `REG_EXTENDED | REG_NOSUB`).
    ///
    /// # Errors
    /// InvalidInput, with the library's words for what is wrong in it.
    pub fn new(pattern: &CStr) -> io::Result<Regex> {
        let mut compiled = Box::new(MaybeUninit::<libc::regex_t>::uninit());
        // SAFETY: the structure has room for what regcomp writes, and the pattern ends in NUL.
        let code = unsafe {
            libc::regcomp(compiled.as_mut_ptr(), pattern.as_ptr(), libc::REG_EXTENDED | libc::REG_NOSUB)
        };
        if code != 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, words(code, compiled.as_ptr())));
        }
        // SAFETY: regcomp has succeeded, so it has filled the structure.
        Ok(Regex { compiled: unsafe { Box::<MaybeUninit<libc::regex_t>>::assume_init(compiled) } })
    }

    /// Whether the expression matches some part of the text.
    pub fn matches(&self, text: &CStr) -> bool {
        // SAFETY: the expression is compiled, the text ends in NUL, and no places of matches are asked for.
        unsafe { libc::regexec(&*self.compiled, text.as_ptr(), 0, std::ptr::null_mut(), 0) == 0 }
    }
}

impl Drop for Regex {
    fn drop(&mut self) {
        // SAFETY: it was compiled, and nobody uses it any more.
        unsafe { libc::regfree(&mut *self.compiled) }
    }
}

fn words(code: libc::c_int, compiled: *const libc::regex_t) -> String {
    let mut buf = [0u8; 128];
    // SAFETY: pointer and length describe one writable slice; the structure is what regcomp left after its failure.
    unsafe { libc::regerror(code, compiled, buf.as_mut_ptr().cast(), buf.len()) };
    CStr::from_bytes_until_nul(&buf).map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    fn regex(pattern: &str) -> io::Result<Regex> {
        Regex::new(&CString::new(pattern).unwrap())
    }

    #[test]
    fn expressions() {
        let matches =
            |pattern: &str, text: &str| regex(pattern).unwrap().matches(&CString::new(text).unwrap());
        assert!(matches("test-*", "my-test") && matches("^a(b|c)+$", "abcb") && matches("", ""));
        assert!(!matches("^test", "my-test") && !matches("^a(b|c)+$", "a"));
        let error = regex("a(").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(!error.to_string().is_empty());
    }
}
