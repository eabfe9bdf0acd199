//! Images and mounts that try to lead the runtime out of the container's root.

mod hostile;
mod races;

use std::os::unix::fs::symlink;

use creel_types::{Classify, ErrorKind};

pub(crate) use hostile::*;
pub(crate) use races::*;

use crate::support::*;
use crate::text;

pub(crate) fn bind_targets_do_not_escape() {
    let dir = scratch();
    let outside = path(&dir, "outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::create_dir(path(&dir, "host")).unwrap();
    let root = path(&dir, "root");
    symlink(&outside, root.join("abs")).unwrap();
    symlink("../../../../../../../../../../", root.join("up")).unwrap();
    let host = path(&dir, "host").display().to_string();
    let mut spec = shell("true");
    spec.mounts.push(mount("/abs/a", "bind", &host, "bind"));
    spec.mounts.push(mount(&format!("/up{}/b", outside.display()), "bind", &host, "bind"));
    spec.mounts.push(mount("/abs/c", "tmpfs", "tmpfs", ""));
    spec.mounts.push(mount("/abs", "tmpfs", "tmpfs", ""));
    text(run_on(&spec, &overlay(dir.path())));
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    assert!(path(&dir, "upper").join(outside.strip_prefix("/").unwrap()).join("b").is_dir());
}

pub(crate) fn links_where_proc_and_dev_should_be() {
    for (name, target) in [("proc", "/tmp"), ("sys", "../../../sys"), ("proc", "/proc")] {
        let dir = scratch();
        let place = path(&dir, "root").join(name);
        std::fs::remove_dir(&place).unwrap();
        symlink(target, &place).unwrap();
        let error = run_on(&shell("true"), &overlay(dir.path())).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("mount {}", if name == "proc" { "proc" } else { "sysfs" })),
            "{text}"
        );
    }
    let dir = scratch();
    std::fs::remove_dir(path(&dir, "root/dev")).unwrap();
    symlink("/etc/../../../../../dev", path(&dir, "root/dev")).unwrap();
    let _ = run_on(&shell("true"), &overlay(dir.path()));
    assert!(
        std::fs::metadata("/dev/null").unwrap().file_type() != std::fs::metadata("/").unwrap().file_type()
    );
    // Also one that stays inside, with and without a mount over it.
    for mounted in [true, false] {
        let dir = scratch();
        std::fs::remove_dir(path(&dir, "root/dev")).unwrap();
        symlink("/tmp", path(&dir, "root/dev")).unwrap();
        let mut spec = shell("true");
        if !mounted {
            spec.mounts.retain(|mount| !mount.destination.starts_with("/dev"));
        }
        let error = run_on(&spec, &overlay(dir.path())).unwrap_err().to_string();
        assert!(error.contains("/dev") && error.contains("ordinary directory"), "{error}");
        assert_eq!(std::fs::read_dir(path(&dir, "root/tmp")).unwrap().count(), 0);
    }
}

pub(crate) fn mounts_into_proc_are_refused() {
    for destination in ["/proc/sys", "/proc/self/attr", "/proc/../proc/1"] {
        let mut spec = shell("true");
        spec.mounts.push(mount(destination, "tmpfs", "tmpfs", ""));
        assert_eq!(run(&spec).unwrap_err().kind(), ErrorKind::InvalidArgument, "{destination}");
    }
    let dir = scratch();
    symlink("/proc/sys", path(&dir, "root/innocent")).unwrap();
    let mut spec = shell("true");
    spec.mounts.push(mount("/innocent", "tmpfs", "tmpfs", ""));
    let error = run_on(&spec, &overlay(dir.path())).unwrap_err();
    assert!(error.to_string().contains("/innocent leads into /proc"), "{error}");
    let mut spec = shell("cat /proc/uptime");
    std::fs::write(path(&dir, "uptime"), "for ever\n").unwrap();
    spec.mounts.push(mount("/proc/uptime", "bind", &path(&dir, "uptime").display().to_string(), "bind,ro"));
    assert_eq!(text(run_on(&spec, &overlay(dir.path()))), "for ever\n");
}
