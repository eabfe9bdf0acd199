//! `creel oci` as its callers use it: the built program against a busybox bundle, every verb, and what may go wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

#[path = "../common/mod.rs"]
mod common;

mod checkpoint;
mod crun;
mod foreground;
mod labels;
mod lifecycle;
mod limits;
mod misuse;
mod notify;
mod processes;
mod profiles;
mod rootless;
mod support;
mod systemd;
mod texts;
mod trimmed;
