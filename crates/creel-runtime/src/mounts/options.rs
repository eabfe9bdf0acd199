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
        self.clear |= bits;
    }

    /// Takes back the choice of an access time mode, whose bits are the mask's zero by default; another choice stays.
    /// Where none was made, `tree` says what the word means: the default for whole trees, nothing for one mount, as
    /// mount(8) and runc have it.
    fn leave(&mut self, mode: u64, tree: bool) {
        let chosen = (self.clear & sys::ATTR_ATIME_MASK != 0).then_some(self.set & sys::ATTR_ATIME_MASK);
        if chosen.is_none_or(|chosen| chosen == mode || tree && chosen == 0) {
            self.set &= !sys::ATTR_ATIME_MASK;
            self.clear &= !sys::ATTR_ATIME_MASK;
            if tree {
                self.clear |= sys::ATTR_ATIME_MASK;
            }
        }
    }

    fn apply(&mut self, change: Change, tree: bool) {
        match change {
            Change::Set(bits) => self.add(bits),
            Change::Clear(bits) => self.remove(bits),
            Change::Relatime => {
                self.set &= !sys::ATTR_ATIME_MASK;
                self.clear |= sys::ATTR_ATIME_MASK;
            }
            Change::Leave(mode) => self.leave(mode, tree),
        }
    }
}

/// What a word does to a mount's attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Set(u64),
    Clear(u64),
    /// Back to the default access time mode.
    Relatime,
    /// The opposite of one access time mode.
    Leave(u64),
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
    /// Whether any attribute of the mount itself was named, be it to no effect.
    #[serde(skip)]
    pub named: bool,
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
    /// `remount`: what is mounted there already is changed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub remount: bool,
    /// `idmap` (false) or `ridmap` (true, the whole tree): owners are shown through a map.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id_map: Option<bool>,
    /// `tmpcopyup`: a new tmpfs gets a copy of what it hides.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub copy_up: bool,
    /// What a bind mount does with symbolic links at its ends.
    #[serde(skip_serializing_if = "Links::is_empty")]
    pub links: Links,
}

/// What a bind mount does with a symbolic link that is the last part of a path (crun's options).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Links {
    /// `src-nofollow`: a link at the source is itself what is mounted.
    pub keep_source: bool,
    /// `dest-nofollow`: a link at the destination is itself what is mounted over.
    pub cover: bool,
    /// `copy-symlink`: a link at the source is made again at the destination, and nothing is mounted.
    pub copy: bool,
}

