//! creel: a container engine in one static binary.
//!
//! What this process is to be is read from its arguments before anything else starts: a shim, a container's
//! init or a helper pays for no command line parser, no logging and no async runtime.

mod daemon;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// What a creel process can be.
#[derive(Debug, PartialEq, Eq)]
enum Role {
    /// Process 1 of a container that was run with `--init`.
    Init,
    /// The supervisor of one container.
    Shim,
    /// A helper that reads or writes a container's files from inside its mounts.
    RootfsHelper,
    /// The program of the embedded `hello` image.
    Hello,
    /// An OCI runtime on the command line.
    Oci,
    /// The daemon.
    Daemon,
    /// A command of the user's.
    Command,
}

/// Names under which the program is an OCI runtime: callers want the path of one program, without a first argument.
const OCI_NAMES: [&str; 3] = ["creel-oci", "runc", "crun"];

fn role(args: &[OsString]) -> Role {
    let program = args.first().map(Path::new).and_then(Path::file_name).and_then(|name| name.to_str());
    if program.is_some_and(|name| name.ends_with("init")) {
        return Role::Init;
    }
    if program.is_some_and(|name| OCI_NAMES.contains(&name)) {
        return Role::Oci;
    }
    match args.get(1).and_then(|arg| arg.to_str()) {
        Some("oci") => Role::Oci,
        Some("shim") => Role::Shim,
        Some("rootfs-helper") => Role::RootfsHelper,
        Some("hello-from-inside") => Role::Hello,
        Some("daemon") => Role::Daemon,
        _ => Role::Command,
    }
}

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let rest = args.iter().skip(2).cloned();
    let code = match role(&args) {
        Role::Init => creel_runtime::pid1::main(args.into_iter().skip(1)),
        Role::Shim => creel_shim::main(rest),
        Role::RootfsHelper => creel_engine::rootfs_helper_main(rest),
        Role::Hello => creel_cli::hello::main(),
        Role::Oci => match args.first().and_then(|name| Path::new(name).file_name()?.to_str()) {
            Some(name) if OCI_NAMES.contains(&name) => creel_oci::main(name, args.iter().skip(1).cloned()),
            _ => creel_oci::main("creel oci", rest),
        },
        Role::Daemon => daemon::main(args.into_iter().skip(1)),
        Role::Command => creel_cli::main(args),
    };
    ExitCode::from(u8::try_from(code).unwrap_or(255))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_say_what_a_process_is_to_be() {
        let role_of = |line: &str| role(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert_eq!(role_of("/dev/init -- sh"), Role::Init);
        assert_eq!(role_of("creel shim --dir /x"), Role::Shim);
        assert_eq!(role_of("creel oci --root /x list"), Role::Oci);
        assert_eq!(role_of("/usr/local/bin/runc daemon"), Role::Oci);
        assert_eq!(role_of("/usr/bin/crun --root /x list"), Role::Oci);
        assert_eq!(role_of("creel daemon"), Role::Daemon);
        assert_eq!(role_of("/usr/bin/creel run hello"), Role::Command);
        assert_eq!(role_of("creel"), Role::Command);
    }
}
