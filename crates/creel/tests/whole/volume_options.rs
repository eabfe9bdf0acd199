//! Options of the driver `local`: what they say is mounted in the containers that use the volume, and nowhere else.

use std::process::Command;

use crate::support::{Daemon, path, scratch};
use crate::volume_mounts::image;

fn mounts_of_daemon(daemon: &Daemon) -> String {
    std::fs::read_to_string(format!("/proc/{}/mountinfo", daemon.pid())).unwrap()
}

#[test]
fn memory_is_shared_by_all_who_run_and_gone_after_them() {
    let Some(mut daemon) = Daemon::with_busybox() else { return };
    daemon.ok(&[
        "volume",
        "create",
        "-o",
        "type=tmpfs",
        "-o",
        "device=tmpfs",
        "-o",
        "o=size=1m,uid=7,mode=750",
        "memory",
    ]);
    let before = mounts_of_daemon(&daemon);
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "one",
        "-v",
        "memory:/m",
        "-v",
        "memory:/again",
        "busybox",
        "sleep",
        "1000",
    ]);
    assert_eq!(daemon.ok(&["exec", "one", "stat", "-c", "%u %a", "/m"]), "7 750");
    let size = daemon.ok(&["exec", "one", "df", "-k", "/m"]);
    assert_eq!(size.lines().last().unwrap().split_whitespace().nth(1), Some("1024"), "{size}");
    daemon.ok(&["exec", "one", "sh", "-c", "mkdir /m/sub && echo first >/m/sub/file"]);
    assert_eq!(daemon.ok(&["exec", "one", "cat", "/again/sub/file"]), "first");
    let run = |daemon: &Daemon, mount: &str, script: &str| {
        daemon.ok(&["run", "--rm", "--mount", mount, "busybox", "sh", "-c", script])
    };
    assert_eq!(run(&daemon, "src=memory,dst=/m", "cat /m/sub/file; echo second >/m/sub/two"), "first");
    assert_eq!(
        run(
            &daemon,
            "src=memory,dst=/s,volume-subpath=sub,readonly",
            "cat /s/two; touch /s/x 2>/dev/null || echo no"
        ),
        "second\nno"
    );
    // Whoever is the daemon.
    daemon.kill();
    daemon.spawn();
    assert_eq!(run(&daemon, "src=memory,dst=/m", "cat /m/sub/two"), "second");
    daemon.ok(&["run", "-d", "--name", "two", "-v", "memory:/m", "busybox", "sleep", "1000"]);
    daemon.ok(&["rm", "-f", "one"]);
    assert_eq!(run(&daemon, "src=memory,dst=/m", "cat /m/sub/two"), "second", "the second one holds it");
    daemon.ok(&["rm", "-f", "two"]);
    assert_eq!(run(&daemon, "src=memory,dst=/m", "ls /m"), "", "nobody had it mounted any more");
    let lines = |text: &str| text.lines().count();
    assert_eq!(lines(&mounts_of_daemon(&daemon)), lines(&before), "something is mounted on the host");
    daemon.finish();
}

#[test]
fn two_who_start_at_once_share_memory() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    daemon.ok(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "memory"]);
    let script =
        "touch /m/$0; for i in $(seq 500); do [ $(ls /m | wc -l) = 6 ] && exit 0; sleep 0.02; done; exit 1";
    let children: Vec<_> = (0..6)
        .map(|n| {
            let n = n.to_string();
            let line = ["run", "--rm", "-v", "memory:/m", "busybox", "sh", "-c", script, &n];
            daemon.command(&line).spawn().unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success(), "not all six saw all six");
    }
    daemon.finish();
}

#[test]
fn directories_and_devices_are_mounted_where_they_are_used() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let dir = scratch();
    let bound = dir.path().join("bound");
    std::fs::create_dir(&bound).unwrap();
    image(&daemon, "filled", &[], |root| {
        std::fs::create_dir(root.join("srv")).unwrap();
        std::fs::write(root.join("srv/file"), "from the image").unwrap();
    });
    let device = format!("device={}", path(&bound));
    daemon.ok(&["volume", "create", "-o", "type=none", "-o", &device, "-o", "o=bind", "bound"]);
    assert_eq!(
        daemon.ok(&["run", "--rm", "-v", "bound:/srv", "filled", "cat", "/srv/file"]),
        "from the image"
    );
    assert_eq!(std::fs::read_to_string(bound.join("file")).unwrap(), "from the image");
    daemon.ok(&["volume", "create", "-o", "type=none", "-o", &device, "-o", "o=bind,ro", "sealed"]);
    let write = "touch /srv/x 2>/dev/null || echo no";
    assert_eq!(daemon.ok(&["run", "--rm", "-v", "sealed:/srv", "busybox", "sh", "-c", write]), "no");
    let mount = "src=bound,dst=/v,volume-subpath=file";
    assert_eq!(daemon.ok(&["run", "--rm", "--mount", mount, "busybox", "cat", "/v"]), "from the image");
    daemon.ok(&["volume", "create", "-o", "type=none", "-o", "device=/nonexistent", "-o", "o=bind", "gone"]);
    let said = daemon.fails(127, &["run", "--rm", "-v", "gone:/x", "busybox", "true"]);
    assert!(
        said.contains("failed to mount local volume: mount /nonexistent:") && said.contains("no such file"),
        "{said}"
    );
    daemon.ok(&["volume", "create", "-o", "type=nonesuch", "-o", "device=x", "strange"]);
    let said = daemon.fails(125, &["run", "--rm", "-v", "strange:/x", "busybox", "true"]);
    assert!(said.contains("this kernel has no file system nonesuch"), "{said}");
    daemon.ok(&["volume", "rm", "bound", "sealed", "gone", "strange"]);
    assert!(bound.join("file").exists(), "what was bound is not the volume's to delete");
    // A file system of a device, in two containers at once.
    let disk = dir.path().join("disk");
    std::fs::File::create(&disk).unwrap().set_len(8 << 20).unwrap();
    assert!(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk).status().unwrap().success());
    let attached = Command::new("losetup").args(["--show", "-f"]).arg(&disk).output().unwrap();
    if !attached.status.success() {
        eprintln!("skipped: no loop device here: {}", String::from_utf8_lossy(&attached.stderr));
        daemon.finish();
        return;
    }
    let node = String::from_utf8(attached.stdout).unwrap().trim().to_owned();
    let device = format!("device={node}");
    daemon.ok(&["volume", "create", "-o", "type=ext4", "-o", &device, "-o", "o=noatime", "disk"]);
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "one",
        "-v",
        "disk:/d",
        "busybox",
        "sh",
        "-c",
        "echo disk >/d/file; sleep 1000",
    ]);
    let read = "until [ -s /d/file ]; do sleep 0.02; done; cat /d/file; grep -c ' /d .*noatime.* ext4 ' /proc/self/mountinfo";
    assert_eq!(daemon.ok(&["run", "--rm", "-v", "disk:/d", "busybox", "sh", "-c", read]), "disk\n1");
    daemon.ok(&["rm", "-f", "one"]);
    assert_eq!(daemon.ok(&["run", "--rm", "-v", "disk:/d:ro", "busybox", "cat", "/d/file"]), "disk");
    daemon.finish();
    assert!(Command::new("losetup").args(["-d", &node]).status().unwrap().success());
}
