//! The names of the capabilities (capabilities(7)), those that Docker gives by default, and `--cap-add`/`--cap-drop`.

use creel_types::{Classify, ErrorKind};

/// All names; the index is the number in `linux/capability.h`.
pub const ALL: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Docker's fourteen.
pub const DOCKER_DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// A word of `--cap-add` or `--cap-drop` that names no capability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {field}: unknown capability: \"{name}\"")]
pub struct UnknownCapability {
    /// `CapAdd` or `CapDrop`, as the Docker API names them.
    pub field: &'static str,
    /// The name as it was understood, like `CAP_NOPE`.
    pub name: String,
}

impl Classify for UnknownCapability {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

/// The number of a capability from its full name.
pub fn number(name: &str) -> Option<u32> {
    ALL.iter().position(|known| *known == name).and_then(|index| u32::try_from(index).ok())
}

/// The name of a capability.
pub fn name(number: u32) -> Option<&'static str> {
    ALL.get(usize::try_from(number).ok()?).copied()
}

/// The names of the capabilities in a mask.
pub(crate) fn names(mask: u64) -> Vec<&'static str> {
    (0..64).filter(|number| mask & 1 << number != 0).map(|number| name(number).unwrap_or("?")).collect()
}

/// What `ALL` means here, in the order of numbers: what the running kernel knows and this process may hand on (its
/// bounding set; an engine that runs inside a container has less than everything to give).
pub fn available() -> Vec<String> {
    let has = |number: u32| creel_sys::caps::bounding_has(number) == Some(true);
    (0..).zip(ALL).filter(|(number, _)| has(*number)).map(|(_, name)| name.to_owned()).collect()
}

/// A word as users write it: any case, with or without `CAP_`; `ALL` stays `ALL`.
fn normal(word: &str) -> String {
    let upper = word.trim().to_ascii_uppercase();
    match upper.as_str() {
        "ALL" | "CAP_ALL" => "ALL".to_owned(),
        _ if upper.starts_with("CAP_") => upper,
        _ => format!("CAP_{upper}"),
    }
}

fn read(words: &[String], field: &'static str) -> Result<Vec<String>, UnknownCapability> {
    let check = |name: String| match name == "ALL" || number(&name).is_some() {
        true => Ok(name),
        false => Err(UnknownCapability { field, name }),
    };
    words.iter().map(|word| check(normal(word))).collect()
}

/// The capabilities of a container, from `--cap-add`, `--cap-drop` and `--privileged`, in the order of their numbers.
///
/// Docker's rules: privileged has all, whatever else is said. `--cap-add ALL` is all but those dropped (what is dropped
/// stays dropped); `--cap-drop ALL` is only those added; otherwise those added join Docker's default ones without those
/// dropped, and a capability both added and dropped is there. `ALL` means what is [`available`].
///
/// # Errors
/// [`UnknownCapability`] in Docker's words, also for a privileged container.
pub fn tweak(add: &[String], drop: &[String], privileged: bool) -> Result<Vec<String>, UnknownCapability> {
    let (add, drop) = (read(add, "CapAdd")?, read(drop, "CapDrop")?);
    Ok(combine(&add, &drop, privileged, &available()))
}

fn combine(add: &[String], drop: &[String], privileged: bool, all: &[String]) -> Vec<String> {
    let has = |list: &[String], name: &str| list.iter().any(|known| known == name);
    let wanted = |name: &str| match (has(add, "ALL"), has(drop, "ALL")) {
        _ if privileged => true,
        (true, _) => !has(drop, name),
        (false, true) => has(add, name),
        (false, false) => has(add, name) || DOCKER_DEFAULT.contains(&name) && !has(drop, name),
    };
    let mut names: Vec<String> = all.iter().filter(|name| wanted(name)).cloned().collect();
    // What was asked for by name and is not available is for the runtime to refuse or to pass over.
    if !privileged {
        let unknown = add.iter().filter(|name| *name != "ALL" && !has(all, name));
        names.extend(unknown.cloned());
        names.dedup();
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn of(add: &[&str], drop: &[&str]) -> Vec<String> {
        let read = |list: &[&str], field| read(&words(list), field).unwrap();
        combine(&read(add, "CapAdd"), &read(drop, "CapDrop"), false, &words(&ALL))
    }

    #[test]
    fn dockers_rules() {
        let mut default = words(&DOCKER_DEFAULT);
        default.sort_by_key(|name| number(name));
        assert_eq!(of(&[], &[]), default);
        assert_eq!(of(&["net_admin"], &[]).len(), 15);
        assert_eq!(of(&["CAP_CHOWN"], &[]).len(), 14);
        assert_eq!(of(&["ALL"], &[]), ALL);
        assert_eq!(of(&["all"], &["SYS_ADMIN"]).len(), 40);
        assert_eq!(of(&[], &["ALL"]), words(&[]));
        assert_eq!(of(&["Sys_Time", "cap_kill"], &["CAP_ALL"]), words(&["CAP_KILL", "CAP_SYS_TIME"]));
        assert_eq!(of(&["KILL"], &["KILL"]), default);
        assert_eq!(of(&[], &["KILL"]).len(), 13);
        assert_eq!(of(&["ALL"], &["ALL"]).len(), 41);
        assert_eq!(combine(&[], &words(&["ALL"]), true, &words(&ALL)), ALL);
    }

    #[test]
    fn errors_are_dockers() {
        let error = tweak(&words(&["nope"]), &[], false).unwrap_err();
        assert_eq!(error.to_string(), "invalid CapAdd: unknown capability: \"CAP_NOPE\"");
        let error = tweak(&[], &words(&["CAP_"]), true).unwrap_err();
        assert_eq!(error.to_string(), "invalid CapDrop: unknown capability: \"CAP_\"");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn names_and_numbers() {
        for (index, known) in (0..).zip(ALL) {
            assert_eq!(number(known), Some(index));
            assert_eq!(name(index), Some(known));
        }
        assert_eq!((number("CHOWN"), name(41)), (None, None));
    }
}
