//! What `cp` does: a pure plan, and the streams that carry it out.

mod plan;
mod stream;

pub(crate) use plan::{Destination, Location, Source, locate, plan};
pub(crate) use stream::{Channel, Feed, rename};
