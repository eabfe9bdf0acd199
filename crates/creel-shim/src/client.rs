//! The daemon's side: spawning a shim, and blocking connections to one.
//!
//! An async daemon uses [`spawn`] (or its parts) and wraps the sockets itself; [`crate::framing`] cuts and writes
//! the messages.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use creel_types::{Classify, ErrorKind};

use crate::framing::{self, FramingError, Lines};
use crate::proto::{
    Answer, Call, Event, Failure, Message, Opening, Outcome, Reply, Request, StreamReply, files,
};

/// Why talking to a shim failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No shim answers there.
    #[error("cannot connect to the shim at {0}: {1}")]
    Connect(PathBuf, io::Error),
    /// The shim process could not be spawned.
    #[error("cannot spawn a shim by {0}: {1}")]
    Spawn(PathBuf, io::Error),
    /// Reading or writing failed.
    #[error("the connection to the shim broke: {0}")]
    Io(io::Error),
    /// The shim closed the connection.
    #[error("the shim closed the connection before it answered")]
    Closed,
    /// The shim said something that is not protocol.
    #[error("the shim's answer cannot be read: {0}")]
    Framing(FramingError),
    /// The shim refused.
    #[error("{0}")]
    Refused(Failure),
}

impl Classify for ClientError {
    fn kind(&self) -> ErrorKind {
        match self {
            ClientError::Refused(failure) => failure.kind,
            ClientError::Connect(..) => ErrorKind::NotFound,
            ClientError::Spawn(..) | ClientError::Io(_) | ClientError::Closed => ErrorKind::Unavailable,
            ClientError::Framing(_) => ErrorKind::Internal,
        }
    }
}

/// Arguments after the executable's name that make it the shim of the run directory `dir`, with its first control
/// connection as stdin.
pub fn shim_args(dir: &Path) -> [std::ffi::OsString; 5] {
    ["shim".into(), "--dir".into(), dir.into(), "--control-fd".into(), "0".into()]
}

/// Spawns `executable` as the shim of `dir`, in which `shim.json` and `config.json` lie; returns the process and its
/// first control connection, which is subscribed to events.
///
/// The caller reaps the process when it ends; a shim outlives its parent.
///
/// # Errors
/// [`ClientError::Io`] if no socket can be made, [`ClientError::Spawn`] if the executable does not start.
pub fn spawn(executable: &Path, dir: &Path) -> Result<(Child, UnixStream), ClientError> {
    let (ours, theirs) = UnixStream::pair().map_err(ClientError::Io)?;
    let child = Command::new(executable)
        .args(shim_args(dir))
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| ClientError::Spawn(executable.to_owned(), e))?;
    Ok((child, ours))
}

/// A blocking control connection.
#[derive(Debug)]
pub struct Control {
    stream: UnixStream,
    lines: Lines,
    seq: u64,
    events: std::collections::VecDeque<Event>,
}

impl Control {
    /// Wraps a connected socket: the one from [`spawn`], or any to `shim.sock`.
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, lines: Lines::default(), seq: 0, events: Default::default() }
    }

    /// Connects to the shim of the run directory `dir`.
    ///
    /// # Errors
    /// [`ClientError::Connect`] if nobody listens there.
    pub fn connect(dir: &Path) -> Result<Self, ClientError> {
        Ok(Self::new(connect(dir)?))
    }

    /// The socket itself, to set time limits on.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Asks and waits for the answer; events that come meanwhile are kept for [`Control::next_event`].
    ///
    /// # Errors
    /// [`ClientError::Refused`] if the shim answers with a failure; else what befell the connection.
    pub fn call(&mut self, call: Call) -> Result<Answer, ClientError> {
        self.seq += 1;
        let line = framing::encode(&Request { seq: self.seq, call }).map_err(ClientError::Framing)?;
        self.stream.write_all(&line).map_err(ClientError::Io)?;
        loop {
            match self.read_message()? {
                Message::Event(event) => self.events.push_back(event),
                // 0: the shim could not begin at all.
                Message::Reply(Reply { seq, outcome }) if seq == self.seq || seq == 0 => {
                    return match outcome {
                        Outcome::Ok(answer) => Ok(answer),
                        Outcome::Error(failure) => Err(ClientError::Refused(failure)),
                    };
                }
                Message::Reply(_) => {}
            }
        }
    }

    /// Waits for the next event.
    ///
    /// # Errors
    /// [`ClientError::Closed`] when the shim is gone.
    pub fn next_event(&mut self) -> Result<Event, ClientError> {
        if let Some(event) = self.events.pop_front() {
            return Ok(event);
        }
        loop {
            if let Message::Event(event) = self.read_message()? {
                return Ok(event);
            }
        }
    }

    fn read_message(&mut self) -> Result<Message, ClientError> {
        let line = read_line(&mut self.stream, &mut self.lines)?;
        framing::decode(&line).map_err(ClientError::Framing)
    }
}

/// Connects to the socket in `dir`.
pub(crate) fn connect(dir: &Path) -> Result<UnixStream, ClientError> {
    let failed = |e| ClientError::Connect(dir.join(files::SOCKET), e);
    let open = File::open(dir).map_err(failed)?;
    UnixStream::connect(socket_path(dir, &open)).map_err(failed)
}

/// The path of the socket in `dir`, which is open; through its descriptor if it is too long for an address (unix(7)).
pub(crate) fn socket_path(dir: &Path, open: &File) -> PathBuf {
    const ADDRESS: usize = 108;
    let path = dir.join(files::SOCKET);
    if path.as_os_str().len() < ADDRESS {
        return path;
    }
    format!("/proc/self/fd/{}/{}", open.as_raw_fd(), files::SOCKET).into()
}

fn read_line(stream: &mut UnixStream, lines: &mut Lines) -> Result<Vec<u8>, ClientError> {
    let mut buffer = [0; 4096];
    loop {
        if let Some(line) = lines.next_line().map_err(ClientError::Framing)? {
            return Ok(line);
        }
        match stream.read(&mut buffer) {
            Ok(0) => return Err(ClientError::Closed),
            Ok(n) => lines.push(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(ClientError::Io(e)),
        }
    }
}

/// Opens a stream connection to the shim of `dir`: attaches, or executes.
///
/// Returns the process attached to, the socket, and the bytes of the stream that were read together with the shim's
/// answer: they come before all that is read from the socket.
///
/// # Errors
/// [`ClientError::Refused`] if the shim answers with a failure; else what befell the connection.
pub fn open_stream(dir: &Path, opening: &Opening) -> Result<(Option<i32>, UnixStream, Vec<u8>), ClientError> {
    let mut stream = connect(dir)?;
    let line = framing::encode(opening).map_err(ClientError::Framing)?;
    stream.write_all(&line).map_err(ClientError::Io)?;
    let mut lines = Lines::default();
    let line = read_line(&mut stream, &mut lines)?;
    match framing::decode(&line).map_err(ClientError::Framing)? {
        StreamReply::Ok { pid } => Ok((pid, stream, lines.into_rest())),
        StreamReply::Error(failure) => Err(ClientError::Refused(failure)),
    }
}
