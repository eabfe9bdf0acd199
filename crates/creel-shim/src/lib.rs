//! Supervises one container: stdio, logs, attach, exec, and the exit record.
//!
//! The shim is one process per container, without threads and without an async runtime: a poll loop over a
//! signalfd, pipes and unix sockets. It outlives the daemon that spawned it. What it must not know: images,
//! networks, the database, HTTP.
//!
//! [`proto`] is what the daemon and the shim say to each other, [`client`] the daemon's side of it, and [`main`]
//! the process itself.

mod attacher;
pub mod client;
mod control;
pub mod framing;
mod launch;
mod log;
mod poll;
pub mod proto;
mod shim;
mod stdin;
mod streams;
mod trouble;

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;

use creel_types::ErrorKind;
use creel_types::spec::Spec;

use launch::Container;
use proto::{Failure, Outcome, Reply, ShimConfig, files};
use shim::Shim;
use shim::setup::{self, Arguments};

pub(crate) fn failure(kind: ErrorKind, message: String) -> Failure {
    Failure { kind, message }
}

/// `creel shim --dir DIR [--control-fd N]`: supervises the container whose run directory is DIR until it has ended;
/// returns the process's exit code.
///
/// To be called first thing in a process with one thread: inherited descriptors are closed, signals are blocked, and
/// the standard streams become `/dev/null`. N (3 by default) is a socket to the daemon; what fails before the shim
/// serves it is told there as a reply with `seq` 0, and in `shim.log`.
pub fn main(args: impl Iterator<Item = OsString>) -> i32 {
    let Ok(arguments) = Arguments::parse(args) else { return 2 };
    let mut troubles = trouble::Troubles::new(arguments.dir.join(files::LOG));
    let control = match setup::detach(arguments.control_fd) {
        Ok(control) => control,
        Err(message) => {
            troubles.note(&message);
            return 1;
        }
    };
    match prepare(&arguments.dir) {
        Ok((config, container, signals, listener)) => {
            let own_pids = container.has_own_pids();
            Shim::new(arguments.dir, config, container, own_pids, (control, signals, listener)).run();
            0
        }
        Err(failure) => {
            troubles.note(&failure.message);
            let mut connection = control::Connection::new(0, control);
            connection.reply(Reply { seq: 0, outcome: Outcome::Error(failure) });
            1
        }
    }
}

fn prepare(dir: &Path) -> Result<(ShimConfig, Container, OwnedFd, setup::Listener), Failure> {
    let config: ShimConfig = setup::read_json(&dir.join(files::CONFIG))?;
    let spec: Spec = setup::read_json(&config.bundle.join(files::SPEC))?;
    let internal = |what: &str, e: std::io::Error| failure(ErrorKind::Internal, format!("{what}: {e}"));
    let signals = setup::take_signals().map_err(|e| internal("cannot take signals", e))?;
    let listener = setup::listen(dir).map_err(|e| internal("cannot listen on the shim's socket", e))?;
    let container = Container::new(config.clone(), spec);
    Ok((config, container, signals, listener))
}
