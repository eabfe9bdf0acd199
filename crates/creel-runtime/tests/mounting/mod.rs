//! What the specification says about mounts and devices, seen from inside.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use creel_runtime::Rootfs;
use creel_types::spec::*;

use crate::support::*;
use crate::text;

/// The options of the mount at `place`, as mountinfo shows them: of the mount, optional fields, of the file system.
fn shown(mountinfo: &str, place: &str) -> (String, String, String) {
    let line = mountinfo.lines().rev().find(|line| line.split(' ').nth(4) == Some(place));
    let line = line.unwrap_or_else(|| panic!("{place} in {mountinfo}"));
    let (left, right) = line.split_once(" - ").unwrap();
    let left: Vec<&str> = left.split(' ').collect();
    (left[5].into(), left[6..].join(" "), right.rsplit(' ').next().unwrap().into())
}

pub(crate) fn every_option_of_a_mount() {
    let dir = scratch();
    let host = path(&dir, "host");
    std::fs::create_dir(&host).unwrap();
    let host = host.display().to_string();
    let cases: &[(&str, &str)] = &[
        ("ro", "ro,relatime"),
        ("ro,rw", "rw,relatime"),
        ("nosuid,nodev,noexec", "rw,nosuid,nodev,noexec,relatime"),
        ("nosuid,nodev,noexec,suid,dev,exec", "rw,relatime"),
        ("noatime", "rw,noatime"),
        ("noatime,atime", "rw,relatime"),
        ("strictatime", "rw"),
        ("strictatime,nostrictatime", "rw,relatime"),
        ("strictatime,relatime", "rw,relatime"),
        ("relatime,norelatime", "rw,relatime"),
        ("nodiratime", "rw,nodiratime,relatime"),
        ("nodiratime,diratime", "rw,relatime"),
        ("nosymfollow", "rw,relatime,nosymfollow"),
        ("nosymfollow,symfollow", "rw,relatime"),
        ("rro,rnosuid,rnodev,rnoexec", "ro,nosuid,nodev,noexec,relatime"),
        ("rnoatime,rnodiratime,rnosymfollow", "rw,noatime,nodiratime,nosymfollow"),
        ("rstrictatime", "rw"),
        ("rro,rrw,rnosuid,rsuid,rnodev,rdev,rnoexec,rexec", "rw,relatime"),
        ("rnoatime,ratime,rnodiratime,rdiratime,rnosymfollow,rsymfollow", "rw,relatime"),
        ("defaults,async,loud,silent,nomand,noiversion,iversion,nolazytime", "rw,relatime"),
    ];
    let mut spec = shell("cat /proc/self/mountinfo");
    for (index, (options, _)) in cases.iter().enumerate() {
        spec.mounts.push(mount(&format!("/bind/{index}"), "none", &host, &format!("bind,{options}")));
        spec.mounts.push(mount(&format!("/new/{index}"), "tmpfs", "tmpfs", options));
    }
    spec.mounts.push(mount("/sync", "tmpfs", "tmpfs", "sync,dirsync,lazytime"));
    let seen = text(run_on(&spec, &overlay(dir.path())));
    for (index, (options, want)) in cases.iter().enumerate() {
        // The kernel's own order of words is not the point.
        let sorted = |text: &str| {
            let mut words: Vec<&str> = text.split(',').collect();
            words.sort_unstable();
            words.join(",")
        };
        for kind in ["bind", "new"] {
            let (have, ..) = shown(&seen, &format!("/{kind}/{index}"));
            assert_eq!(sorted(&have), sorted(want), "{kind} {options}");
        }
    }
    let (.., superblock) = shown(&seen, "/sync");
    assert!(superblock.contains("sync") && superblock.contains("dirsync"), "{superblock}");
}

pub(crate) fn remounts() {
    let mut spec =
        shell("cat /proc/self/mountinfo; touch /x/f && echo written; touch /deep/f 2>&1; df -k /x | tail -1");
    spec.mounts.push(mount("/x", "tmpfs", "tmpfs", "nosuid,noexec,size=64k"));
    spec.mounts.push(mount("/x", "tmpfs", "tmpfs", "remount,size=128k,noatime"));
    spec.mounts.push(mount("/deep", "tmpfs", "tmpfs", "nodev"));
    spec.mounts.push(mount("/deep", "none", "", "remount,bind,ro"));
    let seen = text(run(&spec));
    assert_eq!(shown(&seen, "/x").0, "rw,nosuid,noexec,noatime");
    assert!(shown(&seen, "/x").2.contains("size=128k"), "{seen}");
    assert_eq!(shown(&seen, "/deep").0, "ro,nodev,relatime");
    assert!(seen.contains("written\n") && seen.contains("Read-only file system"), "{seen}");
    let mut spec = shell("true");
    spec.mounts.push(mount("/tmp", "none", "none", "remount,ro"));
    let error = run(&spec).unwrap_err().to_string();
    assert!(error.contains("nothing is mounted there"), "{error}");
}

