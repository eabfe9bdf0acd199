//! The creator's side of user and time namespaces: ids are mapped, and clocks set, from outside (user_namespaces(7),
//! time_namespaces(7)).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::Command;

use creel_types::spec::{IdMapping, TimeOffset};
use rustix::fs::{Mode, OFlags};

use crate::Error;
use crate::error::plain;

const SETGID: u64 = 1 << 6;
const SETUID: u64 = 1 << 7;
const SYS_ADMIN: u64 = 1 << 21;

/// The kernel takes a map in one write of less than a page.
const MAX_MAP: usize = 4096;

fn effective() -> u64 {
    creel_sys::caps::get().map(|sets| sets.effective).unwrap_or(0)
}

/// Whether this process may mount things by itself, without a user namespace of the container's.
pub(crate) fn may_mount() -> bool {
    effective() & SYS_ADMIN != 0
}

/// Whether it may map any ids; otherwise the set-uid helpers newuidmap(1) and newgidmap(1) have to.
fn may_map() -> bool {
    effective() & (SETUID | SETGID) == SETUID | SETGID
}

fn lines(maps: &[IdMapping]) -> String {
    maps.iter().fold(String::new(), |mut text, map| {
        let _ = writeln!(text, "{} {} {}", map.container_id, map.host_id, map.size);
        text
    })
}

fn write(pid: i32, name: &str, text: &str) -> Result<(), Error> {
    let path = format!("/proc/{pid}/{name}");
    let failed = |e: rustix::io::Errno| Error::setup(format!("cannot write {path}"), plain(&e.into()));
    if text.len() >= MAX_MAP {
        return Err(Error::setup(format!("cannot write {path}"), "the kernel takes less than 4096 bytes"));
    }
    let file = rustix::fs::open(&*path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    rustix::io::write(&file, text.as_bytes()).map_err(failed)?;
    Ok(())
}

/// What newuidmap(1) and newgidmap(1) are called with.
fn arguments(pid: i32, maps: &[IdMapping]) -> Vec<String> {
    let numbers = maps.iter().flat_map(|map| [map.container_id, map.host_id, map.size]);
    std::iter::once(pid.to_string()).chain(numbers.map(|number| number.to_string())).collect()
}

/// A map of ids as the kernel and as newuidmap(1) get it. For the fuzzer, which cannot reach further in.
#[doc(hidden)]
pub fn written_map(pid: i32, maps: &[IdMapping]) -> (String, Vec<String>) {
    (lines(maps), arguments(pid, maps))
}

fn helper(program: &str, pid: i32, maps: &[IdMapping]) -> Result<(), Error> {
    let mut command = Command::new(program);
    command.args(arguments(pid, maps));
    let what = format!("cannot map ids with {program}");
    let output = command.output().map_err(|e| {
        let reason = format!("{}; it comes with the package uidmap", plain(&e));
        Error::setup(what.clone(), reason)
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let reason = format!("{}; see /etc/subuid and /etc/subgid", said.trim());
    Err(Error::setup(what, reason))
}

/// Whether the map is the one that the kernel lets anybody write: his own id, alone.
fn only_oneself(maps: &[IdMapping], id: u32) -> bool {
    matches!(maps, [map] if map.size == 1 && map.host_id == id)
}

/// Maps the ids of the user namespace that the process `pid` has just been born in.
pub(crate) fn write_maps(pid: i32, uids: &[IdMapping], gids: &[IdMapping]) -> Result<(), Error> {
    if may_map() {
        write(pid, "uid_map", &lines(uids))?;
        return write(pid, "gid_map", &lines(gids));
    }
    if only_oneself(uids, rustix::process::geteuid().as_raw()) {
        write(pid, "uid_map", &lines(uids))?;
    } else {
        helper("newuidmap", pid, uids)?;
    }
    if only_oneself(gids, rustix::process::getegid().as_raw()) {
        // Who drops a group could gain rights that were denied to it, so the kernel wants that ruled out.
        write(pid, "setgroups", "deny")?;
        return write(pid, "gid_map", &lines(gids));
    }
    helper("newgidmap", pid, gids)
}

/// Sets the clocks of the time namespace that the process `pid` has just made.
pub(crate) fn write_offsets(pid: i32, offsets: &BTreeMap<String, TimeOffset>) -> Result<(), Error> {
    if offsets.is_empty() {
        return Ok(());
    }
    let text = offsets.iter().fold(String::new(), |mut text, (clock, offset)| {
        let _ = writeln!(text, "{clock} {} {}", offset.secs, offset.nanosecs);
        text
    });
    write(pid, "timens_offsets", &text)
}

/// Sets the OOM score adjustment from outside: in a user namespace the process itself may not.
pub(crate) fn write_oom_score(pid: i32, score: i32) -> Result<(), Error> {
    write(pid, "oom_score_adj", &score.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use creel_types::spec::{Linux, Namespace, NamespaceKind, Spec};
    use proptest::prelude::*;

    fn map() -> impl Strategy<Value = IdMapping> {
        let id = prop_oneof![any::<u32>(), 0..10u32, (u32::MAX - 5)..=u32::MAX];
        (id.clone(), id.clone(), id).prop_map(|(container_id, host_id, size)| IdMapping {
            container_id,
            host_id,
            size,
        })
    }

    #[test]
    fn who_may_map_himself() {
        let map = |host_id, size| IdMapping { container_id: 0, host_id, size };
        assert!(only_oneself(&[map(1000, 1)], 1000));
        assert!(!only_oneself(&[map(1000, 2)], 1000));
        assert!(!only_oneself(&[map(0, 1)], 1000));
        assert!(!only_oneself(&[map(1000, 1), map(1001, 1)], 1000));
    }

    proptest! {
        /// What the kernel reads is what was meant: one line a mapping, three numbers in its order.
        #[test]
        fn lines_say_what_was_asked(maps in proptest::collection::vec(map(), 0..6)) {
            let text = lines(&maps);
            let read: Vec<Vec<u32>> = text
                .lines()
                .map(|line| line.split(' ').map(|number| number.parse().unwrap()).collect())
                .collect();
            let meant: Vec<Vec<u32>> =
                maps.iter().map(|map| vec![map.container_id, map.host_id, map.size]).collect();
            prop_assert_eq!(read, meant);
        }

        /// No mapping that is let through names the id that means "unchanged", on either side.
        #[test]
        fn mappings_beyond_the_last_id_are_refused(uid in map(), gid in map()) {
            let mut spec = Spec { oci_version: "1.2.0".into(), ..Spec::default() };
            spec.linux = Some(Linux {
                namespaces: [NamespaceKind::User, NamespaceKind::Mount]
                    .map(|kind| Namespace { kind, path: None })
                    .to_vec(),
                uid_mappings: vec![uid.clone()],
                gid_mappings: vec![gid.clone()],
                ..Linux::default()
            });
            let fits = |map: &IdMapping| {
                map.size > 0
                    && u64::from(map.container_id) + u64::from(map.size) <= u64::from(u32::MAX)
                    && u64::from(map.host_id) + u64::from(map.size) <= u64::from(u32::MAX)
            };
            prop_assert_eq!(crate::validate(&spec).is_ok(), fits(&uid) && fits(&gid));
        }
    }
}
