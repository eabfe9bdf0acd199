//! Docker 28.5's words, codes and documents, where scripts may lean on them.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::Value;

use crate::support::{Daemon, eventually, path, scratch};

fn inspect(daemon: &Daemon, name: &str) -> Value {
    let text = daemon.ok(&["inspect", name]);
    serde_json::from_str::<Vec<Value>>(&text).unwrap().remove(0)
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn inspect_has_dockers_keys_before_during_and_after_a_run() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    daemon.ok(&["create", "--name", "new", "busybox", "true"]);
    daemon.ok(&["run", "-d", "--name", "on", "busybox", "sleep", "1000"]);
    daemon.ok(&["run", "--name", "off", "busybox", "true"]);
    let (new, on, off) = (inspect(&daemon, "new"), inspect(&daemon, "on"), inspect(&daemon, "off"));
    for document in [&new, &on, &off] {
        assert_eq!(
            keys(&document["GraphDriver"]["Data"]),
            ["ID", "LowerDir", "MergedDir", "UpperDir", "WorkDir"]
        );
        let host = &document["HostConfig"];
        for name in [
            "Dns",
            "DnsOptions",
            "DnsSearch",
            "Devices",
            "Ulimits",
            "BlkioWeightDevice",
            "BlkioDeviceReadBps",
        ] {
            assert_eq!(host[name], serde_json::json!([]), "{name}");
        }
        for name in ["Binds", "CapAdd", "ExtraHosts", "MemorySwappiness", "PidsLimit"] {
            assert_eq!(host.get(name), Some(&Value::Null), "{name}");
        }
        let mut network = keys(&document["NetworkSettings"]["Networks"]["none"]);
        network.sort_unstable();
        assert_eq!(
            network,
            [
                "Aliases",
                "DNSNames",
                "DriverOpts",
                "EndpointID",
                "Gateway",
                "GlobalIPv6Address",
                "GlobalIPv6PrefixLen",
                "GwPriority",
                "IPAMConfig",
                "IPAddress",
                "IPPrefixLen",
                "IPv6Gateway",
                "Links",
                "MacAddress",
                "NetworkID",
            ]
        );
        assert_eq!(keys(&document["NetworkSettings"]).len(), 18);
        assert_eq!(document["Config"].get("Env"), Some(&Value::Null));
    }
    for name in ["LogPath", "HostsPath", "HostnamePath", "ResolvConfPath"] {
        assert_eq!(new[name], "", "{name}");
        for document in [&on, &off] {
            assert!(std::path::Path::new(document[name].as_str().unwrap()).is_file(), "{name}");
        }
    }
    daemon.ok(&["tag", "busybox", "again"]);
    let image = inspect(&daemon, "busybox");
    assert_eq!(
        keys(&image["Config"]),
        ["Cmd", "Entrypoint", "Env", "Labels", "OnBuild", "User", "Volumes", "WorkingDir"]
    );
    let tagged = image["Metadata"]["LastTagTime"].as_str().unwrap();
    assert!(tagged > image["Created"].as_str().unwrap(), "{tagged}");
    daemon.finish();
}

