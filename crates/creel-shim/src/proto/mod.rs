//! The protocol between the daemon and a shim: JSON lines on a unix stream socket, and three small files.
//!
//! A connection to `shim.sock` says in its first line what it is to be ([`Opening`]): an attachment to the
//! container's streams, an exec with its streams, or, with any [`Request`], a control connection. The socketpair
//! which the daemon hands the shim at its birth is a control connection, subscribed to events from the start.
//!
//! Compatibility: version N talks to N-1. Fields are only added, with defaults; unknown fields are ignored;
//! an unknown call is answered with [`creel_types::ErrorKind::Unsupported`]; an unknown event is to be ignored.

mod config;
mod messages;
mod records;

pub use config::{Held, Rootfs, ShimConfig};
pub use messages::{
    Answer, Attach, Call, Event, ExecEnd, ExecStart, ExecState, Failure, Message, Opening, Outcome, Reply,
    Request, Snapshot, Status, StreamReply, Timing,
};
pub use records::{ExitRecord, StateRecord};

/// Version of this protocol, told in every [`Snapshot`] and [`StateRecord`].
pub const VERSION: u32 = 1;

/// Longest message in bytes, newline included, that either side accepts.
///
/// An exec carries arguments and environment, which the kernel limits to a quarter of the stack limit (2 MiB by
/// default, execve(2)); JSON escapes may triple that.
pub const MAX_MESSAGE: usize = 8 << 20;

/// Names of the files in a container's run directory (`<run-dir>/containers/<id>/`).
pub mod files {
    /// The OCI runtime specification of the container.
    pub const SPEC: &str = "config.json";
    /// [`super::ShimConfig`], written by the daemon before it spawns the shim.
    pub const CONFIG: &str = "shim.json";
    /// The shim's listening unix socket.
    pub const SOCKET: &str = "shim.sock";
    /// [`super::StateRecord`], written when the container has started.
    pub const STATE: &str = "state.json";
    /// [`super::ExitRecord`], written when the container has ended and its output has been logged.
    pub const EXIT: &str = "exit.json";
    /// The shim's own troubles, one line each.
    pub const LOG: &str = "shim.log";
}

#[cfg(test)]
mod tests;
