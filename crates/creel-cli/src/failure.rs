//! How a command fails: what it says and with which code it exits.

use creel_client::Error;

/// A failed command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code.
    pub code: i32,
    /// What goes to standard error, without the last line break; nothing if empty.
    pub message: String,
}

impl Failure {
    /// A failure with exit code 1.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into() }
    }

    /// The same with another exit code.
    pub(crate) fn code(self, code: i32) -> Self {
        Self { code, ..self }
    }

    /// A failure that was told already.
    pub(crate) fn silent(code: i32) -> Self {
        Self { code, message: String::new() }
    }

    /// A failure of `creel run` or one like it before the container ran: Docker's form, with a hint at the help.
    pub(crate) fn of_run(error: impl std::fmt::Display, code: i32, command: &str) -> Self {
        Self { code, message: format!("creel: {error}\n\nRun '{command} --help' for more information") }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(error.to_string())
    }
}

/// The exit code of a failed `run` or `start -a`, from the daemon's words, as Docker's client tells it.
pub(crate) fn start_code(error: &Error) -> i32 {
    let text = error.to_string().to_lowercase();
    if text.contains("executable file not found")
        || text.contains("no such file or directory")
        || text.contains("system cannot find the file specified")
    {
        127
    } else if text.contains("permission denied") || text.contains("is a directory") {
        126
    } else {
        125
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_a_failed_start() {
        let code = |message: &str| start_code(&Error::Status { status: 400, message: message.to_owned() });
        assert_eq!(code("exec: \"nosuch\": executable file not found in $PATH"), 127);
        assert_eq!(code("exec: \"/etc\": is a directory: permission denied"), 126);
        assert_eq!(code("exec: \"/x\": stat /x: no such file or directory"), 127);
        assert_eq!(code("the name is in use"), 125);
    }
}
