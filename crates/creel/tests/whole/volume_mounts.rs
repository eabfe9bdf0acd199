//! Volumes in containers: what is mounted, what is in it at first, what goes with a container and what stays.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{Daemon, path, scratch};

/// Imports an image that is busybox with these files, which `make` lays into the directory it is given.
pub(crate) fn image(daemon: &Daemon, name: &str, changes: &[&str], make: impl FnOnce(&Path)) {
    let dir = scratch();
    let root = dir.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let run = |program: &str, args: &[&str]| {
        let status = Command::new(program).args(args).status().unwrap();
        assert!(status.success(), "{program} {args:?}");
    };
    run("tar", &["-C", path(&root), "-xf", path(crate::support::busybox_tar())]);
    make(&root);
    let tar = dir.path().join("image.tar");
    run(
        "tar",
        &[
            "-C",
            path(&root),
            "--xattrs",
            "--xattrs-include=*",
            "--numeric-owner",
            "--format=pax",
            "-cf",
            path(&tar),
            ".",
        ],
    );
    let mut line = vec!["import", "-m", name, "-c", "CMD [\"sh\"]"];
    changes.iter().for_each(|change| line.extend(["-c", *change]));
    line.extend([path(&tar), name]);
    daemon.ok(&line);
}

fn volumes(daemon: &Daemon) -> Vec<String> {
    daemon.ok(&["volume", "ls", "-q"]).lines().map(str::to_owned).collect()
}

#[test]
fn what_has_a_name_stays_and_what_has_none_goes_with_its_container() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    image(&daemon, "with-volume", &["VOLUME /declared"], |_| {});
    daemon.ok(&[
        "run",
        "--rm",
        "-v",
        "data:/d",
        "-v",
        "/anon",
        "with-volume",
        "sh",
        "-c",
        "echo kept >/d/file; echo x >/anon/x",
    ]);
    assert_eq!(volumes(&daemon), ["data"], "--rm takes the anonymous ones and the image's, and no other");
    assert_eq!(daemon.ok(&["run", "--rm", "-v", "data:/e:ro", "busybox", "cat", "/e/file"]), "kept");
    let refused = daemon.creel(&["run", "--rm", "-v", "data:/e:ro", "busybox", "touch", "/e/file"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Read-only file system"));
    let id = daemon.ok(&["create", "--name", "box", "-v", "data:/d", "-v", "/anon", "with-volume", "true"]);
    assert_eq!(volumes(&daemon).len(), 3);
    // Not even with force, and not only while it runs.
    for line in [&["volume", "rm", "data"][..], &["volume", "rm", "-f", "data"]] {
        assert_eq!(
            daemon.fails(1, line).trim(),
            format!("Error response from daemon: remove data: volume is in use - [{id}]")
        );
    }
    daemon.ok(&["volume", "prune", "-af"]);
    assert_eq!(volumes(&daemon).len(), 3);
    assert_eq!(daemon.ok(&["volume", "ls", "-qf", "dangling=true"]), "");
    assert_eq!(daemon.ok(&["ps", "-aqf", "volume=data", "--no-trunc"]), id);
    let mounts = daemon.inspect(
        "box",
        "{{range .Mounts}}{{.Type}} {{len .Name}} {{.Destination}} {{.Driver}} {{.Mode}} {{.RW}}\n{{end}}",
    );
    let mut lines: Vec<_> = mounts.lines().filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        ["volume 4 /d local z true", "volume 64 /anon local  true", "volume 64 /declared local  true"]
    );
    let source = daemon.inspect("box", "{{range .Mounts}}{{if eq .Name \"data\"}}{{.Source}}{{end}}{{end}}");
    assert_eq!(source, path(&daemon.root().join("volumes/data/_data")));
    // Without -v all stay.
    daemon.ok(&["rm", "box"]);
    assert_eq!(volumes(&daemon).len(), 3);
    daemon.ok(&["volume", "prune", "-f"]);
    assert_eq!(volumes(&daemon), ["data"]);
    daemon.ok(&["create", "--name", "box", "-v", "data:/d", "-v", "/anon", "with-volume", "true"]);
    daemon.ok(&["rm", "-v", "box"]);
    assert_eq!(volumes(&daemon), ["data"]);
    daemon.ok(&["volume", "rm", "data"]);
    daemon.finish();
}

