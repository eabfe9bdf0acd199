//! Supervises one container: stdio, logs, attach, exec, and the exit record.
//!
//! The shim is one process per container, without threads and without an async runtime: a poll loop over a
//! signalfd, pipes and unix sockets. It outlives the daemon that spawned it. What it must not know: images,
//! networks, the database, HTTP.
//!
//! [`proto`] is what the daemon and the shim say to each other, [`client`] the daemon's side of it, and [`main`]
//! the process itself.

mod attacher;
pub mod client;
mod control;
pub mod framing;
mod launch;
mod log;
mod poll;
pub mod proto;
mod shim;
mod stdin;
mod streams;
mod trouble;

use creel_types::ErrorKind;
use proto::Failure;

pub(crate) fn failure(kind: ErrorKind, message: String) -> Failure {
    Failure { kind, message }
}
