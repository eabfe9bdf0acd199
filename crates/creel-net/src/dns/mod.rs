//! Names of containers: what a resolver in a network knows by itself, and how it is asked and answers (RFC 1035, 6891).
//!
//! Nothing here opens a socket.

mod message;
mod zone;

pub use message::{Code, Data, Edns, Malformed, Query, Record, Reply, TCP_MOST, kind};
pub use zone::{Found, Zone};
