//! From an OCI Spec to a process: a pure [`InitPlan`] and the thin executor that applies it.
//!
//! Layer 1, synchronous, no threads. It knows namespaces, mounts, users, capabilities and the order in which they must
//! come; it does not know images, networks, logs or a database.
//!
//! The life of a container here: [`validate`] refuses what cannot be applied; [`plan()`] turns the Spec into ordered,
//! named steps; [`create()`] clones one child that applies them (no re-exec of this program) and waits at a gate;
//! [`Created::start`] opens the gate and returns when the kernel has accepted the program; [`exec()`] puts further
//! processes into the same namespaces. All mounts, the overlay root included, are made inside the container's own
//! mount namespace, so that nothing is left behind when it ends, however it ends.
//!
//! **Callers have one thread.** The child is a copy of the caller made by clone3(2) and prepares itself with ordinary
//! code, the heap included; in a process with more threads a lock held by another thread would never be released
//! there. [`creel_sys::clone::clone`] asks the kernel and refuses otherwise.
//!
//! **What the container can see of this program** (CVE-2019-5736): the child is made non-dumpable before it joins
//! anything that others can look into, so that `/proc/PID/exe` cannot be opened from inside until execve(2) has
//! replaced it. The kernel's ETXTBSY is no protection by itself: it ends with the last process that runs the file.
//! Against what remains (a container that may trace everything), [`seal::sealed_executable`] gives the supervisor a
//! read-only, detached mount of its own executable to be started from; `/proc/PID/exe` then leads to that mount, which
//! refuses writing for as long as it exists and which nobody else can remount.

mod api;
pub mod caps;
mod child;
mod cloned;
pub mod console;
pub mod create;
pub mod devices;
pub mod error;
pub mod exec;
mod filter;
pub mod hooks;
mod idmap;
mod lists;
pub mod live;
mod lsm;
pub mod mounts;
pub mod namespaces;
mod netdev;
pub mod path;
pub mod pid1;
pub mod plan;
pub mod process;
pub mod procfs;
mod program;
pub mod rdt;
pub mod report;
pub mod rootfs;
pub mod scheduling;
pub mod seal;
pub mod seccomp;
mod sources;
pub mod user;
mod validate;

pub use api::{Again, CreateOptions, ExecOptions, Finish, Gate, Group, Life, Rootfs, Stdio};
pub use create::{Created, Detached, Started, create, open_gate};
pub use error::Error;
pub use exec::{Execed, Waiting, exec, prepare_exec};
pub use filter::{
    Compiled, flags as seccomp_flags, has_agent as seccomp_has_agent, knows_flag as knows_seccomp_flag,
};
#[doc(hidden)]
pub use idmap::written_map;
#[doc(hidden)]
pub use netdev::read_packet;
pub use plan::{Facts, InitPlan, Step, Wishes, plan};
pub use user::{ResolvedUser, resolve_user, resolve_user_at};
pub use validate::validate;
