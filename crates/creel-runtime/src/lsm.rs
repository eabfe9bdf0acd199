//! Security modules of the host: whether they are there, and what a process asks of them.

use creel_types::spec::{Linux, Process};

use crate::Error;

const SELINUX_MAGIC: u64 = 0xf97c_ff8c;

/// Whether SELinux is on: its file system is mounted, with a policy loaded (selinux(8)).
pub(crate) fn selinux_is_on() -> bool {
    rustix::fs::statfs("/sys/fs/selinux").is_ok_and(|stat| stat.f_type as u64 == SELINUX_MAGIC)
}

/// Refuses a label that nothing here would enforce. (A profile of AppArmor, which callers set without looking whether it
/// is there, is only warned about: see `process`.)
///
/// # Errors
/// [`Error::Unsupported`].
pub(crate) fn check(process: &Process) -> Result<(), Error> {
    label("process.selinuxLabel", process.selinux_label.as_deref())
}

/// The same for the label of the mounts.
pub(crate) fn check_mounts(linux: &Linux) -> Result<(), Error> {
    label("linux.mountLabel", linux.mount_label.as_deref())
}

fn label(field: &str, text: Option<&str>) -> Result<(), Error> {
    if text.is_some_and(|text| !text.is_empty()) && !selinux_is_on() {
        return Err(Error::unsupported(
            field,
            "SELinux is disabled or not supported here; leave the label out",
        ));
    }
    Ok(())
}
