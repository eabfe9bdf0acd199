//! Flags: what a command takes, and how a command line is read.
//!
//! The grammar is that of Docker's client (GNU style as pflag reads it): `--name value`, `--name=value`, `-n value`,
//! `-nvalue`, `-n=value`, switches together as `-it`, switches with a value as `--rm=false`, `--` ends the flags. A
//! command that runs a program in a container stops at the first positional argument. Tables of flags are constants,
//! so nothing is built when a command starts.

pub mod device;
pub mod env;
pub mod ids;
pub mod mount;
pub mod suggest;
pub mod ulimit;
pub mod values;
pub mod volume;

/// Says whether a text is a value that a flag takes, or why not.
pub type Check = fn(&str) -> Result<(), String>;

/// What a flag takes.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Nothing, or a truth value after `=`.
    Switch,
    /// One text; the last one counts.
    Text,
    /// Texts; all of them count.
    List,
    /// One text that passes a check.
    Checked(Check),
    /// Texts that each pass a check.
    CheckedList(Check),
}

/// One flag.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// Name after `--`.
    pub long: &'static str,
    /// Letter after `-`.
    pub short: Option<char>,
    /// What it takes.
    pub kind: Kind,
    /// What the help calls its value; empty for switches.
    pub value: &'static str,
    /// What it does, for the help.
    pub help: &'static str,
    /// Whether the help leaves it out.
    pub hidden: bool,
}

impl Flag {
    /// A switch.
    pub const fn switch(long: &'static str, help: &'static str) -> Self {
        Self { long, short: None, kind: Kind::Switch, value: "", help, hidden: false }
    }

    /// A flag with one value.
    pub const fn text(long: &'static str, value: &'static str, help: &'static str) -> Self {
        Self { long, short: None, kind: Kind::Text, value, help, hidden: false }
    }

    /// A flag that may be given several times.
    pub const fn list(long: &'static str, value: &'static str, help: &'static str) -> Self {
        Self { long, short: None, kind: Kind::List, value, help, hidden: false }
    }

    /// The same with a letter.
    pub const fn short(mut self, letter: char) -> Self {
        self.short = Some(letter);
        self
    }

    /// The same with a check of its values.
    pub const fn check(mut self, check: Check) -> Self {
        self.kind = match self.kind {
            Kind::List | Kind::CheckedList(_) => Kind::CheckedList(check),
            _ => Kind::Checked(check),
        };
        self
    }

    /// The same, left out of the help.
    pub const fn hide(mut self) -> Self {
        self.hidden = true;
        self
    }

    /// How messages call it: `-m, --memory`.
    pub fn display(&self) -> String {
        match self.short {
            Some(letter) => format!("-{letter}, --{}", self.long),
            None => format!("--{}", self.long),
        }
    }
}

/// The flags that a command takes: tables that may be shared between commands.
pub type Flags = &'static [&'static [Flag]];

/// Why a command line cannot be read, in Docker's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// There is no such flag; the second field is the nearest one there is.
    #[error("unknown flag: --{}{}", .0, .1.map(|n| format!("\nDid you mean --{n}?")).unwrap_or_default())]
    Unknown(String, Option<&'static str>),
    /// There is no such letter.
    #[error("unknown shorthand flag: '{0}' in -{1}")]
    UnknownShort(char, String),
    /// A flag that takes a value stands at the end.
    #[error("flag needs an argument: --{0}")]
    Missing(String),
    /// The same by letter.
    #[error("flag needs an argument: '{0}' in -{1}")]
    MissingShort(char, String),
    /// Dashes that spell no flag.
    #[error("bad flag syntax: {0}")]
    Syntax(String),
    /// A value that the flag does not take: value, flag, reason.
    #[error("invalid argument {0:?} for \"{1}\" flag: {2}")]
    Value(String, String, String),
}

/// A command line that was read.
#[derive(Debug, Clone, Default)]
pub struct Parsed {
    values: Vec<(&'static str, String)>,
    /// Positional arguments.
    pub args: Vec<String>,
    /// Whether help was asked for.
    pub help: bool,
}

impl Parsed {
    /// Whether a switch is on.
    pub fn on(&self, long: &str) -> bool {
        self.get(long) == Some("true")
    }

