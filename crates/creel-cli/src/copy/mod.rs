//! What `cp` does: a pure plan, and the streams that carry it out.

mod plan;
mod stream;

pub use plan::{CopyError, Destination, Location, Source, locate, plan};
pub use stream::{Channel, Feed, rename};
