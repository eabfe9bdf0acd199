//! Requests, replies and events.

use creel_types::ErrorKind;
use creel_types::spec::Process;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ExitRecord;

/// How long one step took: its name and microseconds.
pub type Timing = (String, u64);

/// One request on a control connection: `{"seq":1,"call":"start"}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Echoed by the reply; the caller's to choose.
    pub seq: u64,
    /// What is asked.
    #[serde(flatten)]
    pub call: Call,
}

/// What the daemon can ask of a shim. Calls are served in order; they may be sent without awaiting replies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "messages live for a moment, one at a time")]
pub enum Call {
    /// Sets the container up, all but executing its program. Answer: [`Answer::Created`].
    Create,
    /// Executes the program. Answer: [`Answer::Started`].
    Start,
    /// Sends a signal to the first process, or to every process of the container's cgroup. Answer: [`Answer::Done`].
    Signal {
        /// Signal number.
        signal: i32,
        /// Whether every process gets it.
        #[serde(default)]
        all: bool,
    },
    /// Sets the size of a terminal. Answer: [`Answer::Done`].
    Resize {
        /// The exec whose terminal it is; `None` is the container's own.
        #[serde(default)]
        exec_id: Option<String>,
        /// Columns.
        width: u16,
        /// Rows.
        height: u16,
    },
    /// Asks for the present state. Answer: [`Answer::State`].
    State,
    /// Runs an additional process with nobody attached; its output is discarded. Answer: [`Answer::Executed`].
    Exec(ExecStart),
    /// Ends stdin once what is queued for it has been written, whatever `stdin_once` says. Answer: [`Answer::Done`].
    CloseStdin {
        /// The exec whose stdin it is; `None` is the container's own.
        #[serde(default)]
        exec_id: Option<String>,
    },
    /// Sends this connection all events from now on. Answer: [`Answer::State`]; if the container has already ended,
    /// its exit event follows.
    Subscribe,
    /// Ends a shim whose container does not run. Answer: [`Answer::Done`], or a conflict while it runs.
    Shutdown {
        /// Kills a running container first.
        #[serde(default)]
        force: bool,
    },
    /// A call of a newer protocol.
    #[serde(other)]
    Unknown,
}

/// One line from the shim on a control connection: `{"reply":…}` or `{"event":…}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// The answer to one request.
    Reply(Reply),
    /// Something that happened.
    Event(Event),
}

/// The answer to the request with the same `seq`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The request's number; 0 if the request could not be read, or if the shim could not begin at all.
    pub seq: u64,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// Success or failure: `"ok":…` or `"error":…`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Ok(Answer),
    /// It was not.
    Error(Failure),
}

/// What a successful call yields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Answer {
    /// Nothing to tell.
    Done,
    /// The container is set up and waits for `start`.
    Created {
        /// Its first process.
        pid: i32,
        /// Where the time went.
        timings: Vec<Timing>,
    },
    /// The program was executed.
    Started {
        /// Its process.
        pid: i32,
        /// When.
        started_at: Timestamp,
        /// Where the time went.
        timings: Vec<Timing>,
    },
    /// An exec runs.
    Executed {
        /// Its process.
        pid: i32,
    },
    /// How things stand.
    State(Snapshot),
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Its kind, as one word (`not_found`, `program_not_found`, …).
    #[serde(with = "kind_word")]
    pub kind: ErrorKind,
    /// What was tried, on what, and why it failed.
    pub message: String,
}

impl creel_types::Classify for Failure {
    fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The shim stands, the container does not exist yet.
    Idle,
    /// Set up, program not executed.
    Created,
    /// Running.
    Running,
    /// Its first process ended; the last output is being read.
    Ending,
    /// Ended, and the exit record is written.
    Exited,
}

/// How things stand in a shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The shim's protocol version.
    pub version: u32,
    /// The shim's process.
    pub shim_pid: i32,
    /// Where the container is in its life.
    pub status: Status,
    /// Its first process, while it lives.
    #[serde(default)]
    pub pid: Option<i32>,
    /// When its program was executed.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// Whether the OOM killer struck.
    #[serde(default)]
    pub oom_killed: bool,
    /// How it ended, once it has.
    #[serde(default)]
    pub record: Option<ExitRecord>,
    /// The execs that run.
    #[serde(default)]
    pub execs: Vec<ExecState>,
    /// The latest execs that ended, oldest first; at most 64 are remembered.
    #[serde(default)]
    pub ended_execs: Vec<ExecEnd>,
}

