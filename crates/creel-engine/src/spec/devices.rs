//! `--device`, `--device-cgroup-rule` and `--privileged`'s devices.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use creel_types::spec::{Device, DeviceRule};
use creel_wire::host::DeviceMapping;

use crate::error::{Error, Result};

/// A device node of the host that a container gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostDevice {
    /// Path in the container.
    pub(crate) path: String,
    /// `c` or `b`.
    pub(crate) kind: char,
    pub(crate) major: i64,
    pub(crate) minor: i64,
    /// Permission bits.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Any of `r`, `w`, `m`.
    pub(crate) access: String,
}

impl HostDevice {
    pub(super) fn node(&self) -> Device {
        Device {
            kind: self.kind.to_string(),
            path: self.path.clone(),
            major: Some(self.major),
            minor: Some(self.minor),
            file_mode: Some(self.mode),
            uid: Some(self.uid),
            gid: Some(self.gid),
        }
    }

    pub(super) fn rule(&self) -> DeviceRule {
        rule(true, Some(self.kind), Some(self.major), Some(self.minor), &self.access)
    }

    fn read(path: &Path, inside: &str, access: &str) -> std::io::Result<Option<Self>> {
        let meta = std::fs::metadata(path)?;
        let kind = match meta.file_type() {
            kind if kind.is_char_device() => 'c',
            kind if kind.is_block_device() => 'b',
            _ => return Ok(None),
        };
        let number = meta.rdev();
        Ok(Some(Self {
            path: inside.to_owned(),
            kind,
            major: i64::from(rustix::fs::major(number)),
            minor: i64::from(rustix::fs::minor(number)),
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            access: access.to_owned(),
        }))
    }
}

/// Reads one `--device`: a node, or all nodes below a directory.
pub(crate) fn read(mapping: &DeviceMapping) -> Result<Vec<HostDevice>> {
    let path = &mapping.path_on_host;
    let wrong = |why: String| {
        Error::invalid(format!(
            "error gathering device information while adding custom device \"{path}\": {why}"
        ))
    };
    let missing = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => wrong("no such file or directory".into()),
        _ => wrong(e.to_string()),
    };
    let access = if mapping.cgroup_permissions.is_empty() { "rwm" } else { &mapping.cgroup_permissions };
    if !access.bytes().all(|b| b"rwm".contains(&b)) {
        return Err(Error::invalid(format!("invalid device mode: {access}")));
    }
    let inside = if mapping.path_in_container.is_empty() { path } else { &mapping.path_in_container };
    if !path.starts_with('/') || !inside.starts_with('/') {
        return Err(wrong("absolute paths are wanted".into()));
    }
    let source = Path::new(path);
    if !std::fs::metadata(source).map_err(missing)?.is_dir() {
        return match HostDevice::read(source, inside, access).map_err(missing)? {
            Some(device) => Ok(vec![device]),
            None => Err(wrong("not a device node".into())),
        };
    }
    let mut devices = Vec::new();
    walk(source, Path::new(inside), access, 0, &mut devices);
    if devices.is_empty() {
        return Err(wrong("there is no device node in it".into()));
    }
    Ok(devices)
}

/// All device nodes of the host, for `--privileged`.
pub(crate) fn all_of_host() -> Vec<HostDevice> {
    let mut devices = Vec::new();
    walk(Path::new("/dev"), Path::new("/dev"), "rwm", 0, &mut devices);
    devices.retain(|device| !matches!(device.path.as_str(), "/dev/console" | "/dev/ptmx" | "/dev/tty"));
    devices
}

fn walk(dir: &Path, inside: &Path, access: &str, depth: u32, devices: &mut Vec<HostDevice>) {
    // Deep trees of nodes do not exist; a loop of bind mounts may.
    if depth > 8 {
        return;
    }
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let (path, inside) = (entry.path(), inside.join(entry.file_name()));
        let Ok(kind) = entry.file_type() else { continue };
        let skipped = dir == Path::new("/dev")
            && matches!(
                entry.file_name().to_str(),
                Some("pts" | "shm" | "fd" | "mqueue" | ".lxc" | ".lxd-mounts" | ".udev")
            );
        if kind.is_dir() && !skipped {
            walk(&path, &inside, access, depth + 1, devices);
        } else if kind.is_char_device() || kind.is_block_device() {
            devices.extend(HostDevice::read(&path, &inside.to_string_lossy(), access).ok().flatten());
        }
    }
}

fn rule(allow: bool, kind: Option<char>, major: Option<i64>, minor: Option<i64>, access: &str) -> DeviceRule {
    DeviceRule { allow, kind: kind.map(String::from), major, minor, access: Some(access.to_owned()) }
}

/// The rules of every container: nothing but nodes without data behind them, terminals, and tun.
pub(super) fn default_rules() -> Vec<DeviceRule> {
    let char = |major, minor| rule(true, Some('c'), Some(major), minor, "rwm");
    vec![
        rule(false, None, None, None, "rwm"),
        rule(true, Some('c'), None, None, "m"),
        rule(true, Some('b'), None, None, "m"),
        char(1, Some(3)),
        char(1, Some(5)),
        char(1, Some(7)),
        char(1, Some(8)),
        char(1, Some(9)),
        char(5, Some(0)),
        char(5, Some(1)),
        char(5, Some(2)),
        char(136, None),
        char(10, Some(200)),
    ]
}

/// The rules of a privileged container.
pub(super) fn every_device() -> Vec<DeviceRule> {
    vec![rule(true, None, None, None, "rwm")]
}

/// Reads `--device-cgroup-rule`: `c 10:200 rwm`, with `*` for any number and `a` for both kinds.
pub(crate) fn parse_rule(text: &str) -> Result<DeviceRule> {
    let wrong = || Error::invalid(format!("invalid device cgroup rule format: '{text}'"));
    let parts: Vec<&str> = text.split_whitespace().collect();
    let [kind, numbers, access] = parts[..] else { return Err(wrong()) };
    let (major, minor) = numbers.split_once(':').ok_or_else(wrong)?;
    let number = |n: &str| match n {
        "*" => Ok(None),
        n if !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) => {
            n.parse::<i64>().map(Some).map_err(|_| wrong())
        }
        _ => Err(wrong()),
    };
    let kind = match kind {
        "a" => None,
        "b" => Some('b'),
        "c" => Some('c'),
        _ => return Err(wrong()),
    };
    if access.len() > 3 || !access.bytes().all(|b| b"rwm".contains(&b)) {
        return Err(wrong());
    }
    Ok(rule(true, kind, number(major)?, number(minor)?, access))
}
