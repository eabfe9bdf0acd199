//! Where the controllers are: detected from the process's own mount table.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use creel_sys::kernelfs::{self, unescape};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How control groups are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// v1 hierarchies only.
    V1,
    /// v1 hierarchies and the unified one.
    Hybrid,
    /// The unified hierarchy only.
    V2,
}

/// A mounted v1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct V1 {
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Its controllers, like `cpu` and `cpuacct`; empty for a hierarchy that only has a name.
    pub controllers: Vec<String>,
    /// Its name, like `systemd`, if it has one.
    pub name: Option<String>,
    /// The caller's own group, from the mount point on, like `/user.slice`; `None` if it is not below the mount point.
    #[serde(default)]
    pub own: Option<String>,
    /// The group below which paths are meant; empty for the mount point itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
}

impl V1 {
    /// The options with which mount(8) mounts this hierarchy again: controllers, then `name=`.
    pub fn mount_options(&self) -> String {
        let name = self.name.iter().map(|name| format!("name={name}"));
        self.controllers.iter().cloned().chain(name).collect::<Vec<_>>().join(",")
    }

    /// The directory of a group in this hierarchy.
    pub fn dir(&self, path: &str) -> PathBuf {
        directory(&self.mount_point, &self.prefix, path)
    }
}

/// The mounted unified (v2) hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unified {
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// The controllers that its root offers (`cgroup.controllers`), those that v1 has taken excluded by the kernel.
    pub controllers: Vec<String>,
    /// The caller's own group, from the mount point on; `None` if it is not below the mount point.
    #[serde(default)]
    pub own: Option<String>,
    /// The group below which paths are meant; empty for the mount point itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
}

impl Unified {
    /// The directory of a group in this hierarchy.
    pub fn dir(&self, path: &str) -> PathBuf {
        directory(&self.mount_point, &self.prefix, path)
    }
}

/// The directory of a group below a mount point; `path` was checked by [`crate::plan::components`].
fn directory(mount_point: &Path, prefix: &str, path: &str) -> PathBuf {
    let mut dir = mount_point.to_path_buf();
    for part in [prefix, path].into_iter().flat_map(|text| text.split('/')).filter(|part| !part.is_empty()) {
        dir.push(part);
    }
    dir
}

/// Every hierarchy that is mounted, with its controllers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchies {
    v1: Vec<V1>,
    unified: Option<Unified>,
}

impl Hierarchies {
    /// Reads them from `/proc/self/mountinfo`, `/proc/self/cgroup` and the unified root's `cgroup.controllers`.
    ///
    /// # Errors
    /// [`Error::NoHierarchy`], [`Error::File`], [`Error::Parse`].
    pub fn detect() -> Result<Hierarchies> {
        Hierarchies::among(&read("/proc/self/mountinfo".as_ref())?)
    }

    /// As [`Hierarchies::detect`], for one who has read `/proc/self/mountinfo` already.
    ///
    /// # Errors
    /// [`Error::NoHierarchy`], [`Error::File`], [`Error::Parse`].
    pub fn among(mountinfo: &str) -> Result<Hierarchies> {
        let own = read("/proc/self/cgroup".as_ref())?;
        let mut found = Hierarchies::from_texts(mountinfo, &own, "")?;
        if let Some(unified) = &mut found.unified {
            let text = read(&unified.mount_point.join("cgroup.controllers"))?;
            unified.controllers = text.split_whitespace().map(str::to_owned).collect();
        }
        Ok(found)
    }

