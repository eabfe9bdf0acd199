//! `--security-opt`, and the paths that are hidden or read-only.

use creel_types::spec::Seccomp;

use crate::error::{Error, Result};

/// Which system call filter a container gets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Filter {
    /// Docker's.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// One in Docker's JSON format.
    Profile(String),
}

/// What the options say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Security {
    pub(crate) filter: Filter,
    pub(crate) no_new_privileges: bool,
}

/// Reads the options.
pub(crate) fn parse(options: &[String]) -> Result<Security> {
    let mut security = Security::default();
    for option in options {
        let (name, value) = match option.split_once('=').or_else(|| option.split_once(':')) {
            Some(pair) => pair,
            None => (option.as_str(), ""),
        };
        let wrong = || Error::invalid(format!("invalid --security-opt 2: \"{option}\""));
        match (name, value) {
            ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
            ("no-new-privileges", "false") => security.no_new_privileges = false,
            ("no-new-privileges", _) => return Err(wrong()),
            ("seccomp", "unconfined") => security.filter = Filter::Unconfined,
            ("seccomp", "builtin" | "default") => security.filter = Filter::Default,
            ("seccomp", json) if json.trim_start().starts_with('{') => {
                serde_json::from_str::<serde::de::IgnoredAny>(json)
                    .map_err(|e| Error::invalid(format!("the seccomp profile is not JSON: {e}")))?;
                security.filter = Filter::Profile(json.to_owned());
            }
            ("seccomp", _) => {
                return Err(Error::invalid(
                    "the seccomp profile is not JSON: an object is wanted; the client reads the file and sends its content",
                ));
            }
            ("apparmor", "unconfined") => {}
            ("apparmor", _) => {
                return Err(Error::unsupported(format!(
                    "security-opt {option}: AppArmor profiles are not in this version of creel yet; only `apparmor=unconfined` is there"
                )));
            }
            ("label", "disable") => {}
            ("label", _) => {
                return Err(Error::unsupported(format!(
                    "security-opt {option}: creel sets no SELinux labels; only `label=disable` is there"
                )));
            }
            ("systempaths", "unconfined") => {}
            _ => return Err(wrong()),
        }
    }
    Ok(security)
}

impl Security {
    /// The filter for a container with these capabilities.
    pub(super) fn seccomp(&self, privileged: bool, capabilities: &[String]) -> Result<Option<Seccomp>> {
        match &self.filter {
            Filter::Unconfined => Ok(None),
            Filter::Default if privileged => Ok(None),
            Filter::Default => Ok(Some(creel_runtime::seccomp::default_profile(capabilities))),
            Filter::Profile(json) => creel_runtime::seccomp::from_docker_json(json, capabilities)
                .map(Some)
                .map_err(|e| Error::invalid(format!("the seccomp profile cannot be used: {e}"))),
        }
    }
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|path| (*path).to_owned()).collect()
}

/// What Docker 28 hides.
pub(crate) fn masked_paths() -> Vec<String> {
    strings(&[
        "/proc/asound",
        "/proc/acpi",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
    ])
}

/// What Docker makes read-only.
pub(crate) fn readonly_paths() -> Vec<String> {
    strings(&["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"])
}
