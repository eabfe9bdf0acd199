//! The help and the version, in the form that scripts and parsers for runc know.

use std::fmt::Write;

use crate::flags::{Flag, Takes};
use crate::verbs::{GLOBAL, VERBS, Verb};

/// The runtime specification that is followed.
pub const SPEC_VERSION: &str = "1.3.0";

/// The version of runc whose command line this is. Docker, containerd and podman look for `runc version`.
const SPEAKS: &str = "1.3.0";

/// What `--version` prints.
pub(crate) fn version() -> String {
    let own = env!("CARGO_PKG_VERSION");
    let commit = option_env!("CREEL_COMMIT").unwrap_or("unknown");
    format!("runc version {SPEAKS}+creel.{own}\ncommit: {commit}\nspec: {SPEC_VERSION}\ncreel: {own}\n")
}

/// What `--help` prints.
pub(crate) fn general(program: &str) -> String {
    let mut text = format!(
        "NAME:\n   {program} - in place of runc - Open Container Initiative runtime\n\n\
         USAGE:\n   {program} [global options] command [command options] [arguments...]\n\n\
         VERSION:\n   {}\n\nCOMMANDS:\n",
        env!("CARGO_PKG_VERSION")
    );
    for verb in VERBS {
        let _ = writeln!(text, "   {:<11} {}", verb.word, verb.about);
    }
    text.push_str("\nGLOBAL OPTIONS:\n");
    options(&mut text, GLOBAL);
    text
}

/// What `VERB --help` prints.
pub(crate) fn of(program: &str, verb: &Verb) -> String {
    // Scripts look for their own name of the program here.
    let mut text = format!(
        "NAME:\n   {program} {0} - {1} (as runc {0}, creel-oci {0})\n\nUSAGE:\n",
        verb.word, verb.about
    );
    let options_word = if verb.flags.is_empty() { "" } else { " [command options]" };
    let _ = writeln!(text, "   {program} {}{options_word} {}", verb.word, verb.arguments);
    if !verb.flags.is_empty() {
        text.push_str("\nOPTIONS:\n");
        options(&mut text, verb.flags);
    }
    text
}

fn options(text: &mut String, flags: &[Flag]) {
    for flag in flags.iter().filter(|flag| !flag.help.is_empty()) {
        let value = if flag.takes == Takes::Nothing { "" } else { " value" };
        let short = flag.short.map(|short| format!(", -{short}{value}")).unwrap_or_default();
        let _ = writeln!(text, "   {:<34} {}", format!("--{}{value}{short}", flag.name), flag.help);
    }
    let _ = writeln!(text, "   {:<34} show help", "--help, -h");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsers_for_runc_read_the_version() {
        let text = version();
        let mut lines = text.lines();
        assert!(lines.next().is_some_and(|line| line.starts_with("runc version 1.3.0+creel.")));
        assert!(lines.next().is_some_and(|line| line.starts_with("commit: ")));
        assert_eq!(lines.next(), Some("spec: 1.3.0"));
    }

    #[test]
    fn every_verb_has_help() {
        for verb in VERBS {
            let text = of("runc", verb);
            assert!(text.starts_with(&format!("NAME:\n   runc {} - ", verb.word)), "{text}");
            for flag in verb.flags.iter().filter(|flag| !flag.help.is_empty()) {
                assert!(text.contains(&format!("--{}", flag.name)), "{}: {}", verb.word, flag.name);
            }
        }
        assert!(general("creel oci").contains("runc - Open Container Initiative runtime"));
    }
}
