//! A request's configuration over its image's, by Docker's rules. Pure.

use std::collections::BTreeMap;

use creel_types::image::ExecConfig;
use creel_wire::container::Config;

use crate::error::{Error, Result};

/// The search path of images that set none.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn key(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(key, _)| key)
}

fn union<V: Clone>(ours: &mut Option<BTreeMap<String, V>>, theirs: Option<&BTreeMap<String, V>>) {
    let Some(theirs) = theirs.filter(|map| !map.is_empty()) else { return };
    let ours = ours.get_or_insert_default();
    for (name, value) in theirs {
        ours.entry(name.clone()).or_insert_with(|| value.clone());
    }
}

/// Completes `config` by what the image says where the request says nothing.
pub(crate) fn merge(config: &mut Config, image: &ExecConfig) -> Result<()> {
    let given = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    if config.user.is_empty() {
        config.user.clone_from(&image.user);
    }
    union(&mut config.exposed_ports, image.exposed_ports.as_ref());
    union(&mut config.volumes, image.volumes.as_ref());
    union(&mut config.labels, image.labels.as_ref());
    for entry in image.env.iter().flatten() {
        let own = config.env.get_or_insert_default();
        if !own.iter().any(|mine| key(mine) == key(entry)) {
            own.push(entry.clone());
        }
    }
    if !given(&config.entrypoint) {
        if !given(&config.cmd) {
            config.cmd.clone_from(&image.cmd);
        }
        if config.entrypoint.is_none() {
            config.entrypoint.clone_from(&image.entrypoint);
        }
    }
    if config.healthcheck.is_none() {
        config.healthcheck.clone_from(&image.healthcheck);
    }
    if config.stop_signal.as_deref().unwrap_or_default().is_empty() {
        config.stop_signal.clone_from(&image.stop_signal);
    }
    if config.shell.is_none() {
        config.shell.clone_from(&image.shell);
    }
    if config.working_dir.is_empty() {
        config.working_dir.clone_from(&image.working_dir);
    }
    if config.entrypoint.as_deref() == Some(&[String::new()]) {
        config.entrypoint = None;
    }
    if !given(&config.entrypoint) && !given(&config.cmd) {
        return Err(Error::invalid("no command specified"));
    }
    Ok(())
}

/// The environment of a container's program: the engine's own variables first, then the configuration's, each
/// replacing in place what has its name; a bare name takes a variable away. The home directory, if nobody set it, comes
/// last.
pub(crate) fn environment(
    hostname: &str,
    tty: bool,
    home: Option<&str>,
    configured: &[String],
) -> Vec<String> {
    let mut env = vec![format!("PATH={DEFAULT_PATH}"), format!("HOSTNAME={hostname}")];
    if tty {
        env.push("TERM=xterm".to_owned());
    }
    overlay(&mut env, configured);
    if !env.iter().any(|entry| key(entry) == "HOME") {
        env.extend(home.map(|home| format!("HOME={home}")));
    }
    env
}

/// Puts `over` on top of `env`, in place.
pub(crate) fn overlay(env: &mut Vec<String>, over: &[String]) {
    for entry in over {
        let at = env.iter().position(|old| key(old) == key(entry));
        match (at, entry.contains('=')) {
            (Some(at), true) => env[at].clone_from(entry),
            (Some(at), false) => {
                env.remove(at);
            }
            (None, true) => env.push(entry.clone()),
            (None, false) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn strings(list: &[&str]) -> Option<Vec<String>> {
        Some(list.iter().map(|s| (*s).to_owned()).collect())
    }

    fn image() -> ExecConfig {
        ExecConfig {
            user: "app".into(),
            env: strings(&["PATH=/app/bin", "LANG=C", "A=image"]),
            entrypoint: strings(&["/entry"]),
            cmd: strings(&["serve"]),
            working_dir: "/srv".into(),
            stop_signal: Some("SIGINT".into()),
            labels: Some(BTreeMap::from([("a".into(), "image".into()), ("b".into(), "image".into())])),
            ..ExecConfig::default()
        }
    }

    fn check(entrypoint: Option<Vec<String>>, cmd: Option<Vec<String>>, expected: Expect) {
        let mut config = Config { entrypoint, cmd, ..Config::default() };
        let text = match merge(&mut config, &image()) {
            Ok(()) => {
                format!("{:?} {:?}", config.entrypoint.unwrap_or_default(), config.cmd.unwrap_or_default())
            }
            Err(e) => e.to_string(),
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn entrypoint_and_command() {
        check(None, None, expect![[r#"["/entry"] ["serve"]"#]]);
        check(None, strings(&["x"]), expect![[r#"["/entry"] ["x"]"#]]);
        check(strings(&["sh"]), None, expect![[r#"["sh"] []"#]]);
        check(strings(&["sh"]), strings(&["-c", "x"]), expect![[r#"["sh"] ["-c", "x"]"#]]);
        check(strings(&[""]), None, expect!["no command specified"]);
        check(strings(&[""]), strings(&["x"]), expect![[r#"[] ["x"]"#]]);
        check(strings(&[]), None, expect![[r#"[] ["serve"]"#]]);
    }

    #[test]
    fn the_rest_is_taken_where_nothing_was_said() {
        let mut config = Config {
            env: strings(&["A=user", "LANG"]),
            labels: Some(BTreeMap::from([("a".into(), "user".into())])),
            ..Config::default()
        };
        merge(&mut config, &image()).unwrap();
        assert_eq!(config.user, "app");
        assert_eq!(config.working_dir, "/srv");
        assert_eq!(config.stop_signal.as_deref(), Some("SIGINT"));
        assert_eq!(config.env, strings(&["A=user", "LANG", "PATH=/app/bin"]));
        let labels = config.labels.unwrap();
        assert_eq!((labels["a"].as_str(), labels["b"].as_str()), ("user", "image"));
    }

    #[test]
    fn the_environment_is_overridden_in_place() {
        let configured = strings(&["A=1", "PATH=/bin", "B=2", "HOSTNAME", "A=3", "GONE"]).unwrap();
        assert_eq!(
            environment("h", true, Some("/root"), &configured),
            ["PATH=/bin", "TERM=xterm", "A=3", "B=2", "HOME=/root"]
        );
        let own = strings(&["HOME=/x", "A=1"]).unwrap();
        assert_eq!(environment("h", false, Some("/root"), &own)[2..], ["HOME=/x", "A=1"]);
    }
}
