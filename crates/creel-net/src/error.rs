//! What can go wrong with networks, and what to do about it.

use std::net::IpAddr;

use creel_sys::netlink::Refused;
use creel_types::{Classify, ErrorKind};
use ipnet::IpNet;
use rustix::io::Errno;

/// Result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure with networks.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused a step.
    #[error("cannot {step}: {cause}{}", hint(.cause.errno))]
    Step {
        /// What was tried, on what.
        step: String,
        /// The kernel's answer.
        cause: Refused,
    },
    /// There is no such interface.
    #[error("there is no network interface {0}")]
    NoLink(String),
    /// What was asked for contradicts itself, or what is there.
    #[error("{0}")]
    Invalid(String),
    /// An address or subnet is taken.
    #[error("{0}")]
    Taken(String),
    /// No subnet is left in the pools.
    #[error(
        "all predefined address pools have been fully subnetted; give the network a subnet of its own (--subnet), remove \
         networks that are not used, or widen the pools (--default-address-pool)"
    )]
    NoPool,
    /// A subnet has no address left.
    #[error(
        "no available IP addresses in {0}: remove containers from the network, or make one with a larger subnet"
    )]
    Exhausted(IpNet),
    /// An address is in use.
    #[error("Address already in use: {0}")]
    AddressInUse(IpAddr),
}

fn hint(errno: Errno) -> &'static str {
    match errno {
        Errno::PERM => " (this needs CAP_NET_ADMIN in the network namespace: run the daemon as root)",
        Errno::OPNOTSUPP | Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT => {
            " (the kernel lacks it: see whether its module is built and loaded)"
        }
        _ => "",
    }
}

impl Error {
    pub(crate) fn step(step: impl std::fmt::Display, cause: impl Into<Refused>) -> Error {
        Error::Step { step: step.to_string(), cause: cause.into() }
    }

    /// The kernel's error number, if it was the kernel that refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::Step { cause, .. } => Some(cause.errno),
            _ => None,
        }
    }
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Error::Step { cause, .. } => match cause.errno {
                Errno::OPNOTSUPP | Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT => ErrorKind::Unsupported,
                _ => ErrorKind::Internal,
            },
            Error::NoLink(_) => ErrorKind::NotFound,
            Error::Invalid(_) => ErrorKind::InvalidArgument,
            Error::Taken(_) | Error::AddressInUse(_) => ErrorKind::Conflict,
            Error::NoPool | Error::Exhausted(_) => ErrorKind::Unavailable,
        }
    }
}
