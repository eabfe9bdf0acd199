//! Mount options of fstab and those that the runtime specification adds ("Linux mount options"), sorted by where the
//! kernel wants them.

use creel_sys::mount as sys;
use serde::Serialize;

use crate::Error;

/// Attributes of a mount, to set and to clear (`MOUNT_ATTR_*` bits).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Attributes {
    /// Bits to set.
    pub set: u64,
    /// Bits to clear.
    pub clear: u64,
}

impl Attributes {
    /// Whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.set == 0 && self.clear == 0
    }

    fn add(&mut self, bits: u64) {
        if bits & sys::ATTR_ATIME_MASK != 0 {
            self.set &= !sys::ATTR_ATIME_MASK;
            self.clear |= sys::ATTR_ATIME_MASK;
        } else {
            self.clear &= !bits;
        }
        self.set |= bits;
    }

    fn remove(&mut self, bits: u64) {
        self.set &= !bits;
        // Clearing one access time mode means going back to the default, which is the mask's zero.
        self.clear |= if bits & sys::ATTR_ATIME_MASK != 0 { sys::ATTR_ATIME_MASK } else { bits };
    }
}

/// A change of propagation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Propagation {
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` or `MS_UNBINDABLE`.
    pub mode: u64,
    /// Whether it holds for the whole tree.
    pub recursive: bool,
}

/// The options of one mount, parsed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct MountOptions {
    /// `bind` or `rbind`: the source is a file or directory, not a file system.
    pub bind: bool,
    /// `rbind`: with everything mounted below the source.
    pub recursive: bool,
    /// Attributes of the mount itself.
    pub attributes: Attributes,
    /// Attributes of the whole tree (`rro`, `rnosuid`, …).
    pub tree_attributes: Attributes,
    /// Propagation, the last one named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub propagation: Option<Propagation>,
    /// Flags of the superblock: `sync`, `dirsync`, `lazytime`, `mand`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub superblock: Vec<&'static str>,
    /// What is left for the file system: name and value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<(String, Option<String>)>,
    /// `tmpcopyup`: a new tmpfs gets a copy of what it hides.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub copy_up: bool,
}

/// The propagation that a word of the specification names.
pub fn propagation(word: &str) -> Option<Propagation> {
    let (mode, recursive) = match word {
        "shared" => (libc::MS_SHARED, false),
        "rshared" => (libc::MS_SHARED, true),
        "slave" => (libc::MS_SLAVE, false),
        "rslave" => (libc::MS_SLAVE, true),
        "private" => (libc::MS_PRIVATE, false),
        "rprivate" => (libc::MS_PRIVATE, true),
        "unbindable" => (libc::MS_UNBINDABLE, false),
        "runbindable" => (libc::MS_UNBINDABLE, true),
        _ => return None,
    };
    Some(Propagation { mode, recursive })
}

/// Whether the word sets (true) or clears (false) attribute bits.
fn attribute(word: &str) -> Option<(bool, u64)> {
    Some(match word {
        "ro" => (true, sys::ATTR_RDONLY),
        "rw" => (false, sys::ATTR_RDONLY),
        "nosuid" => (true, sys::ATTR_NOSUID),
        "suid" => (false, sys::ATTR_NOSUID),
        "nodev" => (true, sys::ATTR_NODEV),
        "dev" => (false, sys::ATTR_NODEV),
        "noexec" => (true, sys::ATTR_NOEXEC),
        "exec" => (false, sys::ATTR_NOEXEC),
        "noatime" => (true, sys::ATTR_NOATIME),
        "strictatime" => (true, sys::ATTR_STRICTATIME),
        "relatime" | "atime" | "norelatime" | "nostrictatime" => (false, sys::ATTR_ATIME_MASK),
        "nodiratime" => (true, sys::ATTR_NODIRATIME),
        "diratime" => (false, sys::ATTR_NODIRATIME),
        "nosymfollow" => (true, sys::ATTR_NOSYMFOLLOW),
        "symfollow" => (false, sys::ATTR_NOSYMFOLLOW),
        _ => return None,
    })
}

/// Parses the options of the mount that `field` names (for error texts).
///
/// # Errors
/// [`Error::Unsupported`] for what the specification knows and creel does not apply; words that nobody knows are
/// handed to the file system, which refuses them itself; a bind mount has no file system, so there they are
/// [`Error::Invalid`].
pub fn parse(field: &str, words: &[String]) -> Result<MountOptions, Error> {
    let mut options = MountOptions::default();
    for word in words {
        if let Some((set, bits)) = attribute(word) {
            let to = &mut options.attributes;
            if set {
                to.add(bits)
            } else {
                to.remove(bits)
            }
            continue;
        }
        if let Some((set, bits)) = word.strip_prefix('r').and_then(attribute) {
            let to = &mut options.tree_attributes;
            if set {
                to.add(bits)
            } else {
                to.remove(bits)
            }
            continue;
        }
        if let Some(change) = propagation(word) {
            options.propagation = Some(change);
            continue;
        }
        match word.as_str() {
            "bind" => options.bind = true,
            "rbind" => (options.bind, options.recursive) = (true, true),
            "defaults" | "async" | "nomand" | "noiversion" | "nolazytime" | "loud" | "silent" => {}
            "sync" => options.superblock.push("sync"),
            "dirsync" => options.superblock.push("dirsync"),
            "lazytime" => options.superblock.push("lazytime"),
            "mand" => options.superblock.push("mand"),
            "tmpcopyup" => options.copy_up = true,
            "remount" | "idmap" | "ridmap" => {
                return Err(Error::unsupported(field, format!("the option {word} is not supported yet")));
            }
            "" => return Err(Error::invalid(field, "an option is empty")),
            _ if word.contains('\0') => return Err(Error::invalid(field, "an option holds a NUL")),
            _ => options.data.push(match word.split_once('=') {
                Some((name, value)) => (name.to_string(), Some(value.to_string())),
                None => (word.clone(), None),
            }),
        }
    }
    if options.bind
        && let Some((name, _)) = options.data.first()
    {
        return Err(Error::invalid(field, format!("a bind mount has no option {name}")));
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(words: &str) -> MountOptions {
        let words: Vec<String> = words.split(',').map(str::to_string).collect();
        parse("mounts[0]", &words).unwrap()
    }

    #[test]
    fn the_last_word_wins() {
        assert_eq!(parsed("ro,rw").attributes, Attributes { set: 0, clear: sys::ATTR_RDONLY });
        assert_eq!(parsed("rw,ro").attributes, Attributes { set: sys::ATTR_RDONLY, clear: 0 });
        let times = parsed("noatime,strictatime").attributes;
        assert_eq!(times, Attributes { set: sys::ATTR_STRICTATIME, clear: sys::ATTR_ATIME_MASK });
        assert_eq!(parsed("rshared,rprivate").propagation.unwrap().mode, libc::MS_PRIVATE);
    }

    #[test]
    fn recursive_words_are_apart() {
        let options = parsed("rbind,rro,nosuid,rslave");
        assert!(options.bind && options.recursive);
        assert_eq!(options.tree_attributes.set, sys::ATTR_RDONLY);
        assert_eq!(options.attributes.set, sys::ATTR_NOSUID);
        assert!(options.propagation.unwrap().recursive);
    }

    #[test]
    fn data_is_left_for_the_file_system() {
        let options = parsed("nosuid,size=64k,mode=1777,newinstance");
        assert_eq!(
            options.data,
            [
                ("size".to_string(), Some("64k".to_string())),
                ("mode".to_string(), Some("1777".to_string())),
                ("newinstance".to_string(), None)
            ]
        );
        assert!(parse("m", &["bind".to_string(), "size=1".to_string()]).is_err());
    }

    proptest! {
        #[test]
        fn any_words_parse_or_fail_and_never_set_what_they_clear(words in proptest::collection::vec("[a-z=]{0,12}|r?(ro|rw|nodev|dev|noatime|relatime|strictatime)", 0..8)) {
            if let Ok(options) = parse("m", &words) {
                for attributes in [options.attributes, options.tree_attributes] {
                    prop_assert_eq!(attributes.set & attributes.clear & !sys::ATTR_ATIME_MASK, 0);
                }
            }
        }
    }
}
