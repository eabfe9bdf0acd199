//! Where a container's mounts, processors and namespaces come from: what other runtimes' callers take for granted.

use creel_runtime::{Rootfs, Stdio};
use creel_types::spec::*;

use crate::support::*;
use crate::{in_user_namespace, mapped_root, text};

/// Mounts of which each takes its source from what an earlier one has brought into the root.
fn chained(spec: &mut Spec, host: &std::path::Path, root: &std::path::Path, options: &str) {
    let text = |path: std::path::PathBuf| path.display().to_string();
    std::fs::create_dir_all(host.join("deep")).unwrap();
    std::fs::write(host.join("deep/file"), "from the host\n").unwrap();
    spec.mounts.push(mount("/tmp/a", "bind", &text(host.to_path_buf()), "bind,shared"));
    spec.mounts.push(mount("/tmp/b", "bind", &text(root.join("tmp/a/deep")), options));
    // By its path on the host.
    let by_host = text(root.join("tmp/c"));
    spec.mounts.push(mount(&by_host, "bind", &text(root.join("tmp/b")), options));
    let late = spec.mounts.len();
    for number in late - 2..late {
        if options.contains("idmap") {
            spec.mounts[number].uid_mappings = vec![IdMapping { container_id: 0, host_id: 5000, size: 1 }];
            spec.mounts[number].gid_mappings = vec![IdMapping { container_id: 0, host_id: 6000, size: 1 }];
        }
    }
}

pub(crate) fn sources_at_their_turn() {
    let dir = scratch();
    let (host, root) = (path(&dir, "host"), path(&dir, "root"));
    let mut spec = shell("cat /tmp/c/file; grep -oE ' (/proc|/tmp/[abc]|/last) ' /proc/self/mountinfo");
    chained(&mut spec, &host, &root, "rbind");
    spec.mounts.push(mount("/last", "tmpfs", "tmpfs", ""));
    let seen = text(run_on(&spec, &Rootfs::Directory(root.clone())));
    // The kernel lists mounts in the order in which they were made.
    assert_eq!(seen, "from the host\n /proc \n /tmp/a \n /tmp/b \n /tmp/c \n /last \n");
    let mut spec = shell("stat -c %u:%g /tmp/b/file");
    chained(&mut spec, &host, &root, "bind,idmap");
    spec.mounts.pop();
    let seen = text(run_on(&spec, &Rootfs::Directory(root)));
    assert_eq!(seen, "5000:6000\n");
}

