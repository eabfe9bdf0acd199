//! The command line's flags: `--name value`, `--name=value`, `-n value`, and `-name` as Go's programs take it too.
//!
//! A table says which flags there are; reading arguments against it is pure.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// What follows a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Nothing; `--name=false` turns it off.
    Nothing,
    /// A text; the last one counts.
    Text,
    /// A whole number; the last one counts.
    Number,
    /// A text, and the flag may be repeated.
    Many,
}

/// One flag.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// Its name without dashes.
    pub name: &'static str,
    /// A second name, of one letter.
    pub short: Option<&'static str>,
    /// What follows.
    pub takes: Takes,
    /// The line in the help; empty for a flag that the help does not show.
    pub help: &'static str,
}

impl Flag {
    /// A flag that takes nothing.
    pub const fn on(name: &'static str, help: &'static str) -> Flag {
        Flag { name, short: None, takes: Takes::Nothing, help }
    }

    /// A flag with a text.
    pub const fn text(name: &'static str, help: &'static str) -> Flag {
        Flag { name, short: None, takes: Takes::Text, help }
    }

    /// A flag with a whole number.
    pub const fn number(name: &'static str, help: &'static str) -> Flag {
        Flag { name, short: None, takes: Takes::Number, help }
    }

    /// A flag with a text that may be repeated.
    pub const fn many(name: &'static str, help: &'static str) -> Flag {
        Flag { name, short: None, takes: Takes::Many, help }
    }

    /// The same flag with a second name.
    pub const fn or(self, short: &'static str) -> Flag {
        Flag { short: Some(short), ..self }
    }
}

/// What an argument list says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parsed {
    values: Vec<(&'static str, OsString)>,
    /// What is no flag, in order.
    pub arguments: Vec<OsString>,
    /// Whether help was asked for.
    pub help: bool,
}

impl Parsed {
    /// Whether a flag that takes nothing is on.
    pub fn on(&self, name: &str) -> bool {
        self.last(name).is_some_and(|value| value == "true")
    }

    /// Whether a flag was given at all.
    pub fn is_set(&self, name: &str) -> bool {
        self.last(name).is_some()
    }

    /// The value of a flag; `None` when it was not given or is empty.
    pub fn value(&self, name: &str) -> Option<&OsStr> {
        self.last(name).filter(|value| !value.is_empty())
    }

    /// The value of a flag as text, undecodable bytes replaced.
    pub fn text(&self, name: &str) -> Option<String> {
        self.value(name).map(|value| value.to_string_lossy().into_owned())
    }

    /// The number of a flag.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.value(name)?.to_str()?.parse().ok()
    }

    /// All values of a flag that may be repeated.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = String> + 'a {
        self.values
            .iter()
            .filter(move |(flag, _)| *flag == name)
            .map(|(_, value)| value.to_string_lossy().into_owned())
    }

    /// Replaces the value of a flag.
    pub fn set(&mut self, name: &'static str, value: OsString) {
        self.values.push((name, value));
    }

    fn last(&self, name: &str) -> Option<&OsStr> {
        self.values.iter().rev().find(|(flag, _)| *flag == name).map(|(_, value)| value.as_os_str())
    }
}

/// Reads arguments. With `stop`, everything from the first argument that is no flag on is left as it is (what
/// follows belongs to another program); without, flags may stand after arguments.
///
/// # Errors
/// A text in the words of Go's flag package: an unknown flag, a missing value, a value of the wrong kind.
pub fn parse(flags: &[Flag], args: &[OsString], stop: bool) -> Result<Parsed, String> {
    let mut parsed = Parsed::default();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let bytes = arg.as_bytes();
        if bytes == b"--" {
            parsed.arguments.extend(rest.cloned());
            break;
        }
        let Some(word) = bytes.strip_prefix(b"-").filter(|word| !word.is_empty()) else {
            parsed.arguments.push(arg.clone());
            if stop {
                parsed.arguments.extend(rest.cloned());
                break;
            }
            continue;
        };
        let word = word.strip_prefix(b"-").unwrap_or(word);
        let (name, given) = match word.iter().position(|byte| *byte == b'=') {
            Some(at) => (&word[..at], Some(OsString::from_vec(word[at + 1..].to_vec()))),
            None => (word, None),
        };
        let name = String::from_utf8_lossy(name);
        let known = |flag: &&Flag| flag.name == name || flag.short.is_some_and(|short| short == name);
        let Some(flag) = flags.iter().find(known) else {
            if name == "help" || name == "h" {
                parsed.help = true;
                continue;
            }
            return Err(format!("flag provided but not defined: -{name}"));
        };
        let value = match (flag.takes, given) {
            (Takes::Nothing, None) => "true".into(),
            (Takes::Nothing, Some(value)) => truth(&value)
                .ok_or_else(|| format!("invalid boolean value {value:?} for -{name}: parse error"))?
                .into(),
            (_, Some(value)) => value,
            (_, None) => rest.next().cloned().ok_or_else(|| format!("flag needs an argument: -{name}"))?,
        };
        if flag.takes == Takes::Number && value.to_str().and_then(|text| text.parse::<i64>().ok()).is_none() {
            return Err(format!("invalid value {value:?} for flag -{name}: parse error"));
        }
        parsed.values.push((flag.name, value));
    }
    Ok(parsed)
}

