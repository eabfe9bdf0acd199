//! What callers and tests of crun rely on beside runc's ways.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Place, on_v2, say};

fn mount(spec: &mut Value, at: usize, destination: &str, source: &Path, options: &[&str]) {
    let mount = json!({ "destination": destination, "type": "bind", "source": source, "options": options });
    spec["mounts"].as_array_mut().unwrap().insert(at, mount);
}

fn last(spec: &Value) -> usize {
    spec["mounts"].as_array().unwrap().len()
}

fn add_namespace(spec: &mut Value, kind: &str) {
    spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": kind }));
}

/// A user namespace that has no ids but the caller's, so that nothing can be another group's.
fn add_own_user_namespace(spec: &mut Value) {
    add_namespace(spec, "user");
    for mount in spec["mounts"].as_array_mut().unwrap() {
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| !option.as_str().unwrap().starts_with("gid="));
        }
    }
}

#[test]
fn a_user_namespace_without_maps_has_ids_of_the_caller() {
    let Some(place) = Place::new() else { return };
    let bundle = place.bundle("c", &["cat", "/proc/self/uid_map", "/proc/self/gid_map"], |spec| {
        add_own_user_namespace(spec);
        spec["process"]["user"] = json!({ "uid": 0, "gid": 4 });
    });
    let said = place.ok(&["run", "--bundle", bundle.to_str().unwrap(), "c"]);
    let numbers: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(numbers, [["0", "0", "1"], ["0", "0", "5"]]);
    // Another process finds them in the Spec that was kept.
    let bundle = place.bundle("d", &["sleep", "1000"], add_own_user_namespace);
    place.create("d", &bundle);
    place.start("d");
    assert_eq!(place.ok(&["exec", "d", "id", "-u"]), "0");
    place.ok(&["delete", "--force", "d"]);
    place.finish();
}

#[test]
fn who_waits_for_a_status_file_finds_the_state() {
    let Some(place) = Place::new() else { return };
    place.running("c");
    let file = place.root().join("c/status");
    let status: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(status["pid"], json!(place.pid("c")));
    assert!(status["external_descriptors"].is_string() && status["bundle"].is_string(), "{status}");
    place.ok(&["delete", "--force", "c"]);
    assert!(!file.exists());
    place.finish();
}

#[test]
fn links_at_either_end_of_a_bind_mount() {
    let Some(place) = Place::new() else { return };
    let (host, data) = (place.dir.path().join("host"), place.dir.path().join("data"));
    fs::create_dir_all(&host).unwrap();
    fs::create_dir_all(&data).unwrap();
    fs::write(host.join("file"), "inside the file").unwrap();
    symlink(host.join("file"), host.join("link")).unwrap();
    symlink("nowhere", host.join("broken")).unwrap();
    symlink("point-to-nothing", data.join("link")).unwrap();
    let run = |script: &str, source: &str, destination: &str, options: &[&str], user: bool| {
        let bundle = place.bundle("c", &["sh", "-c", script], |spec| {
            let end = last(spec);
            mount(spec, end, "/tmp", &data, &["bind"]);
            mount(spec, end + 1, destination, &host.join(source), options);
            if user {
                add_own_user_namespace(spec);
            }
        });
        place.call(&["run", "--bundle", bundle.to_str().unwrap(), "c"])
    };
    let says = |output: std::process::Output| {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    };
    let target = host.join("file").to_str().unwrap().to_owned();
    for user in [false, true] {
        let both = ["bind", "src-nofollow", "dest-nofollow"];
        assert_eq!(says(run("readlink /tmp/link", "link", "/tmp/link", &both, user)), target);
        let covered = says(run("cat /tmp/link", "link", "/tmp/link", &["bind", "dest-nofollow"], user));
        assert_eq!(covered, "inside the file");
        let copied = says(run("readlink /tmp/a/b", "broken", "/tmp/a/b", &["rbind", "copy-symlink"], user));
        assert_eq!(copied, "nowhere");
        // There already, and the same; what is no link is mounted.
        assert_eq!(
            says(run("readlink /tmp/a/b", "broken", "/tmp/a/b", &["bind", "copy-symlink"], user)),
            "nowhere"
        );
        let mounted = says(run("cat /tmp/new", "file", "/tmp/new", &["bind", "copy-symlink"], user));
        assert_eq!(mounted, "inside the file");
        let other = run("true", "link", "/tmp/a/b", &["bind", "copy-symlink"], user);
        assert!(!other.status.success(), "another link was replaced");
    }
    assert_eq!(fs::read_link(data.join("link")).unwrap(), Path::new("point-to-nothing"));
    // A link that leads out of the root leads to a place inside.
    symlink(&host, data.join("out")).unwrap();
    let inside =
        says(run("readlink /tmp/out/copy", "broken", "/tmp/out/copy", &["bind", "copy-symlink"], false));
    assert_eq!(inside, "nowhere");
    assert!(host.join("copy").symlink_metadata().is_err(), "a link was made on the host");
    // Nothing in procfs may be covered, whatever it is.
    for destination in ["/proc/self", "/proc/1/exe"] {
        let output = run("true", "link", destination, &["bind", "src-nofollow", "dest-nofollow"], false);
        assert!(!output.status.success(), "{destination}");
    }
    place.finish();
}

