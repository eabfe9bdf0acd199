//! The user's terminal: raw mode, and its size.
//!
//! Whoever enters raw mode must leave it on every way out. [`RawMode`] does so when it is dropped, a panic hook when
//! the program panics (which aborts release builds without dropping anything), and [`restore`] before a signal ends
//! the program.

use std::io::Write;

use std::io::IsTerminal as _;
use std::sync::{Mutex, Once, PoisonError};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

static SAVED: Mutex<Option<Termios>> = Mutex::new(None);
static HOOK: Once = Once::new();

/// Raw mode of standard input; ends when this is dropped.
#[derive(Debug)]
pub(crate) struct RawMode(());

impl RawMode {
    /// Makes standard input raw; `None` if it is no terminal.
    ///
    /// # Errors
    /// The kernel's (tcsetattr(3)).
    pub(crate) fn enter() -> std::io::Result<Option<Self>> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(&stdin)?;
        HOOK.call_once(|| {
            let previous = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                restore();
                previous(info);
            }));
        });
        let mut raw = before.clone();
        raw.make_raw();
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        tcsetattr(&stdin, OptionalActions::Now, &raw).inspect_err(|_| restore())?;
        Ok(Some(Self(())))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back the mode it had before [`RawMode::enter`]; does nothing if there was none.
pub(crate) fn restore() {
    // `try_lock`: a panic while the lock is held must not hang here.
    let saved = match SAVED.try_lock() {
        Ok(mut guard) => guard.take(),
        Err(_) => None,
    };
    if let Some(before) = saved {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Drain, &before);
    }
}

/// Whether standard input is a terminal.
pub(crate) fn stdin_is_terminal() -> bool {
    std::io::stdin().is_terminal()
}

/// Whether standard output is a terminal.
pub(crate) fn stdout_is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Whether standard error is a terminal.
pub(crate) fn stderr_is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// Rows and columns of the terminal on standard output, or else on standard error; `None` without one.
pub(crate) fn size() -> Option<(u16, u16)> {
    let of = |size: rustix::termios::Winsize| (size.ws_row, size.ws_col);
    tcgetwinsize(std::io::stdout())
        .or_else(|_| tcgetwinsize(std::io::stderr()))
        .ok()
        .map(of)
        .filter(|s| s.0 > 0 && s.1 > 0)
}

/// Asks by `prompt` and reads a line from the terminal on standard input without showing it. `None` if the user gave up by
/// Ctrl-C.
///
/// # Errors
/// The kernel's (tcsetattr(3), read(2)), and what is typed is not UTF-8.
pub(crate) fn hidden_line(prompt: &str) -> std::io::Result<Option<String>> {
    // Raw: nothing is shown, and Ctrl-C comes as a byte, so that the terminal is never left without its echo.
    let _raw = RawMode::enter()?;
    // Not before: who answers at once would be shown what he types.
    let mut out = std::io::stdout();
    out.write_all(prompt.as_bytes()).and_then(|()| out.flush())?;
    let mut line = Vec::new();
    loop {
        let mut byte = [0];
        match rustix::io::read(std::io::stdin(), &mut byte) {
            Ok(0) => break,
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return Err(e.into()),
        }
        match byte[0] {
            b'\r' | b'\n' | 0x04 => break,
            0x03 => return Ok(None),
            // Backspace takes a whole character back, Ctrl-U everything.
            0x08 | 0x7f => while line.pop().is_some_and(|last: u8| last & 0xc0 == 0x80) {},
            0x15 => line.clear(),
            other => line.push(other),
        }
    }
    String::from_utf8(line)
        .map(Some)
        .map_err(|_| std::io::Error::new(std::io::ErrorKind::InvalidData, "it is not valid UTF-8"))
}
