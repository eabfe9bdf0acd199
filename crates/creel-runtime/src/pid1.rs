//! `--init`: a minimal process 1 that forwards signals, reaps orphans and ends with its child's code.

use std::ffi::{CString, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStringExt;

use creel_sys::clone::{Clone, Cloned, clone};
use creel_sys::process::{Ended, Exec, Whom, exit_now, wait};
use creel_sys::signal::{self, SignalSet};
use rustix::event::{PollFd, PollFlags, poll};

use crate::program;

/// Signals that are about this process itself, or that only the kernel sends it, and so are not forwarded: faults,
/// SIGCHLD, and those that come from its own use of the terminal.
const OWN: [i32; 11] = [
    libc::SIGCHLD,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGABRT,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGKILL,
];

/// Runs as process 1: `args` are what follows `argv[0]` in `/sbin/docker-init -- program args…` (the leading `--` is
/// passed over). Never returns; the exit code is the child's, 128 + signal if a signal ended it, 127 or 126 when the
/// program is missing or cannot be executed.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ! {
    let mut args: Vec<OsString> = args.into_iter().collect();
    if args.first().is_some_and(|arg| arg == "--") {
        args.remove(0);
    }
    let code = match run(args) {
        Ok(code) => code,
        Err((code, text)) => {
            let _ = writeln!(std::io::stderr(), "creel init: {text}");
            code
        }
    };
    exit_now(code)
}

/// Arguments and environment are handed on as they came, whatever bytes they hold.
fn prepare(args: Vec<OsString>) -> Result<Exec, (i32, String)> {
    let name = args.first().ok_or_else(|| (125, "no program is named".to_string()))?;
    let path_variable = std::env::var("PATH").map(|path| format!("PATH={path}"));
    let env: Vec<String> = path_variable.into_iter().collect();
    let path = program::find(&name.to_string_lossy(), &env)
        .map_err(|fault| (i32::from(fault.kind.run_exit_code()), fault.message))?;
    let text = |bytes: Vec<u8>| CString::new(bytes).map_err(|e| (125, e.to_string()));
    let variable =
        |(name, value): (OsString, OsString)| text([name.into_vec(), value.into_vec()].join(&b'='));
    let envp = std::env::vars_os().map(variable).collect::<Result<_, _>>()?;
    let argv = args.into_iter().map(|arg| text(arg.into_vec())).collect::<Result<_, _>>()?;
    Ok(Exec::new(text(path.into_bytes())?, argv, envp))
}

fn run(args: Vec<OsString>) -> Result<i32, (i32, String)> {
    let exec = prepare(args)?;
    let io = |e: std::io::Error| (125, e.to_string());
    let before = signal::set_mask(SignalSet::ALL).map_err(io)?;
    let signals = signal::signalfd(SignalSet::ALL).map_err(io)?;
    let child = match clone(&Clone::default()).map_err(io)? {
        Cloned::Parent { pid, .. } => pid,
        Cloned::Child => {
            // A group of its own, in the foreground: what the terminal sends reaches the program once, not twice.
            let own = rustix::process::getpid();
            if rustix::process::setpgid(None, None).is_ok() {
                let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), own);
            }
            signal::reset_dispositions();
            let _ = signal::set_mask(before);
            let error = exec.run();
            let fault = program::failed(&exec.program().to_string_lossy(), &error);
            let _ = writeln!(std::io::stderr(), "creel init: {}", fault.message);
            exit_now(i32::from(fault.kind.run_exit_code()))
        }
    };
    loop {
        let mut fds = [PollFd::new(&signals, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err((125, e.to_string())),
        }
        while let Some(info) = signal::read_signalfd(&signals).map_err(io)? {
            if !OWN.contains(&info.signal) {
                let _ = signal::kill(child, info.signal);
            }
        }
        if let Some(ended) = reap(child) {
            return Ok(ended.code());
        }
    }
}

/// Reaps everything that has ended; the end of `child` if it is among them.
fn reap(child: i32) -> Option<Ended> {
    let mut end = None;
    while let Ok(Some((pid, ended))) = wait(Whom::Any, false) {
        if pid == child {
            end = Some(ended);
        }
    }
    end
}
