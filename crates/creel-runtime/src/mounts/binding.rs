//! What the options of a bind mount make of the attributes that its source's mount has (mount(8), "Bind mount
//! operation"; runc's way where that leaves a choice).

use creel_sys::mount as sys;

use super::{Attributes, MountOptions};

/// Attributes that the kernel locks when a mount comes into a user namespace (mount_namespaces(7)), but for those of
/// access times.
const LOCKABLE: u64 = sys::ATTR_RDONLY | sys::ATTR_NOSUID | sys::ATTR_NODEV | sys::ATTR_NOEXEC;
const ATIME: u64 = sys::ATTR_ATIME_MASK | sys::ATTR_NODIRATIME;

/// What becomes of what a source's mount has already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// All of it stays, and what is named comes on top: what creel binds by itself.
    Added,
    /// With any word about attributes, those are the ones that are named and no others. Access times are what they were
    /// unless a mode is named.
    Exact,
    /// As [`Manner::Exact`], but what the kernel locks in a user namespace stays, and is not taken away on request.
    Locked,
}

/// The change that options ask for; `now` tells what the source's mount has (`ST_*` bits of statvfs(3)), and is asked
/// only where that counts.
///
/// # Errors
/// `Err(None)` when a locked attribute would change; `Err(Some)` is what `now` failed with.
pub(crate) fn change<E>(
    options: &MountOptions,
    manner: Manner,
    now: impl FnOnce() -> Result<u64, E>,
) -> Result<Attributes, Option<E>> {
    let wanted = options.attributes;
    if manner == Manner::Added || !options.named {
        return Ok(wanted);
    }
    let Attributes { set, mut clear } = wanted;
    let times = clear & sys::ATTR_ATIME_MASK != 0 || set & sys::ATTR_NODIRATIME != 0;
    if manner == Manner::Exact {
        clear |= (LOCKABLE | sys::ATTR_NOSYMFOLLOW) & !set;
        if times {
            clear |= sys::ATTR_ATIME_MASK | sys::ATTR_NODIRATIME & !set;
        }
        return Ok(Attributes { set, clear });
    }
    let now = attributes(now().map_err(Some)?);
    if clear & now & LOCKABLE != 0 || times && set & ATIME != now & ATIME {
        return Err(None);
    }
    Ok(Attributes { set: set & !ATIME, clear: sys::ATTR_NOSYMFOLLOW & !set })
}

/// `ST_*` bits as `MOUNT_ATTR_*` ones, of which the default mode of access times is zero.
fn attributes(st: u64) -> u64 {
    const NOSYMFOLLOW: u64 = 0x2000;
    const RELATIME: u64 = 0x1000;
    let plain = [
        (libc::ST_RDONLY, sys::ATTR_RDONLY),
        (libc::ST_NOSUID, sys::ATTR_NOSUID),
        (libc::ST_NODEV, sys::ATTR_NODEV),
        (libc::ST_NOEXEC, sys::ATTR_NOEXEC),
        (libc::ST_NODIRATIME, sys::ATTR_NODIRATIME),
        (NOSYMFOLLOW, sys::ATTR_NOSYMFOLLOW),
    ];
    let all = plain.iter().filter(|(bit, _)| st & bit != 0).fold(0, |all, (_, attribute)| all | attribute);
    all | match () {
        () if st & libc::ST_NOATIME != 0 => sys::ATTR_NOATIME,
        () if st & RELATIME != 0 => sys::ATTR_RELATIME,
        () => sys::ATTR_STRICTATIME,
    }
}

#[cfg(test)]
mod tests {
    use super::super::options;
    use super::*;
    use proptest::prelude::*;

    const RELATIME: u64 = 0x1000;

    fn parsed(words: &str) -> MountOptions {
        let words: Vec<String> = words.split(',').map(str::to_string).collect();
        options::parse("m", &words).unwrap()
    }

    fn changed(words: &str, manner: Manner, now: u64) -> Option<Attributes> {
        change(&parsed(words), manner, || Ok::<u64, ()>(now)).ok()
    }

    /// What a mount has after a change.
    fn after(words: &str, manner: Manner, now: u64) -> Option<u64> {
        let Attributes { set, clear } = changed(words, manner, now)?;
        Some(attributes(now) & !clear | set)
    }

    #[test]
    fn no_words_change_nothing() {
        for manner in [Manner::Added, Manner::Exact, Manner::Locked] {
            assert!(changed("rbind,rprivate", manner, libc::ST_RDONLY).unwrap().is_empty());
        }
    }

    #[test]
    fn named_attributes_are_the_only_ones() {
        let had = libc::ST_RDONLY | libc::ST_NODEV | libc::ST_NOATIME | 0x2000;
        assert_eq!(after("bind,nosuid", Manner::Exact, had).unwrap(), sys::ATTR_NOSUID | sys::ATTR_NOATIME);
        assert_eq!(after("bind,dev", Manner::Exact, had).unwrap(), sys::ATTR_NOATIME);
        assert_eq!(after("bind,ro,atime", Manner::Exact, had).unwrap(), sys::ATTR_RDONLY | sys::ATTR_NOATIME);
        assert_eq!(after("bind,relatime", Manner::Exact, had).unwrap(), 0);
        assert_eq!(after("bind,nodiratime", Manner::Exact, had).unwrap(), sys::ATTR_NODIRATIME);
        let had = libc::ST_NODIRATIME | RELATIME;
        assert_eq!(after("bind,strictatime", Manner::Exact, had).unwrap(), sys::ATTR_STRICTATIME);
        assert_eq!(after("bind,diratime", Manner::Exact, had).unwrap(), 0);
        assert_eq!(
            after("bind,nosuid", Manner::Added, had).unwrap(),
            sys::ATTR_NOSUID | sys::ATTR_NODIRATIME
        );
    }

    #[test]
    fn what_is_locked_stays() {
        let had = libc::ST_RDONLY | libc::ST_NODEV | RELATIME | 0x2000;
        let kept = sys::ATTR_RDONLY | sys::ATTR_NODEV;
        assert_eq!(after("bind,nosuid", Manner::Locked, had).unwrap(), kept | sys::ATTR_NOSUID);
        assert_eq!(after("bind,symfollow,exec", Manner::Locked, had).unwrap(), kept);
        assert_eq!(after("bind,rw", Manner::Locked, had), None);
        assert_eq!(after("bind,dev", Manner::Locked, had), None);
        for words in ["strictatime", "noatime", "nodiratime"] {
            assert_eq!(after(words, Manner::Locked, RELATIME), None, "{words}");
        }
        for words in ["relatime", "norelatime", "atime", "diratime"] {
            assert_eq!(after(words, Manner::Locked, RELATIME).unwrap(), 0, "{words}");
        }
        assert!(after("relatime", Manner::Locked, libc::ST_NOATIME).is_none());
    }

    proptest! {
        /// In a user namespace no mount ever has less of what the kernel locks than its source.
        #[test]
        fn nothing_locked_is_lost(
            words in proptest::collection::vec("ro|rw|no(dev|suid|exec)|dev|suid|exec|nosymfollow|(no|no(dir|rel|strict)|dir|rel|strict|)atime", 1..6),
            now in 0u64..0x4000,
        ) {
            let words = words.join(",");
            if let Some(after) = after(&words, Manner::Locked, now) {
                let had = attributes(now);
                prop_assert_eq!(after & had & LOCKABLE, had & LOCKABLE, "{}", words);
                prop_assert_eq!(after & ATIME, had & ATIME, "{}", words);
            }
        }
    }
}
