//! Images that come as archives: `load`, `save`, `import`, and what lists them.

use std::process::Command;

use crate::support::{Daemon, path, stdout};

fn skopeo(args: &[&str]) {
    let output =
        Command::new("skopeo").args(["--insecure-policy", "copy", "--quiet"]).args(args).output().unwrap();
    assert!(output.status.success(), "skopeo {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn saved_images_load_again_here_and_with_skopeo() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let dir = daemon.dir.path().to_owned();
    let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let id = daemon.inspect("busybox", "{{.Id}}");
    daemon.ok(&["tag", "busybox", "other/name:v2"]);
    daemon.ok(&["save", "-o", &file("saved.tar"), "busybox", "other/name:v2"]);
    skopeo(&[
        &format!("docker-archive:{}:busybox:latest", file("saved.tar")),
        &format!("oci-archive:{}:again:latest", file("oci.tar")),
    ]);
    skopeo(&[
        &format!("oci-archive:{}:again:latest", file("oci.tar")),
        &format!("docker-archive:{}:third:latest", file("docker.tar")),
    ]);
    skopeo(&[
        "--dest-compress-format",
        "zstd",
        &format!("oci-archive:{}:again:latest", file("oci.tar")),
        &format!("oci:{}:z", file("zstd")),
    ]);
    let status =
        Command::new("tar").args(["-C", &file("zstd"), "-cf", &file("zstd.tar"), "."]).status().unwrap();
    assert!(status.success());
    daemon.ok(&["rmi", "busybox", "other/name:v2"]);
    assert_eq!(daemon.ok(&["images", "-q"]), "");
    let loaded = daemon.ok(&["load", "-i", &file("saved.tar")]);
    assert!(
        loaded.contains("Loaded image: busybox:latest") && loaded.contains("Loaded image: other/name:v2"),
        "{loaded}"
    );
    assert_eq!(daemon.inspect("busybox", "{{.Id}}"), id);
    assert_eq!(daemon.ok(&["run", "--rm", "other/name:v2", "echo", "runs"]), "runs");
    for (archive, name) in [("docker.tar", Some("third:latest")), ("oci.tar", None), ("zstd.tar", None)] {
        let loaded = daemon.ok(&["load", "-i", &file(archive)]);
        let name = name.map(str::to_owned).unwrap_or_else(|| loaded.rsplit_once(' ').unwrap().1.to_owned());
        assert_eq!(daemon.ok(&["run", "--rm", &name, "echo", archive]), archive);
    }
    daemon.finish();
}

#[test]
fn lists_history_and_removal_are_dockers() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let id = daemon.inspect("busybox", "{{.Id}}");
    daemon.ok(&["tag", "busybox", "extra:1"]);
    let list = daemon.ok(&["images"]);
    assert!(
        list.starts_with("REPOSITORY") && list.contains("busybox") && list.contains(&id[7..19]),
        "{list}"
    );
    assert!(daemon.ok(&["history", "busybox"]).contains("CREATED BY"));
    assert!(daemon.fails(1, &["rmi", &id]).contains("must be forced"), "an id with two names needs force");
    assert_eq!(daemon.ok(&["rmi", "extra:1"]), "Untagged: extra:1");
    daemon.ok(&["create", "--name", "user", "busybox"]);
    let used = daemon.fails(1, &["rmi", "busybox"]);
    assert!(used.contains("is using its referenced image") || used.contains("container"), "{used}");
    daemon.ok(&["rm", "user"]);
    let gone = daemon.ok(&["rmi", "busybox"]);
    assert!(gone.contains("Untagged: busybox:latest") && gone.contains(&format!("Deleted: {id}")), "{gone}");
    assert_eq!(
        std::fs::read_dir(daemon.root().join("layers")).unwrap().count(),
        0,
        "the layer is still on the disk"
    );
    daemon.finish();
}

