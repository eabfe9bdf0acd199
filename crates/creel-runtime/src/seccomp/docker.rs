//! Docker's profile format: the specification's, with conditions on capabilities, architectures and kernels.

use creel_types::spec::{Seccomp, SyscallArg, SyscallRule};
use serde::Deserialize;
use serde_json::Value;

use super::arch::Arch;
use super::compile;
use super::error::Error;

/// The largest profile that is read, in bytes; Docker's own has 12 KiB.
const MAX_PROFILE: usize = 4 << 20;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    #[serde(default)]
    default_action: Option<String>,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
    #[serde(default)]
    arch_map: Option<Vec<ArchMap>>,
    #[serde(default)]
    flags: Option<Vec<String>>,
    #[serde(default)]
    listener_path: Option<String>,
    #[serde(default)]
    listener_metadata: Option<String>,
    #[serde(default)]
    syscalls: Option<Vec<Call>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Call {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: String,
    #[serde(default)]
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<Argument>>,
    #[serde(default)]
    includes: Option<Conditions>,
    #[serde(default)]
    excludes: Option<Conditions>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u32,
    #[serde(default)]
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Conditions {
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
    #[serde(default)]
    min_kernel: Option<String>,
}

/// Reads a profile in Docker's format for a container with these capabilities (its bounding set), on this machine's
/// architecture and kernel.
///
/// # Errors
/// [`Error::Json`] for what is not such a profile, [`Error::Invalid`] for contradictions in it, and everything that
/// [`super::compile()`] would refuse.
pub fn from_docker_json(json: &str, caps: &[String]) -> Result<Seccomp, Error> {
    let release = rustix::system::uname();
    read(json, caps, Arch::native()?, &release.release().to_string_lossy())
}

/// The same for a given machine.
pub(super) fn read(json: &str, caps: &[String], arch: Arch, release: &str) -> Result<Seccomp, Error> {
    if json.len() > MAX_PROFILE {
        return Err(Error::Invalid(format!(
            "{} bytes are more than the {MAX_PROFILE} that are read",
            json.len()
        )));
    }
    let wrong = |e: serde_json::Error| Error::Json(e.to_string());
    let document: Value = serde_json::from_str(json).map_err(wrong)?;
    objects_only(&document)?;
    let profile: Profile = serde_json::from_value(document).map_err(wrong)?;
    let calls = profile.syscalls.unwrap_or_default();
    let Some(default_action) = profile.default_action.filter(|action| !action.is_empty()) else {
        return Err(Error::Invalid(
            "defaultAction is missing; SCMP_ACT_ALLOW would let all calls through".into(),
        ));
    };
    let mut architectures = profile.architectures.unwrap_or_default();
    let map = profile.arch_map.unwrap_or_default();
    if !architectures.is_empty() && !map.is_empty() {
        return Err(Error::Invalid("'architectures' and 'archMap' are both given; use one of them".into()));
    }
    if let Some(own) = map.into_iter().find(|entry| entry.architecture == arch.word()) {
        architectures.push(own.architecture);
        architectures.extend(own.sub_architectures.unwrap_or_default());
    }
    let kernel = version(release).unwrap_or((0, 0));
    let mut syscalls = Vec::new();
    for call in calls {
        let (includes, excludes) = (call.includes.unwrap_or_default(), call.excludes.unwrap_or_default());
        if !applies(&includes, &excludes, caps, arch, kernel)? {
            continue;
        }
        let names = match (call.name.filter(|name| !name.is_empty()), call.names.unwrap_or_default()) {
            (Some(_), names) if !names.is_empty() => {
                return Err(Error::Invalid(
                    "'name' and 'names' are both given in one rule; use 'names'".into(),
                ));
            }
            (Some(name), _) => vec![name],
            (None, names) => names,
        };
        let arg =
            |a: Argument| SyscallArg { index: a.index, value: a.value, value_two: a.value_two, op: a.op };
        let args = call.args.unwrap_or_default().into_iter().map(arg).collect();
        syscalls.push(SyscallRule { names, action: call.action, errno_ret: call.errno_ret, args });
    }
    let text = |text: Option<String>| text.filter(|text| !text.is_empty());
    let filter = Seccomp {
        default_action,
        default_errno_ret: profile.default_errno_ret,
        architectures,
        flags: profile.flags,
        listener_path: text(profile.listener_path),
        listener_metadata: text(profile.listener_metadata),
        syscalls,
    };
    // What is wrong shall be said where the profile is given, not when the container starts.
    compile::program(&filter, &compile::covered(&filter, arch)?)?;
    Ok(filter)
}

/// Refuses arrays where objects belong: serde would read `"includes": []` as "no conditions".
fn objects_only(document: &Value) -> Result<(), Error> {
    let check = |value: &Value, what: &str| match value {
        Value::Object(_) | Value::Null => Ok(()),
        _ => Err(Error::Json(format!("{what} is not an object"))),
    };
    check(document, "the profile")?;
    let elements = |value: &Value, field: &str| value[field].as_array().cloned().unwrap_or_default();
    for entry in elements(document, "archMap") {
        check(&entry, "an element of archMap")?;
    }
    for call in elements(document, "syscalls") {
        check(&call, "an element of syscalls")?;
        for field in ["includes", "excludes"] {
            check(&call[field], field)?;
        }
        for arg in elements(&call, "args") {
            check(&arg, "an element of args")?;
        }
    }
    Ok(())
}

/// Docker's rule: none of the excluded, all of the included capabilities, any of the included architectures.
fn applies(
    includes: &Conditions,
    excludes: &Conditions,
    caps: &[String],
    arch: Arch,
    kernel: (u32, u32),
) -> Result<bool, Error> {
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let since = |text: &Option<String>| match text.as_deref().filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => match version(text) {
            Some(version) => Ok(Some(kernel >= version)),
            None => Err(Error::Invalid(format!("minKernel {text:?} is not a version like 4.8"))),
        },
    };
    let arch_in = |list: &[String]| list.iter().any(|word| word == arch.docker_word());
    let excluded = arch_in(&list(&excludes.arches))
        || list(&excludes.caps).iter().any(|cap| caps.contains(cap))
        || since(&excludes.min_kernel)? == Some(true);
    let arches = list(&includes.arches);
    let included = (arches.is_empty() || arch_in(&arches))
        && list(&includes.caps).iter().all(|cap| caps.contains(cap))
        && since(&includes.min_kernel)? != Some(false);
    Ok(included && !excluded)
}

/// The first two numbers of a version, like those of `6.18.44-fc`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.splitn(3, '.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?;
    let digits = minor.bytes().take_while(u8::is_ascii_digit).count();
    Some((major, minor[..digits].parse().ok()?))
}
