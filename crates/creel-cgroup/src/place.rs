//! Where a container's group belongs, and what of it an ordinary user may make.

use std::path::{Path, PathBuf};

use creel_types::spec::Resources;
use rustix::fs::{Access, AtFlags, CWD, accessat};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::group::Cgroup;
use crate::hierarchy::{Hierarchies, Unified};
use crate::{plan, v2};

/// Who makes a container's group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// This crate, by directories and files.
    #[default]
    Cgroupfs,
    /// systemd, asked over D-Bus (`--systemd-cgroup`; see the module `systemd`).
    Systemd,
}

impl Hierarchies {
    /// Where the cgroupfs driver makes a container's group, from `linux.cgroupsPath` (or nothing) and its id: what
    /// [`Cgroup::create`] takes.
    ///
    /// As runc does it: an absolute path starts at the mount points; a relative one, and without one the id, below the
    /// caller's own group – in the unified hierarchy beside it, for a group that has processes can hand nothing down.
    /// `..` never leads out.
    ///
    /// # Errors
    /// [`Error::Path`] for a path that names no group.
    pub fn locate(&self, cgroups_path: Option<&str>, id: &str) -> Result<(Hierarchies, String)> {
        let given = cgroups_path.filter(|path| !path.is_empty());
        let path = clean(given.unwrap_or(id));
        plan::components(&path)?;
        let mut place = self.clone();
        if given.is_some_and(|given| given.starts_with('/')) {
            return Ok((place, path));
        }
        for v1 in place.v1_mut() {
            v1.prefix = clean(v1.own.as_deref().unwrap_or_default()).trim_end_matches('/').to_owned();
        }
        if let Some(unified) = place.unified_mut() {
            let own = clean(unified.own.as_deref().unwrap_or_default());
            let above = own.rsplit_once('/').map_or("", |(above, _)| above);
            unified.prefix = above.to_owned();
        }
        Ok((place, path))
    }

    /// Only the hierarchies in which this process may make (or enter) the group, and the directories that it may not.
    fn permitted(&self, path: &str) -> (Hierarchies, Vec<PathBuf>) {
        let mut permitted = self.clone();
        let mut denied = Vec::new();
        permitted.v1_mut().retain(|v1| {
            let dir = v1.dir(path);
            let may = may_make(&dir, "tasks");
            if !may {
                denied.push(dir);
            }
            may
        });
        let unified = permitted.unified_mut();
        if let Some(there) = unified {
            let dir = there.dir(path);
            if !(may_make(&dir, "cgroup.procs") && may_move(there, path)) {
                denied.push(dir);
                *unified = None;
            }
        }
        (permitted, denied)
    }
}

/// A path without `.`, `..` and empty components, absolute; `..` at the top stays there.
fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn may_write(path: &Path) -> bool {
    accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

/// Whether the directory can be made, or is there and can be entered by writing to `door`.
fn may_make(dir: &Path, door: &str) -> bool {
    if dir.is_dir() {
        return may_write(&dir.join(door));
    }
    dir.ancestors().find(|above| above.is_dir()).is_some_and(may_write)
}

/// The unified hierarchy lets only those move a process who may write to `cgroup.procs` of the nearest group that is
/// above both its old and its new one (`cgroup-v2.rst`, "Delegation Containment").
fn may_move(unified: &Unified, path: &str) -> bool {
    let Some(own) = &unified.own else { return true };
    let target = clean(&format!("{}/{path}", unified.prefix));
    let common = own.split('/').zip(target.split('/')).take_while(|(a, b)| a == b).map(|(a, _)| a);
    let common = common.collect::<Vec<_>>().join("/");
    may_write(&unified.mount_point.join(common.trim_matches('/')).join("cgroup.procs"))
}

/// What [`Cgroup::create_delegated`] could make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegated {
    /// The group in those hierarchies in which it could be made; `None` if there are none.
    pub group: Option<Cgroup>,
    /// The directories that could not be made for lack of permission.
    pub skipped: Vec<PathBuf>,
}