    /// The same from the texts of these three files. Mount points are taken as they are, so that a text may point into
    /// any directory.
    ///
    /// # Errors
    /// [`Error::NoHierarchy`] when the texts name none, [`Error::Parse`] for a line that is not of the form of proc(5).
    pub fn from_texts(mountinfo: &str, self_cgroup: &str, controllers: &str) -> Result<Hierarchies> {
        let groups = own_groups(self_cgroup)?;
        let known: Vec<&str> = groups
            .iter()
            .flat_map(|group| &group.names)
            .map(String::as_str)
            .filter(|c| !c.contains('='))
            .collect();
        // One hierarchy may be mounted in several places: the whole of it is better than a part, then the first.
        let mut best: BTreeMap<String, (bool, usize, Mount)> = BTreeMap::new();
        for (order, line) in mountinfo.lines().enumerate() {
            let Some(mount) = mount_line(line)? else { continue };
            let partial = mount.root != Path::new("/");
            let key = mount.device.clone();
            let better = best.get(&key).is_none_or(|(old, ..)| *old && !partial);
            if better {
                best.insert(key, (partial, order, mount));
            }
        }
        let mut found: Vec<(usize, Mount)> =
            best.into_values().map(|(_, order, mount)| (order, mount)).collect();
        found.sort_by_key(|(order, _)| *order);
        let mut result = Hierarchies { v1: Vec::new(), unified: None };
        for (_, mount) in found {
            let own = |name: Option<&String>| {
                let about = |group: &&OwnGroup| match name {
                    Some(name) => group.names.contains(name),
                    None => group.names.is_empty(),
                };
                groups.iter().find(about).and_then(|group| below(&mount.root, &group.path))
            };
            if mount.kind == "cgroup2" {
                let own = own(None);
                let controllers = controllers.split_whitespace().map(str::to_owned).collect();
                let unified = Unified { mount_point: mount.point, controllers, own, prefix: String::new() };
                result.unified.get_or_insert(unified);
                continue;
            }
            let name =
                mount.options.iter().find_map(|option| option.strip_prefix("name=")).map(str::to_owned);
            let named = |option: &&String| known.contains(&option.as_str()) || option.starts_with("name=");
            let own = own(mount.options.iter().find(named));
            let controllers =
                mount.options.into_iter().filter(|option| known.contains(&option.as_str())).collect();
            result.v1.push(V1 { mount_point: mount.point, controllers, name, own, prefix: String::new() });
        }
        if result.v1.is_empty() && result.unified.is_none() {
            return Err(Error::NoHierarchy);
        }
        Ok(result)
    }

    /// Which of the three layouts this is.
    pub fn layout(&self) -> Layout {
        match (self.v1.is_empty(), &self.unified) {
            (true, _) => Layout::V2,
            (false, None) => Layout::V1,
            (false, Some(_)) => Layout::Hybrid,
        }
    }

    /// The v1 hierarchies, in the order of their mounts.
    pub fn v1(&self) -> &[V1] {
        &self.v1
    }

    /// The unified hierarchy.
    pub fn unified(&self) -> Option<&Unified> {
        self.unified.as_ref()
    }

    /// Mount point of the v1 hierarchy that has this controller.
    pub fn v1_with(&self, controller: &str) -> Option<&Path> {
        let has = |v1: &&V1| v1.controllers.iter().any(|c| c == controller);
        self.v1.iter().find(has).map(|v1| v1.mount_point.as_path())
    }

    /// Mount point of the unified hierarchy if it has this controller.
    pub fn unified_with(&self, controller: &str) -> Option<&Path> {
        let has = |unified: &&Unified| unified.controllers.iter().any(|c| c == controller);
        self.unified.as_ref().filter(has).map(|unified| unified.mount_point.as_path())
    }

    /// A group's directory in the v1 hierarchy that has this controller.
    pub fn v1_dir(&self, controller: &str, path: &str) -> Option<PathBuf> {
        let has = |v1: &&V1| v1.controllers.iter().any(|c| c == controller);
        self.v1.iter().find(has).map(|v1| v1.dir(path))
    }

    /// A group's directory in the unified hierarchy if that has this controller.
    pub fn unified_dir(&self, controller: &str, path: &str) -> Option<PathBuf> {
        self.unified_with(controller).and(self.unified.as_ref()).map(|unified| unified.dir(path))
    }

    /// A group's directory in every hierarchy, the unified one last.
    pub fn dirs(&self, path: &str) -> impl Iterator<Item = PathBuf> {
        let unified = self.unified.iter().map(|unified| unified.dir(path));
        self.v1.iter().map(|v1| v1.dir(path)).chain(unified)
    }

    pub(crate) fn v1_mut(&mut self) -> &mut Vec<V1> {
        &mut self.v1
    }

    pub(crate) fn unified_mut(&mut self) -> &mut Option<Unified> {
        &mut self.unified
    }

    /// Every mount point, the unified one last.
    pub fn mount_points(&self) -> impl Iterator<Item = &Path> {
        let unified = self.unified.iter().map(|unified| unified.mount_point.as_path());
        self.v1.iter().map(|v1| v1.mount_point.as_path()).chain(unified)
    }
}

fn read(path: &Path) -> Result<String> {
    kernelfs::read_to_string(path).map_err(|cause| Error::file("read", path, cause))
}

/// What of a line of mountinfo about a hierarchy matters here.
#[derive(Debug)]
struct Mount {
    device: String,
    root: PathBuf,
    point: PathBuf,
    kind: String,
    options: Vec<String>,
}

