//! Copying between the user's standard streams and a hijacked connection.
//!
//! Two plain threads do it with blocking calls: neither waits for the other, so a program that writes much before it
//! reads, and a user who reads late, cannot lock each other up; and signals are handled meanwhile.

use std::io::Read as _;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use bytes::Bytes;
use creel_client::Hijacked;
use creel_wire::stream::{Demultiplexer, STDERR};
use rustix::io::Errno;
use tokio::sync::oneshot;

use crate::detach::Scanner;
use crate::output::write_all;

/// Read at once from either side.
const BUFFER: usize = 64 << 10;

/// What to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Standard input to the container.
    pub stdin: bool,
    /// The container's output to standard output.
    pub stdout: bool,
    /// The container's errors to standard error.
    pub stderr: bool,
    /// One raw stream instead of frames.
    pub tty: bool,
    /// Bytes that detach, looked for with a terminal.
    pub detach_keys: Vec<u8>,
}

/// How copying the output ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The container's side closed: all output has been written.
    Closed,
    /// The user's reader has gone.
    ReaderGone,
    /// The connection or a write failed with this error.
    Failed(Errno),
}

/// Copying that is under way.
#[derive(Debug)]
pub(crate) struct Copying {
    /// Resolves when the output has ended.
    pub output: oneshot::Receiver<End>,
    /// Resolves when the user typed the keys that detach; its sender is dropped when input ends otherwise.
    pub detached: oneshot::Receiver<()>,
    socket: Arc<UnixStream>,
}

impl Copying {
    /// Closes the connection both ways.
    pub(crate) fn close(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// Starts copying.
///
/// # Errors
/// The kernel's, when the socket cannot be made blocking or a thread cannot be started.
pub(crate) fn start(hijacked: Hijacked, plan: Plan) -> std::io::Result<Copying> {
    let (socket, early) = hijacked.into_blocking()?;
    let socket = Arc::new(socket);
    let (output_end, output) = oneshot::channel();
    let (detach, detached) = oneshot::channel();
    let spawn = |name: &str| std::thread::Builder::new().name(name.to_owned()).stack_size(256 << 10);
    {
        let (socket, plan) = (socket.clone(), plan.clone());
        spawn("output").spawn(move || {
            let end = copy_output(&socket, early, &plan);
            let _ = output_end.send(end);
        })?;
    }
    if plan.stdin {
        let socket = socket.clone();
        spawn("input").spawn(move || {
            let mut scanner = Scanner::new(if plan.tty { plan.detach_keys } else { Vec::new() });
            if copy_input(&socket, &mut scanner) {
                let _ = detach.send(());
            }
        })?;
    }
    Ok(Copying { output, detached, socket })
}

fn copy_output(mut socket: &UnixStream, early: Bytes, plan: &Plan) -> End {
    let (stdout, stderr) = (std::io::stdout(), std::io::stderr());
    let mut demultiplexer = Demultiplexer::default();
    let mut deliver = |bytes: &[u8]| -> Result<(), Errno> {
        if plan.tty {
            return if plan.stdout { write_all(stdout.as_fd(), bytes) } else { Ok(()) };
        }
        let mut result = Ok(());
        demultiplexer.feed(bytes, |stream, data| {
            let (wanted, fd): (bool, BorrowedFd<'_>) =
                if stream == STDERR { (plan.stderr, stderr.as_fd()) } else { (plan.stdout, stdout.as_fd()) };
            if wanted && result.is_ok() {
                result = write_all(fd, data);
            }
        });
        result
    };
    let failed = |e| if e == Errno::PIPE { End::ReaderGone } else { End::Failed(e) };
    if let Err(e) = deliver(&early) {
        return failed(e);
    }
    let mut buffer = vec![0; BUFFER];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return End::Closed,
            Ok(n) => {
                if let Err(e) = deliver(&buffer[..n]) {
                    return failed(e);
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            // A daemon that closes with our input unread resets the connection; what it sent has arrived.
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return End::Closed,
            Err(e) => return End::Failed(Errno::from_io_error(&e).unwrap_or(Errno::IO)),
        }
    }
}

/// True when the user detached.
fn copy_input(socket: &UnixStream, scanner: &mut Scanner) -> bool {
    let stdin = std::io::stdin();
    let mut buffer = vec![0; BUFFER];
    let mut out = Vec::with_capacity(BUFFER);
    loop {
        let n = match rustix::io::read(stdin.as_fd(), &mut buffer) {
            Ok(n) => n,
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => {
                use rustix::event::{PollFd, PollFlags, poll};
                let _ = poll(&mut [PollFd::new(&stdin, PollFlags::IN)], None);
                continue;
            }
            Err(_) => 0,
        };
        if n == 0 {
            let _ = socket.shutdown(Shutdown::Write);
            return false;
        }
        out.clear();
        let detached = scanner.feed(&buffer[..n], &mut out);
        if write_all(socket.as_fd(), &out).is_err() {
            return detached;
        }
        if detached {
            return true;
        }
    }
}
