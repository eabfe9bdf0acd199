//! `--change`: the Dockerfile instructions that `import` and `commit` apply to an image's configuration.
//!
//! The grammar and the effects are those of the Dockerfile reference ("CMD" … "WORKDIR"), of which Docker allows
//! these: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR.

use creel_types::image::{Empty, ExecConfig};
use creel_types::{Classify, ErrorKind};
use serde_json::{Map, Value, json};

use crate::words::{expand, split_words};

/// Why an instruction cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The instruction is not one that may be given.
    #[error("{0} is not a valid change command")]
    Unknown(String),
    /// There is none.
    #[error("--change: it holds no instruction")]
    Empty,
    /// What follows the instruction is wrong.
    #[error("--change {instruction}: {reason}")]
    Arguments {
        /// The instruction's name.
        instruction: &'static str,
        /// What is wrong with what follows.
        reason: String,
    },
}

impl Classify for ChangeError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

type Result<T> = std::result::Result<T, ChangeError>;

fn wrong<T>(instruction: &'static str, reason: impl Into<String>) -> Result<T> {
    Err(ChangeError::Arguments { instruction, reason: reason.into() })
}

/// Applies instructions in their order to a configuration; on an error it may be half changed.
///
/// Each text may hold several lines, continued by a backslash at a line's end. As in a build, ENTRYPOINT takes an
/// inherited CMD away unless CMD is among the instructions before it.
pub fn apply(config: &mut ExecConfig, changes: &[String]) -> Result<()> {
    let mut cmd_set = false;
    for change in changes {
        let lines = logical_lines(change);
        if lines.is_empty() {
            return Err(ChangeError::Empty);
        }
        for line in lines {
            let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((&line, ""));
            apply_one(config, &name.to_ascii_uppercase(), rest.trim(), &mut cmd_set)?;
        }
    }
    Ok(())
}

fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut pending = String::new();
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.starts_with('#') || (trimmed.is_empty() && pending.is_empty()) {
            continue;
        }
        match line.trim_end().strip_suffix('\\') {
            Some(continued) => pending.push_str(continued),
            None => {
                pending.push_str(line);
                lines.push(std::mem::take(&mut pending).trim().to_owned());
            }
        }
    }
    if !pending.trim().is_empty() {
        lines.push(pending.trim().to_owned());
    }
    lines.retain(|line| !line.is_empty());
    lines
}

fn apply_one(config: &mut ExecConfig, name: &str, rest: &str, cmd_set: &mut bool) -> Result<()> {
    let env = config.env.clone().unwrap_or_default();
    match name {
        "CMD" => {
            config.cmd = command(config, rest);
            *cmd_set = true;
        }
        "ENTRYPOINT" => {
            config.entrypoint = command(config, rest);
            if !*cmd_set {
                config.cmd = None;
            }
        }
        "ENV" => {
            let list = config.env.get_or_insert_default();
            for (key, value) in pairs("ENV", rest, &env)? {
                set_env(list, &key, &value);
            }
        }
        "LABEL" => {
            let labels = config.labels.get_or_insert_default();
            labels.extend(pairs("LABEL", rest, &env)?);
        }
        "EXPOSE" => {
            let words = arguments("EXPOSE", rest, &env)?;
            let ports = config.exposed_ports.get_or_insert_default();
            for word in words {
                for port in expose("EXPOSE", &word)? {
                    ports.insert(port, Empty {});
                }
            }
        }
        "VOLUME" => {
            let paths = match json_strings(rest) {
                Some(list) => {
                    list.iter().map(|word| expanded("VOLUME", word, &env)).collect::<Result<_>>()?
                }
                None => arguments("VOLUME", rest, &env)?,
            };
            let volumes = config.volumes.get_or_insert_default();
            if paths.is_empty() {
                return wrong("VOLUME", "at least one argument is wanted");
            }
            for path in paths {
                if path.trim().is_empty() {
                    return wrong("VOLUME", "a volume's path is empty");
                }
                volumes.insert(path, Empty {});
            }
        }
        "USER" => config.user = single("USER", rest, &env)?,
        "WORKDIR" => {
            let path = single("WORKDIR", rest, &env)?;
            config.working_dir = join_path(&config.working_dir, &path);
        }
        "STOPSIGNAL" => {
            let signal = single("STOPSIGNAL", rest, &env)?;
            if !is_signal(&signal) {
                return wrong(
                    "STOPSIGNAL",
                    format!("`{signal}` is not a signal: SIGTERM, TERM or a number is"),
                );
            }
            config.stop_signal = Some(signal);
        }
        "ONBUILD" => {
            let trigger = rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
            match trigger.as_str() {
                "" => return wrong("ONBUILD", "an instruction is wanted"),
                "ONBUILD" | "FROM" | "MAINTAINER" => {
                    return wrong("ONBUILD", format!("{trigger} is not allowed as a trigger"));
                }
                _ => config.on_build.get_or_insert_default().push(rest.to_owned()),
            }
        }
        "HEALTHCHECK" => config.healthcheck = Some(healthcheck(rest)?),
        _ => return Err(ChangeError::Unknown(name.to_owned())),
    }
    Ok(())
}