impl Links {
    /// Whether links are followed as everywhere.
    pub fn is_empty(&self) -> bool {
        *self == Links::default()
    }
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

/// What a word changes, if it is about attributes.
fn attribute(word: &str) -> Option<Change> {
    Some(match word {
        "ro" => Change::Set(sys::ATTR_RDONLY),
        "rw" => Change::Clear(sys::ATTR_RDONLY),
        "nosuid" => Change::Set(sys::ATTR_NOSUID),
        "suid" => Change::Clear(sys::ATTR_NOSUID),
        "nodev" => Change::Set(sys::ATTR_NODEV),
        "dev" => Change::Clear(sys::ATTR_NODEV),
        "noexec" => Change::Set(sys::ATTR_NOEXEC),
        "exec" => Change::Clear(sys::ATTR_NOEXEC),
        "noatime" => Change::Set(sys::ATTR_NOATIME),
        "atime" => Change::Leave(sys::ATTR_NOATIME),
        "strictatime" => Change::Set(sys::ATTR_STRICTATIME),
        "nostrictatime" => Change::Leave(sys::ATTR_STRICTATIME),
        "relatime" => Change::Relatime,
        "norelatime" => Change::Leave(sys::ATTR_RELATIME),
        "nodiratime" => Change::Set(sys::ATTR_NODIRATIME),
        "diratime" => Change::Clear(sys::ATTR_NODIRATIME),
        "nosymfollow" => Change::Set(sys::ATTR_NOSYMFOLLOW),
        "symfollow" => Change::Clear(sys::ATTR_NOSYMFOLLOW),
        _ => return None,
    })
}

/// Flags of the superblock and their opposites, as fsconfig(2) names them.
const SUPERBLOCK: [(&str, &str); 4] =
    [("sync", "async"), ("dirsync", ""), ("lazytime", "nolazytime"), ("mand", "nomand")];

/// Takes a word about the superblock; the last one of a pair counts.
fn superblock(words: &mut Vec<&'static str>, word: &str) -> bool {
    for (on, off) in SUPERBLOCK {
        if word == on || word == off {
            words.retain(|known| *known != on && *known != off);
            words.push(if word == on { on } else { off });
            return true;
        }
    }
    false
}

/// Parses the options of the mount that `field` names (for error texts).
///
/// Words that nobody knows are handed to the file system, which refuses them itself. `iversion` and `noiversion` change
/// nothing: the mount API has no such flag, and file systems that count versions do so by themselves. `loud` and
/// `silent` are about the kernel's log, to which this API does not write.
///
/// # Errors
/// [`Error::Invalid`] for a word that the kernel cannot be given.
pub fn parse(field: &str, words: &[String]) -> Result<MountOptions, Error> {
    let mut options = MountOptions::default();
    for word in words {
        if let Some(change) = attribute(word) {
            options.attributes.apply(change, false);
            options.named = true;
            continue;
        }
        if let Some(change) = word.strip_prefix('r').and_then(attribute) {
            options.tree_attributes.apply(change, true);
            continue;
        }
        if let Some(change) = propagation(word) {
            options.propagation = Some(change);
            continue;
        }
        if superblock(&mut options.superblock, word) {
            continue;
        }
        match word.as_str() {
            "bind" => options.bind = true,
            "rbind" => (options.bind, options.recursive) = (true, true),
            "remount" => options.remount = true,
            "defaults" | "iversion" | "noiversion" | "loud" | "silent" => {}
            "idmap" => options.id_map = options.id_map.or(Some(false)),
            "ridmap" => options.id_map = Some(true),
            "tmpcopyup" => options.copy_up = true,
            "src-nofollow" => options.links.keep_source = true,
            "dest-nofollow" => options.links.cover = true,
            "copy-symlink" => options.links.copy = true,
            "" => return Err(Error::invalid(field, "an option is empty")),
            _ if word.contains('\0') => return Err(Error::invalid(field, "an option holds a NUL")),
            _ => options.data.push(match word.split_once('=') {
                Some((name, value)) => (name.to_string(), Some(value.to_string())),
                None => (word.clone(), None),
            }),
        }
    }
    if !options.remount {
        // What a new file system is anyway need not be said.
        options.superblock.retain(|word| SUPERBLOCK.iter().any(|(on, _)| on == word));
    }
    // crun's way to say it; silence here would show files with the wrong owners.
    if options.bind && options.data.iter().any(|(name, _)| matches!(&**name, "idmap" | "ridmap")) {
        return Err(Error::invalid(field, "use uidMappings and gidMappings with the option idmap"));
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
        let default = Attributes { set: 0, clear: sys::ATTR_ATIME_MASK };
        for words in ["relatime", "noatime,relatime", "strictatime,relatime", "relatime,atime"] {
            assert_eq!(parsed(words).attributes, default, "{words}");
        }
        for words in
            ["noatime,atime", "atime", "strictatime,nostrictatime", "norelatime", "relatime,norelatime"]
        {
            let parsed = parsed(words);
            assert!(parsed.attributes.is_empty() && parsed.named, "{words}");
        }
        for words in ["ratime", "rnoatime,ratime", "rnorelatime", "rstrictatime,rnostrictatime"] {
            assert_eq!(parsed(words).tree_attributes, default, "{words}");
        }
        for words in ["strictatime,atime", "strictatime,norelatime", "noatime,strictatime"] {
            assert_eq!(parsed(words).attributes.set, sys::ATTR_STRICTATIME, "{words}");
        }
        assert!(parsed("sync,lazytime,async,nolazytime").superblock.is_empty());
        assert_eq!(parsed("remount,sync,async,lazytime").superblock, ["async", "lazytime"]);
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
        assert!(parse("m", &["bind".to_string(), "idmap=uids=0-1-1".to_string()]).is_err());
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
