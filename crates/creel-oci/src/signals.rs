//! `kill`: a signal for the container's first process, or for all of them.

use crate::container::{self, Loaded};
use crate::error::{Error, Result};
use crate::options::Options;

/// `kill [--all] ID [SIGNAL]`.
pub(crate) fn kill(o: &Options, id: &str, signal: Option<&str>, all: bool) -> Result<()> {
    let loaded = container::load(o, id)?;
    let signal = parse(signal.filter(|text| !text.is_empty()).unwrap_or("SIGTERM"))?;
    match send(&loaded, signal, all) {
        Err(Error::NotRunning) if all => Ok(()),
        other => other,
    }
}

/// A signal by number (0 only asks) or by name, with or without `SIG`.
pub(crate) fn parse(text: &str) -> Result<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return Ok(number);
    }
    creel_sys::signal::parse(text).ok_or_else(|| Error::Invalid(format!("unknown signal {text:?}")))
}

fn send(loaded: &Loaded, signal: i32, all: bool) -> Result<()> {
    let record = &loaded.record;
    // Killing process 1 of a pid namespace ends everything in it; where there is none the rest would be left over.
    let whole_group = (signal == libc::SIGKILL && !record.own_pids) || all;
    if whole_group && let Some(cgroup) = record.group.open()? {
        // 0 only asks: it reaches whoever is there.
        let asked = if signal == libc::SIGKILL { 0 } else { signal };
        let many = match cgroup.signal_all(asked) {
            Err(creel_cgroup::Error::NotFound { .. }) => 0,
            other => other?,
        };
        if many == 0 && !record.lives() {
            return Err(Error::NotRunning);
        }
        if signal == libc::SIGKILL {
            cgroup.kill_all()?;
            return thaw(loaded);
        }
        return Ok(());
    }
    let init = loaded.init()?;
    creel_sys::pidfd::send_signal(&init, signal).map_err(|e| match e.raw_os_error() {
        Some(libc::ESRCH) => Error::NotRunning,
        _ => Error::call("unable to signal init", e),
    })?;
    if signal == libc::SIGKILL { thaw(loaded) } else { Ok(()) }
}

/// A process that is frozen by cgroup v1 does not die before it is thawed.
fn thaw(loaded: &Loaded) -> Result<()> {
    if let Some(cgroup) = loaded.record.group.open()?
        && cgroup.is_frozen().unwrap_or(false)
    {
        // It may be gone by now.
        let _ = cgroup.thaw();
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        for (text, number) in
            [("KILL", 9), ("sigterm", 15), ("9", 9), ("0", 0), ("SIGRTMIN+1", 35), ("RTMAX", 64), ("99", 99)]
        {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        assert_eq!(parse("nosig").unwrap_err().to_string(), "unknown signal \"nosig\"");
    }
}