fn expanded(instruction: &'static str, text: &str, env: &[String]) -> Result<String> {
    expand(text, env).or_else(|reason| wrong(instruction, reason))
}

fn arguments(instruction: &'static str, rest: &str, env: &[String]) -> Result<Vec<String>> {
    let words: Vec<String> =
        split_words(rest).iter().map(|word| expanded(instruction, word, env)).collect::<Result<_>>()?;
    if words.is_empty() {
        return wrong(instruction, "at least one argument is wanted");
    }
    Ok(words)
}

fn single(instruction: &'static str, rest: &str, env: &[String]) -> Result<String> {
    let value = expanded(instruction, rest, env)?;
    if value.is_empty() {
        return wrong(instruction, "an argument is wanted");
    }
    Ok(value)
}

/// The exec form as it stands, or the shell form through the image's shell. Nothing at all is no command.
fn command(config: &ExecConfig, rest: &str) -> Option<Vec<String>> {
    if let Some(list) = json_strings(rest) {
        return Some(list);
    }
    if rest.is_empty() {
        return None;
    }
    let mut list = config.shell.clone().unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
    list.push(rest.to_owned());
    Some(list)
}

fn json_strings(text: &str) -> Option<Vec<String>> {
    if text.starts_with('[') { serde_json::from_str(text).ok() } else { None }
}

/// `key=value …`, or the old form `key value with spaces`.
fn pairs(instruction: &'static str, rest: &str, env: &[String]) -> Result<Vec<(String, String)>> {
    let words = split_words(rest);
    let Some(first) = words.first() else { return wrong(instruction, "at least one key=value is wanted") };
    let mut found = Vec::new();
    if !first.contains('=') {
        let value = rest[first.len()..].trim_start();
        if value.is_empty() {
            return wrong(instruction, format!("`{first}` has no value: key=value is wanted"));
        }
        found.push((first.clone(), value.to_owned()));
    } else {
        for word in &words {
            let Some((key, value)) = word.split_once('=') else {
                return wrong(instruction, format!("`{word}` has no `=`: key=value is wanted"));
            };
            found.push((key.to_owned(), value.to_owned()));
        }
    }
    found
        .into_iter()
        .map(|(key, value)| {
            let key = expanded(instruction, &key, env)?;
            if key.is_empty() {
                return wrong(instruction, "a name is empty");
            }
            Ok((key, expanded(instruction, &value, env)?))
        })
        .collect()
}

fn set_env(list: &mut Vec<String>, key: &str, value: &str) {
    let entry = format!("{key}={value}");
    match list.iter_mut().find(|old| old.split('=').next() == Some(key)) {
        Some(old) => *old = entry,
        None => list.push(entry),
    }
}

/// `80`, `80/udp`, `8000-8010/tcp` as Docker's keys `port/protocol`.
fn expose(instruction: &'static str, word: &str) -> Result<Vec<String>> {
    let (range, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return wrong(instruction, format!("`{word}`: the protocol is tcp, udp or sctp"));
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) if first >= 1 && first <= last => {
            Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
        }
        _ => wrong(instruction, format!("`{word}` is not a port: 1 to 65535, or a range first-last")),
    }
}

