//! The commands alone, without a daemon in the same program: for tries against another daemon, and for the tests.

fn main() -> std::process::ExitCode {
    let args: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let code = match args.get(1).and_then(|arg| arg.to_str()) {
        Some("hello-from-inside") => creel_cli::hello::main(),
        _ => creel_cli::main(args),
    };
    std::process::ExitCode::from(u8::try_from(code).unwrap_or(255))
}