    /// The last value given.
    pub fn get(&self, long: &str) -> Option<&str> {
        self.values.iter().rev().find(|(name, _)| *name == long).map(|(_, value)| value.as_str())
    }

    /// The last value given, unless it is empty.
    pub fn some(&self, long: &str) -> Option<&str> {
        self.get(long).filter(|text| !text.is_empty())
    }

    /// All values given.
    pub fn all(&self, long: &str) -> Vec<&str> {
        self.values.iter().filter(|(name, _)| *name == long).map(|(_, value)| value.as_str()).collect()
    }

    /// All values given, as they go into a document: `None` without any.
    pub fn list(&self, long: &str) -> Option<Vec<String>> {
        let all: Vec<String> = self.all(long).into_iter().map(str::to_owned).collect();
        (!all.is_empty()).then_some(all)
    }

    /// The last value as a number; a check has seen to it that it is one.
    pub fn number<T: std::str::FromStr>(&self, long: &str) -> Option<T> {
        self.get(long)?.parse().ok()
    }

    fn take(&mut self, flag: &'static Flag, value: String) -> Result<(), FlagError> {
        let wrong = |why: String| FlagError::Value(value.clone(), flag.display(), why);
        let value = match flag.kind {
            Kind::Switch => values::boolean(&value).map_err(wrong)?.to_string(),
            Kind::Checked(check) | Kind::CheckedList(check) => {
                check(&value).map_err(wrong)?;
                value
            }
            Kind::Text | Kind::List => value,
        };
        self.values.push((flag.long, value));
        Ok(())
    }
}

fn find_long(flags: Flags, name: &str) -> Option<&'static Flag> {
    flags.iter().copied().flatten().find(|flag| flag.long == name)
}

fn find_short(flags: Flags, letter: char) -> Option<&'static Flag> {
    flags.iter().copied().flatten().find(|flag| flag.short == Some(letter))
}

/// Reads a command line. With `interspersed`, flags may stand after positional arguments.
///
/// # Errors
/// [`FlagError`] for the first flag that is wrong.
pub fn parse(
    flags: Flags,
    interspersed: bool,
    line: impl IntoIterator<Item = String>,
) -> Result<Parsed, FlagError> {
    let mut parsed = Parsed::default();
    let mut line = line.into_iter();
    while let Some(word) = line.next() {
        if !word.starts_with('-') || word == "-" {
            parsed.args.push(word);
            if !interspersed {
                break;
            }
        } else if word == "--" {
            break;
        } else if let Some(long) = word.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            if name.is_empty() || name.starts_with('-') {
                return Err(FlagError::Syntax(word));
            }
            let Some(flag) = find_long(flags, name) else {
                if name == "help" {
                    parsed.help = true;
                    return Ok(parsed);
                }
                let known = flags.iter().copied().flatten().filter(|f| !f.hidden).map(|f| f.long);
                return Err(FlagError::Unknown(name.to_owned(), suggest::nearest(name, known)));
            };
            let value = match (value, flag.kind) {
                (Some(value), _) => value,
                (None, Kind::Switch) => "true".to_owned(),
                (None, _) => line.next().ok_or_else(|| FlagError::Missing(name.to_owned()))?,
            };
            parsed.take(flag, value)?;
        } else {
            letters(flags, &word[1..], &mut parsed, &mut line)?;
            if parsed.help {
                return Ok(parsed);
            }
        }
    }
    parsed.args.extend(line);
    Ok(parsed)
}

