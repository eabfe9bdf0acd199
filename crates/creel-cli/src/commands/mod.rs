//! The commands, one module for each family.

mod attach;
mod cp;
mod exec;
mod images;
mod inspect;
mod lifecycle;
mod login;
mod logs;
mod ps;
mod pull;
mod run;
mod stats;
mod system;
mod top;
mod transfer;
mod verify;
mod volume;

use crate::command::Command;

/// All commands.
pub(crate) const COMMANDS: &[&[Command]] = &[
    run::COMMANDS,
    attach::COMMANDS,
    exec::COMMANDS,
    lifecycle::COMMANDS,
    ps::COMMANDS,
    logs::COMMANDS,
    inspect::COMMANDS,
    stats::COMMANDS,
    top::COMMANDS,
    cp::COMMANDS,
    images::COMMANDS,
    login::COMMANDS,
    pull::COMMANDS,
    transfer::COMMANDS,
    verify::COMMANDS,
    volume::COMMANDS,
    system::COMMANDS,
];
