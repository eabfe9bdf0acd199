//! `cp`, `diff`, `export`, `commit`: a container's files, running or not.

use std::process::Command;

use crate::support::{Daemon, path, scratch, stdout};

#[test]
fn files_are_copied_in_and_out_of_running_and_stopped_containers() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let host = scratch();
    let file = host.path().join("file");
    std::fs::write(&file, "content").unwrap();
    daemon.ok(&["run", "-d", "--name", "box", "--tmpfs", "/scratch", "busybox", "sleep", "1000"]);
    for place in ["box:/tmp/file", "box:/scratch/file"] {
        daemon.ok(&["cp", path(&file), place]);
        let back = host.path().join("back");
        daemon.ok(&["cp", place, path(&back)]);
        assert_eq!(std::fs::read_to_string(&back).unwrap(), "content", "{place}");
        std::fs::remove_file(back).unwrap();
    }
    assert_eq!(daemon.ok(&["exec", "box", "cat", "/tmp/file", "/scratch/file"]), "contentcontent");
    daemon.ok(&["stop", "-t", "0", "box"]);
    let back = host.path().join("dir");
    daemon.ok(&["cp", "box:/tmp", path(&back)]);
    assert_eq!(std::fs::read_to_string(back.join("file")).unwrap(), "content");
    daemon.ok(&["cp", path(&file), "box:/etc/other"]);
    daemon.ok(&["start", "box"]);
    assert_eq!(daemon.ok(&["exec", "box", "cat", "/etc/other"]), "content");
    assert!(
        daemon.fails(1, &["cp", "box:/none", path(host.path())]).contains("Could not find the file /none")
    );
    daemon.finish();
}

#[test]
fn a_symlink_in_the_container_does_not_lead_cp_out() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let host = scratch();
    std::fs::write(host.path().join("secret"), "the host's").unwrap();
    let file = host.path().join("evil");
    std::fs::write(&file, "evil").unwrap();
    let link = format!("ln -s {} /out; ln -s {}/secret /secret", path(host.path()), path(host.path()));
    daemon.ok(&["run", "--name", "box", "busybox", "sh", "-c", &link]);
    daemon.creel(&["cp", path(&file), "box:/out/evil2"]);
    daemon.creel(&["cp", path(&file), "box:/secret"]);
    let back = host.path().join("back");
    daemon.creel(&["cp", "-L", "box:/secret", path(&back)]);
    assert!(!host.path().join("evil2").exists());
    assert_eq!(std::fs::read_to_string(host.path().join("secret")).unwrap(), "the host's");
    assert_ne!(std::fs::read_to_string(&back).unwrap_or_default(), "the host's");
    daemon.finish();
}

#[test]
fn diff_export_and_commit_see_the_changes() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    daemon.ok(&[
        "run",
        "--name",
        "box",
        "busybox",
        "sh",
        "-c",
        "echo new >/etc/new; rm /etc/group; mkdir -p /srv/a; chmod 700 /home",
    ]);
    let diff = daemon.ok(&["diff", "box"]);
    let mut lines: Vec<_> = diff.lines().collect();
    lines.sort_unstable();
    for wanted in ["C /etc", "A /etc/new", "D /etc/group", "A /srv", "A /srv/a", "C /home"] {
        assert!(lines.contains(&wanted), "`{wanted}` is missing in\n{diff}");
    }
    let tar = daemon.dir.path().join("export.tar");
    daemon.ok(&["export", "-o", path(&tar), "box"]);
    let names = stdout(&Command::new("tar").arg("-tf").arg(&tar).output().unwrap());
    assert!(names.lines().any(|n| n == "etc/new") && !names.lines().any(|n| n == "etc/group"), "{names}");
    let id = daemon.ok(&["commit", "-m", "a change", "--change", "ENV X=1", "box", "changed:v1"]);
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(
        daemon.ok(&[
            "run",
            "--rm",
            "changed:v1",
            "sh",
            "-c",
            "cat /etc/new; ls /etc/group 2>&1; echo $X; stat -c %a /home"
        ]),
        "new\nls: /etc/group: No such file or directory\n1\n700"
    );
    assert!(daemon.ok(&["history", "changed:v1"]).contains("a change"));
    assert_eq!(daemon.inspect("changed:v1", "{{len .RootFS.Layers}}"), "2");
    daemon.finish();
}
