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
    let given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    if given(&process.selinux_label) && !selinux_is_on() {
        let text = "SELinux is disabled or not supported here; leave the label out";
        return Err(Error::unsupported("process.selinuxLabel", text));
    }
    Ok(())
}

/// What is passed over: a label of the mounts, which callers write without looking whether SELinux is there.
pub(crate) fn warning(linux: &Linux) -> Option<String> {
    let label = linux.mount_label.as_deref().filter(|label| !label.is_empty() && !selinux_is_on())?;
    Some(format!("the label {label} of the mounts was not set: SELinux is disabled or not supported here"))
}
