//! What `/proc/PID/stat` says: whether a process lives, and when it was started. A process id that was given to
//! another process is told apart by the start time.

use creel_sys::kernelfs;

/// State letter and start time (clock ticks since boot) of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) state: char,
    pub(crate) start_time: u64,
}

impl Stat {
    /// Whether it can still do anything.
    pub(crate) fn lives(self) -> bool {
        !matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// Reads it; `None` when there is no such process.
pub(crate) fn stat(pid: i32) -> Option<Stat> {
    parse(&kernelfs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The program's name in parentheses may hold anything, further parentheses and newlines included.
pub(crate) fn parse(text: &[u8]) -> Option<Stat> {
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(text.get(end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    // Field 22 of proc_pid_stat(5); the state is field 3.
    let start_time = fields.nth(18)?.parse().ok()?;
    Some(Stat { state, start_time })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn this_process_lives() {
        let stat = stat(std::process::id() as i32).unwrap();
        assert!(stat.lives() && stat.start_time > 0);
        assert_eq!(super::stat(i32::MAX), None);
    }

    proptest! {
        #[test]
        fn names_do_not_confuse(name in proptest::collection::vec(any::<u8>(), 0..16), start: u64) {
            let mut text = b"12 (".to_vec();
            text.extend(&name);
            text.extend(b") S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 ");
            text.extend(format!("{start} 20 21").bytes());
            prop_assert_eq!(parse(&text), Some(Stat { state: 'S', start_time: start }));
        }

        #[test]
        fn nothing_panics(text in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&text);
        }
    }
}
