//! Networks of containers: bridges and pairs of interfaces, subnets and addresses, and the one nftables table that says who
//! reaches whom.
//!
//! What is wanted is a pure value ([`nft::Table`] and what it is made from, [`Pools`], [`Subnet`]); [`Links`] and
//! [`nft::apply`] carry it to the kernel. Neither knows what a container is.
//!
//! Everything speaks for the network namespace in which its socket was opened: see [`Namespace`].

pub mod dns;
mod error;
mod ipam;
mod links;
mod namespace;
pub mod nft;
mod pools;
mod rules;

pub use error::{Error, Result};
pub use ipam::Subnet;
pub use links::{Bridge, Link, Links, Pair, Route};
pub use namespace::Namespace;
pub use pools::{Pool, Pools};
pub use rules::{Gateway, Published, Segment, Transport, resolver_table, table};