/// One line of `/proc/PID/mountinfo` (proc_pid_mountinfo(5)); `None` when it is about something else than a hierarchy.
fn mount_line(line: &str) -> Result<Option<Mount>> {
    let wrong = || Error::parse("a line of /proc/self/mountinfo", line);
    let (head, tail) = line.split_once(" - ").ok_or_else(wrong)?;
    let mut tail = tail.split(' ');
    let kind = tail.next().filter(|kind| !kind.is_empty()).ok_or_else(wrong)?;
    if !matches!(kind, "cgroup" | "cgroup2") {
        return Ok(None);
    }
    let mut head = head.split(' ').skip(2);
    let mut next = || head.next().filter(|field| !field.is_empty()).ok_or_else(wrong);
    let (device, root, point) = (next()?, next()?, next()?);
    let options = tail.next_back().unwrap_or_default();
    Ok(Some(Mount {
        device: device.to_owned(),
        root: unescape(root).into(),
        point: unescape(point).into(),
        kind: kind.to_owned(),
        options: options.split(',').map(|word| unescape(word).to_string_lossy().into_owned()).collect(),
    }))
}

/// One line of `/proc/PID/cgroup` (cgroups(7)): a hierarchy and the process's group in it.
#[derive(Debug)]
struct OwnGroup {
    /// Controllers, or `name=…`; nothing for the unified hierarchy.
    names: Vec<String>,
    path: String,
}

fn own_groups(self_cgroup: &str) -> Result<Vec<OwnGroup>> {
    let mut found = Vec::new();
    for line in self_cgroup.lines() {
        let mut fields = line.splitn(3, ':');
        match (fields.next().map(str::parse::<u32>), fields.next(), fields.next()) {
            (Some(Ok(_)), Some(list), Some(path)) if path.starts_with('/') => found.push(OwnGroup {
                names: list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
                path: path.to_owned(),
            }),
            _ => return Err(Error::parse("a line of /proc/self/cgroup", line)),
        }
    }
    Ok(found)
}

