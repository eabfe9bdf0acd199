//! What the engine puts into a container's root is none of the container's changes.

use std::fs;
use std::process::Command;

use crate::support::{Daemon, busybox_tar, path, scratch, stdout};

/// An image of one static program and nothing else.
fn bare(daemon: &Daemon) {
    let dir = scratch();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let program = ["/usr/bin/busybox", "/bin/busybox"].into_iter().find(|p| fs::metadata(p).is_ok());
    fs::copy(program.expect("busybox-static is installed"), tree.join("busybox")).unwrap();
    let tar = dir.path().join("bare.tar");
    let made = Command::new("tar").arg("-C").arg(&tree).arg("-cf").arg(&tar).arg("busybox").status();
    assert!(made.unwrap().success());
    daemon.ok(&["import", path(&tar), "bare"]);
}

fn names(tar: &[u8]) -> Vec<String> {
    let mut child = Command::new("tar")
        .args(["-tf", "-"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let tar = tar.to_vec();
    let feeding = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &tar));
    let output = child.wait_with_output().unwrap();
    let _ = feeding.join();
    let mut names: Vec<String> = stdout(&output).lines().map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn an_image_from_scratch_gets_all_that_docker_gives_it_and_diff_shows_none_of_it() {
    let Some(daemon) = Daemon::start() else { return };
    bare(&daemon);
    daemon.ok(&["create", "--name", "new", "bare", "/busybox", "true"]);
    assert_eq!(daemon.ok(&["diff", "new"]), "");
    // Docker 28.5 exports these of a container that never ran.
    let expected = [
        ".dockerenv",
        "busybox",
        "dev/",
        "dev/console",
        "dev/pts/",
        "dev/shm/",
        "etc/",
        "etc/hostname",
        "etc/hosts",
        "etc/mtab",
        "etc/resolv.conf",
        "proc/",
        "sys/",
    ];
    assert_eq!(names(&daemon.creel(&["export", "new"]).stdout), expected);
    let seen = daemon.ok(&["run", "--name", "ran", "bare", "/busybox", "ls", "-A", "/"]);
    assert_eq!(seen, ".dockerenv\nbusybox\ndev\netc\nproc\nsys");
    assert_eq!(daemon.ok(&["diff", "ran"]), "");
    assert_eq!(names(&daemon.creel(&["export", "ran"]).stdout), expected);
    // All containers of one image share it.
    assert_eq!(fs::read_dir(daemon.root().join("inits")).unwrap().count(), 1);
    daemon.finish();
}

#[test]
fn diff_export_cp_and_commit_tell_the_containers_own_changes_from_the_engines() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let script = "readlink /etc/mtab; stat -c %a:%s /.dockerenv; echo x >/etc/new; rm /etc/mtab";
    let seen = daemon.ok(&["run", "--name", "one", "busybox", "sh", "-c", script]);
    assert_eq!(seen, "/proc/mounts\n755:0");
    assert_eq!(daemon.ok(&["diff", "one"]), "C /etc\nD /etc/mtab\nA /etc/new");
    // What was mounted there while it ran is still what cp gives; before the first start the file is empty.
    let hosts = daemon.creel(&["cp", "one:/etc/hosts", "-"]);
    assert!(stdout(&hosts).contains("localhost"), "{hosts:?}");
    daemon.ok(&["create", "--name", "two", "busybox", "true"]);
    assert!(!stdout(&daemon.creel(&["cp", "two:/etc/hosts", "-"])).contains("localhost"));
    daemon.ok(&["commit", "one", "made"]);
    let dir = scratch();
    let saved = dir.path().join("made.tar");
    daemon.ok(&["save", "-o", path(&saved), "made"]);
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let unpacked = Command::new("tar").arg("-C").arg(&tree).arg("-xf").arg(&saved).status();
    assert!(unpacked.unwrap().success());
    let blobs = fs::read_dir(tree.join("blobs/sha256")).unwrap();
    let layers: Vec<Vec<String>> = blobs
        .map(|blob| names(&gunzip(&fs::read(blob.unwrap().path()).unwrap())))
        .filter(|names| names.iter().any(|name| name == "etc/new"))
        .collect();
    assert_eq!(layers, [["etc/", "etc/.wh.mtab", "etc/new"]]);
    // The new image's containers have it all again, and the image's own file does not show through.
    assert_eq!(daemon.ok(&["run", "--rm", "made", "readlink", "/etc/mtab"]), "/proc/mounts");
    daemon.finish();
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return bytes.to_vec();
    }
    let dir = scratch();
    let file = dir.path().join("x.gz");
    fs::write(&file, bytes).unwrap();
    Command::new("gzip").arg("-dc").arg(&file).output().unwrap().stdout
}

#[test]
fn attributes_of_the_images_directories_show_through_and_an_init_layer_goes_with_its_image() {
    let Some(daemon) = Daemon::start() else { return };
    let dir = scratch();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let tar = dir.path().join("odd.tar");
    let script = format!(
        "cd {0} && tar -xf {1} && mkdir -p dev/shm && chmod 1711 etc && chown 7:8 etc && echo mine >etc/hosts && \
         touch -d @1000 etc && tar --numeric-owner -cf {2} .",
        path(&tree),
        path(busybox_tar()),
        path(&tar)
    );
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    daemon.ok(&["import", path(&tar), "odd"]);
    let seen = daemon.ok(&["run", "--name", "one", "odd", "stat", "-c", "%a %u %g %Y", "/etc"]);
    assert_eq!(seen, "1711 7 8 1000");
    assert_eq!(daemon.ok(&["diff", "one"]), "");
    daemon.ok(&["rm", "one"]);
    daemon.ok(&["rmi", "odd"]);
    assert_eq!(fs::read_dir(daemon.root().join("inits")).unwrap().count(), 0);
    daemon.finish();
}
