//! The host's cgroup hierarchies as mountinfo shows them.

use creel_sys::kernelfs::unescape;
use serde::Serialize;

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CgroupHierarchy {
    /// Name of its directory in `/sys/fs/cgroup`, like `memory` or `cpu,cpuacct`.
    pub name: String,
    /// Where it is mounted on the host.
    pub mountpoint: String,
    /// Its controllers, or `name=…`; empty for the unified hierarchy.
    pub controllers: Vec<String>,
}

impl CgroupHierarchy {
    /// Whether this is cgroup v2.
    pub fn is_unified(&self) -> bool {
        self.controllers.is_empty()
    }
}

/// Words in a v1 superblock's options that are no controllers.
const NOT_CONTROLLERS: [&str; 7] =
    ["rw", "ro", "xattr", "clone_children", "noprefix", "cpuset_v2_mode", "favordynmods"];

/// The hierarchies in the text of `/proc/self/mountinfo` (proc_pid_mountinfo(5)); each once, where it was mounted first.
pub fn cgroup_hierarchies(mountinfo: &str) -> Vec<CgroupHierarchy> {
    let mut found: Vec<CgroupHierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let Some(mountpoint) = left.split(' ').nth(4) else { continue };
        let mut right = right.split(' ');
        let (kind, _source, options) = (right.next().unwrap_or(""), right.next(), right.next().unwrap_or(""));
        let controllers: Vec<String> = match kind {
            "cgroup" => options
                .split(',')
                .filter(|word| !NOT_CONTROLLERS.contains(word) && !word.starts_with("release_agent="))
                .map(str::to_string)
                .collect(),
            "cgroup2" => Vec::new(),
            _ => continue,
        };
        if kind == "cgroup" && controllers.is_empty()
            || found.iter().any(|known| known.controllers == controllers)
        {
            continue;
        }
        let mountpoint = unescape(mountpoint).to_string_lossy().into_owned();
        let name = mountpoint.rsplit('/').next().unwrap_or("").to_string();
        found.push(CgroupHierarchy { name, mountpoint, controllers });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hybrid() {
        let text = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
41 31 0:38 / /sys/fs/cgroup/a\\040b rw - cgroup2 cgroup2 rw
99 31 0:29 / /elsewhere rw - cgroup cgroup rw,cpu,cpuacct
";
        let found = cgroup_hierarchies(text);
        let short: Vec<_> = found.iter().map(|h| (h.name.as_str(), h.controllers.join("+"))).collect();
        assert_eq!(
            short,
            [
                ("cpu,cpuacct", "cpu+cpuacct".into()),
                ("systemd", "name=systemd".into()),
                ("a b", String::new())
            ]
        );
        assert!(found[2].is_unified());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(text in ".{0,200}") {
            cgroup_hierarchies(&text);
        }
    }
}
