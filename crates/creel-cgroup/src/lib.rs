//! Control groups v1, hybrid and v2: limits, membership, statistics, freezing and killing.
//!
//! Layer 1, synchronous, no unsafe code. It must not know what an image, a network or a container record is: it is
//! given a path like `/creel/<id>` and the `resources` of a runtime specification.
//!
//! Where a controller lives decides how it is spoken to, not the name of the layout: for each controller that is
//! mounted as a v1 hierarchy the v1 files are used, for each that the unified hierarchy owns the v2 files. The group is
//! made in *every* hierarchy, so that in the hybrid layout the unified one tracks the processes, freezes and kills.
//!
//! Begin reading at [`Hierarchies`] (where things are mounted), then [`Plan`] (what is to be done, a pure value), then
//! [`Cgroup`] (doing it). Facts come from the kernel's `cgroup-v1/*.rst` and `cgroup-v2.rst`.

mod admit;
mod apply;
mod controls;
mod convert;
mod devices;
mod entry;
mod error;
mod files;
mod group;
mod hierarchy;
mod making;
mod oom;
mod place;
mod plan;
mod program;
mod runc;
mod stats;
pub mod systemd;
mod tables;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

pub use convert::{blkio_weight_to_io_weight, shares_to_weight};
pub use entry::Entry;
pub use error::{Error, Result};
pub use group::Cgroup;
pub use hierarchy::{Hierarchies, Layout, Unified, V1};
pub use making::Making;
pub use oom::OomWatch;
pub use place::{Delegated, Driver};
pub use plan::{Missing, Plan, Step, Write};
pub use runc::RuncStats;
pub use stats::{
    Blkio, BlkioEntry, Counter, CpuStats, Cpuset, HugetlbStats, IoDevice, MemoryStats, MiscStats, PidsStats,
    Pressure, PressureLine, Pressures, RdmaEntry, Stats,
};

/// What is written to a v1 group whose `devices.list` reads `current` (`None`: a new group) so that these rules hold: names
/// of files and lines. For the fuzzer, which cannot reach further in.
///
/// # Errors
/// [`Error::Invalid`], [`Error::Parse`].
#[doc(hidden)]
pub fn device_lines(
    rules: &[creel_types::spec::DeviceRule],
    current: Option<&str>,
) -> Result<Vec<(&'static str, String)>> {
    let current = current.map(devices::List::parse).transpose()?;
    Ok(devices::List::from_rules(rules)?.writes(current.as_ref()))
}

/// The program of these rules for a v2 group. For the fuzzer, which cannot reach further in.
///
/// # Errors
/// [`Error::Invalid`].
#[doc(hidden)]
pub fn device_program(rules: &[creel_types::spec::DeviceRule]) -> Result<Vec<creel_sys::bpf::Instruction>> {
    program::build(rules)
}
