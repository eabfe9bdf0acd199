//! What a process can find out about the container around it.

use std::collections::BTreeMap;
use std::fs;

/// The kernel's capability names by number (capability.h, Linux 5.9 and later).
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The root mount.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Root {
    /// File system type, like `overlay`.
    pub kind: String,
    /// Whether it can be written.
    pub writable: bool,
    /// Read-only layers below the writable one, if the mount says so.
    pub layers: Option<usize>,
}

/// What a process found out; `None` is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Process id inside the pid namespace.
    pub pid: u32,
    /// Host name.
    pub hostname: Option<String>,
    /// Kernel release.
    pub kernel: Option<String>,
    /// Inode numbers of the namespaces by kind.
    pub namespaces: BTreeMap<String, u64>,
    /// The root mount.
    pub root: Option<Root>,
    /// Other mounts.
    pub mounts: Option<usize>,
    /// Cgroup path as the process sees it.
    pub cgroup: Option<String>,
    /// 1 or 2: where the memory controller is.
    pub cgroup_version: Option<u8>,
    /// Memory limit in bytes; `Some(None)` is no limit.
    pub memory: Option<Option<u64>>,
    /// CPU quota in thousandths of a processor; `Some(None)` is no limit.
    pub cpus: Option<Option<u64>>,
    /// Limit of tasks; `Some(None)` is no limit.
    pub pids: Option<Option<u64>>,
    /// Effective capabilities, as a bit mask.
    pub capabilities: Option<u64>,
    /// Seccomp mode: 0 off, 1 strict, 2 filter.
    pub seccomp: Option<u8>,
    /// Whether execve can no longer give privileges.
    pub no_new_privileges: Option<bool>,
    /// Effective user and group id.
    pub user: (u32, u32),
    /// The user's name in /etc/passwd.
    pub user_name: Option<String>,
}

impl Facts {
    /// Asks /proc and the rest of the container.
    pub fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).ok();
        let status = text("/proc/self/status").unwrap_or_default();
        let mountinfo = text("/proc/self/mountinfo").unwrap_or_default();
        let cgroup = text("/proc/self/cgroup").unwrap_or_default();
        let user = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let limit = |v2: &str, v1: &[&str]| read_limit(&mountinfo, &cgroup, v2, v1);
        let memory = limit("memory.max", &["memory", "memory.limit_in_bytes"]);
        let cpus = limit("cpu.max", &["cpu", "cpu.cfs_quota_us"]);
        let period = limit("cpu.max", &["cpu", "cpu.cfs_period_us"]);
        Self {
            pid: std::process::id(),
            hostname: text("/proc/sys/kernel/hostname")
                .map(|t| t.trim().to_owned())
                .filter(|t| !t.is_empty()),
            kernel: text("/proc/sys/kernel/osrelease").map(|t| t.trim().to_owned()),
            namespaces: namespaces(),
            root: root_mount(&mountinfo),
            mounts: Some(mountinfo.lines().count().saturating_sub(1)).filter(|_| !mountinfo.is_empty()),
            cgroup: cgroup_path(&cgroup),
            cgroup_version: memory.as_ref().or(cpus.as_ref()).map(|(version, _)| *version),
            memory: memory.map(|(_, t)| number(&t).filter(|bytes| *bytes < 1 << 62)),
            cpus: cpus.map(|(version, quota)| match version {
                2 => quota_v2(&quota),
                _ => quota_v1(&quota, period.map(|(_, t)| t).as_deref().unwrap_or("100000")),
            }),
            pids: limit("pids.max", &["pids", "pids.max"]).map(|(_, t)| number(&t)),
            capabilities: field(&status, "CapEff").and_then(|t| u64::from_str_radix(t, 16).ok()),
            seccomp: field(&status, "Seccomp").and_then(|t| t.parse().ok()),
            no_new_privileges: field(&status, "NoNewPrivs").map(|t| t == "1"),
            user,
            user_name: text("/etc/passwd").and_then(|t| user_name(&t, user.0)),
        }
    }

    /// Names of the capabilities in the mask, without `CAP_`; unknown ones by number.
    pub fn capability_names(&self) -> Vec<String> {
        let mask = self.capabilities.unwrap_or_default();
        (0..64)
            .filter(|bit| mask & (1 << bit) != 0)
            .map(|bit| CAPABILITIES.get(bit).map_or_else(|| format!("#{bit}"), |name| (*name).to_owned()))
            .collect()
    }
}

/// How many capabilities this program knows.
pub(super) const KNOWN_CAPABILITIES: usize = CAPABILITIES.len();

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