impl Cgroup {
    /// [`Cgroup::create`] for an ordinary user, who can make groups only where somebody has let him (v1: nowhere, as a
    /// rule; v2: below `user@UID.service` as far as systemd delegates, or in a subtree given to him).
    ///
    /// `explicit` says that the place was asked for (`linux.cgroupsPath`): then it is an error if it cannot be had.
    /// Otherwise hierarchies without permission are passed over, silently if no limit needs them. Device rules are
    /// passed over where they need more rights than a user has: what he cannot open he cannot open in a container.
    ///
    /// # Errors
    /// [`Error::Denied`] for an explicit place; [`Error::NotDelegated`] for a limit that needs a hierarchy in which the
    /// group could not be made; otherwise as [`Cgroup::create`].
    pub fn create_delegated(h: &Hierarchies, path: &str, r: &Resources, explicit: bool) -> Result<Delegated> {
        plan::components(path)?;
        let (permitted, skipped) = h.permitted(path);
        if explicit && let Some(dir) = skipped.first() {
            // The controllers are what the place is for; a v1 hierarchy without one can be missed.
            return Err(Error::Denied { dir: dir.clone() });
        }
        let mut r = r.clone();
        if permitted.v1_with("devices").is_none() {
            r.devices.clear();
        }
        if let Some((controller, what)) = v2::lacking(&permitted, &r).filter(|_| !skipped.is_empty()) {
            return Err(Error::NotDelegated { what, controller, skipped });
        }
        if permitted.v1().is_empty() && permitted.unified().is_none() {
            return Ok(Delegated { group: None, skipped });
        }
        Ok(Delegated { group: Some(Cgroup::create(&permitted, path, &r)?), skipped })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hierarchy::tests::{HYBRID_MOUNTS, V2_CONTROLLERS, V2_MOUNTS, V2_SELF, hybrid, v1, v2};
    use proptest::prelude::*;

    fn dirs(h: &Hierarchies, cgroups_path: Option<&str>) -> Vec<String> {
        let (place, path) = h.locate(cgroups_path, "abc").unwrap();
        place.dirs(&path).map(|dir| dir.display().to_string()).collect()
    }

    #[test]
    fn absolute_relative_absent() {
        assert_eq!(dirs(&v2(), Some("/a/b")), ["/sys/fs/cgroup/a/b"]);
        assert_eq!(dirs(&v2(), Some("/../a/./b/../c")), ["/sys/fs/cgroup/a/c"]);
        // Beside the caller's scope, not in it.
        assert_eq!(dirs(&v2(), None), ["/sys/fs/cgroup/user.slice/user-0.slice/abc"]);
        assert_eq!(dirs(&v2(), Some("x/y")), ["/sys/fs/cgroup/user.slice/user-0.slice/x/y"]);
        assert_eq!(dirs(&v2(), Some("../../x")), ["/sys/fs/cgroup/user.slice/user-0.slice/x"]);
        let found = dirs(&hybrid(), None);
        assert!(found.contains(&"/sys/fs/cgroup/cpu/abc".into()), "{found:?}");
        assert!(found.contains(&"/sys/fs/cgroup/unified/abc".into()), "{found:?}");
        let memory = "/sys/fs/cgroup/memory/process_api/e4fe48945cc00ecc600ac68bde9f2d8c/abc";
        assert!(found.contains(&memory.into()), "{found:?}");
        let found = dirs(&v1(), None);
        assert!(
            found.contains(&"/sys/fs/cgroup/pids/user.slice/user-0.slice/session-1.scope/abc".into()),
            "{found:?}"
        );
        assert!(
            found.contains(&"/sys/fs/cgroup/systemd/user.slice/user-0.slice/session-1.scope/abc".into()),
            "{found:?}"
        );
        for wrong in ["/", "..", "/a\n"] {
            assert!(matches!(v2().locate(Some(wrong), "abc"), Err(Error::Path { .. })), "{wrong:?}");
        }
    }

    #[test]
    fn groups_of_another_namespace() {
        // A mount of a part, as in a container without a cgroup namespace.
        let mounts = V2_MOUNTS.replace("0:26 / ", "0:26 /docker/abc ");
        let h = Hierarchies::from_texts(&mounts, "0::/docker/abc/inner/deep\n", V2_CONTROLLERS).unwrap();
        assert_eq!(h.unified().unwrap().own.as_deref(), Some("/inner/deep"));
        assert_eq!(dirs(&h, None), ["/sys/fs/cgroup/inner/abc"]);
        // A caller outside of what is mounted.
        let h = Hierarchies::from_texts(&mounts, V2_SELF, V2_CONTROLLERS).unwrap();
        assert_eq!(h.unified().unwrap().own, None);
        let h = Hierarchies::from_texts(V2_MOUNTS, "0::/../../x\n", V2_CONTROLLERS).unwrap();
        assert_eq!(h.unified().unwrap().own, None);
        assert_eq!(dirs(&h, None), ["/sys/fs/cgroup/abc"]);
    }

    #[test]
    fn only_what_may_be_written_is_made() {
        // Files in the place of the kernel's; as root every directory is writable, so the denied ones are not there.
        let tmp = tempfile::tempdir().unwrap();
        let base = tmp.path().display().to_string();
        std::fs::create_dir_all(tmp.path().join("pids")).unwrap();
        let mounts = HYBRID_MOUNTS.replace("/sys/fs/cgroup", &base);
        let h = Hierarchies::from_texts(&mounts, "8:pids:/\n4:memory:/\n0::/\n", "").unwrap();
        let (permitted, denied) = h.permitted("/x/y");
        // The ancestors of the others are in the temporary directory, which is writable: hence all but the unified one,
        // whose cgroup.procs is missing.
        assert!(permitted.v1_with("pids").is_some());
        assert!(permitted.unified().is_none());
        assert_eq!(denied, [tmp.path().join("unified/x/y")]);
    }

    proptest! {
        #[test]
        fn nothing_leads_out(path in "(?s)[a./\\n ]{0,30}") {
            for h in [hybrid(), v1(), v2()] {
                if let Ok((place, path)) = h.locate(Some(&path), "id") {
                    for (dir, mount) in place.dirs(&path).zip(place.mount_points()) {
                        prop_assert!(dir.starts_with(mount) && dir != mount);
                        prop_assert!(dir.components().all(|part| !matches!(part, std::path::Component::ParentDir)));
                    }
                }
            }
        }
    }
}
