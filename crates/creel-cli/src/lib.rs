//! The commands, named and behaving as Docker's.

pub mod flags;
pub mod hello;
pub mod template;
pub mod units;

/// An operating system error in the words of C's library, as Docker shows them: without the number.
pub(crate) fn os_words(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    // "No such file" becomes "no such file"; "I/O error" keeps its capital.
    match (chars.next(), chars.as_str()) {
        (Some(first), rest) if rest.starts_with(|c: char| c.is_lowercase() || c == ' ') => {
            first.to_lowercase().chain(rest.chars()).collect()
        }
        _ => text.to_owned(),
    }
}

/// The commands' `main`: `args` begins with the program's name. Returns the exit code.
pub fn main(args: impl IntoIterator<Item = std::ffi::OsString>) -> i32 {
    let _ = args;
    1
}