#[test]
fn an_empty_volume_gets_the_images_content_with_all_that_belongs_to_it() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    image(&daemon, "filled", &[], |root| {
        let dir = root.join("srv");
        std::fs::create_dir_all(dir.join("sub")).unwrap();
        std::fs::write(dir.join("file"), "from the image").unwrap();
        std::fs::hard_link(dir.join("file"), dir.join("sub/link")).unwrap();
        std::os::unix::fs::symlink("file", dir.join("symlink")).unwrap();
        std::os::unix::fs::symlink("srv", root.join("alias")).unwrap();
        for (name, mode) in [("file", "4640"), ("sub", "1777"), ("", "2750")] {
            let place = dir.join(name);
            assert!(Command::new("chown").args(["-h", "7:8"]).arg(&place).status().unwrap().success());
            assert!(Command::new("chmod").arg(mode).arg(&place).status().unwrap().success());
            let value = b"value";
            rustix::fs::setxattr(&place, "user.test", value, rustix::fs::XattrFlags::empty()).unwrap();
            assert!(
                Command::new("touch")
                    .args(["-d", "2001-02-03 04:05:06.5"])
                    .arg(&place)
                    .status()
                    .unwrap()
                    .success()
            );
        }
    });
    // By way of a link of the image, too.
    daemon.ok(&[
        "create",
        "--name",
        "box",
        "-v",
        "one:/srv",
        "-v",
        "two:/alias",
        "-v",
        "three:/srv2:nocopy",
        "filled",
    ]);
    for volume in ["one", "two"] {
        let data = daemon.root().join("volumes").join(volume).join("_data");
        let of = |name: &str| {
            let meta = std::fs::symlink_metadata(data.join(name)).unwrap();
            let mut value = [0; 16];
            let count = rustix::fs::getxattr(data.join(name), "user.test", &mut value[..]).unwrap_or(0);
            (
                meta.uid(),
                meta.gid(),
                meta.mode() & 0o7777,
                meta.mtime(),
                meta.mtime_nsec(),
                value[..count].to_vec(),
            )
        };
        let time = (981_173_106, 500_000_000);
        let value = b"value".to_vec();
        assert_eq!(of("file"), (7, 8, 0o4640, time.0, time.1, value.clone()));
        assert_eq!(of("sub"), (7, 8, 0o1777, time.0, time.1, value.clone()));
        assert_eq!(of(""), (7, 8, 0o2750, time.0, time.1, value), "the volume's own directory");
        let inode = |name: &str| std::fs::symlink_metadata(data.join(name)).unwrap().ino();
        assert_eq!(inode("file"), inode("sub/link"));
        assert_eq!(std::fs::read_link(data.join("symlink")).unwrap(), Path::new("file"));
    }
    daemon.ok(&["rm", "box"]);
    // What is not empty stays as it is; nocopy keeps an empty one empty.
    std::fs::remove_file(daemon.root().join("volumes/one/_data/file")).unwrap();
    assert_eq!(daemon.ok(&["run", "--rm", "-v", "one:/srv", "filled", "ls", "/srv"]), "sub\nsymlink");
    assert_eq!(daemon.ok(&["run", "--rm", "-v", "four:/srv:nocopy", "filled", "ls", "/srv"]), "");
    let mount = "type=volume,src=five,dst=/srv,volume-nocopy";
    assert_eq!(daemon.ok(&["run", "--rm", "--mount", mount, "filled", "ls", "/srv"]), "");
    // Also where it is mounted read-only, and where another one has it mounted already.
    assert_eq!(
        daemon.ok(&["run", "--rm", "-v", "six:/srv:ro", "filled", "cat", "/srv/file"]),
        "from the image"
    );
    daemon.ok(&["run", "-d", "--name", "first", "-v", "seven:/seven", "busybox", "sleep", "1000"]);
    assert_eq!(
        daemon.ok(&["run", "--rm", "-v", "seven:/srv", "filled", "cat", "/srv/file"]),
        "from the image"
    );
    assert_eq!(daemon.ok(&["exec", "first", "cat", "/seven/file"]), "from the image");
    daemon.finish();
}