/// What Go's `ParseBool` takes, as `true` or `false`.
fn truth(value: &OsStr) -> Option<&'static str> {
    match value.to_str()? {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some("true"),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some("false"),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FLAGS: [Flag; 4] = [
        Flag::on("detach", "d").or("d"),
        Flag::text("bundle", "b").or("b"),
        Flag::number("preserve-fds", "n"),
        Flag::many("env", "e").or("e"),
    ];

    fn line(text: &str) -> Vec<OsString> {
        text.split(' ').filter(|word| !word.is_empty()).map(OsString::from).collect()
    }

    fn read(text: &str, stop: bool) -> Result<Parsed, String> {
        parse(&FLAGS, &line(text), stop)
    }

    #[test]
    fn all_spellings_mean_the_same() {
        for text in ["--bundle /x", "--bundle=/x", "-bundle /x", "-b /x", "-b=/x", "--b=/x"] {
            assert_eq!(read(text, false).unwrap().text("bundle").unwrap(), "/x", "{text}");
        }
        for (text, on) in [("-d", true), ("--detach=true", true), ("--detach=0", false), ("", false)] {
            assert_eq!(read(text, false).unwrap().on("detach"), on, "{text}");
        }
        let repeated = read("-e A=1 --env B=2 id", false).unwrap();
        assert_eq!(repeated.all("env").collect::<Vec<_>>(), ["A=1", "B=2"]);
        assert_eq!(read("--preserve-fds=3", false).unwrap().number("preserve-fds"), Some(3));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for (text, error) in [
            ("--bogus x", "flag provided but not defined: -bogus"),
            ("id --bogus", "flag provided but not defined: -bogus"),
            ("-bx", "flag provided but not defined: -bx"),
            ("--bundle", "flag needs an argument: -bundle"),
            ("--detach=maybe", "invalid boolean value \"maybe\" for -detach: parse error"),
            ("--preserve-fds x", "invalid value \"x\" for flag -preserve-fds: parse error"),
        ] {
            assert_eq!(read(text, false).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn a_program_s_own_flags_are_left_alone() {
        let parsed = read("-d id ls -l --bundle x", true).unwrap();
        assert_eq!(parsed.arguments, line("id ls -l --bundle x"));
        let permuted = read("id -d", false).unwrap();
        assert_eq!((permuted.on("detach"), permuted.arguments), (true, line("id")));
        assert_eq!(read("-d -- -x", false).unwrap().arguments, line("-x"));
        assert_eq!(read("-", false).unwrap().arguments, line("-"));
        assert!(read("id --help", false).unwrap().help);
        assert!(!read("id --help", true).unwrap().help);
    }

    proptest! {
        /// Whatever is given, nothing is lost: every argument ends as a flag, a flag's value or an argument.
        #[test]
        fn nothing_is_lost(words in proptest::collection::vec("(-{0,2}[a-z=]{0,6}|--bundle|--env|-d)", 0..8), stop: bool) {
            let args: Vec<OsString> = words.iter().map(OsString::from).collect();
            if let Ok(parsed) = parse(&FLAGS, &args, stop) {
                let separate = |flag: &str, value: &OsStr| {
                    args.iter().zip(args.iter().skip(1)).any(|(name, given)| {
                        name.to_string_lossy().trim_start_matches('-').starts_with(&flag[..1]) && given == value
                    })
                };
                let taken = parsed.values.iter().map(|(name, value)| {
                    if *name != "detach" && separate(name, value) { 2 } else { 1 }
                }).sum::<usize>();
                let at_least = parsed.arguments.len() + parsed.values.len();
                let at_most = parsed.arguments.len() + taken + usize::from(args.iter().any(|a| a == "--"))
                    + args.iter().filter(|a| a.to_string_lossy().trim_start_matches('-').starts_with('h')).count();
                prop_assert!(at_least <= args.len() && args.len() <= at_most, "{parsed:?}");
            }
        }

        /// A value is handed on byte for byte, whatever it looks like.
        #[test]
        fn values_are_kept(value in "[^\0]{0,20}") {
            let args = [OsString::from("--bundle"), OsString::from(&value), OsString::from("id")];
            let parsed = parse(&FLAGS, &args, true).unwrap();
            prop_assert_eq!(parsed.last("bundle").unwrap().to_str().unwrap(), &value);
            let joined = [OsString::from(format!("--bundle={value}"))];
            let parsed = parse(&FLAGS, &joined, true).unwrap();
            prop_assert_eq!(parsed.last("bundle").unwrap().to_str().unwrap(), &value);
        }
    }
}
