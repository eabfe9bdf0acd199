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