#[test]
fn import_takes_changes_and_compressed_archives() {
    let Some(daemon) = Daemon::start() else { return };
    let tar = std::fs::read(crate::support::busybox_tar()).unwrap();
    for (program, name) in [("gzip", "gz"), ("xz", "xz"), ("zstd", "zst")] {
        let file = daemon.dir.path().join(name);
        let Ok(mut child) = Command::new(program)
            .arg("-c")
            .stdin(std::process::Stdio::piped())
            .stdout(std::fs::File::create(&file).unwrap())
            .spawn()
        else {
            continue;
        };
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), &tar).unwrap();
        assert!(child.wait().unwrap().success());
        if name == "xz" {
            let stderr = daemon.fails(1, &["import", path(&file), "x:xz"]);
            assert!(stderr.contains("xz"), "{stderr}");
            continue;
        }
        daemon.ok(&[
            "import",
            "-c",
            "ENTRYPOINT [\"echo\"]",
            "-c",
            "CMD one two",
            "-m",
            "note",
            path(&file),
            &format!("x:{name}"),
        ]);
        assert_eq!(daemon.ok(&["run", "--rm", &format!("x:{name}"), "args"]), "args");
    }
    assert!(stdout(&daemon.creel(&["history", "x:gz"])).contains("note"));
    daemon.finish();
}

#[test]
fn images_with_shared_layers_travel_as_archives_and_as_layout_directories() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let dir = daemon.dir.path().to_owned();
    let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    for n in 1..=2 {
        let script = format!(
            "head -c 200000 /dev/urandom > /own{n}; setfattr -n user.a -v b /own{n} 2>/dev/null; ln /own{n} /link"
        );
        daemon.ok(&["run", "--name", "maker", "busybox", "sh", "-c", &script]);
        daemon.ok(&["commit", "-m", "step", "maker", &format!("app:{n}")]);
        daemon.ok(&["rm", "maker"]);
    }
    let names = ["app:1", "app:2", "busybox:latest"];
    let ids: Vec<String> = names.iter().map(|name| daemon.inspect(name, "{{.Id}}")).collect();
    let history: Vec<String> = names.iter().map(|name| daemon.ok(&["history", "--no-trunc", name])).collect();
    daemon.ok(&["save", "-o", &file("all.tar"), "app", "busybox"]);
    daemon.ok(&["save", "--format", "oci-dir", "-o", &file("layout"), "app", "busybox"]);
    // each layer once: two of their own and the shared one, three configurations, three manifests
    let blobs = |list: &str| {
        list.lines().filter(|line| line.contains("blobs/sha256/") && !line.ends_with('/')).count()
    };
    let listed = stdout(&Command::new("tar").args(["tf", &file("all.tar")]).output().unwrap());
    assert_eq!(blobs(&listed), 9, "{listed}");
    assert_eq!(std::fs::read_dir(dir.join("layout/blobs/sha256")).unwrap().count(), 9);
    let why = daemon.fails(1, &["save", "--format", "oci-dir", "-o", &file("layout"), "app:1"]);
    assert!(why.contains("the directory is not empty"), "{why}");
    assert!(daemon.fails(1, &["save", "--format", "oci-dir", "app:1"]).contains("give it with -o"));
    // somebody else reads them as well
    skopeo(&[&format!("docker-archive:{}:app:2", file("all.tar")), &format!("oci:{}:app2", file("other"))]);
    skopeo(&[&format!("oci:{}:2", file("layout")), &format!("oci:{}:two", file("third"))]);
    for source in ["all.tar", "layout"] {
        daemon.ok(&["rmi", "-f", "app:1", "app:2", "busybox"]);
        daemon.ok(&["image", "prune", "-af"]);
        assert_eq!(std::fs::read_dir(daemon.root().join("layers")).unwrap().count(), 0);
        let loaded = daemon.ok(&["load", "-i", &file(source)]);
        for name in names {
            assert!(loaded.contains(&format!("Loaded image: {name}")), "{source}: {loaded}");
        }
        let now: Vec<String> = names.iter().map(|name| daemon.inspect(name, "{{.Id}}")).collect();
        assert_eq!(now, ids, "{source}");
        assert_eq!(std::fs::read_dir(daemon.root().join("layers")).unwrap().count(), 3);
        let now: Vec<String> = names.iter().map(|name| daemon.ok(&["history", "--no-trunc", name])).collect();
        let steps = |all: &[String]| all.iter().map(|text| text.matches("step").count()).collect::<Vec<_>>();
        assert_eq!((steps(&now), steps(&history)), (vec![1, 1, 0], vec![1, 1, 0]));
        assert_eq!(daemon.ok(&["run", "--rm", "app:2", "stat", "-c", "%h", "/own2"]), "2");
        assert!(daemon.ok(&["image", "verify"]).ends_with("all whole"));
    }
    daemon.ok(&["load", "-i", &file("third")]);
    daemon.finish();
}