/// A group's path from the root of a mount on; `None` when it is not below that root (as in another cgroup namespace).
fn below(root: &Path, group: &str) -> Option<String> {
    // A group that was removed is told with this ending.
    let group = group.strip_suffix(" (deleted)").unwrap_or(group);
    let rest = Path::new(group).strip_prefix(root).ok()?;
    let good = rest.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    good.then(|| format!("/{}", rest.display()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use expect_test::expect;
    use proptest::prelude::*;

    pub(crate) const HYBRID_MOUNTS: &str = "\
22 28 0:20 / /proc rw,nosuid - proc proc rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices
37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
38 31 0:35 / /sys/fs/cgroup/blkio rw,relatime - cgroup cgroup rw,blkio
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    pub(crate) const HYBRID_SELF: &str = "\
9:name=systemd:/
8:pids:/
7:blkio:/
6:freezer:/
5:devices:/
4:memory:/process_api/e4fe48945cc00ecc600ac68bde9f2d8c
3:cpuset:/
2:cpuacct:/
1:cpu:/
0::/
";
    /// As Debian 10's systemd mounts them with `systemd.unified_cgroup_hierarchy=0` and no hybrid.
    pub(crate) const V1_MOUNTS: &str = "\
25 21 0:22 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755
26 25 0:23 / /sys/fs/cgroup/systemd rw,nosuid,nodev,noexec,relatime shared:10 - cgroup cgroup rw,xattr,name=systemd
30 25 0:27 / /sys/fs/cgroup/memory rw,nosuid,nodev,noexec,relatime shared:14 - cgroup cgroup rw,memory
31 25 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid,nodev,noexec,relatime shared:15 - cgroup cgroup rw,cpu,cpuacct
32 25 0:29 / /sys/fs/cgroup/pids rw,nosuid,nodev,noexec,relatime shared:16 - cgroup cgroup rw,pids
33 25 0:30 / /sys/fs/cgroup/blkio rw,nosuid,nodev,noexec,relatime shared:17 - cgroup cgroup rw,blkio
34 25 0:31 / /sys/fs/cgroup/devices rw,nosuid,nodev,noexec,relatime shared:18 - cgroup cgroup rw,devices
35 25 0:32 / /sys/fs/cgroup/net_cls,net_prio rw,nosuid,nodev,noexec,relatime shared:19 - cgroup cgroup rw,net_cls,net_prio
36 25 0:33 / /sys/fs/cgroup/freezer rw,nosuid,nodev,noexec,relatime shared:20 - cgroup cgroup rw,freezer
37 25 0:34 / /sys/fs/cgroup/cpuset rw,nosuid,nodev,noexec,relatime shared:21 - cgroup cgroup rw,cpuset,clone_children
38 25 0:35 / /sys/fs/cgroup/hugetlb rw,nosuid,nodev,noexec,relatime shared:22 - cgroup cgroup rw,hugetlb
";
    pub(crate) const V1_SELF: &str = "\
10:hugetlb:/
9:cpuset:/
8:freezer:/
7:net_cls,net_prio:/
6:devices:/user.slice
5:blkio:/user.slice
4:pids:/user.slice/user-0.slice/session-1.scope
3:cpu,cpuacct:/user.slice
2:memory:/user.slice
1:name=systemd:/user.slice/user-0.slice/session-1.scope
";
    /// As Debian 12's systemd mounts it.
    pub(crate) const V2_MOUNTS: &str = "\
24 31 0:22 / /sys rw,nosuid,nodev,noexec,relatime shared:6 - sysfs sysfs rw
28 24 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
";
    pub(crate) const V2_SELF: &str = "0::/user.slice/user-0.slice/session-1.scope\n";
    pub(crate) const V2_CONTROLLERS: &str = "cpuset cpu io memory hugetlb pids rdma misc\n";

    pub(crate) fn hybrid() -> Hierarchies {
        Hierarchies::from_texts(HYBRID_MOUNTS, HYBRID_SELF, "hugetlb\n").unwrap()
    }

    pub(crate) fn v1() -> Hierarchies {
        Hierarchies::from_texts(V1_MOUNTS, V1_SELF, "").unwrap()
    }

    pub(crate) fn v2() -> Hierarchies {
        Hierarchies::from_texts(V2_MOUNTS, V2_SELF, V2_CONTROLLERS).unwrap()
    }

    fn summary(h: &Hierarchies) -> String {
        let mut out = format!("{:?}\n", h.layout());
        for v1 in h.v1() {
            out += &format!("{} {}\n", v1.mount_point.display(), v1.mount_options());
        }
        if let Some(unified) = h.unified() {
            out += &format!("{} unified {}\n", unified.mount_point.display(), unified.controllers.join(","));
        }
        out
    }

    #[test]
    fn the_three_layouts() {
        expect![[r#"
            Hybrid
            /sys/fs/cgroup/cpu cpu
            /sys/fs/cgroup/cpuacct cpuacct
            /sys/fs/cgroup/cpuset cpuset
            /sys/fs/cgroup/memory memory
            /sys/fs/cgroup/devices devices
            /sys/fs/cgroup/freezer freezer
            /sys/fs/cgroup/blkio blkio
            /sys/fs/cgroup/pids pids
            /sys/fs/cgroup/systemd name=systemd
            /sys/fs/cgroup/unified unified hugetlb
        "#]]
        .assert_eq(&summary(&hybrid()));
        expect![[r#"
            V1
            /sys/fs/cgroup/systemd name=systemd
            /sys/fs/cgroup/memory memory
            /sys/fs/cgroup/cpu,cpuacct cpu,cpuacct
            /sys/fs/cgroup/pids pids
            /sys/fs/cgroup/blkio blkio
            /sys/fs/cgroup/devices devices
            /sys/fs/cgroup/net_cls,net_prio net_cls,net_prio
            /sys/fs/cgroup/freezer freezer
            /sys/fs/cgroup/cpuset cpuset
            /sys/fs/cgroup/hugetlb hugetlb
        "#]]
        .assert_eq(&summary(&v1()));
        expect![[r#"
            V2
            /sys/fs/cgroup unified cpuset,cpu,io,memory,hugetlb,pids,rdma,misc
        "#]]
        .assert_eq(&summary(&v2()));
    }

    #[test]
    fn odd_mounts() {
        // The same hierarchy mounted twice, first in part; an escaped space; nothing at all.
        let text = "\
50 1 0:32 /docker/abc /part rw - cgroup cgroup rw,memory
51 1 0:32 / /whole\\040of\\040it rw - cgroup cgroup rw,memory
";
        let h = Hierarchies::from_texts(text, "4:memory:/\n", "").unwrap();
        assert_eq!(h.v1_with("memory"), Some(Path::new("/whole of it")));
        assert!(matches!(Hierarchies::from_texts("", "", ""), Err(Error::NoHierarchy)));
        assert!(matches!(Hierarchies::from_texts("garbage", "", ""), Err(Error::Parse { .. })));
        assert!(matches!(Hierarchies::from_texts("", "x:y", ""), Err(Error::Parse { .. })));
    }

    #[test]
    fn survives_serialization() {
        for h in [hybrid(), v1(), v2()] {
            let copy: Hierarchies = serde_json::from_str(&serde_json::to_string(&h).unwrap()).unwrap();
            assert_eq!(copy, h);
        }
    }

    proptest! {
        #[test]
        fn never_panics(mounts in "(?s).{0,300}", own in "(?s).{0,100}", controllers in "(?s).{0,50}") {
            let _ = Hierarchies::from_texts(&mounts, &own, &controllers);
        }
    }
}