#[test]
fn a_mount_over_the_root_is_the_root() {
    let Some(place) = Place::new() else { return };
    let empty = place.dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    for read_only in [true, false] {
        let bundle = place.bundle("c", &["sh", "-c", "busybox true && touch /tmp/made-in-root"], |spec| {
            let whole = spec["root"]["path"].as_str().unwrap().to_owned();
            spec["root"] = json!({ "path": empty, "readonly": read_only });
            mount(spec, 0, "/", Path::new(&whole), &["rbind"]);
        });
        let output = place.call(&["run", "--bundle", bundle.to_str().unwrap(), "c"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.success(), !read_only, "{said}");
        assert!(!read_only || said.contains("Read-only file system"), "{said}");
    }
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
    let bundle = place.bundle("c", &["true"], |spec| {
        let tmpfs = json!({ "destination": "/", "type": "tmpfs", "options": ["tmpcopyup"] });
        spec["mounts"].as_array_mut().unwrap().insert(0, tmpfs);
    });
    let said = place.fails(1, &["run", "--bundle", bundle.to_str().unwrap(), "c"]);
    assert!(said.contains("mounts[0]"), "{said}");
    place.finish();
}

#[test]
fn a_shared_mount_in_a_private_root_stays_its_hosts_peer() {
    let Some(place) = Place::new() else { return };
    let data = place.dir.path().join("data");
    fs::create_dir(&data).unwrap();
    let bundle = place.bundle("c", &["grep", "-E", " /(tmp|root) ", "/proc/self/mountinfo"], |spec| {
        spec["linux"]["rootfsPropagation"] = json!("rprivate");
        let end = last(spec);
        mount(spec, end, "/tmp", &data, &["bind", "rshared"]);
        mount(spec, end, "/root", &data, &["bind"]);
    });
    let script = "mount --bind $1 $1 && mount --make-shared $1 && grep \" $1 \" /proc/self/mountinfo && shift && exec \"$@\"";
    let mut command = std::process::Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(&data)
        .arg(crate::support::CREEL)
        .args(["oci", "--root"]);
    let output = command.arg(place.root()).args(["run", "--bundle"]).arg(&bundle).arg("c").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    let peers = |place: &str| {
        let line = said.lines().find(|line| line.split(' ').nth(4) == Some(place)).unwrap();
        line.split(' ').find(|word| word.starts_with("shared:")).map(str::to_owned)
    };
    assert!(peers("/tmp").is_some() && peers("/tmp") == peers(data.to_str().unwrap()), "{said}");
    assert_eq!(peers("/root"), None, "{said}");
    place.finish();
}

#[test]
fn an_annotation_names_who_gets_the_process_descriptor() {
    let Some(place) = Place::new() else { return };
    let path = place.dir.path().join("receiver");
    let listener = UnixListener::bind(&path).unwrap();
    let bundle = place.bundle("c", &["sleep", "1000"], |spec| {
        spec["annotations"] = json!({ "run.oci.pidfd_receiver": path });
    });
    place.create("c", &bundle);
    let (connection, _) = listener.accept().unwrap();
    let (_, fds) = creel_sys::fdpass::recv(&connection, &mut [0; 64]).unwrap();
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", std::os::fd::AsRawFd::as_raw_fd(&fds[0])))
        .unwrap();
    assert!(info.contains(&format!("\nPid:\t{}\n", place.pid("c"))), "{info}");
    place.ok(&["delete", "--force", "c"]);
    place.finish();
}

#[test]
fn a_group_that_was_given_away_takes_further_processes() {
    let Some(place) = Place::new() else { return };
    if !on_v2() {
        say("skipped: needs cgroup v2");
        return;
    }
    let bundle = place.bundle("c", &["sleep", "1000"], |spec| {
        add_namespace(spec, "user");
        let map = json!([{ "containerID": 0, "hostID": 100000, "size": 65536 }]);
        spec["linux"]["uidMappings"] = map.clone();
        spec["linux"]["gidMappings"] = map;
        for mount in spec["mounts"].as_array_mut().unwrap() {
            if mount["type"] == json!("cgroup") {
                mount["options"] = json!(["nosuid", "noexec", "nodev"]);
            }
        }
    });
    place.create("c", &bundle);
    place.start("c");
    assert_eq!(place.ok(&["exec", "c", "stat", "-c", "%u", "/sys/fs/cgroup"]), "0");
    assert_eq!(place.ok(&["exec", "c", "cat", "/proc/self/cgroup"]), "0::/");
    // The container's root moves everybody down: the group itself takes nobody any more.
    let script = "mkdir /sys/fs/cgroup/sub && echo 1 > /sys/fs/cgroup/sub/cgroup.procs && \
                  echo $$ > /sys/fs/cgroup/sub/cgroup.procs && echo +pids > /sys/fs/cgroup/cgroup.subtree_control";
    place.ok(&["exec", "c", "sh", "-c", script]);
    assert_eq!(place.ok(&["exec", "c", "cat", "/proc/self/cgroup"]), "0::/sub");
    let said = place.fails(255, &["exec", "--cgroup", "/", "c", "true"]);
    assert!(said.contains(" adding pid ") && said.contains("to cgroups: device or resource busy"), "{said}");
    place.ok(&["delete", "--force", "c"]);
    place.finish();
}

#[test]
fn without_a_namespace_of_groups_the_whole_hierarchy_is_seen() {
    let Some(place) = Place::new() else { return };
    if !on_v2() {
        say("skipped: needs cgroup v2");
        return;
    }
    let script =
        "cut -d: -f3 /proc/self/cgroup; cat /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)/cgroup.procs";
    let bundle = place.bundle("c", &["sh", "-c", script], |spec| {
        let list = spec["linux"]["namespaces"].as_array_mut().unwrap();
        list.retain(|namespace| namespace["type"] != json!("cgroup"));
    });
    let said = place.ok(&["run", "--bundle", bundle.to_str().unwrap(), "c"]);
    assert!(said.starts_with("/creel-oci-test-") && said.lines().nth(1) == Some("1"), "{said}");
    // One that has moved itself elsewhere is found there, also when its own group is gone.
    let other = Path::new("/sys/fs/cgroup").join(format!("creel-oci-other-{}", std::process::id()));
    fs::create_dir(&other).unwrap();
    let script = format!("echo 1 > {}/cgroup.procs && exec sleep 1000", other.display());
    let bundle = place.bundle("d", &["sh", "-c", &script], |spec| {
        let list = spec["linux"]["namespaces"].as_array_mut().unwrap();
        list.retain(|namespace| namespace["type"] != json!("cgroup"));
        for mount in spec["mounts"].as_array_mut().unwrap() {
            if mount["type"] == json!("cgroup") {
                mount["options"] = json!(["nosuid", "noexec", "nodev"]);
            }
        }
    });
    place.create("d", &bundle);
    let own = place.cgroup_file("d", &["cgroup.procs"]).parent().unwrap().to_path_buf();
    place.start("d");
    crate::support::eventually("the empty group", || fs::remove_dir(&own).is_ok());
    let seen = place.ok(&["exec", "d", "cat", "/proc/self/cgroup"]);
    assert_eq!(seen, format!("0::/{}", other.file_name().unwrap().to_str().unwrap()));
    place.ok(&["delete", "--force", "d"]);
    crate::support::eventually("the end of all", || fs::remove_dir(&other).is_ok());
    // The host's options are as they were.
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let options = |text: &str| text.lines().find(|line| line.contains(" /sys/fs/cgroup ")).map(str::to_owned);
    assert!(options(&mounts).unwrap().contains("nsdelegate"), "{mounts}");
    place.finish();
}

#[test]
fn a_running_container_gets_mounts_and_loses_them() {
    let Some(place) = Place::new() else { return };
    let (host, data) = (place.dir.path().join("host"), place.dir.path().join("data"));
    fs::create_dir_all(&host).unwrap();
    fs::create_dir_all(data.join("sub")).unwrap();
    fs::write(host.join("file"), "from the host").unwrap();
    // Where an image's link leads out, and into procfs.
    symlink("/dev/shm", data.join("out")).unwrap();
    symlink("/proc", data.join("proc")).unwrap();
    let file = place.dir.path().join("mounts.json");
    let change = |what: &str, list: Value| {
        fs::write(&file, serde_json::to_vec(&list).unwrap()).unwrap();
        place.call(&["mounts", what, "c", file.to_str().unwrap()])
    };
    let done = |output: std::process::Output| {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    for user in [false, true] {
        let bundle = place.bundle("c", &["sleep", "1000"], |spec| {
            let end = last(spec);
            mount(spec, end, "/tmp", &data, &["bind"]);
            if user {
                add_own_user_namespace(spec);
            }
        });
        place.create("c", &bundle);
        place.start("c");
        let list = json!([
            { "destination": "/tmp/sub/new", "type": "bind", "source": host, "options": ["bind", "ro"] },
            { "destination": "/tmp/sub/small", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k"] },
            { "destination": "/tmp/out/linked-here", "type": "bind", "source": host, "options": ["bind"] },
        ]);
        done(change("add", list.clone()));
        assert_eq!(place.ok(&["exec", "c", "cat", "/tmp/sub/new/file"]), "from the host");
        assert!(!place.call(&["exec", "c", "touch", "/tmp/sub/new/x"]).status.success());
        let seen = place.ok(&[
            "exec",
            "c",
            "grep",
            "-c",
            "/tmp/sub/small .* tmpfs .*size=64k",
            "/proc/self/mountinfo",
        ]);
        assert_eq!(seen, "1");
        // The link led to a place inside.
        assert_eq!(place.ok(&["exec", "c", "cat", "/dev/shm/linked-here/file"]), "from the host");
        assert!(!Path::new("/dev/shm/linked-here").exists());
        for (destination, kind) in [
            ("/", "bind"),
            ("/proc/kcore", "bind"),
            ("/proc", "proc"),
            ("/tmp/proc/self", "bind"),
            ("/sys/fs/cgroup", "cgroup"),
        ] {
            let list = json!([{ "destination": destination, "type": kind, "source": host, "options": [] }]);
            assert!(!change("add", list.clone()).status.success(), "{destination} was mounted");
            let removed = change("remove", list).status.success();
            assert!(!removed || destination == "/sys/fs/cgroup", "{destination} was taken away");
        }
        done(change("remove", list));
        assert!(!place.call(&["exec", "c", "test", "-e", "/tmp/sub/new/file"]).status.success());
        let left = place.call(&["exec", "c", "grep", "-cE", "/tmp/sub|linked", "/proc/self/mountinfo"]);
        assert_eq!(String::from_utf8_lossy(&left.stdout).trim(), "0");
        assert!(!change("grow", json!([])).status.success());
        place.ok(&["delete", "--force", "c"]);
    }
    assert!(!change("add", json!([])).status.success(), "there is no container");
    place.finish();
}

#[test]
fn one_that_was_moved_into_a_frozen_group_is_deleted() {
    let Some(place) = Place::new() else { return };
    let freezer = Path::new("/sys/fs/cgroup/freezer");
    if !freezer.join("cgroup.procs").exists() {
        say("skipped: needs the freezer of cgroup v1");
        return;
    }
    let other = freezer.join(format!("creel-oci-other-{}", std::process::id()));
    fs::create_dir(&other).unwrap();
    place.running("c");
    fs::write(other.join("cgroup.procs"), place.pid("c").to_string()).unwrap();
    fs::write(other.join("freezer.state"), "FROZEN").unwrap();
    let deleted = place.call(&["delete", "--force", "c"]);
    let left = fs::read_to_string(other.join("cgroup.procs")).unwrap();
    fs::write(other.join("freezer.state"), "THAWED").unwrap();
    assert!(deleted.status.success() && left.is_empty(), "{}", String::from_utf8_lossy(&deleted.stderr));
    fs::remove_dir(&other).unwrap();
    place.finish();
}

#[test]
fn one_that_ends_just_now_can_be_deleted() {
    let Some(place) = Place::new() else { return };
    let bundle = place.bundle("c", &["sleep", "0.05"], |_| {});
    let mut deleted = 0;
    for _ in 0..6 {
        place.create("c", &bundle);
        place.start("c");
        // On a slow machine it may sleep longer than anybody waits.
        match place.call(&["delete", "c"]).status.success() {
            true => deleted += 1,
            false => drop(place.ok(&["delete", "--force", "c"])),
        }
    }
    assert!(deleted >= 3, "{deleted} of 6");
    place.running("c");
    assert!(place.fails(1, &["delete", "c"]).contains("not stopped: running"));
    place.ok(&["delete", "--force", "c"]);
    place.finish();
}