#[test]
fn what_a_commit_takes_and_what_a_parent_keeps_are_dockers() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let status = |name: &str| daemon.inspect(name, "{{.State.Status}}");
    // frozen meanwhile, unless it is not wanted; what was frozen stays so
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "busy",
        "busybox",
        "sh",
        "-c",
        "while :; do date > /now; sleep 0.01; done",
    ]);
    for flag in ["--pause=true", "--pause=false"] {
        daemon.ok(&["commit", flag, "busy", "frozen:1"]);
        assert_eq!(status("busy"), "running");
    }
    daemon.ok(&["pause", "busy"]);
    daemon.ok(&["commit", "busy", "frozen:2"]);
    assert_eq!(status("busy"), "paused");
    daemon.ok(&["rm", "-f", "busy"]);
    assert_eq!(daemon.inspect("frozen:1", "{{json .Config.Labels}} {{json .Config.Volumes}}"), "null null");
    daemon.ok(&["rmi", "frozen:1", "frozen:2"]);
    // the first one lost its name to the second
    assert!(daemon.ok(&["image", "prune", "-f"]).starts_with("Deleted Images:\ndeleted: sha256:"));
    let why = daemon.fails(
        1,
        &["commit", "busybox", "x@sha256:0000000000000000000000000000000000000000000000000000000000000000"],
    );
    assert!(why.contains("refusing to create a tag with a digest reference"), "{why}");
    let why = daemon.fails(1, &["import", "-c", "RUN x", path(crate::support::busybox_tar()), "bad:1"]);
    assert!(why.contains("Error response from daemon: RUN is not a valid change command"), "{why}");

    // a chain of images: a step that lost its name is kept for what was made of it, and goes with it
    for (from, to) in [("busybox", "step:1"), ("step:1", "step:2"), ("step:2", "step:3")] {
        daemon.ok(&["run", "--name", "maker", from, "sh", "-c", "date > /file"]);
        daemon.ok(&["commit", "maker", to]);
        daemon.ok(&["rm", "maker"]);
    }
    let id = daemon.inspect("step:1", "{{.Id}}");
    let why = daemon.fails(1, &["rmi", "-f", &id]);
    assert!(why.contains("(cannot be forced) - image has dependent child images"), "{why}");
    assert_eq!(daemon.ok(&["rmi", "step:1"]), "Untagged: step:1");
    assert_eq!(daemon.ok(&["rmi", "step:2"]), "Untagged: step:2");
    let count = |args: &[&str]| daemon.ok(args).lines().count();
    assert_eq!((count(&["images", "-q"]), count(&["images", "-aq"])), (2, 4));
    assert_eq!(daemon.ok(&["image", "prune", "-f"]), "Total reclaimed space: 0B");
    assert!(daemon.ok(&["history", "--no-trunc", "step:3"]).contains(&id));
    let gone = daemon.ok(&["rmi", "step:3"]);
    assert!(
        gone.matches("Deleted: sha256:").count() == 6 && gone.contains(&format!("Deleted: {id}")),
        "{gone}"
    );
    assert_eq!(count(&["images", "-aq"]), 1);
    daemon.finish();
}
