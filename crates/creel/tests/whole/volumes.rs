//! Volumes: how they come, what is in them, who may remove them.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use crate::support::Daemon;

/// Status and body of one request, as a client without any library makes it.
fn api(daemon: &Daemon, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.trim_end().to_owned())
}

#[test]
fn the_api_answers_as_dockers() {
    let Some(daemon) = Daemon::start() else { return };
    let create = |body: &str| api(&daemon, "POST", "/v1.51/volumes/create", body);
    let (status, made) = create(r#"{"Name":"v1","Labels":{"a":"b"}}"#);
    assert_eq!(status, 201, "{made}");
    let value: serde_json::Value = serde_json::from_str(&made).unwrap();
    let data = daemon.root().join("volumes/v1/_data");
    assert_eq!(value["Mountpoint"], data.to_str().unwrap());
    assert!(value["CreatedAt"].as_str().unwrap().ends_with('Z'));
    let keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["CreatedAt", "Driver", "Labels", "Mountpoint", "Name", "Options", "Scope"]);
    assert_eq!((&value["Options"], &value["Labels"]["a"]), (&serde_json::Value::Null, &"b".into()));
    // The same again is the same, whatever else is wished.
    assert_eq!(create(r#"{"Name":"v1","Labels":{"c":"d"}}"#), (201, made.clone()));
    assert_eq!(api(&daemon, "GET", "/volumes/v1", ""), (200, made.clone()));
    let (status, unnamed) = create("");
    assert_eq!(status, 201);
    let unnamed: serde_json::Value = serde_json::from_str(&unnamed).unwrap();
    assert_eq!(unnamed["Labels"]["com.docker.volume.anonymous"], "");
    assert_eq!(unnamed["Name"].as_str().unwrap().len(), 64);
    let said = |(status, body): (u16, String)| {
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        format!("{status} {}", body["message"].as_str().unwrap())
    };
    assert_eq!(
        said(create(r#"{"Name":"v 1"}"#)),
        "400 create v 1: \"v 1\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" \
         are allowed. If you intended to pass a host directory, use absolute path"
    );
    assert!(said(create(r#"{"Name":"../x"}"#)).starts_with("400 create ../x: "));
    assert_eq!(
        said(create(r#"{"Name":"v"}"#)),
        "400 create v: volume name is too short, names should be at least two alphanumeric characters"
    );
    for name in ["v1", "v2"] {
        assert_eq!(
            said(create(&format!(r#"{{"Name":"{name}","Driver":"nope"}}"#))),
            format!("404 create {name}: error looking up volume plugin nope: plugin \"nope\" not found")
        );
    }
    assert_eq!(
        said(create(r#"{"Name":"v2","DriverOpts":{"x":"y"}}"#)),
        "400 create v2: invalid option: \"x\""
    );
    assert_eq!(said(api(&daemon, "GET", "/volumes/nope", "")), "404 get nope: no such volume");
    assert_eq!(said(api(&daemon, "DELETE", "/volumes/nope", "")), "404 get nope: no such volume");
    assert_eq!(api(&daemon, "DELETE", "/volumes/nope?force=1", ""), (204, String::new()));
    let list = |filters: &str| api(&daemon, "GET", &format!("/volumes?filters={filters}"), "");
    assert_eq!(list(r#"{%22name%22:[%22zzz%22]}"#), (200, r#"{"Volumes":[],"Warnings":null}"#.to_owned()));
    assert_eq!(said(list(r#"{%22nope%22:[%22x%22]}"#)), "400 invalid filter 'nope'");
    assert_eq!(said(list(r#"{%22dangling%22:[%22maybe%22]}"#)), "400 invalid filter 'dangling=[maybe]'");
    assert_eq!(
        said(api(&daemon, "POST", "/volumes/prune?filters={%22until%22:[%221h%22]}", "")),
        "400 invalid filter 'until'"
    );
    assert_eq!(api(&daemon, "DELETE", "/volumes/v1", "").0, 204);
    assert!(!data.exists());
    daemon.finish();
}

#[test]
fn the_command_creates_lists_inspects_prunes_and_removes() {
    let Some(daemon) = Daemon::start() else { return };
    assert_eq!(daemon.ok(&["volume", "create", "--label", "k=v", "named"]), "named");
    assert_eq!(daemon.ok(&["volume", "create", "other"]), "other");
    daemon.ok(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "memory"]);
    let anonymous = daemon.ok(&["volume", "create"]);
    std::fs::write(daemon.root().join("volumes").join(&anonymous).join("_data/file"), [7; 1000]).unwrap();
    std::fs::write(daemon.root().join("volumes/other/_data/file"), [7; 500]).unwrap();
    let all = daemon.ok(&["volume", "ls"]);
    let lines: Vec<&str> = all.lines().collect();
    assert_eq!((lines[0], lines.len()), ("DRIVER    VOLUME NAME", 5), "{all}");
    assert_eq!(daemon.ok(&["volume", "ls", "-qf", "label=k=v"]), "named");
    assert_eq!(daemon.ok(&["volume", "ls", "-q", "-f", "name=the"]), "other");
    assert_eq!(daemon.ok(&["volume", "ls", "-q", "-f", "driver=nope"]), "");
    assert_eq!(
        daemon.ok(&["volume", "ls", "-f", "name=named", "--format", "{{.Label \"k\"}} {{.Links}}"]),
        "v N/A"
    );
    for line in [["volume", "inspect"], ["inspect", "--type=volume"]] {
        let mut line = line.to_vec();
        line.extend(["-f", "{{.Options.type}} {{.Scope}}", "memory"]);
        assert_eq!(daemon.ok(&line), "tmpfs local");
    }
    assert_eq!(daemon.ok(&["inspect", "-f", "{{.Name}}", "named"]), "named");
    assert_eq!(
        daemon.fails(1, &["volume", "inspect", "nope"]).trim(),
        "Error response from daemon: get nope: no such volume"
    );
    let verbose = daemon.ok(&["system", "df", "-v"]);
    let line = verbose.lines().find(|line| line.starts_with(&anonymous)).expect(&verbose);
    assert_eq!(line.split_whitespace().collect::<Vec<_>>()[1..], ["0", "1kB"], "{verbose}");
    let df = daemon.ok(&["system", "df"]);
    let line = df.lines().find(|line| line.starts_with("Local Volumes")).unwrap();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>()[2..], ["3", "0", "1.5kB", "1.5kB", "(100%)"]);
    assert_eq!(daemon.ok(&["volume", "prune", "-f", "--filter", "label=k"]), "Total reclaimed space: 0B");
    assert_eq!(
        daemon.ok(&["volume", "prune", "-f"]),
        format!("Deleted Volumes:\n{anonymous}\n\nTotal reclaimed space: 1kB")
    );
    // What has options is somebody's else, maybe: it goes by name only.
    daemon.ok(&["volume", "prune", "-af", "--filter", "label!=k"]);
    assert_eq!(daemon.ok(&["volume", "ls", "-q"]), "memory\nnamed");
    let events = daemon.ok(&[
        "events",
        "--since",
        "1",
        "--until",
        "0s",
        "--filter",
        "type=volume",
        "--format",
        "{{.Action}} {{.Actor.ID}}",
    ]);
    let lines: Vec<&str> = events.lines().collect();
    let [first, .., last] = lines.as_slice() else { panic!("{events}") };
    assert_eq!((*first, *last), ("create named", "prune"), "{events}");
    assert!(lines.contains(&"destroy other"), "{events}");
    assert_eq!(daemon.ok(&["volume", "rm", "named", "memory"]), "named\nmemory");
    daemon.finish();
}

#[test]
fn volumes_outlive_the_daemon_and_a_damaged_document() {
    let Some(mut daemon) = Daemon::start() else { return };
    daemon.ok(&["volume", "create", "--label", "k=v", "kept"]);
    daemon.ok(&["volume", "create", "broken"]);
    let volumes = daemon.root().join("volumes");
    std::fs::write(volumes.join("kept/_data/file"), "content").unwrap();
    daemon.kill();
    std::fs::write(volumes.join("broken/volume.json"), "{").unwrap();
    std::fs::create_dir_all(volumes.join("foreign/_data")).unwrap();
    std::fs::create_dir_all(volumes.join(".new-1/_data")).unwrap();
    // Not even a lost database takes a volume along.
    for entry in std::fs::read_dir(daemon.root()).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("creel.db") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    daemon.spawn();
    assert_eq!(daemon.ok(&["volume", "ls", "-q"]), "foreign\nkept");
    assert_eq!(daemon.ok(&["volume", "inspect", "-f", "{{.Labels.k}}", "kept"]), "v");
    assert_eq!(std::fs::read_to_string(volumes.join("kept/_data/file")).unwrap(), "content");
    assert!(!volumes.join(".new-1").exists());
    assert!(daemon.fails(1, &["volume", "create", "broken"]).contains("volume.json cannot be read"));
    assert!(volumes.join("broken/_data").exists(), "the data of a damaged volume must stay");
    daemon.finish();
}