pub(crate) fn idmapped_mounts() {
    let dir = scratch();
    let host = path(&dir, "host");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("f"), "").unwrap();
    let owner = |uid, gid| (Some(rustix::fs::Uid::from_raw(uid)), Some(rustix::fs::Gid::from_raw(gid)));
    let (uid, gid) = owner(7, 8);
    rustix::fs::chown(host.join("f"), uid, gid).unwrap();
    let map = |container_id, host_id, size| IdMapping { container_id, host_id, size };
    let mut spec =
        shell("stat -c %u:%g /plain/f /idmap/f /only/f; touch /idmap/new; stat -c %u:%g /idmap/new");
    let host_text = host.display().to_string();
    for (place, options) in [("/plain", "bind"), ("/idmap", "bind,idmap"), ("/only", "rbind,ridmap")] {
        let mut bind = mount(place, "bind", &host_text, options);
        if place != "/plain" {
            bind.uid_mappings = vec![map(0, 5000, 100)];
            bind.gid_mappings = vec![map(0, 6000, 100)];
        }
        spec.mounts.push(bind);
    }
    // The root of the container is none of the ids of the map, so it cannot make files there.
    let (seen, _) = run_on(&spec, &overlay(dir.path())).unwrap();
    if seen.contains("does not take a map") {
        println!("skipped: this file system takes no map of ids");
        return;
    }
    assert!(seen.starts_with("7:8\n5007:6008\n5007:6008\n"), "{seen}");
    assert!(seen.contains("Value too large"), "{seen}");
    // Whose id the map shows as its own makes files that belong to the id of the file system.
    spec.process.as_mut().unwrap().user = User { uid: 5003, gid: 6004, ..User::default() };
    std::fs::set_permissions(&host, std::fs::Permissions::from_mode(0o777)).unwrap();
    let seen = text(run_on(&spec, &overlay(dir.path())));
    assert!(seen.ends_with("5003:6004\n"), "{seen}");
    let made = std::fs::metadata(host.join("new")).unwrap();
    assert_eq!((made.uid(), made.gid()), (3, 4));
    // Half a map is none.
    spec.mounts.last_mut().unwrap().gid_mappings.clear();
    assert!(run_on(&spec, &overlay(dir.path())).unwrap_err().to_string().starts_with("mounts["));
}

pub(crate) fn read_only_mounts_hold_others() {
    let dir = scratch();
    let host = path(&dir, "host");
    std::fs::create_dir(&host).unwrap();
    let mut spec = shell(
        "touch /ro/x /dev/x 2>&1; touch /ro/inner/x && echo > /dev/null && ls /ro /dev/null && cat /proc/self/mountinfo",
    );
    spec.mounts[1].options.push("ro".into());
    spec.mounts.push(mount("/ro", "tmpfs", "tmpfs", "ro"));
    spec.mounts.push(mount("/ro/inner", "bind", &host.display().to_string(), "bind"));
    // Relative ones are old, and begin at the root.
    spec.mounts.push(mount("relative/place", "tmpfs", "tmpfs", ""));
    let seen = text(run_on(&spec, &overlay(dir.path())));
    assert_eq!(seen.matches("Read-only file system").count(), 2, "{seen}");
    assert!(seen.contains("/dev/null\n") && seen.contains("inner\n"), "{seen}");
    assert!(shown(&seen, "/relative/place").0.starts_with("rw"));
    assert!(host.join("x").exists());
}

pub(crate) fn targets_are_made_with_sane_modes() {
    let dir = scratch();
    std::fs::write(path(&dir, "file"), "f\n").unwrap();
    std::fs::create_dir(path(&dir, "host")).unwrap();
    let text_of = |name: &str| path(&dir, name).display().to_string();
    let mut spec = shell("true");
    spec.mounts.push(mount("/made/deep/file", "bind", &text_of("file"), "bind"));
    spec.mounts.push(mount("/made/dir/x", "bind", &text_of("host"), "rbind"));
    let old = creel_sys::process::umask(0o777);
    let result = run_on(&spec, &overlay(dir.path()));
    creel_sys::process::umask(old);
    text(result);
    let mode = |name: &str| std::fs::metadata(path(&dir, "upper").join(name)).unwrap().mode() & 0o7777;
    assert_eq!(["made", "made/deep", "made/dir", "made/dir/x"].map(mode), [0o755; 4]);
    assert_eq!(mode("made/deep/file"), 0o644);
}