pub(crate) fn sources_in_a_user_namespace_at_their_turn() {
    let (dir, _) = mapped_root();
    let (host, root) = (path(&dir, "host"), path(&dir, "root"));
    let mut spec = shell("cat /tmp/c/file; stat -c %u /tmp/c/file");
    in_user_namespace(&mut spec);
    chained(&mut spec, &host, &root, "bind");
    // Nobody inside the user namespace can get there by himself.
    std::fs::set_permissions(&host, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let seen = text(run_on(&spec, &Rootfs::Directory(root.clone())));
    assert_eq!(seen, "from the host\n65534\n");
    let map = |host| vec![IdMapping { container_id: 0, host_id: host, size: 1 }];
    for bind in spec.mounts.iter_mut().rev().take(2) {
        (bind.uid_mappings, bind.gid_mappings) = (map(100_000), map(200_000));
        bind.options.push("idmap".into());
    }
    spec.mounts.pop();
    spec.process.as_mut().unwrap().args[2] = "cat /tmp/b/file; stat -c %u:%g /tmp/b/file".into();
    let seen = text(run_on(&spec, &Rootfs::Directory(root.clone())));
    assert_eq!(seen, "from the host\n0:0\n", "the map takes the host's root for the container's");
    spec.mounts.push(mount("/tmp/d", "bind", &root.join("tmp/none").display().to_string(), "bind"));
    let error = run_on(&spec, &Rootfs::Directory(root)).unwrap_err().to_string();
    assert!(error.contains("tmp/none: no such file or directory"), "{error}");
}

fn attributes(text: &str, place: &str) -> String {
    let line = text.lines().rev().find(|line| line.split(' ').nth(4) == Some(place));
    line.unwrap_or_else(|| panic!("{place} in {text}")).split(' ').nth(5).unwrap().into()
}

/// Binds of a mount that has all attributes but `ro`, each with other options.
fn bound(user: bool, options: &[&str]) -> Result<Vec<String>, String> {
    let (dir, _) = mapped_root();
    let root = path(&dir, "root");
    let mut spec = shell("cat /proc/self/mountinfo");
    if user {
        in_user_namespace(&mut spec);
    }
    spec.mounts.push(mount("/tmp/src", "tmpfs", "tmpfs", "nosuid,nodev,noexec,noatime,nosymfollow"));
    for (number, options) in options.iter().enumerate() {
        let source = root.join("tmp/src").display().to_string();
        spec.mounts.push(mount(&format!("/tmp/{number}"), "bind", &source, options));
    }
    let seen = run_on(&spec, &Rootfs::Directory(root)).map_err(|e| e.to_string())?;
    Ok((0..options.len()).map(|number| attributes(&seen.0, &format!("/tmp/{number}"))).collect())
}

pub(crate) fn binds_have_the_attributes_that_are_named() {
    let seen = bound(false, &["rbind", "bind,ro", "bind,dev", "bind,nosuid,relatime", "bind,rro"]).unwrap();
    let all = "nosuid,nodev,noexec,noatime,nosymfollow";
    assert_eq!(
        seen,
        [
            format!("rw,{all}").as_str(),
            "ro,noatime",
            "rw,noatime",
            "rw,nosuid,relatime",
            format!("ro,{all}").as_str()
        ]
    );
}

pub(crate) fn what_is_locked_in_a_user_namespace_stays() {
    let seen = bound(true, &["rbind", "bind,ro", "bind,symfollow", "bind,atime"]).unwrap();
    let locked = "nosuid,nodev,noexec,noatime";
    assert_eq!(
        seen,
        [
            format!("rw,{locked},nosymfollow"),
            format!("ro,{locked}"),
            format!("rw,{locked}"),
            format!("rw,{locked}")
        ]
    );
    for options in ["bind,dev", "bind,suid", "bind,relatime"] {
        let error = bound(true, &[options]).unwrap_err();
        assert!(
            error.contains("locked in a user namespace") && error.ends_with("operation not permitted"),
            "{error}"
        );
    }
}

fn processors(text: &str) -> &str {
    text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim()
}

/// Whatever the caller was put on, a container may run everywhere.
pub(crate) fn all_processors() {
    let before = creel_sys::sched::affinity().unwrap();
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    if before.iter().map(|word| word.count_ones()).sum::<u32>() < 2 {
        println!("skipped: one processor only");
        return;
    }
    let first = before.iter().position(|word| *word != 0).unwrap();
    let mut one = vec![0; first + 1];
    one[first] = 1 << before[first].trailing_zeros();
    creel_sys::sched::set_affinity(&one).unwrap();
    let (run, exec) = {
        let run = run(&shell("cat /proc/self/status"));
        let exec = Sleeper::new(|_| {}).run(&["cat", "/proc/self/status"], |_| {});
        creel_sys::sched::set_affinity(&before).unwrap();
        (text(run), text(exec))
    };
    assert_eq!((processors(&run), processors(&exec)), (processors(&own), processors(&own)));
}

/// A network namespace that belongs to the host's user namespace is joined by a container with one of its own, and by
/// further processes in it.
pub(crate) fn namespaces_of_another_owner() {
    let owner = Sleeper::new(|_| {});
    let file = format!("/proc/{}/ns/net", owner.started.pid);
    let net = std::fs::read_link(&file).unwrap().display().to_string();
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    let (_dir, rootfs) = mapped_root();
    let mut spec = shell("readlink /proc/self/ns/net");
    in_user_namespace(&mut spec);
    for space in &mut spec.linux.as_mut().unwrap().namespaces {
        if space.kind == NamespaceKind::Network {
            space.path = Some(file.clone());
        }
    }
    // Only the owner of a network namespace may mount its sysfs.
    spec.mounts.retain(|mount| !matches!(mount.kind.as_deref(), Some("sysfs" | "cgroup")));
    assert_eq!(text(run_on(&spec, &rootfs)).trim(), net);
    spec.process.as_mut().unwrap().args = vec!["sleep".into(), "1000".into()];
    let started = create(&spec, &rootfs, Stdio::default()).unwrap().start().unwrap();
    let joined = Sleeper { spec, started, dir: scratch() };
    let seen = text(joined.run(&["readlink", "/proc/self/ns/net"], |_| {}));
    assert_eq!(seen.trim(), net);
    assert_eq!(std::fs::read_link("/proc/self/ns/net").unwrap(), own, "the creator is back");
}

/// With `--no-pivot` the host's tree stays below; a user namespace inside must not get a procfs without masks for it.
pub(crate) fn the_host_s_procfs_is_out_of_reach_without_pivot_root() {
    let dir = scratch();
    let mut spec = shell("unshare -Urmpf mount -t proc none /mnt 2>&1; unshare -Um true && echo made");
    std::fs::create_dir_all(path(&dir, "root/mnt")).unwrap();
    let sets = spec.process.as_mut().unwrap().capabilities.as_mut().unwrap();
    for set in [&mut sets.bounding, &mut sets.permitted, &mut sets.effective] {
        set.push("CAP_SETFCAP".into());
    }
    let (stdio, reader) = pipes();
    let root = Rootfs::Directory(path(&dir, "root"));
    let bundle = dir.path().to_path_buf();
    let mut options = creel_runtime::CreateOptions::new("test", &spec, &bundle, &root);
    options.stdio = stdio;
    options.pivot = false;
    let started = creel_runtime::create(options).unwrap().start().unwrap();
    let said = read(reader);
    finish(&started.pidfd);
    assert!(said.contains("mount: permission denied") && said.ends_with("made\n"), "{said}");
}