/// An exec that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecState {
    /// Its id.
    pub exec_id: String,
    /// Its process.
    pub pid: i32,
}

/// An exec that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecEnd {
    /// Its id.
    pub exec_id: String,
    /// Exit status, or 128 + signal.
    pub code: i32,
}

/// What a shim tells its subscribers unasked: `{"event":{"type":"exit",…}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The container ended: its output is logged and `exit.json` is written.
    Exit {
        /// How it ended.
        record: ExitRecord,
    },
    /// An exec ended and its output was read.
    ExecExit(ExecEnd),
    /// The OOM killer ended a process of the container; at most one event per wake-up.
    Oom,
    /// An event of a newer protocol.
    #[serde(other)]
    Unknown,
}

/// The first line of a connection that is to become a byte stream.
///
/// After it the shim answers one [`StreamReply`] line. From then on bytes to the shim are stdin (`shutdown(SHUT_WR)` is
/// its end), and bytes from the shim are output: Docker's multiplexed frames ([`crate::framing::mux`]) without a
/// terminal, raw bytes with one. The end of the stream means that output has ended and all of it was delivered.
///
/// A half-close ends the container's stdin only if `stdin_once` is set and there is no terminal; an exec's stdin
/// always. A connection that vanishes altogether ends an exec's stdin at once. The container's stdin it ends (under the
/// same conditions as a half-close) only if a control connection is still there a moment later: the daemon's death
/// changes nothing. [`Call::CloseStdin`] ends it whatever the conditions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "messages live for a moment, one at a time")]
pub enum Opening {
    /// Joins the streams of the container, or of an exec that runs.
    Attach(Attach),
    /// Starts an exec with this connection attached from its first byte.
    Exec(ExecStart),
}

/// Which streams a connection wants.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Attach {
    /// The exec to attach to; `None` is the container.
    #[serde(default)]
    pub exec_id: Option<String>,
    /// Whether bytes sent are stdin. Ignored if stdin is not open.
    #[serde(default)]
    pub stdin: bool,
    /// Whether stdout is wanted; with a terminal, its output.
    #[serde(default)]
    pub stdout: bool,
    /// Whether stderr is wanted.
    #[serde(default)]
    pub stderr: bool,
}

/// An additional process to run in the container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecStart {
    /// Its id, the caller's to choose; unique among the execs that run.
    pub exec_id: String,
    /// The process, complete: program, user, environment, capabilities. `process.terminal` gives it a terminal.
    pub process: Process,
    /// Whether stdin is a pipe; otherwise it reads as empty. With a terminal, whether input is passed on.
    #[serde(default)]
    pub open_stdin: bool,
    /// Streams of the connection that opened it; its `exec_id` is ignored. Unused in [`Call::Exec`].
    #[serde(default)]
    pub attach: Attach,
}

/// The shim's only line on a stream connection, before the bytes: `{"ok":{"pid":N}}` or `{"error":{…}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamReply {
    /// The stream follows.
    Ok {
        /// The process attached to; `None` while the container is not created.
        #[serde(default)]
        pid: Option<i32>,
    },
    /// The connection ends here.
    Error(Failure),
}

/// [`ErrorKind`] as one word.
mod kind_word {
    use creel_types::ErrorKind;
    use serde::{Deserialize, Deserializer, Serializer};

    const WORDS: [(ErrorKind, &str); 11] = [
        (ErrorKind::NotFound, "not_found"),
        (ErrorKind::Conflict, "conflict"),
        (ErrorKind::InvalidArgument, "invalid_argument"),
        (ErrorKind::Unauthorized, "unauthorized"),
        (ErrorKind::NotModified, "not_modified"),
        (ErrorKind::Unsupported, "unsupported"),
        (ErrorKind::Unavailable, "unavailable"),
        (ErrorKind::DataLoss, "data_loss"),
        (ErrorKind::ProgramNotFound, "program_not_found"),
        (ErrorKind::ProgramNotExecutable, "program_not_executable"),
        (ErrorKind::Internal, "internal"),
    ];

    pub(super) fn serialize<S: Serializer>(kind: &ErrorKind, s: S) -> Result<S::Ok, S::Error> {
        let word = WORDS.iter().find(|(k, _)| k == kind).map_or("internal", |(_, word)| word);
        s.serialize_str(word)
    }

    /// A kind that this version does not know is an internal failure.
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<ErrorKind, D::Error> {
        let word = String::deserialize(d)?;
        Ok(WORDS.iter().find(|(_, w)| *w == word).map_or(ErrorKind::Internal, |(kind, _)| *kind))
    }
}
