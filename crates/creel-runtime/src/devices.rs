//! Device nodes and the links below `/dev` (runtime-spec, "Default Devices" and "Dev symbolic links").

use creel_types::spec::{Linux, NamespaceKind};
use serde::Serialize;

use crate::plan::Step;
use crate::{Error, namespaces, validate};

/// One node to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceNode {
    /// Absolute path inside the container.
    pub path: String,
    /// Type bits of the mode: `S_IFCHR`, `S_IFBLK` or `S_IFIFO`.
    pub kind: u32,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

const DEFAULTS: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// The steps for the Spec's devices, the default ones that it does not name itself, and the links.
///
/// # Errors
/// [`Error::Invalid`] for an unknown type, a relative path or a number out of range.
pub(crate) fn plan(linux: &Linux) -> Result<Vec<Step>, Error> {
    let mut nodes = Vec::new();
    for (index, device) in linux.devices.iter().enumerate() {
        let field = format!("linux.devices[{index}]");
        validate::absolute(&format!("{field}.path"), &device.path)?;
        let kind = match device.kind.as_str() {
            "c" | "u" => libc::S_IFCHR,
            "b" => libc::S_IFBLK,
            "p" => libc::S_IFIFO,
            other => {
                return Err(Error::invalid(field, format!("{other} is no type of device: c, u, b or p")));
            }
        };
        let number = |value: Option<i64>, max: u32, name: &str| {
            let wrong = |reason| Error::invalid(format!("{field}.{name}"), reason);
            let value = value.ok_or_else(|| wrong("a device needs it; only a fifo has none".into()))?;
            let number = u32::try_from(value).ok().filter(|number| *number <= max);
            number.ok_or_else(|| wrong(format!("{value} is no device number")))
        };
        nodes.push(DeviceNode {
            path: device.path.clone(),
            kind,
            major: if kind == libc::S_IFIFO { 0 } else { number(device.major, 0xfff, "major")? },
            minor: if kind == libc::S_IFIFO { 0 } else { number(device.minor, 0xf_ffff, "minor")? },
            mode: device.file_mode.unwrap_or(0o666) & 0o7777,
            uid: device.uid.unwrap_or(0),
            gid: device.gid.unwrap_or(0),
        });
    }
    for (path, major, minor) in DEFAULTS {
        if !nodes.iter().any(|node| node.path == path) {
            nodes.push(DeviceNode {
                path: path.into(),
                kind: libc::S_IFCHR,
                major,
                minor,
                mode: 0o666,
                uid: 0,
                gid: 0,
            });
        }
    }
    // The kernel lets nobody make device nodes in a user namespace of his own.
    let binds = namespaces::has(&linux.namespaces, NamespaceKind::User);
    let step = |device: DeviceNode| match binds && device.kind != libc::S_IFIFO {
        true => Step::BindDevice { device },
        false => Step::Device { device },
    };
    let mut steps: Vec<Step> = nodes.into_iter().map(step).collect();
    steps.extend(LINKS.map(|(path, target)| Step::Link { path: path.into(), target: target.into() }));
    Ok(steps)
}