pub(crate) fn propagation() {
    let dir = scratch();
    let root = Rootfs::Directory(path(&dir, "root"));
    for (word, want) in [
        ("shared", "shared:"),
        ("slave", ""),
        ("private", ""),
        ("unbindable", "unbindable"),
        ("rshared", "shared:"),
    ] {
        let mut spec = shell("cat /proc/self/mountinfo");
        spec.linux.as_mut().unwrap().rootfs_propagation = Some(word.into());
        let seen = text(run_on(&spec, &root));
        let (_, optional, _) = shown(&seen, "/");
        assert!(
            optional.starts_with(want) && (!want.is_empty() || !optional.contains("shared")),
            "{word}: {optional}"
        );
        assert!(word != "rshared" || shown(&seen, "/proc").1.starts_with("shared"), "{seen}");
    }
    for (word, want) in [("private", ""), ("shared", "shared:"), ("unbindable", "unbindable"), ("slave", "")]
    {
        let mut spec = shell("cat /proc/self/mountinfo");
        spec.mounts.push(mount("/x", "tmpfs", "tmpfs", word));
        let (_, optional, _) = shown(&text(run_on(&spec, &root)), "/x");
        assert!(optional.starts_with(want) && optional.is_empty() == want.is_empty(), "{word}: {optional}");
    }
}

