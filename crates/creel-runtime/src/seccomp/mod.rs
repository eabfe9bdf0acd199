//! System call filters: from the specification's rules to a program that the kernel runs on every call.
//!
//! [`default_profile`] is Docker's default profile as a table of facts, [`from_docker_json`] reads profiles in Docker's
//! format, [`compile`] makes a classic BPF program (seccomp(2)) of either. Where the specification
//! (`config-linux.md`, "Seccomp") leaves something open, libseccomp and runc decide, because profiles are written
//! against them: see [`compile()`].

mod arch;
mod assemble;
mod calls;
mod compile;
mod docker;
mod error;
mod numbers;
mod profile;
#[cfg(test)]
mod tests;

pub use compile::{compile, unknown};
pub use docker::from_docker_json;
pub use error::Error;
pub use profile::default_profile;
