//! `image verify`, `system df` and `image prune` on a real store, with a real registry to fetch again from.

use std::fs;
use std::path::{Path, PathBuf};

use crate::registry::{Registry, name};
use crate::support::{Daemon, path, stdout};

/// Overwrites a byte in the middle and keeps the file's time.
fn flip(file: &Path) {
    let time = fs::metadata(file).unwrap().modified().unwrap();
    let mut content = fs::read(file).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(file, content).unwrap();
    fs::File::options().write(true).open(file).unwrap().set_modified(time).unwrap();
}

fn only(directory: &Path) -> PathBuf {
    let all: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].clone()
}

fn verify(daemon: &Daemon, args: &[&str]) -> (i32, String) {
    let output = daemon.creel(&[&["image", "verify"][..], args].concat());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{}", daemon.log());
    (output.status.code().unwrap(), stdout(&output))
}

#[test]
fn what_is_damaged_is_named_put_aside_and_whole_after_the_next_pull() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let registry = Registry::start(&daemon);
    let image = name("team/app:v1");
    daemon.ok(&["tag", "busybox", &image]);
    daemon.ok(&["push", &image]);
    daemon.ok(&["rmi", "busybox", &image]);
    // the plain archive that was compressed to be pushed
    daemon.ok(&["image", "prune", "-f"]);
    daemon.ok(&["pull", &image]);
    let id = daemon.inspect(&image, "{{.Id}}");
    let (code, text) = verify(&daemon, &[]);
    assert_eq!((code, text.ends_with(": all whole\n")), (0, true), "{text}");

    // a file of the layer: replaced from the archive, the damaged one kept
    let layer = only(&daemon.root().join("layers"));
    let digest = format!("sha256:{}", layer.file_name().unwrap().to_str().unwrap());
    flip(&layer.join("fs/etc/passwd"));
    let (code, text) = verify(&daemon, &["--only-look", &image]);
    assert!(code == 1 && text.contains("left as it is"), "{text}");
    let (code, text) = verify(&daemon, &["--quiet"]);
    assert_eq!((code, text), (1, format!("{digest}\n")));
    assert_eq!(
        daemon.ok(&["run", "--rm", &image, "head", "-n1", "/etc/passwd"]),
        "root:x:0:0:root:/root:/bin/sh"
    );
    let aside = only(&daemon.root().join("quarantine"));
    assert_ne!(
        fs::read(aside.join("fs/etc/passwd")).unwrap(),
        fs::read(layer.join("fs/etc/passwd")).unwrap()
    );
    assert_eq!(verify(&daemon, &[]).0, 0);

    // the archive, and then the layer is removed as well: nothing here can replace them
    daemon.ok(&["create", "--name", "made", &image, "echo", "runs again"]);
    let archive = fs::read_dir(daemon.root().join("blobs/sha256"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    flip(&archive);
    fs::remove_dir_all(&layer).unwrap();
    let (code, text) = verify(&daemon, &[&image]);
    assert_eq!(code, 1);
    let blob = format!("blob sha256:{} is damaged", archive.file_name().unwrap().to_str().unwrap());
    for words in [
        &blob,
        "the digest of its content is",
        "its directory is missing",
        "put aside as",
        &image,
        "creel pull",
    ] {
        assert!(text.contains(words), "`{words}` is not in: {text}");
    }
    assert_eq!(daemon.inspect(&image, "{{.Id}}"), id, "the image is still in the list");
    for refused in [&["run", "--rm", &image, "true"][..], &["start", "made"]] {
        let why = daemon.fails(if refused[0] == "run" { 125 } else { 1 }, refused);
        assert!(why.contains("is not whole") && why.contains("pull the image again"), "{why}");
    }
    let why = daemon.fails(1, &["save", "-o", "/dev/null", &image]);
    assert!(why.contains("is not whole: blob sha256:"), "{why}");
    let pulled = daemon.ok(&["pull", &image]);
    assert!(pulled.contains("Downloaded newer image"), "{pulled}");
    assert_eq!(verify(&daemon, &[]).0, 0);
    assert_eq!(daemon.inspect(&image, "{{.Id}}"), id);
    assert_eq!(daemon.ok(&["start", "-a", "made"]), "runs again");

    // the configuration, and the manifest
    flip(&daemon.root().join("blobs/sha256").join(id.strip_prefix("sha256:").unwrap()));
    let json = verify(&daemon, &["--format", "json"]);
    assert!(json.0 == 1 && json.1.contains(&id) && json.1.contains("\"Fate\":\"quarantined\""), "{json:?}");
    assert_eq!(daemon.ok(&["images", "-q"]), "");
    daemon.ok(&["pull", &image]);
    assert_eq!((verify(&daemon, &[]).0, daemon.ok(&["start", "-a", "made"])), (0, "runs again".to_owned()));
    assert!(daemon.fails(1, &["image", "verify", "no/such"]).contains("No such image"));
    let df = daemon.ok(&["system", "df"]);
    assert!(df.lines().any(|line| line.starts_with("Quarantine")), "{df}");
    drop(registry);
    daemon.finish();
}

/// `system df` as (type, size, reclaimable) in bytes, by the API.
fn usage(daemon: &Daemon) -> serde_json::Value {
    let output = daemon
        .inside("curl")
        .args(["-s", "--unix-socket", path(&daemon.socket()), "http://x/system/df"])
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn bytes_below(directory: &Path) -> u64 {
    let script = "find \"$0\" -type f -printf '%i %s\\n' | sort -u | awk '{n += $2} END {print n + 0}'";
    let output = std::process::Command::new("sh").args(["-c", script]).arg(directory).output().unwrap();
    stdout(&output).trim().parse().unwrap()
}

#[test]
fn df_says_what_lies_on_the_disk_and_prune_frees_it_by_its_filters() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    for (name, label) in [("one", "keep=yes"), ("two", "keep=no"), ("three", "other=1")] {
        daemon.ok(&[
            "run",
            "--name",
            name,
            "busybox",
            "sh",
            "-c",
            &format!("head -c 100000 /dev/zero > /{name}"),
        ]);
        daemon.ok(&["commit", "-c", &format!("LABEL {label}"), name, &format!("{name}:v")]);
        daemon.ok(&["rm", name]);
    }
    let layers = |daemon: &Daemon| -> u64 {
        let all = fs::read_dir(daemon.root().join("layers")).unwrap();
        all.map(|layer| bytes_below(&layer.unwrap().path().join("fs"))).sum()
    };
    let number = |value: &serde_json::Value| value.as_u64().unwrap();
    let df = usage(&daemon);
    assert_eq!(number(&df["LayersSize"]), layers(&daemon));
    assert_eq!(number(&df["Creel"]["Blobs"]["Size"]), bytes_below(&daemon.root().join("blobs")));
    let base = daemon.inspect("busybox", "{{.Size}}").parse::<u64>().unwrap();
    let images = df["Images"].as_array().unwrap();
    assert_eq!(images.len(), 4);
    for image in images {
        let shared = number(&image["SharedSize"]);
        assert_eq!(shared, base, "every image has the base's layer: {image}");
        assert_eq!(
            number(&image["Size"]) - shared,
            if image["RepoTags"][0] == "busybox:latest" { 0 } else { 100_000 }
        );
    }
    let verbose = daemon.ok(&["system", "df", "-v"]);
    assert!(verbose.contains("SHARED SIZE") && verbose.contains("Archives, configurations"), "{verbose}");

    // dangling, until, label, label!
    let prune = |args: &[&str]| daemon.ok(&[&["image", "prune", "-f"][..], args].concat());
    assert_eq!(prune(&[]), "Total reclaimed space: 0B");
    daemon.ok(&["tag", "busybox", "one:v"]);
    let list = |filter: &str| daemon.ok(&["images", "-q", "--filter", filter]).lines().count();
    assert_eq!(list("dangling=true"), 1);
    assert_eq!(prune(&["--filter", "label=keep=no"]), "Total reclaimed space: 0B");
    assert_eq!(prune(&["--filter", "label!=keep=yes"]), "Total reclaimed space: 0B");
    assert_eq!(prune(&["--filter", "until=1h"]), "Total reclaimed space: 0B");
    let gone = prune(&["--filter", "label=keep", "--filter", "until=2099-01-01T00:00:00Z"]);
    assert!(gone.starts_with("Deleted Images:\ndeleted: sha256:"), "{gone}");
    assert_eq!(list("dangling=true"), 0);
    let gone = prune(&["-a", "--filter", "label=keep=no"]);
    assert!(gone.contains("untagged: two:v") && !gone.contains("three"), "{gone}");
    let why = daemon.fails(1, &["image", "prune", "-f", "--filter", "nonsense=1"]);
    assert!(why.contains("invalid filter 'nonsense'"), "{why}");

    // what df calls reclaimable is what a prune of everything unused frees, to the byte
    daemon.ok(&["create", "--name", "user", "busybox"]);
    fs::create_dir_all(daemon.root().join("partial")).unwrap();
    fs::write(daemon.root().join("partial").join("ab".repeat(32)), [1; 777]).unwrap();
    let df = usage(&daemon);
    let creel = &df["Creel"];
    assert_eq!(number(&creel["Partials"]["Reclaimable"]), 777);
    assert_eq!(number(&creel["LayersReclaimable"]), 100_000);
    assert!(daemon.ok(&["info"]).contains("Partial Downloads: 1 (777 bytes)"));
    let said = number(&creel["LayersReclaimable"])
        + number(&creel["Blobs"]["Reclaimable"])
        + number(&creel["Partials"]["Reclaimable"]);
    let before = bytes_below(&daemon.root());
    let answer = daemon
        .inside("curl")
        .args(["-s", "-X", "POST", "--unix-socket", path(&daemon.socket())])
        .arg("http://x/images/prune?filters=%7B%22dangling%22%3A%5B%22false%22%5D%7D")
        .output()
        .unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert_eq!(number(&answer["SpaceReclaimed"]), said);
    let freed = before - bytes_below(&daemon.root());
    // the layers' notes go with them, and the database moves by itself
    assert!(freed.abs_diff(said) < 64 << 10, "{freed} bytes are gone where {said} were told");
    assert_eq!(number(&usage(&daemon)["Creel"]["LayersReclaimable"]), 0);
    assert_eq!(daemon.ok(&["images", "--format", "{{.Repository}}"]).lines().count(), 2); // busybox by two names
    daemon.finish();
}