#[test]
fn words_and_codes_are_dockers() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    daemon.ok(&["run", "-d", "--name", "on", "busybox", "sleep", "1000"]);
    daemon.ok(&["run", "--name", "off", "busybox", "true"]);
    let id = daemon.inspect("off", "{{.Id}}");
    let not_paused = format!("Container {id} is not paused");
    let cases: &[(i32, &str, &str)] = &[
        (
            127,
            "run --rm busybox |",
            r#"failed to create task for container: exec: "": executable file not found in $PATH"#,
        ),
        (
            125,
            "run --rm --cpuset-cpus 900 busybox true",
            "Error response from daemon: Requested CPUs are not available - requested 900, available: ",
        ),
        (
            125,
            "run --rm --cpuset-mems 9 busybox true",
            "Requested memory nodes are not available - requested 9, available: ",
        ),
        (
            125,
            "run --rm -u nobodyhere busybox true",
            "daemon: unable to find user nobodyhere: no matching entries in passwd file",
        ),
        (125, "run --rm -u -1 busybox true", "daemon: uids and gids must be in range 0-2147483647"),
        (
            125,
            "run --rm --platform foo busybox true",
            r#"error parsing specified platform: "foo": unknown operating system or architecture: invalid argument"#,
        ),
        (125, "run --rm --stop-signal FOO busybox true", "invalid signal: FOO"),
        (
            125,
            "run --rm --dns foo busybox true",
            r#"invalid argument "foo" for "--dns" flag: IP address is not correctly formatted: foo"#,
        ),
        (125, "run --rm --sysctl vm.swappiness=1 busybox true", "sysctl 'vm.swappiness=1' is not allowed"),
        (125, "run --rm -v /tmp:/x:foo busybox true", "daemon: invalid mode: foo"),
        (125, "run --rm BAD true", "repository name (library/BAD) must be lowercase"),
        (1, "kill -s FOO on", "cannot kill container: on: invalid signal: FOO"),
        (1, "kill -s 99 on", "cannot kill container: on: the linux daemon does not support signal 99"),
        (1, "kill nosuch", "cannot kill container: nosuch: No such container: nosuch"),
        (1, "stop -s FOO on", "cannot stop container: on: invalid signal: FOO"),
        (1, "restart -s FOO on", "Cannot restart container on: invalid signal: FOO"),
        (1, "unpause off", &not_paused),
        (
            1,
            "rename off on",
            r#"Error when allocating new name: Conflict. The container name "/on" is already in use"#,
        ),
        (1, "exec -u nobodyhere on true", "daemon: unable to find user nobodyhere"),
    ];
    for (code, line, words) in cases {
        // `|` stands for an empty argument.
        let args: Vec<&str> = line.split(' ').map(|word| if word == "|" { "" } else { word }).collect();
        let stderr = daemon.fails(*code, &args);
        assert!(stderr.contains(words), "creel {line}: {stderr}");
    }
    let exec = daemon.creel(&["exec", "on", "nosuch"]);
    assert_eq!(exec.status.code(), Some(127));
    assert_eq!(
        String::from_utf8_lossy(&exec.stdout),
        "OCI runtime exec failed: exec failed: unable to start container process: exec: \"nosuch\": executable file not found in $PATH\r\n"
    );
    assert_eq!(daemon.creel(&["exec", "on", ""]).status.code(), Some(127));
    daemon.ok(&["pause", "on"]);
    let stderr = daemon.fails(1, &["exec", "on", "true"]);
    assert!(stderr.contains("Container on is paused, unpause the container before exec"), "{stderr}");
    daemon.ok(&["unpause", "on"]);
    daemon.finish();
}

#[test]
fn the_environment_comes_in_dockers_order() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let raw = |args: &[&str]| -> String {
        let output = daemon.creel(&[args, &["cat", "/proc/self/environ"]].concat());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split('\0')
            .filter_map(|entry| entry.split('=').next())
            .filter(|n| !n.is_empty())
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(raw(&["run", "--rm", "busybox"]), "PATH HOSTNAME HOME");
    assert_eq!(raw(&["run", "--rm", "-t", "-e", "A=1", "busybox"]), "PATH HOSTNAME TERM A HOME");
    assert_eq!(
        raw(&["run", "--rm", "-e", "A=1", "-e", "HOME=/x", "-e", "B=1", "busybox"]),
        "PATH HOSTNAME A HOME B"
    );
    daemon.ok(&["run", "-d", "--name", "on", "-e", "OWN=1", "busybox", "sleep", "1000"]);
    assert_eq!(raw(&["exec", "-t", "-e", "A=1", "on"]), "PATH HOSTNAME TERM OWN A HOME");
    daemon.finish();
}

#[test]
fn steps_of_a_committed_image_have_their_images_ids() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    daemon.ok(&["run", "--name", "one", "busybox", "touch", "/x"]);
    daemon.ok(&["commit", "one", "made"]);
    let ids = daemon.ok(&["history", "-q", "--no-trunc", "made"]);
    let image = |name| daemon.ok(&["image", "inspect", "-f", "{{.Id}}", name]);
    assert_eq!(ids, format!("{}\n{}", image("made"), image("busybox")));
    daemon.finish();
}