#[test]
fn mounts_in_their_long_form() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let run = |mount: &str, script: &str| {
        daemon.ok(&["run", "--rm", "--mount", mount, "busybox", "sh", "-c", script])
    };
    let fails = |mount: &str| daemon.fails(125, &["run", "--rm", "--mount", mount, "busybox", "true"]);
    run(
        "type=volume,src=vol,dst=/v",
        "mkdir -p /v/sub/deep; echo in >/v/sub/deep/file; ln -s sub/deep /v/link",
    );
    assert_eq!(run("type=volume,src=vol,dst=/v,volume-subpath=sub/deep", "cat /v/file"), "in");
    assert_eq!(run("type=volume,src=vol,dst=/v,volume-subpath=link/file", "cat /v"), "in");
    assert_eq!(
        run("type=volume,src=vol,dst=/v,volume-subpath=sub,readonly", "touch /v/x 2>/dev/null || echo no"),
        "no"
    );
    assert_eq!(run("type=volume,dst=/v", "touch /v/x && ls /v"), "x");
    assert_eq!(volumes(&daemon), ["vol"]);
    for (mount, why) in [
        (
            "src=vol,dst=/v,volume-subpath=../x",
            "invalid mount config for type \"volume\": subpath must be a relative path within the volume",
        ),
        (
            "src=vol,dst=/v,volume-subpath=/x",
            "invalid mount config for type \"volume\": subpath must be a relative path within the volume",
        ),
        (
            "dst=/v,volume-subpath=x",
            "invalid mount config for type \"volume\": must not set Subpath when using anonymous volumes",
        ),
        (
            "dst=/v,readonly",
            "invalid mount config for type \"volume\": must not set ReadOnly mode when using anonymous volumes",
        ),
        ("src=/abs,dst=/v", "create /abs: \"/abs\" includes invalid characters for a local volume name"),
        (
            "src=vol,dst=v",
            "invalid mount config for type \"volume\": invalid mount path: 'v' mount path must be absolute",
        ),
        (
            "src=vol,dst=/v,volume-driver=nope",
            "error looking up volume plugin nope: plugin \"nope\" not found",
        ),
        ("type=image,dst=/v", "invalid mount config for type \"image\": field Source must not be empty"),
        ("type=image,src=none,dst=/v", "the image of the mount at /v"),
    ] {
        let said = fails(mount);
        assert!(said.contains(why), "{mount}: {said}");
    }
    let missing = daemon
        .fails(127, &["run", "--rm", "--mount", "src=vol,dst=/v,volume-subpath=none", "busybox", "true"]);
    assert!(missing.contains("_data/none: no such file or directory"), "{missing}");
    assert_eq!(volumes(&daemon), ["vol"], "a create that fails leaves no volume behind");
    // Labels and options take effect where the volume is made by it.
    run("src=labelled,dst=/v,volume-label=a=b", "true");
    assert_eq!(daemon.ok(&["volume", "inspect", "-f", "{{.Labels.a}}", "labelled"]), "b");
    // An image's files, read-only; it is kept as long as a container mounts it.
    image(&daemon, "mounted", &[], |root| std::fs::write(root.join("etc/only-here"), "seen").unwrap());
    assert_eq!(
        run("type=image,src=mounted,dst=/i", "cat /i/etc/only-here; touch /i/x 2>/dev/null || echo no"),
        "seenno"
    );
    assert_eq!(run("type=image,src=mounted,dst=/i,image-subpath=etc", "cat /i/only-here"), "seen");
    daemon.ok(&["run", "--name", "layered", "busybox", "sh", "-c", "echo second >/etc/second"]);
    daemon.ok(&["commit", "layered", "layered"]);
    assert_eq!(run("type=image,src=layered,dst=/i", "cat /i/etc/second; ls -d /i/bin"), "second\n/i/bin");
    daemon.ok(&["create", "--name", "user", "--mount", "type=image,src=mounted,dst=/i", "busybox"]);
    assert!(daemon.fails(1, &["rmi", "mounted"]).contains("is using its referenced image"));
    daemon.ok(&["rm", "user"]);
    daemon.ok(&["rmi", "mounted"]);
    daemon.finish();
}

