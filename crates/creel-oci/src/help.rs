//! The help and the version, in the form that scripts and parsers for runc know.

use std::fmt::Write;

use crate::flags::{Flag, Takes};
use crate::verbs::{GLOBAL, Name, VERBS, Verb};

/// The runtime specification that is followed.
pub const SPEC_VERSION: &str = "1.3.0";

/// The version of runc whose command line this is. Docker, containerd and podman look for `runc version`.
const SPEAKS: &str = "1.3.0";

/// The version of crun whose flags are taken, too, and the name under which the program says so first.
const CRUN_SPEAKS: &str = "1.28";
const CRUN: &str = "crun";

/// What is built in, in the line that callers and tests of crun read.
const PARTS: &str = "+SYSTEMD +SELINUX +APPARMOR +CAP +SECCOMP +EBPF";

/// What `--version` prints. Called `crun` it names that one first, and not runc: who looks for `runc version` takes the
/// last word for the version.
pub(crate) fn version(program: &str) -> String {
    let own = env!("CARGO_PKG_VERSION");
    let commit = option_env!("CREEL_COMMIT").unwrap_or("unknown");
    let (name, speaks) = if program == CRUN { (CRUN, CRUN_SPEAKS) } else { ("runc", SPEAKS) };
    let criu = if crate::criu::find().is_ok() { " +CRIU" } else { "" };
    format!(
        "{name} version {speaks}+creel.{own}\ncommit: {commit}\nspec: {SPEC_VERSION}\ncreel: {own}\n{PARTS}{criu}\n"
    )
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
    let _ =
        writeln!(text, "\nIN PLACE OF CRUN:\n   Usage: crun [OPTION...] {}{}", verb.word, as_crun(verb.name));
    text
}

/// A verb's arguments in crun's words.
fn as_crun(name: Name) -> &'static str {
    match name {
        Name::Exec => " CONTAINER cmd",
        Name::Kill => " CONTAINER [SIGNAL]",
        Name::Mounts => " [add|remove] CONTAINER FILE",
        Name::Run => " [OPTION]... CONTAINER",
        Name::Features | Name::List | Name::Spec => "",
        _ => " CONTAINER",
    }
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
        for (program, first) in [
            ("creel oci", "runc version 1.3.0+creel."),
            ("runc", "runc version "),
            ("crun", "crun version 1.28"),
        ] {
            let text = version(program);
            let mut lines = text.lines();
            assert!(lines.next().is_some_and(|line| line.starts_with(first)), "{text}");
            assert!(lines.next().is_some_and(|line| line.starts_with("commit: ")));
            assert_eq!(lines.next(), Some("spec: 1.3.0"));
            assert_eq!(text.matches("version").count(), 1, "Docker takes the last one");
            assert!(text.lines().any(|line| line.starts_with("+SYSTEMD ")), "{text}");
        }
    }

    #[test]
    fn every_verb_has_help() {
        for verb in VERBS {
            let text = of("runc", verb);
            assert!(text.starts_with(&format!("NAME:\n   runc {} - ", verb.word)), "{text}");
            for flag in verb.flags.iter().filter(|flag| !flag.help.is_empty()) {
                assert!(text.contains(&format!("--{}", flag.name)), "{}: {}", verb.word, flag.name);
            }
            assert!(text.contains(&format!("Usage: crun [OPTION...] {}", verb.word)), "{text}");
        }
        assert!(general("creel oci").contains("runc - Open Container Initiative runtime"));
    }
}