#[test]
fn the_daemons_control_group_goes_with_it_unless_containers_stay() {
    let Some(mut daemon) = Daemon::with_busybox() else { return };
    daemon.ok(&["run", "-d", "--name", "on", "busybox", "sleep", "1000"]);
    daemon.terminate();
    assert!(!daemon.parents().is_empty());
    daemon.spawn();
    assert_eq!(daemon.inspect("on", "{{.State.Running}}"), "true");
    daemon.ok(&["rm", "-f", "on"]);
    daemon.terminate();
    assert_eq!(daemon.parents(), Vec::<std::path::PathBuf>::new());
    daemon.finish();
}

#[test]
fn timings_name_no_step_twice_and_add_up() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let output = daemon.creel(&["run", "--rm", "--timings", "busybox", "true"]);
    let table = String::from_utf8(output.stderr).unwrap();
    let (mut seen, mut phases, mut total) = (BTreeSet::new(), Vec::<(String, f64, f64)>::new(), 0.0);
    for line in table.lines().skip(1) {
        let at = line.find(|c: char| c.is_ascii_digit()).unwrap();
        let name = line[..at].trim_end();
        let ms: f64 = line[at..].split_whitespace().next().unwrap().parse().unwrap();
        if name == "total" {
            total = ms;
        } else if let Some(step) = name.strip_prefix("  ") {
            phases.last_mut().unwrap().2 += ms;
            assert!(
                step == "this command and the socket" || seen.insert(step.to_owned()),
                "{step} twice:\n{table}"
            );
            assert!(step.contains(": ") || step.starts_with("this"), "a step without words: {step}");
        } else {
            phases.push((name.to_owned(), ms, 0.0));
        }
    }
    assert!((phases.iter().map(|(_, ms, _)| ms).sum::<f64>() - total).abs() < 0.1, "{table}");
    for (name, ms, steps) in phases {
        assert!(steps == 0.0 || (ms - steps).abs() < 0.1, "{name}: {ms} is not {steps}\n{table}");
    }
    daemon.finish();
}

fn get(daemon: &Daemon, path: &str) -> Value {
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: creel\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {answer}"))
}

#[test]
fn execs_that_run_while_the_daemon_is_killed_are_known_to_the_next() {
    let Some(mut daemon) = Daemon::with_busybox() else { return };
    let dir = scratch();
    let bind = format!("{}:/shared", path(dir.path()));
    daemon.ok(&["run", "-d", "--name", "on", "-v", &bind, "busybox", "sleep", "1000"]);
    daemon.ok(&["exec", "-d", "on", "sleep", "1001"]);
    daemon.ok(&["exec", "-d", "on", "sh", "-c", "while [ ! -e /shared/go ]; do sleep 0.01; done; exit 7"]);
    let ids = |daemon: &Daemon| -> BTreeSet<String> {
        let document = inspect(daemon, "on");
        document["ExecIDs"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
    };
    let before = ids(&daemon);
    assert_eq!(before.len(), 2);
    daemon.kill();
    // One ends while there is no daemon.
    std::fs::write(dir.path().join("go"), "").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    daemon.spawn();
    let state = |id: &String| get(&daemon, &format!("/v1.51/exec/{id}/json"));
    let ended = || before.iter().map(state).filter(|exec| exec["Running"] == false).collect::<Vec<_>>();
    eventually("the exec's end", || !ended().is_empty());
    assert_eq!(ended()[0]["ExitCode"], 7);
    let live = ids(&daemon);
    assert_eq!(live.len(), 1);
    let exec = state(live.first().unwrap());
    assert_eq!(
        (&exec["Running"], &exec["ProcessConfig"]["entrypoint"]),
        (&Value::Bool(true), &"sleep".into())
    );
    assert!(exec["Pid"].as_i64().unwrap() > 0);
    daemon.finish();
}
