//! The runtime alone, without the engine around it: quick to build while one works on it. `oci [oci] VERB …`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args: Vec<_> = std::env::args_os().skip(1).collect();
    if args.first().is_some_and(|first| first == "oci") {
        args.remove(0);
    }
    ExitCode::from(u8::try_from(creel_oci::main("creel oci", args.into_iter())).unwrap_or(255))
}