fn letters(
    flags: Flags,
    word: &str,
    parsed: &mut Parsed,
    line: &mut impl Iterator<Item = String>,
) -> Result<(), FlagError> {
    let mut rest = word;
    while let Some(letter) = rest.chars().next() {
        let whole = rest;
        rest = &rest[letter.len_utf8()..];
        let Some(flag) = find_short(flags, letter) else {
            if letter == 'h' {
                parsed.help = true;
                return Ok(());
            }
            return Err(FlagError::UnknownShort(letter, whole.to_owned()));
        };
        if let Some(value) = rest.strip_prefix('=') {
            return parsed.take(flag, value.to_owned());
        }
        if matches!(flag.kind, Kind::Switch) {
            parsed.take(flag, "true".to_owned())?;
        } else if rest.is_empty() {
            let value = line.next().ok_or_else(|| FlagError::MissingShort(letter, whole.to_owned()))?;
            return parsed.take(flag, value);
        } else {
            return parsed.take(flag, rest.to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    const FLAGS: Flags = &[&[
        Flag::switch("interactive", "").short('i'),
        Flag::switch("tty", "").short('t'),
        Flag::switch("rm", ""),
        Flag::list("env", "list", "").short('e'),
        Flag::text("memory", "bytes", "")
            .short('m')
            .check(|text| crate::units::parse_bytes(text).map(drop).map_err(|e| e.to_string())),
        Flag::text("name", "string", ""),
    ]];

    fn check(line: &str, expect: Expect) {
        let parsed = parse(FLAGS, false, line.split_whitespace().map(str::to_owned));
        let text = match parsed {
            Ok(p) => format!("{:?} {:?} help={}", p.values, p.args, p.help),
            Err(e) => e.to_string(),
        };
        expect.assert_eq(&text);
    }

    #[test]
    fn lines_are_read_as_docker_reads_them() {
        check(
            "-it busybox sh -c x",
            expect![[
                r#"[("interactive", "true"), ("tty", "true")] ["busybox", "sh", "-c", "x"] help=false"#
            ]],
        );
        check(
            "-ie A=1 -eB=2 -e=C=3 --env=D=4 --env E img",
            expect![[
                r#"[("interactive", "true"), ("env", "A=1"), ("env", "B=2"), ("env", "C=3"), ("env", "D=4"), ("env", "E")] ["img"] help=false"#
            ]],
        );
        check(
            "--rm=false -t=0 -- -x y",
            expect![[r#"[("rm", "false"), ("tty", "false")] ["-x", "y"] help=false"#]],
        );
        check("- --rm", expect![[r#"[] ["-", "--rm"] help=false"#]]);
        check(
            "--rm=maybe x",
            expect![[
                r#"invalid argument "maybe" for "--rm" flag: strconv.ParseBool: parsing "maybe": invalid syntax"#
            ]],
        );
        check(
            "-m abc x",
            expect![[r#"invalid argument "abc" for "-m, --memory" flag: invalid size: 'abc'"#]],
        );
        check(
            "--memmory 5m x",
            expect![[r#"
            unknown flag: --memmory
            Did you mean --memory?"#]],
        );
        check("--zzz x", expect!["unknown flag: --zzz"]);
        check("-iQ x", expect!["unknown shorthand flag: 'Q' in -Q"]);
        check("--name", expect!["flag needs an argument: --name"]);
        check("-ie", expect!["flag needs an argument: 'e' in -e"]);
        check("--=x", expect!["bad flag syntax: --=x"]);
        check("---", expect!["bad flag syntax: ---"]);
        check("--help x", expect!["[] [] help=true"]);
        check("-h", expect!["[] [] help=true"]);
    }

    #[test]
    fn flags_may_stand_after_arguments_where_a_command_allows_it() {
        let line = ["a", "--rm", "b", "--", "--tty"].map(str::to_owned);
        let parsed = parse(FLAGS, true, line).unwrap();
        assert!(parsed.on("rm"));
        assert!(!parsed.on("tty"));
        assert_eq!(parsed.args, ["a", "b", "--tty"]);
    }

    proptest! {
        #[test]
        fn no_line_panics(line in prop::collection::vec("(-{0,3}[a-zé=]{0,6})|\\PC{0,5}", 0..6), mixed in any::<bool>()) {
            let _ = parse(FLAGS, mixed, line);
        }

        #[test]
        fn positional_arguments_are_kept(args in prop::collection::vec("[^-]\\PC{0,5}", 1..6)) {
            let mut line = vec!["-i".to_owned()];
            line.extend(args.clone());
            prop_assert_eq!(parse(FLAGS, false, line).unwrap().args, args);
        }
    }
}
