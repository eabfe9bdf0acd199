//! Supervises one container: stdio, logs, attach, exec, and the exit record.
//!
//! The shim is one process per container, without threads and without an async runtime: a poll loop over a
//! signalfd, pidfds, pipes and unix sockets. It outlives the daemon that spawned it. What it must not know: images,
//! networks, the database, HTTP.
//!
//! [`proto`] is what the daemon and the shim say to each other, [`client`] the daemon's side of it, and [`main`]
//! the process itself.

pub mod client;
pub mod framing;
pub mod proto;
