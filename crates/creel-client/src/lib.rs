//! A client of the Docker Engine API over a unix socket.
//!
//! Layer 4. One [`Client`] speaks HTTP/1.1 to one daemon (creel's, or Docker's own), keeps idle connections and
//! offers a method for each endpoint the commands need. It runs on whatever tokio runtime calls it, a
//! single-threaded one in the command line tool. It knows no command line, no terminal and no file of the user's.
//!
//! Three shapes of answer exist besides plain JSON: [`ByteBody`] (logs, archives), [`Lines`] (progress, events,
//! statistics: one JSON document a line) and [`Hijacked`] (attach, exec: the raw connection).

mod body;
mod connection;
mod containers;
mod endpoint;
mod error;
mod execs;
mod images;
mod query;
mod system;
mod timing;
mod volumes;

pub use body::{ByteBody, Lines, Upload};
pub use connection::{Client, Hijacked};
pub use containers::{AttachOptions, LogOptions, Waiting};
pub use endpoint::Endpoint;
pub use error::Error;
pub use images::{CommitOptions, ImportOptions};
pub use query::Query;
pub use timing::{Step, Timed};