/// What is mounted on the host after the start is seen inside where the Spec wants that, and nowhere else.
pub(crate) fn propagation_from_the_host() {
    use creel_sys::mount as sys;
    let dir = scratch();
    let place = path(&dir, "root");
    // In a mount namespace of its own, so that nothing of this reaches the machine.
    let script = |slave: &str| {
        format!(
            "mount --bind {0} {0} && mount --make-shared {0} && exec {1} propagation_child {0} {slave}",
            place.display(),
            std::env::current_exe().unwrap().display()
        )
    };
    let _ = sys::ATTR_RDONLY;
    for (slave, want) in [("slave", "1\n"), ("private", "0\n")] {
        let output = std::process::Command::new("unshare")
            .args(["-m", "--propagation", "private", "sh", "-c", &script(slave)])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(said, want, "{slave}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The other side of [`propagation_from_the_host`]: argument 1 is the root, shared; 2 the propagation.
pub(crate) fn propagation_child(arguments: &[String]) {
    let root = std::path::PathBuf::from(&arguments[0]);
    let mut spec =
        shell("while ! test -e /tmp/go; do sleep 0.01; done; grep -c ' /data ' /proc/self/mountinfo; true");
    spec.linux.as_mut().unwrap().rootfs_propagation = Some(arguments[1].clone());
    let (stdio, reader) = pipes();
    let started = create(&spec, &Rootfs::Directory(root.clone()), stdio).unwrap().start().unwrap();
    let done = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "none"])
        .arg(root.join("data"))
        .status()
        .unwrap();
    assert!(done.success());
    std::fs::write(root.join("tmp/go"), "").unwrap();
    let said = crate::support::read(reader);
    finish(&started.pidfd);
    std::fs::remove_file(root.join("tmp/go")).unwrap();
    print!("{said}");
}

pub(crate) fn devices() {
    let node = |path: &str, kind: &str, major, minor| Device {
        path: path.into(),
        kind: kind.into(),
        major: Some(major),
        minor: Some(minor),
        ..Device::default()
    };
    let mut spec = shell(
        "stat -c '%F %a %u:%g %t:%T' /dev/c /dev/u /opt/b /dev/fifo /dev/null; readlink /dev/ptmx; readlink /dev/fd",
    );
    let list = &mut spec.linux.as_mut().unwrap().devices;
    list.push(Device { file_mode: Some(0o640), uid: Some(3), gid: Some(4), ..node("/dev/c", "c", 1, 5) });
    list.push(node("/dev/u", "u", 10, 229));
    list.push(Device { file_mode: Some(0o60_600), ..node("/opt/b", "b", 7, 5) });
    list.push(Device {
        file_mode: Some(0o600),
        uid: Some(5),
        path: "/dev/fifo".into(),
        kind: "p".into(),
        ..Device::default()
    });
    list.push(Device { file_mode: Some(0o444), ..node("/dev/null", "c", 1, 3) });
    assert_eq!(
        text(run(&spec)),
        "character special file 640 3:4 1:5\ncharacter special file 666 0:0 a:e5\nblock special file 600 0:0 7:5\n\
         fifo 600 5:0 0:0\ncharacter special file 444 0:0 1:3\npts/ptmx\n/proc/self/fd\n"
    );
    // Something else is in the way: the specification wants an error.
    for (bad, word) in [
        (node("/etc/passwd", "c", 1, 3), "something else has this name"),
        (node("/dev/x", "z", 1, 3), "no type of device"),
        (node("/dev/x", "c", -1, 3), "no device number"),
        (node("/dev/x", "c", 1, 1 << 20), "no device number"),
        (node("dev/x", "c", 1, 3), "absolute"),
        (node("/dev/x/..", "c", 1, 3), "names no entry"),
        (Device { major: None, ..node("/dev/x", "c", 1, 3) }, "linux.devices[0].major"),
        (Device { minor: None, ..node("/dev/x", "b", 1, 3) }, "linux.devices[0].minor"),
    ] {
        let mut spec = shell("true");
        spec.linux.as_mut().unwrap().devices.push(bad);
        let error = run(&spec).unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
    }
}

/// In a user namespace nodes cannot be made: the host's are bound, after a look at what they are.
pub(crate) fn devices_in_a_user_namespace() {
    let dir = scratch();
    for name in ["root/tmp", "upper", "work"] {
        let id = (Some(rustix::fs::Uid::from_raw(100_000)), Some(rustix::fs::Gid::from_raw(100_000)));
        rustix::fs::chown(path(&dir, name), id.0, id.1).unwrap();
    }
    let mut spec =
        shell("stat -c '%F %t:%T' /dev/full /dev/zero; echo > /dev/null; head -c 2 /dev/zero | wc -c");
    let linux = spec.linux.as_mut().unwrap();
    linux.namespaces.push(Namespace { kind: NamespaceKind::User, path: None });
    linux.uid_mappings = vec![IdMapping { container_id: 0, host_id: 100_000, size: 65536 }];
    linux.gid_mappings = linux.uid_mappings.clone();
    let seen = text(run_on(&spec, &overlay(dir.path())));
    assert_eq!(seen, "character special file 1:7\ncharacter special file 1:5\n2\n");
    // One that the host does not have, with an owner and a mode of its own.
    spec.process.as_mut().unwrap().args[2] =
        "stat -c '%F %t:%T %a %u:%g' /dev/other; grep ' /dev/other ' /proc/self/mountinfo".into();
    spec.linux.as_mut().unwrap().devices.push(Device {
        path: "/dev/other".into(),
        kind: "b".into(),
        major: Some(1),
        minor: Some(5),
        file_mode: Some(0o157),
        uid: Some(10),
        gid: Some(11),
    });
    if !copies_detached_mounts() {
        let error = run_on(&spec, &overlay(dir.path())).unwrap_err().to_string();
        assert!(error.contains("the host has no /dev/other") && error.contains("Linux 6.15"), "{error}");
        return;
    }
    let seen = text(run_on(&spec, &overlay(dir.path())));
    assert!(seen.starts_with("block special file 1:5 157 10:11\n"), "{seen}");
    assert!(shown(&seen, "/dev/other").0.contains("nosuid,noexec"), "{seen}");
    // Something else is in the way, and is not covered.
    spec.linux.as_mut().unwrap().devices[0].path = "/etc/passwd".into();
    let error = run_on(&spec, &overlay(dir.path())).unwrap_err().to_string();
    assert!(error.contains("something else has this name"), "{error}");
    spec.linux.as_mut().unwrap().devices[0].path = "/dev/other".into();
    // An id that the namespace does not have: the host's node of that name would do, and there is none.
    spec.linux.as_mut().unwrap().devices[0].uid = Some(70_000);
    let error = run_on(&spec, &overlay(dir.path())).unwrap_err().to_string();
    assert!(error.contains("the host has no /dev/other") && error.contains("maps"), "{error}");
    // And if there is one, it has to be that device.
    spec.linux.as_mut().unwrap().devices[0].path = "/dev/zero".into();
    let error = run_on(&spec, &overlay(dir.path())).unwrap_err().to_string();
    assert!(error.contains("the host's /dev/zero is another device"), "{error}");
}

/// Whether this kernel copies mounts that are attached nowhere (since 6.15).
fn copies_detached_mounts() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap(), numbers.next().unwrap()) >= (6, 15)
}
