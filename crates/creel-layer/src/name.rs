//! What an entry's name means: pure decisions, made before anything is touched.

use crate::error::{Error, Result};

/// The longest path that the kernel takes, without its NUL (`PATH_MAX`, limits.h).
const MAX_PATH: usize = 4095;
/// The longest single name on the file systems that hold layers (`NAME_MAX`).
const MAX_NAME: usize = 255;
const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const OPAQUE_MARKER: &[u8] = b".wh..wh..opq";

/// A name below a root, made clean: its parts joined by single slashes, no `.`, no `..`, no slash at either end. Empty
/// for the root itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct Clean(Vec<u8>);

impl Clean {
    /// Cleans `name` by its letters, as Docker and containerd do: an absolute name becomes a relative one, `a/../b` is
    /// `b`. A name that leads above the root is refused, and so is one that no file system takes.
    pub(crate) fn parse(name: &[u8]) -> Result<Self> {
        if name.contains(&0) {
            return Err(Error::refused(name, "its name contains a NUL byte"));
        }
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in name.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." if parts.pop().is_none() => {
                    return Err(Error::refused(name, "it leads out of the root through `..`"));
                }
                b".." => {}
                _ if part.len() > MAX_NAME => {
                    return Err(Error::refused(name, "a part of its name is longer than 255 bytes"));
                }
                _ => parts.push(part),
            }
        }
        let joined = parts.join(&b'/');
        if joined.len() > MAX_PATH {
            return Err(Error::refused(name, "its name is longer than 4095 bytes"));
        }
        Ok(Self(joined))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Parent and last part; `None` for the root.
    pub(crate) fn split(&self) -> Option<(&[u8], &[u8])> {
        if self.is_root() {
            return None;
        }
        Some(match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&self.0[..slash], &self.0[slash + 1..]),
            None => (&[][..], &self.0[..]),
        })
    }
}

/// `parent/name`, or `name` in the root.
pub(crate) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, name].join(&b'/') }
}

/// The range in which all paths below `path`, and no others, lie in the order of their bytes. Not for the root.
pub(crate) fn below(path: &[u8]) -> std::ops::Range<Vec<u8>> {
    // `0` follows `/` in ASCII.
    [path, b"/"].concat()..[path, b"0"].concat()
}

/// What an entry of a layer asks for (OCI image-spec, `layer.md`, "Whiteouts").
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Create or change this file.
    Put(Clean),
    /// Hide this name of the lower layers.
    Hide(Clean),
    /// Hide all that the lower layers have in this directory.
    HideAllIn(Clean),
    /// aufs's own housekeeping, which some old layers carry: nothing.
    Nothing,
}

/// Reads a layer entry's name.
pub(crate) fn wish(name: &[u8]) -> Result<Wish> {
    let clean = Clean::parse(name)?;
    let mut parts = clean.bytes().split(|byte| *byte == b'/').peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        if part == OPAQUE_MARKER && last {
            let parent = clean.split().map_or(&[][..], |(parent, _)| parent);
            return Ok(Wish::HideAllIn(Clean(parent.to_vec())));
        }
        if part.starts_with(WHITEOUT_META) {
            return Ok(Wish::Nothing);
        }
        if let Some(hidden) = part.strip_prefix(WHITEOUT) {
            if !last {
                return Err(Error::refused(name, "names that begin with `.wh.` are reserved for whiteouts"));
            }
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(Error::refused(name, "it is a whiteout of nothing that can be deleted"));
            }
            let parent = clean.split().map_or(&[][..], |(parent, _)| parent);
            return Ok(Wish::Hide(Clean(join(parent, hidden))));
        }
    }
    Ok(Wish::Put(clean))
}

/// The whiteout for `name`, and what to call the marker of an opaque directory.
pub(crate) fn whiteout(name: &[u8]) -> Vec<u8> {
    [WHITEOUT, name].concat()
}

/// What a whiteout of this name hides: nothing if it is none, and no name that there is for an opaque directory's marker.
pub(crate) fn hidden_by(name: &[u8]) -> Option<&[u8]> {
    name.strip_prefix(WHITEOUT)
}

/// The marker of an opaque directory.
pub(crate) fn opaque_marker() -> &'static [u8] {
    OPAQUE_MARKER
}

/// Whether a layer cannot contain a file of this name, because it would mean something else there.
pub(crate) fn is_reserved(name: &[u8]) -> bool {
    name.starts_with(WHITEOUT)
}

