//! The commands, named and behaving as Docker's.

pub mod hello;
pub mod units;

/// The commands' `main`: `args` begins with the program's name. Returns the exit code.
pub fn main(args: impl IntoIterator<Item = std::ffi::OsString>) -> i32 {
    let _ = args;
    1
}
