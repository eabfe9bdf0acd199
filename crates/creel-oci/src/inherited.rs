//! Descriptors that the caller wants the container to have: those of socket activation (sd_listen_fds(3)) and
//! `--preserve-fds`.

/// What was inherited, as it was before this process opened anything itself.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    /// How many descriptors from 3 on came by socket activation.
    listening: u32,
    /// Those that are wanted and open.
    open: Vec<i32>,
}

impl Inherited {
    /// Looks at what is open; to be called before anything else is opened. All that is not wanted is closed when
    /// another program is executed.
    ///
    /// What is wanted and not open is passed over, as callers of runc expect; it must be known now, or something of
    /// this process's own would have the number by the time it is handed on.
    pub(crate) fn look(preserve: i64, listening: bool) -> Inherited {
        let listening = if listening { listen_fds() } else { 0 };
        let preserve = i32::try_from(preserve.clamp(0, 1 << 16)).unwrap_or(0);
        let wanted = i32::try_from(listening).unwrap_or(0) + preserve;
        let open = |fd: &i32| {
            Some(*fd) != creel_sys::image::kept()
                && std::fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_ok()
        };
        let open = (3..3 + wanted).filter(open).collect();
        // What the caller has left open by mistake is no business of hooks and helpers.
        let _ = creel_sys::close_range::cloexec_from(3);
        Inherited { listening, open }
    }

    /// The descriptors to hand on.
    pub(crate) fn preserved(&self) -> Vec<i32> {
        self.open.clone()
    }

    /// Tells the program of activated sockets; says whether there are any.
    pub(crate) fn announce(&self, env: &mut Vec<String>) -> bool {
        if self.listening > 0 {
            env.push(format!("LISTEN_FDS={}", self.listening));
            env.push("LISTEN_PID=1".into());
        }
        self.listening > 0
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
    fn what_is_not_open_is_passed_over() {
        let some = Inherited { listening: 1, open: vec![3, 4] };
        let mut env = vec!["A=b".to_owned()];
        some.announce(&mut env);
        assert_eq!(env, ["A=b", "LISTEN_FDS=1", "LISTEN_PID=1"]);
        assert!(Inherited::look(1 << 15, false).preserved().len() < 1 << 15);
        assert!(Inherited::look(0, false).preserved().is_empty());
    }
}
