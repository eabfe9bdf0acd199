//! Terminals: size, keys, signals. The test holds the master side of a pseudo-terminal, as a terminal program does.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::termios::Winsize;

use crate::support::{Daemon, patience};

/// A command on a pseudo-terminal.
pub(crate) struct Terminal {
    child: Child,
    master: File,
    seen: String,
}

impl Terminal {
    pub(crate) fn spawn(daemon: &Daemon, args: &[&str]) -> Self {
        Self::spawn_with(daemon, args, &[])
    }

    /// The same with variables in its environment.
    pub(crate) fn spawn_with(daemon: &Daemon, args: &[&str], env: &[(&str, &str)]) -> Self {
        let master =
            rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).unwrap();
        rustix::pty::grantpt(&master).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        rustix::termios::tcsetwinsize(&master, size(40, 100)).unwrap();
        let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
        let slave =
            || Stdio::from(File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap());
        let inner = daemon.command(args);
        // A session of its own whose terminal this is, so that size changes reach it.
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(inner.get_program()).args(inner.get_args());
        let child =
            command.envs(env.iter().copied()).stdin(slave()).stdout(slave()).stderr(slave()).spawn().unwrap();
        rustix::io::ioctl_fionbio(&master, true).unwrap();
        Self { child, master: File::from(master), seen: String::new() }
    }

    pub(crate) fn send(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until it has printed this, and returns all that came until then.
    pub(crate) fn expect(&mut self, wanted: &str) -> String {
        let begin = Instant::now();
        let mut buffer = [0; 4096];
        while !self.seen.contains(wanted) {
            assert!(begin.elapsed() < patience(), "`{wanted}` was not seen in: {:?}", self.seen);
            match self.master.read(&mut buffer) {
                Ok(n) => self.seen.push_str(&String::from_utf8_lossy(&buffer[..n])),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        let end = self.seen.find(wanted).unwrap() + wanted.len();
        self.seen.drain(..end).collect()
    }

    pub(crate) fn end(mut self) -> Option<i32> {
        let begin = Instant::now();
        let mut buffer = [0; 4096];
        loop {
            // What is not read would block the program's last words.
            while matches!(self.master.read(&mut buffer), Ok(1..)) {}
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(begin.elapsed() < patience(), "the program does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

#[test]
fn a_terminal_has_its_size_and_follows_it() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let mut terminal = Terminal::spawn(&daemon, &["run", "--rm", "-it", "busybox", "sh"]);
    terminal.expect("#");
    terminal.send("stty size; tty\n");
    terminal.expect("40 100");
    terminal.expect("/dev/pts/0");
    rustix::termios::tcsetwinsize(&terminal.master, size(50, 120)).unwrap();
    let begin = Instant::now();
    loop {
        terminal.send("stty size; echo e''nd\n");
        terminal.expect("end");
        terminal.send("stty size; echo x''y\n");
        let mut buffer = [0; 4096];
        std::thread::sleep(Duration::from_millis(100));
        let n = terminal.master.read(&mut buffer).unwrap_or(0);
        if String::from_utf8_lossy(&buffer[..n]).contains("50 120") {
            break;
        }
        assert!(begin.elapsed() < patience(), "the size does not follow");
    }
    terminal.send("exit 5\n");
    assert_eq!(terminal.end(), Some(5));
    daemon.finish();
}

#[test]
fn control_c_reaches_the_program() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let mut terminal = Terminal::spawn(
        &daemon,
        &[
            "run",
            "--rm",
            "-it",
            "busybox",
            "sh",
            "-c",
            "trap 'exit 9' INT; echo ready; while :; do sleep 0.1; done",
        ],
    );
    terminal.expect("ready");
    terminal.send("\x03");
    assert_eq!(terminal.end(), Some(9));
    daemon.finish();
}

#[test]
fn the_detach_keys_leave_the_container_running() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let mut terminal = Terminal::spawn(&daemon, &["run", "-it", "--name", "box", "busybox", "sh"]);
    terminal.expect("#");
    terminal.send("\x10\x11");
    assert_eq!(terminal.end(), Some(0));
    assert_eq!(daemon.inspect("box", "{{.State.Status}}"), "running");
    let mut terminal = Terminal::spawn(&daemon, &["attach", "--detach-keys", "ctrl-a,x", "box"]);
    terminal.send("echo a''gain\n");
    terminal.expect("again");
    terminal.send("\x01x");
    terminal.end();
    assert_eq!(daemon.inspect("box", "{{.State.Status}}"), "running");
    let mut terminal = Terminal::spawn(&daemon, &["exec", "-it", "box", "sh"]);
    terminal.expect("#");
    terminal.send("exit 3\n");
    assert_eq!(terminal.end(), Some(3));
    daemon.finish();
}

#[test]
fn signals_are_passed_on_without_a_terminal() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let mut child = daemon
        .command(&[
            "run",
            "--rm",
            "busybox",
            "sh",
            "-c",
            "trap 'exit 8' TERM; echo ready; while :; do sleep 0.1; done",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(8));
    daemon.finish();
}
