//! Help: what is printed for `--help`.

use std::fmt::Write as _;

use crate::command::{Command, GROUPS};
use crate::commands::COMMANDS;
use crate::flags::{Flag, Flags, Kind};
use crate::terminal;

/// Columns of the help where no terminal says otherwise.
const WIDTH: usize = 80;

fn width() -> usize {
    terminal::size().map_or(WIDTH, |(_, columns)| usize::from(columns).clamp(60, 120))
}

fn find(path: &str) -> Option<&'static Command> {
    COMMANDS.iter().copied().flatten().find(|c| c.paths.contains(&path))
}

/// The commands of a group (or at the top) with their names there, in alphabetical order.
fn listed(group: &str) -> Vec<(&'static str, &'static str)> {
    let mut list: Vec<_> = COMMANDS
        .iter()
        .copied()
        .flatten()
        .filter_map(|command| {
            command.paths.iter().find_map(|path| {
                let name = match path.split_once(' ') {
                    Some((of, name)) => (of == group).then_some(name),
                    None => group.is_empty().then_some(*path),
                };
                name.map(|name| (name, command.about))
            })
        })
        .collect();
    list.sort_unstable();
    list
}

fn rows(out: &mut String, rows: &[(&str, &str)]) {
    for (name, about) in rows {
        let _ = writeln!(out, "  {name:<11} {about}");
    }
}

/// The help of the whole program.
pub(crate) fn program() -> String {
    const COMMON: [&str; 10] =
        ["run", "exec", "ps", "pull", "push", "images", "logs", "stop", "version", "info"];
    let mut out = String::from(
        "Usage:  creel [OPTIONS] COMMAND\n\nRuns programs in containers: small, fast, and you can see what a \
         container is.\n\nFirst steps:\n  creel run hello              What a container is, told from inside one\n  \
         creel run -it IMAGE sh       A shell in a new container\n\nCommon Commands:\n",
    );
    let all = listed("");
    let common: Vec<_> =
        COMMON.iter().filter_map(|name| all.iter().find(|(n, _)| n == name)).copied().collect();
    rows(&mut out, &common);
    out.push_str("\nManagement Commands:\n");
    rows(&mut out, &GROUPS);
    out.push_str("\nCommands:\n");
    let mut rest: Vec<_> = all.into_iter().filter(|(name, _)| !COMMON.contains(name)).collect();
    rest.push(("daemon", "Run the daemon (started by itself when root needs it)"));
    rest.sort_unstable();
    rows(&mut out, &rest);
    out.push_str("\nGlobal Options:\n");
    out.push_str(&options(&[crate::GLOBAL], width()));
    out.push_str("\nRun 'creel COMMAND --help' for more information on a command.\n");
    out
}

/// The help of a group.
pub(crate) fn group(name: &str) -> String {
    let about = GROUPS.iter().find(|(n, _)| *n == name).map_or("", |(_, about)| about);
    let mut out = format!("Usage:  creel {name} COMMAND\n\n{about}\n\nCommands:\n");
    rows(&mut out, &listed(name));
    let _ = writeln!(out, "\nRun 'creel {name} COMMAND --help' for more information on a command.");
    out
}

/// The lines that tell how a command is called.
pub(crate) fn usage(command: &Command, path: &str) -> String {
    let lines: Vec<String> =
        command.usage.iter().map(|usage| format!("{path} {usage}").trim_end().to_owned()).collect();
    format!("Usage:  {}", lines.join("\n\t"))
}

/// The help of a command called as `path`.
pub(crate) fn command(command: &Command, path: &str) -> String {
    let mut out = format!("{}\n\n{}\n", usage(command, path), command.about);
    if !command.long.is_empty() {
        let _ = writeln!(out, "\n{}", command.long);
    }
    if command.paths.len() > 1 {
        let names: Vec<String> = command.paths.iter().map(|p| format!("creel {p}")).collect();
        let _ = writeln!(out, "\nAliases:\n  {}", names.join(", "));
    }
    let options = options(command.flags, width());
    if !options.is_empty() {
        let _ = write!(out, "\nOptions:\n{options}");
    }
    out
}

fn options(flags: Flags, width: usize) -> String {
    let mut list: Vec<&Flag> = flags.iter().copied().flatten().filter(|flag| !flag.hidden).collect();
    list.sort_by_key(|flag| flag.long);
    let name = |flag: &Flag| {
        let short = flag.short.map_or("    ".to_owned(), |letter| format!("-{letter}, "));
        let value =
            if matches!(flag.kind, Kind::Switch) { String::new() } else { format!(" {}", flag.value) };
        format!("{short}--{}{value}", flag.long)
    };
    let column = list.iter().map(|flag| name(flag).chars().count()).max().unwrap_or(0) + 5;
    let mut out = String::new();
    for flag in list {
        let mut line = format!("  {:<1$}", name(flag), column - 2);
        let mut used = column;
        let mut first = true;
        for word in flag.help.split(' ') {
            if !first && used + 1 + word.chars().count() > width {
                let _ = writeln!(out, "{line}");
                line = " ".repeat(column);
                used = column;
                first = true;
            }
            if !first {
                line.push(' ');
                used += 1;
            }
            line.push_str(word);
            used += word.chars().count();
            first = false;
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

/// The nearest command to a misspelt one, in the group or at the top.
pub(crate) fn nearest(group: &str, name: &str) -> Option<&'static str> {
    crate::flags::suggest::nearest(name, listed(group).into_iter().map(|(name, _)| name))
}

/// Finds a command by its words: how many of them name it, and the command.
pub(crate) fn lookup(words: &[String]) -> Option<(usize, &'static Command)> {
    let first = words.first()?;
    if let Some(second) = words.get(1)
        && let Some(command) = find(&format!("{first} {second}"))
    {
        return Some((2, command));
    }
    find(first).map(|command| (1, command))
}
