//! The commands, named and behaving as Docker's.
//!
//! Layer 4. A command is a constant in `commands`: its names, flags and function. [`main`] finds it, reads its
//! flags, and runs its function on a single-threaded tokio runtime with a [`creel_client::Client`]. Nothing here
//! knows the engine: the daemon is asked through the Docker API, be it creel's or Docker's own.

mod auth;
mod autostart;
mod command;
mod commands;
mod container_config;
mod container_flags;
mod copy;
mod detach;
mod failure;
pub mod flags;
mod format;
pub mod hello;
mod help;
mod json;
mod layout;
mod output;
mod progress;
mod session;
mod signals;
mod streams;
pub mod table;
pub mod template;
mod terminal;
mod timings;
pub mod units;

use std::ffi::OsString;
use std::time::Instant;

use creel_client::{Client, Endpoint};

use command::{Arity, Context, GROUPS};
use failure::Failure;
use flags::{Flag, FlagError, Parsed};

/// Flags that stand before the command.
pub(crate) const GLOBAL: &[Flag] = &[
    Flag::switch("debug", "Accepted for Docker's sake; the daemon's --log-level decides").short('D').hide(),
    Flag::text("config", "string", "Directory of the registries' credentials (default \"~/.docker\")"),
    Flag::text("context", "string", "Accepted for Docker's sake; only \"default\" exists").short('c').hide(),
    Flag::list("host", "list", "Socket of the daemon (unix:///PATH); also in CREEL_HOST").short('H'),
    Flag::text("log-level", "string", "Accepted for Docker's sake").short('l').hide(),
    Flag::switch("version", "Print the version and quit").short('v'),
];

/// Whether what must hold of Docker's `config.json` does for this text and registry. For tests from outside, like the
/// fuzzer's.
pub fn credentials_hold(text: &str, registry: &str) -> bool {
    auth::holds(text, registry)
}

/// The commands' `main`: `args` begins with the program's name. Returns the exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> i32 {
    let begin = Instant::now();
    let outcome = words(args).and_then(|words| dispatch(begin, words));
    terminal::restore();
    match outcome {
        Ok(code) => code,
        Err(failure) => {
            if !failure.message.is_empty() {
                output::complain(&failure.message);
            }
            failure.code
        }
    }
}

fn words(args: impl IntoIterator<Item = OsString>) -> Result<Vec<String>, Failure> {
    args.into_iter()
        .skip(1)
        .map(|word| {
            word.into_string().map_err(|word| {
                Failure::new(format!("creel: the argument {} is not valid UTF-8", word.display())).code(125)
            })
        })
        .collect()
}

fn dispatch(begin: Instant, line: Vec<String>) -> command::Outcome {
    let bad_flag = |e: FlagError, usage: String, path: &str| {
        let usage = if usage.is_empty() { String::new() } else { format!("{usage}\n\n") };
        Failure::new(format!("{e}\n\n{usage}Run '{path} --help' for more information")).code(125)
    };
    let global = flags::parse(&[GLOBAL], false, line).map_err(|e| bad_flag(e, String::new(), "creel"))?;
    if global.on("version") {
        output::print_line(&format!("creel version {}", env!("CARGO_PKG_VERSION")))?;
        return Ok(0);
    }
    let words = &global.args;
    let Some(first) = words.first().filter(|_| !global.help) else {
        output::print(&help::program())?;
        return Ok(0);
    };
    if first == "help" {
        let asked = &words[1..];
        let text = match help::lookup(asked) {
            Some((n, command)) => help::command(command, &format!("creel {}", asked[..n].join(" "))),
            None if asked.first().is_some_and(|name| GROUPS.iter().any(|(g, _)| g == name)) => {
                help::group(&asked[0])
            }
            None if asked.is_empty() => help::program(),
            None => return Err(unknown("", &asked[0])),
        };
        output::print(&text)?;
        return Ok(0);
    }
    let Some((n, command)) = help::lookup(words) else {
        return match GROUPS.iter().find(|(name, _)| name == first) {
            None => Err(unknown("", first)),
            Some((group, _)) => match words.get(1) {
                Some(word) if !word.starts_with('-') => Err(unknown(group, word)),
                Some(word) if word != "--help" && word != "-h" => {
                    let name = word.trim_start_matches('-').to_owned();
                    Err(bad_flag(FlagError::Unknown(name, None), String::new(), &format!("creel {group}")))
                }
                _ => output::print(&help::group(group)).map(|()| 0),
            },
        };
    };
    let path = format!("creel {}", words[..n].join(" "));
    let parsed = flags::parse(command.flags, command.interspersed, words[n..].iter().cloned())
        .map_err(|e| bad_flag(e, help::usage(command, &path), &path))?;
    if parsed.help {
        output::print(&help::command(command, &path))?;
        return Ok(0);
    }
    if let Some(complaint) = command.arity.complaint(parsed.args.len()) {
        let usage = help::usage(command, &path);
        // Docker's own two wordings.
        let verb = if matches!(command.arity, Arity::None | Arity::Exactly(_)) { "Run" } else { "See" };
        return Err(Failure::new(format!(
            "creel: '{path}' {complaint}\n\n{usage}\n\n{verb} '{path} --help' for more information"
        )));
    }
    run(begin, &global, command, parsed, path)
}

fn unknown(group: &str, name: &str) -> Failure {
    let path = format!("creel {group}").trim_end().to_owned();
    let hint =
        help::nearest(group, name).map(|near| format!("Did you mean '{near}'?\n\n")).unwrap_or_default();
    let usage = if group.is_empty() { String::new() } else { format!("Usage:  {path}\n\n") };
    Failure::new(format!(
        "creel: unknown command: {path} {name}\n\n{hint}{usage}Run '{path} --help' for more information"
    ))
}

fn run(
    begin: Instant,
    global: &Parsed,
    command: &command::Command,
    parsed: Parsed,
    path: String,
) -> command::Outcome {
    let environment = std::env::var("CREEL_HOST").ok().filter(|host| !host.is_empty());
    let host = global.some("host").map(str::to_owned).or(environment);
    let autostart = host.is_none();
    let is_run = matches!(command.paths.first(), Some(&"run" | &"create"));
    let endpoint =
        match host {
            None => Endpoint::default(),
            Some(host) => host.parse().map_err(|e: creel_client::Error| {
                if is_run { Failure::of_run(e, 125, &path) } else { Failure::from(e) }
            })?,
        };
    if let Some(config) = global.some("config") {
        auth::set_directory(config);
    }
    let mut client = Client::new(endpoint);
    if autostart {
        // Before the runtime: the daemon is cloned from a process with one thread.
        let opened = autostart::ensure(client.endpoint().socket()).map_err(|e| {
            if is_run { Failure::of_run(e, 125, &path) } else { Failure::new(format!("creel: {e}")) }
        })?;
        if let Some(stream) = opened {
            client = client.with_connection(stream);
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(format!("creel: starting the async runtime: {e}")))?;
    let context = Context { client, parsed, path, begin };
    let outcome = runtime.block_on((command.run)(context));
    // Threads that still read standard input must not hold the program up.
    runtime.shutdown_background();
    outcome
}

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