fn join_path(base: &str, path: &str) -> String {
    let joined = if path.starts_with('/') { path.to_owned() } else { format!("/{base}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Whether this names a signal: `SIGTERM`, `TERM`, `RTMIN+3`, or 1 to 64.
fn is_signal(text: &str) -> bool {
    const NAMES: &[&str] = &[
        "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
        "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
        "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
    ];
    if let Ok(number) = text.parse::<u32>() {
        return (1..=64).contains(&number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |prefix: &str| name.strip_prefix(prefix).and_then(|n| n.parse::<u32>().ok());
    NAMES.contains(&name)
        || offset("RTMIN+").is_some_and(|n| (1..=15).contains(&n))
        || offset("RTMAX-").is_some_and(|n| (1..=14).contains(&n))
}

fn healthcheck(rest: &str) -> Result<Value> {
    const NAME: &str = "HEALTHCHECK";
    let mut check = Map::new();
    let mut rest = rest;
    while let Some(flag) = rest.strip_prefix("--") {
        let end = flag.find(char::is_whitespace).unwrap_or(flag.len());
        let (name, value) = match flag[..end].split_once('=') {
            Some(pair) => pair,
            None => return wrong(NAME, format!("the option --{} has no value", &flag[..end])),
        };
        let key = match name {
            "interval" => "Interval",
            "timeout" => "Timeout",
            "start-period" => "StartPeriod",
            "start-interval" => "StartInterval",
            "retries" => "Retries",
            other => return wrong(NAME, format!("there is no option --{other}")),
        };
        let number = match key {
            "Retries" => value.parse::<u32>().ok().map(u64::from),
            _ => duration_ns(value).filter(|ns| *ns == 0 || *ns >= 1_000_000),
        };
        let Some(number) = number else {
            return wrong(
                NAME,
                format!("`{value}` is not a value for --{name}, like 30s or, for retries, 3"),
            );
        };
        // nothing is said by a zero: the default is inherited
        if number != 0 {
            check.insert(key.to_owned(), json!(number));
        }
        rest = flag[end..].trim_start();
    }
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let command = command.trim();
    let test = match kind.to_ascii_uppercase().as_str() {
        "NONE" if command.is_empty() && check.is_empty() => vec!["NONE".to_owned()],
        "NONE" => return wrong(NAME, "NONE takes neither options nor arguments"),
        "CMD" => match json_strings(command) {
            Some(list) if list.is_empty() => return wrong(NAME, "CMD is empty"),
            Some(list) => std::iter::once("CMD".to_owned()).chain(list).collect(),
            None if command.is_empty() => return wrong(NAME, "CMD is empty"),
            None => vec!["CMD-SHELL".to_owned(), command.to_owned()],
        },
        _ => return wrong(NAME, "CMD with a command, or NONE, is wanted"),
    };
    check.insert("Test".to_owned(), json!(test));
    Ok(Value::Object(check))
}

/// Go's notation of durations (`1h30m`, `1.5s`, `300ms`) in nanoseconds.
fn duration_ns(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let mut total = 0f64;
    let mut rest = text;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let factor = match &rest[..unit] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number * factor;
        rest = &rest[unit..];
    }
    (total <= i64::MAX as f64).then_some(total as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    fn check(changes: &[&str], expected: Expect) {
        let mut config = ExecConfig {
            env: Some(vec!["PATH=/bin".into(), "A=1".into()]),
            cmd: Some(vec!["old".into()]),
            working_dir: "/srv".into(),
            ..ExecConfig::default()
        };
        let changes: Vec<String> = changes.iter().map(|c| (*c).to_owned()).collect();
        let text = match apply(&mut config, &changes) {
            Ok(()) => serde_json::to_string(&config).unwrap(),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn instructions_change_what_they_name() {
        check(
            &["CMD [\"a\", \"b c\"]", "user 1:2", "WORKDIR sub/../x", "STOPSIGNAL SIGRTMIN+3"],
            expect![[
                r#"{"User":"1:2","Env":["PATH=/bin","A=1"],"Cmd":["a","b c"],"WorkingDir":"/srv/x","StopSignal":"SIGRTMIN+3"}"#
            ]],
        );
        check(
            &["ENTRYPOINT exec prog \"$A\""],
            expect![[
                r#"{"Env":["PATH=/bin","A=1"],"Entrypoint":["/bin/sh","-c","exec prog \"$A\""],"WorkingDir":"/srv"}"#
            ]],
        );
        check(
            &["CMD x", "ENTRYPOINT []"],
            expect![[
                r#"{"Env":["PATH=/bin","A=1"],"Entrypoint":[],"Cmd":["/bin/sh","-c","x"],"WorkingDir":"/srv"}"#
            ]],
        );
        check(
            &[
                "ENV A=2 B=\"x y\" C=$A-${D:-none}\\ z PATH='$PATH'",
                "ENV OLD some  words \"here\"",
                "EXPOSE 80 53/UDP 10-11",
            ],
            expect![[
                r#"{"ExposedPorts":{"10/tcp":{},"11/tcp":{},"53/udp":{},"80/tcp":{}},"Env":["PATH=$PATH","A=2","B=x y","C=1-none z","OLD=some  words here"],"Cmd":["old"],"WorkingDir":"/srv"}"#
            ]],
        );
        check(
            &["LABEL a=b \"c d\"=\"e=f\"", "VOLUME [\"/a b\",\"/c\"]", "VOLUME /d /$A", "ONBUILD RUN x"],
            expect![[
                r#"{"Env":["PATH=/bin","A=1"],"Cmd":["old"],"Volumes":{"/1":{},"/a b":{},"/c":{},"/d":{}},"WorkingDir":"/srv","Labels":{"a":"b","c d":"e=f"},"OnBuild":["RUN x"]}"#
            ]],
        );
        check(
            &["HEALTHCHECK --interval=1m30s --retries=3 CMD curl -f x || exit 1"],
            expect![[
                r#"{"Env":["PATH=/bin","A=1"],"Cmd":["old"],"WorkingDir":"/srv","Healthcheck":{"Interval":90000000000,"Retries":3,"Test":["CMD-SHELL","curl -f x || exit 1"]}}"#
            ]],
        );
        check(
            &["# comment\nENV X=1 \\\n  Y=2\n\nUSER u\n", "HEALTHCHECK NONE"],
            expect![[
                r#"{"User":"u","Env":["PATH=/bin","A=1","X=1","Y=2"],"Cmd":["old"],"WorkingDir":"/srv","Healthcheck":{"Test":["NONE"]}}"#
            ]],
        );
    }

    #[test]
    fn wrong_instructions_are_named() {
        let mut all = String::new();
        for change in [
            "RUN x",
            "ENV",
            "ENV A",
            "ENV A=1 B",
            "ENV =x",
            "EXPOSE 0",
            "EXPOSE 70000",
            "EXPOSE 2-1",
            "EXPOSE 1/icmp",
            "USER",
            "STOPSIGNAL nope",
            "STOPSIGNAL 65",
            "ONBUILD FROM x",
            "ONBUILD",
            "HEALTHCHECK",
            "HEALTHCHECK --interval=x CMD y",
            "HEALTHCHECK --bad=1 CMD y",
            "HEALTHCHECK CMD",
            "VOLUME [\"\"]",
            "LABEL x=${y",
            "EXPOSE",
        ] {
            let error = apply(&mut ExecConfig::default(), &[change.to_owned()]).unwrap_err();
            all.push_str(&format!("{error}\n"));
        }
        expect![[r#"
            RUN is not a valid change command
            --change ENV: at least one key=value is wanted
            --change ENV: `A` has no value: key=value is wanted
            --change ENV: `B` has no `=`: key=value is wanted
            --change ENV: a name is empty
            --change EXPOSE: `0` is not a port: 1 to 65535, or a range first-last
            --change EXPOSE: `70000` is not a port: 1 to 65535, or a range first-last
            --change EXPOSE: `2-1` is not a port: 1 to 65535, or a range first-last
            --change EXPOSE: `1/icmp`: the protocol is tcp, udp or sctp
            --change USER: an argument is wanted
            --change STOPSIGNAL: `nope` is not a signal: SIGTERM, TERM or a number is
            --change STOPSIGNAL: `65` is not a signal: SIGTERM, TERM or a number is
            --change ONBUILD: FROM is not allowed as a trigger
            --change ONBUILD: an instruction is wanted
            --change HEALTHCHECK: CMD with a command, or NONE, is wanted
            --change HEALTHCHECK: `x` is not a value for --interval, like 30s or, for retries, 3
            --change HEALTHCHECK: there is no option --bad
            --change HEALTHCHECK: CMD is empty
            --change VOLUME: a volume's path is empty
            --change LABEL: `${` has no `}`
            --change EXPOSE: at least one argument is wanted
        "#]]
        .assert_eq(&all);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(
            name in "CMD|ENTRYPOINT|ENV|EXPOSE|HEALTHCHECK|LABEL|ONBUILD|STOPSIGNAL|USER|VOLUME|WORKDIR|X",
            rest in "\\PC{0,40}",
        ) {
            let _ = apply(&mut ExecConfig::default(), &[format!("{name} {rest}")]);
        }

        #[test]
        fn odd_quoting_is_survived(rest in "[a=\"'\\\\${}:+ -]{0,30}") {
            let _ = apply(&mut ExecConfig::default(), &[format!("ENV {rest}"), format!("LABEL {rest}")]);
        }
    }
}
