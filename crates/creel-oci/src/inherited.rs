//! Descriptors that the caller wants the container to have: those of socket activation (sd_listen_fds(3)) and
//! `--preserve-fds`.

use crate::error::{Error, Result};

/// What was inherited, as it was before this process opened anything itself.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    /// How many descriptors from 3 on came by socket activation.
    listening: u32,
    /// How many are wanted in all.
    wanted: u32,
    /// The first that is wanted and not open.
    missing: Option<u32>,
}

impl Inherited {
    /// Looks at what is open; to be called before anything else is opened. All that is not wanted is closed when
    /// another program is executed.
    pub(crate) fn look(preserve: i64, listening: bool) -> Inherited {
        let listening = if listening { listen_fds() } else { 0 };
        let preserve = u32::try_from(preserve.clamp(0, 1 << 16)).unwrap_or(0);
        let wanted = listening + preserve;
        let open = |fd: u32| std::fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_ok();
        let missing = (3..3 + wanted).find(|fd| !open(*fd));
        // What the caller has left open by mistake is no business of hooks and helpers.
        let _ = creel_sys::close_range::cloexec_from(3);
        Inherited { listening, wanted, missing }
    }

    /// The descriptors to hand on.
    ///
    /// # Errors
    /// [`Error::Invalid`] when one is not open: something of this process's own would be handed on in its place.
    pub(crate) fn preserved(&self) -> Result<Vec<i32>> {
        if let Some(fd) = self.missing {
            return Err(Error::Invalid(format!(
                "unable to stat preserved-fd {} (of {}): descriptor {fd} is not open",
                fd - 3,
                self.wanted
            )));
        }
        (3..3 + self.wanted)
            .map(|fd| i32::try_from(fd).map_err(|_| Error::Invalid("too many".into())))
            .collect()
    }

    /// Tells the program of activated sockets.
    pub(crate) fn announce(&self, env: &mut Vec<String>) {
        if self.listening > 0 {
            env.push(format!("LISTEN_FDS={}", self.listening));
            env.push("LISTEN_PID=1".into());
        }
    }
}

fn listen_fds() -> u32 {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    let mine = number("LISTEN_PID").is_none_or(|pid| pid == std::process::id());
    if mine { number("LISTEN_FDS").unwrap_or(0).min(1 << 16) } else { 0 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_open_is_refused() {
        let some = Inherited { listening: 1, wanted: 2, missing: None };
        assert_eq!(some.preserved().unwrap(), [3, 4]);
        let mut env = vec!["A=b".to_owned()];
        some.announce(&mut env);
        assert_eq!(env, ["A=b", "LISTEN_FDS=1", "LISTEN_PID=1"]);
        let none = Inherited { listening: 0, wanted: 2, missing: Some(4) };
        let text = none.preserved().unwrap_err().to_string();
        assert_eq!(text, "unable to stat preserved-fd 1 (of 2): descriptor 4 is not open");
        assert_eq!(Inherited::look(1 << 15, false).preserved().is_err(), true);
        assert_eq!(Inherited::look(0, false).preserved().unwrap(), [0i32; 0]);
    }
}
