//! Names of containers: what a resolver in a network knows by itself, and how it is asked and answers (RFC 1035, 6891).
//!
//! Only a [`Resolver`] opens sockets.

mod message;
mod resolver;
mod zone;

pub use message::{Code, Data, Edns, Malformed, Query, Record, Reply, TCP_MOST, kind};
pub use resolver::{HEDGE, Resolver, open_at};
pub use zone::{Found, Zone};
