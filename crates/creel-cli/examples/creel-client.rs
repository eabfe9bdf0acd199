//! The commands alone, without a daemon in the same program: for tries against another daemon, and for the tests.

fn main() -> std::process::ExitCode {
    let code = creel_cli::main(std::env::args_os());
    std::process::ExitCode::from(u8::try_from(code).unwrap_or(255))
}