fn namespaces() -> BTreeMap<String, u64> {
    ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"]
        .into_iter()
        .filter_map(|kind| {
            let target = fs::read_link(format!("/proc/self/ns/{kind}")).ok()?;
            let inode = target.to_str()?.split_once('[')?.1.strip_suffix(']')?.parse().ok()?;
            Some((kind.to_owned(), inode))
        })
        .collect()
}

/// The last mount on `/` of a mountinfo (proc_pid_mountinfo(5)).
fn root_mount(mountinfo: &str) -> Option<Root> {
    let line = mountinfo.lines().rfind(|line| line.split(' ').nth(4) == Some("/"))?;
    let (before, after) = line.split_once(" - ")?;
    let options = before.split(' ').nth(5)?;
    let mut rest = after.split(' ');
    let kind = rest.next()?.to_owned();
    let super_options = rest.nth(1).unwrap_or_default();
    let lower = super_options.split(',').filter_map(|option| {
        option.strip_prefix("lowerdir+=").map(|_| 1).or_else(|| {
            option.strip_prefix("lowerdir=").map(|list| list.replace("\\:", "").split(':').count())
        })
    });
    let layers = lower.sum::<usize>();
    Some(Root {
        kind,
        writable: options.split(',').all(|option| option != "ro"),
        layers: (layers > 0).then_some(layers),
    })
}

/// The path in the unified hierarchy, or in the memory hierarchy of v1.
fn cgroup_path(cgroup: &str) -> Option<String> {
    let path_of = |wanted: &str| {
        cgroup.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            controllers.split(',').any(|name| name == wanted).then(|| path.to_owned())
        })
    };
    path_of("memory").or_else(|| path_of(""))
}

/// A cgroup file's text with the version of the hierarchy it was found in; from the process's own group, or from the
/// root of what is mounted (which is the own group inside a cgroup namespace).
fn read_limit(mountinfo: &str, cgroup: &str, v2: &str, v1: &[&str]) -> Option<(u8, String)> {
    let [controller, file] = v1 else { return None };
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let Some(point) = before.split(' ').nth(4) else { continue };
        let mut rest = after.split(' ');
        let kind = rest.next().unwrap_or_default();
        let options = rest.nth(1).unwrap_or_default();
        let (version, file) = match kind {
            "cgroup2" => (2, v2),
            "cgroup" if options.split(',').any(|option| option == *controller) => (1, *file),
            _ => continue,
        };
        let own = cgroup.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, names, path) = (parts.next()?, parts.next()?, parts.next()?);
            let right =
                if version == 2 { names.is_empty() } else { names.split(',').any(|n| n == *controller) };
            right.then(|| path.trim_end_matches('/').to_owned())
        });
        for group in [own.unwrap_or_default(), String::new()] {
            if let Ok(text) = fs::read_to_string(format!("{point}{group}/{file}")) {
                return Some((version, text));
            }
        }
    }
    None
}

fn quota_v2(text: &str) -> Option<u64> {
    let (quota, period) = text.trim().split_once(' ')?;
    (number(quota)? * 1000).checked_div(number(period)?)
}

fn quota_v1(quota: &str, period: &str) -> Option<u64> {
    (number(quota)? * 1000).checked_div(number(period)?)
}

fn user_name(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut parts = line.split(':');
        let name = parts.next()?;
        (parts.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_mount_is_the_last_one_on_slash() {
        let text = "1 0 8:1 / / rw,relatime - ext4 /dev/sda rw\n\
                    2 1 0:40 / / ro,relatime shared:1 - overlay overlay rw,lowerdir=/a:/b:/c,upperdir=/u,workdir=/w\n\
                    3 2 0:41 / /proc rw - proc proc rw\n";
        let root = root_mount(text).unwrap();
        assert_eq!(root, Root { kind: "overlay".to_owned(), writable: false, layers: Some(3) });
        let text = "2 1 0:40 / / rw - overlay none rw,lowerdir+=/a,lowerdir+=/b,upperdir=/u\n";
        assert_eq!(root_mount(text).unwrap().layers, Some(2));
        assert_eq!(root_mount("garbage\n - \n"), None);
    }

    #[test]
    fn quotas_and_groups() {
        assert_eq!(quota_v2("150000 100000\n"), Some(1500));
        assert_eq!(quota_v2("max 100000\n"), None);
        assert_eq!(quota_v1("-1", "100000"), None);
        assert_eq!(quota_v1("50000", "0"), None);
        assert_eq!(cgroup_path("5:cpu,cpuacct:/a\n3:memory:/m\n0::/u\n").as_deref(), Some("/m"));
        assert_eq!(cgroup_path("0::/u\n").as_deref(), Some("/u"));
    }

    #[test]
    fn this_process_can_be_asked() {
        let facts = Facts::read();
        assert!(facts.namespaces.contains_key("mnt"));
        assert!(facts.root.is_some());
    }
}