#[test]
fn mounts_of_other_containers_are_taken_over() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let dir = scratch();
    let bind = format!("{}:/host", path(dir.path()));
    daemon.ok(&[
        "run",
        "--name",
        "donor",
        "-v",
        "named:/named",
        "-v",
        "/anon",
        "-v",
        &bind,
        "busybox",
        "sh",
        "-c",
        "echo n >/named/f; echo a >/anon/f; echo h >/host/f",
    ]);
    let read = "cat /named/f /anon/f /host/f";
    assert_eq!(
        daemon.ok(&["run", "--rm", "--volumes-from", "donor", "busybox", "sh", "-c", read]),
        "n\na\nh"
    );
    let write = "for d in named anon host; do touch /$d/x 2>/dev/null && echo $d; done; true";
    assert_eq!(daemon.ok(&["run", "--rm", "--volumes-from", "donor:ro", "busybox", "sh", "-c", write]), "");
    let own = ["run", "--rm", "--volumes-from", "donor", "-v", "other:/named", "busybox", "ls", "/named"];
    assert_eq!(daemon.ok(&own), "", "what is asked for by name wins");
    for (from, why) in [("none", "No such container: none"), ("donor:zz", "invalid mode: zz")] {
        assert!(daemon.fails(125, &["run", "--rm", "--volumes-from", from, "busybox", "true"]).contains(why));
    }
    // The anonymous one lives as long as anybody uses it.
    daemon.ok(&["create", "--name", "heir", "--volumes-from", "donor", "busybox", "cat", "/anon/f"]);
    daemon.ok(&["rm", "-v", "donor"]);
    assert_eq!(daemon.ok(&["start", "-a", "heir"]), "a");
    daemon.ok(&["rm", "-v", "heir"]);
    assert_eq!(volumes(&daemon), ["named", "other"]);
    daemon.finish();
}

#[test]
fn use_outlives_the_daemon_and_events_tell_of_it() {
    let Some(mut daemon) = Daemon::with_busybox() else { return };
    daemon.ok(&[
        "run", "-d", "--rm", "--name", "box", "-v", "named:/n", "-v", "/anon", "busybox", "sleep", "1000",
    ]);
    daemon.kill();
    daemon.spawn();
    assert!(daemon.fails(1, &["volume", "rm", "named"]).contains("volume is in use"));
    daemon.ok(&["kill", "box"]);
    crate::support::eventually("the removal of the anonymous volume", || volumes(&daemon) == ["named"]);
    daemon.ok(&["run", "--rm", "-v", "named:/n:ro", "busybox", "true"]);
    let filter = ["events", "--since", "1", "--until", "0s", "--filter", "volume=named", "--format", "json"];
    let events: Vec<serde_json::Value> =
        daemon.ok(&filter).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let actions: Vec<_> = events.iter().map(|event| event["Action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["unmount", "mount", "unmount"], "of this daemon's time");
    let told = &events[1]["Actor"]["Attributes"];
    let words =
        ["driver", "destination", "propagation", "read/write"].map(|name| told[name].as_str().unwrap());
    assert_eq!(words, ["local", "/n", "", "false"]);
    assert_eq!(told["container"].as_str().unwrap().len(), 64);
    daemon.finish();
}

#[test]
fn a_link_in_a_volume_leads_nowhere_out_of_it_whenever_it_is_put_there() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    daemon.ok(&["volume", "create", "vol"]);
    let data = daemon.root().join("volumes/vol/_data");
    let outside = scratch();
    std::fs::write(outside.path().join("mark"), "outside").unwrap();
    std::fs::create_dir(data.join("inside")).unwrap();
    std::fs::write(data.join("inside/mark"), "inside").unwrap();
    std::os::unix::fs::symlink(outside.path(), data.join("absolute")).unwrap();
    let up = format!("../../../../../../../../{}", path(outside.path()));
    std::os::unix::fs::symlink(up, data.join("relative")).unwrap();
    let run = |subpath: &str| {
        let mount = format!("src=vol,dst=/v,volume-subpath={subpath}");
        daemon.creel(&["run", "--rm", "--mount", &mount, "busybox", "cat", "/v/mark"])
    };
    for link in ["absolute", "relative", "absolute/.", "inside/../relative"] {
        let output = run(link);
        assert_ne!(output.status.code(), Some(0), "{link}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("leads out of the volume"), "{output:?}");
    }
    // Who shares the volume exchanges a directory and a link as fast as he can.
    let stop = AtomicBool::new(false);
    let (mut inside, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            while !stop.load(Ordering::Relaxed) {
                let (one, two) = (data.join("inside"), data.join("absolute"));
                rustix::fs::renameat_with(rustix::fs::CWD, &one, rustix::fs::CWD, &two, flags).unwrap();
            }
        });
        for _ in 0..60 {
            let output = run("inside");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(!text.contains("outside"), "the exchange led out: {output:?}");
            if text == "inside" { inside += 1 } else { refused += 1 }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(inside > 0 && refused > 0, "the race was not tried: {inside} inside, {refused} refused");
    daemon.finish();
}
