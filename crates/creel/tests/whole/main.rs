//! Whole-program tests: the real command, daemon, shims, kernel and registry.
//!
//! Every test has a daemon of its own with its own directories, cgroup parent, mount and network namespace, and
//! checks when it ends that none of its processes, mounts and cgroups is left.

// A test that cannot go on fails by panicking; what it skips it says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

#[path = "../common/mod.rs"]
mod common;

mod bad_input;
mod drivers;
mod files;
mod full;
mod images;
mod init_layer;
mod isolation;
mod joining;
mod killed;
mod lifecycle;
mod limits;
mod login;
mod parity;
mod power;
mod recovery;
mod registry;
mod resuming;
mod run;
mod stress;
mod support;
mod terminal;
mod verify;
mod volume_mounts;
mod volume_options;
mod volume_plugins;
mod volumes;
