//! Commands: what there is, how one is found, how it is called.

use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use creel_client::Client;

use crate::failure::Failure;
use crate::flags::{Flags, Parsed};

/// What a command is given.
pub(crate) struct Context {
    /// The client; nothing is connected yet.
    pub client: Client,
    /// The flags and arguments.
    pub parsed: Parsed,
    /// How the command was called: `creel container ls`.
    pub path: String,
    /// When the program began.
    pub begin: Instant,
}

impl Context {
    /// The positional arguments.
    pub(crate) fn args(&self) -> &[String] {
        &self.parsed.args
    }

    /// The argument at a place; empty if there is none (the number of arguments was checked before).
    pub(crate) fn arg(&self, n: usize) -> &str {
        self.parsed.args.get(n).map_or("", String::as_str)
    }
}

/// What a command comes to: an exit code or a failure.
pub(crate) type Outcome = Result<i32, Failure>;

/// A command's function, called on the async runtime.
pub(crate) type Run = fn(Context) -> Pin<Box<dyn Future<Output = Outcome>>>;

/// How many positional arguments a command takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arity {
    /// None.
    None,
    /// So many.
    Exactly(usize),
    /// So many or more.
    AtLeast(usize),
    /// Between the two.
    Between(usize, usize),
    /// So many or fewer.
    AtMost(usize),
}

impl Arity {
    /// Why a number of arguments is wrong, in Docker's words.
    pub(crate) fn complaint(self, count: usize) -> Option<String> {
        let plural = |n: usize| if n == 1 { "argument" } else { "arguments" };
        match self {
            Arity::None if count > 0 => Some("accepts no arguments".to_owned()),
            Arity::Exactly(n) if count != n => Some(format!("requires {n} {}", plural(n))),
            Arity::AtLeast(n) if count < n => Some(format!("requires at least {n} {}", plural(n))),
            Arity::AtMost(n) if count > n => Some(format!("requires at most {n} {}", plural(n))),
            Arity::Between(a, b) if !(a..=b).contains(&count) => {
                Some(format!("requires at least {a} and at most {b} {}", plural(b)))
            }
            _ => None,
        }
    }
}

/// One command.
pub(crate) struct Command {
    /// Where it is found: group and name, or the name alone; the first is its own, the others are aliases.
    pub paths: &'static [&'static str],
    /// What follows the name, for the help.
    pub usage: &'static [&'static str],
    /// What it does, in one line.
    pub about: &'static str,
    /// More about it, for the help; may be empty.
    pub long: &'static str,
    /// Its flags.
    pub flags: Flags,
    /// Whether flags may stand after positional arguments.
    pub interspersed: bool,
    /// Its number of positional arguments.
    pub arity: Arity,
    /// Its function.
    pub run: Run,
}

/// The groups of commands.
pub(crate) const GROUPS: [(&str, &str); 4] = [
    ("container", "Manage containers"),
    ("image", "Manage images"),
    ("system", "Manage creel"),
    ("volume", "Manage volumes"),
];

/// Makes a [`Run`] of an async function.
macro_rules! run {
    ($function:path) => {
        |context| Box::pin($function(context))
    };
}
pub(crate) use run;