/// A path inside a container as Docker's API takes it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The path by its letters: relative to the root, no `.`, no `..`; what leads above the root stays in it.
    pub(crate) path: Vec<u8>,
    /// Its last part as the archive is to call it: `.` for the root and for a path that ends in `/.`.
    pub(crate) base: Vec<u8>,
    /// It ends in `/` or `/.`: a directory is wanted, and a link to one is followed.
    pub(crate) directory: bool,
}

/// Reads a path as Docker does: made clean by its letters, with what its end means kept.
pub(crate) fn wanted(path: &[u8]) -> Wanted {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    let dot = path == b"." || path.ends_with(b"/.");
    let base = match parts.last() {
        Some(part) if !dot => part.to_vec(),
        _ => b".".to_vec(),
    };
    Wanted { path: parts.join(&b'/'), base, directory: dot || path.ends_with(b"/") || parts.is_empty() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put(name: &str) -> Wish {
        Wish::Put(Clean(name.as_bytes().to_vec()))
    }

    #[test]
    fn names_are_cleaned_or_refused() {
        let read = |name: &str| wish(name.as_bytes()).map_err(|error| error.to_string());
        assert_eq!(read("a/b"), Ok(put("a/b")));
        assert_eq!(read("./a//b/./"), Ok(put("a/b")));
        assert_eq!(read("/etc/passwd"), Ok(put("etc/passwd")));
        assert_eq!(read("a/../b"), Ok(put("b")));
        assert_eq!(read("./"), Ok(put("")));
        assert_eq!(read(""), Ok(put("")));
        assert_eq!(read("a/..wh.b"), Ok(put("a/..wh.b")));
        for bad in ["..", "../a", "a/../../b", "/..", "a\0b", &"x".repeat(256), &"x/".repeat(3000)] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn whiteouts() {
        let read = |name: &str| wish(name.as_bytes()).map_err(|error| error.to_string());
        let clean = |name: &str| Clean(name.as_bytes().to_vec());
        assert_eq!(read("a/.wh.b"), Ok(Wish::Hide(clean("a/b"))));
        assert_eq!(read(".wh.b/"), Ok(Wish::Hide(clean("b"))));
        assert_eq!(read(".wh..hidden"), Ok(Wish::Hide(clean(".hidden"))));
        assert_eq!(read(".wh..wh..opq"), Ok(Wish::HideAllIn(clean(""))));
        assert_eq!(read("a/b/.wh..wh..opq"), Ok(Wish::HideAllIn(clean("a/b"))));
        assert_eq!(read(".wh..wh.plnk/1.2"), Ok(Wish::Nothing));
        for bad in [".wh.", "a/.wh..", "a/.wh...", ".wh.a/b"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert_eq!(read("a/.wh.b/../c"), Ok(put("a/c")));
    }

    proptest! {
        #[test]
        fn a_clean_name_never_leads_out(name in "[a./\\\\w]{0,40}|(\\.\\.|a|/|\\.wh\\.|\\.){0,12}") {
            if let Ok(Wish::Put(clean) | Wish::Hide(clean) | Wish::HideAllIn(clean)) = wish(name.as_bytes()) {
                let bytes = clean.bytes();
                prop_assert!(!bytes.starts_with(b"/") && !bytes.ends_with(b"/"));
                if !bytes.is_empty() {
                    for part in bytes.split(|byte| *byte == b'/') {
                        prop_assert!(!matches!(part, b"" | b"." | b".."));
                    }
                }
                prop_assert_eq!(Clean::parse(bytes).unwrap(), clean);
            }
        }
    }

    #[test]
    fn wanted_paths() {
        let read = |path: &str| {
            let wanted = wanted(path.as_bytes());
            let text = |bytes| String::from_utf8(bytes).unwrap();
            (text(wanted.path), text(wanted.base), wanted.directory)
        };
        let is = |path: &str, base: &str, directory| (path.to_owned(), base.to_owned(), directory);
        assert_eq!(read("/etc/passwd"), is("etc/passwd", "passwd", false));
        assert_eq!(read("etc/"), is("etc", "etc", true));
        assert_eq!(read("/etc/."), is("etc", ".", true));
        assert_eq!(read("/"), is("", ".", true));
        assert_eq!(read("../../etc/../x"), is("x", "x", false));
        assert_eq!(read("a/.."), is("", ".", true));
    }

    #[test]
    fn below_a_path() {
        let within = |path: &[u8], of: &[u8]| below(of).contains(&path.to_vec());
        assert!(within(b"a/b", b"a") && within(b"a/\xff/c", b"a") && within(b"a/b/c", b"a/b"));
        assert!(!within(b"a", b"a") && !within(b"ab", b"a") && !within(b"a-/b", b"a") && !within(b"b", b"a"));
    }
}
