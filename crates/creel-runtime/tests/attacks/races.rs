//! Attacks that change the root while containers start in it.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command};

use creel_runtime::{Rootfs, Stdio};
use rustix::fs::{CWD, RenameFlags};

use crate::support::*;

/// Another process: exchanges two names for as long as its parent lives.
pub(crate) fn racer(arguments: &[String]) {
    creel_sys::process::set_pdeathsig(libc::SIGKILL).unwrap();
    println!("ready");
    loop {
        let _ = rustix::fs::renameat_with(CWD, &*arguments[0], CWD, &*arguments[1], RenameFlags::EXCHANGE);
    }
}

struct Racer(Child);

impl Racer {
    fn start(a: &Path, b: &Path) -> Racer {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("racer")
            .args([a, b])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 1];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        Racer(child)
    }
}

impl Drop for Racer {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// CVE-2021-30465: a mount's target is exchanged for a link that leads out while it is being resolved.
pub(crate) fn targets_exchanged_in_flight() {
    let dir = scratch();
    let root = path(&dir, "root");
    let outside = path(&dir, "outside");
    let host = path(&dir, "host");
    for made in [&outside, &host, &root.join("vol")] {
        std::fs::create_dir_all(made).unwrap();
    }
    std::fs::write(host.join("file"), "").unwrap();
    symlink(&outside, root.join("link")).unwrap();
    let racer = Racer::start(&root.join("vol"), &root.join("link"));
    let host_text = host.display().to_string();
    let mut spec = shell("for d in dir file tmp/deep; do touch /vol/$d/x; done; true");
    spec.mounts.push(mount("/vol/dir", "bind", &host_text, "bind,ro"));
    spec.mounts.push(mount("/vol/file", "bind", &format!("{host_text}/file"), "bind,ro"));
    spec.mounts.push(mount("/vol/tmp/deep", "tmpfs", "tmpfs", "ro"));
    let linux = spec.linux.as_mut().unwrap();
    linux.masked_paths.push("/vol/dir".into());
    linux.readonly_paths.push("/vol/file".into());
    linux.devices.push(creel_types::spec::Device {
        path: "/vol/device".into(),
        kind: "c".into(),
        major: Some(1),
        minor: Some(3),
        ..Default::default()
    });
    let mut started = 0;
    for _ in 0..150 {
        // What is not where it was may well be an error.
        if let Ok(container) = create(&spec, &Rootfs::Directory(root.clone()), Stdio::default()) {
            let container = container.start().unwrap();
            finish(&container.pidfd);
            started += 1;
        }
        let made: Vec<_> = std::fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(made.is_empty(), "made outside of the root: {made:?}");
        let _ = std::fs::remove_file(root.join("vol/device"));
        let _ = std::fs::remove_file(root.join("link/device"));
    }
    drop(racer);
    assert!(started > 0, "the race must not be lost by never starting");
}

/// CVE-2025-52565: the terminal is bound over whatever `/dev/console` is at that moment.
pub(crate) fn console_exchanged_in_flight() {
    let dir = scratch();
    let root = path(&dir, "root");
    std::fs::create_dir(root.join("dev/pts")).unwrap();
    std::fs::write(root.join("dev/console"), "").unwrap();
    symlink("/proc/version", root.join("dev/link")).unwrap();
    let racer = Racer::start(&root.join("dev/console"), &root.join("dev/link"));
    let mut spec = shell("grep -c ' /proc/version ' /proc/self/mountinfo; true");
    // The image's own /dev.
    spec.mounts.retain(|mount| mount.destination != "/dev");
    spec.process.as_mut().unwrap().terminal = true;
    spec.linux.as_mut().unwrap().readonly_paths.clear();
    spec.linux.as_mut().unwrap().masked_paths.clear();
    let (mut started, mut refused) = (0, 0);
    for _ in 0..150 {
        match create(&spec, &Rootfs::Directory(root.clone()), Stdio::default()) {
            Ok(mut created) => {
                let console = created.console.take().unwrap();
                let container = created.start().unwrap();
                let said = read(console);
                finish(&container.pidfd);
                assert_eq!(said.trim(), "0", "a file of procfs was covered by the terminal");
                started += 1;
            }
            Err(error) => {
                assert!(error.to_string().contains("/dev/console"), "{error}");
                refused += 1;
            }
        }
    }
    drop(racer);
    assert!(started > 0 && refused > 0, "{started} started, {refused} refused: that was no race");
}

/// CVE-2025-31133: what masks a file is taken from the image's `/dev/null`, which is a link at that moment.
pub(crate) fn null_exchanged_in_flight() {
    let dir = scratch();
    let root = path(&dir, "root");
    std::fs::write(root.join("secret"), "secret\n").unwrap();
    std::fs::write(root.join("target"), "target\n").unwrap();
    let dev = std::fs::File::open(root.join("dev")).unwrap();
    creel_sys::dev::mknodat(&dev, c"null", libc::S_IFCHR | 0o666, creel_sys::dev::makedev(1, 3)).unwrap();
    std::fs::create_dir(root.join("dev/pts")).unwrap();
    symlink("/target", root.join("dev/link")).unwrap();
    let racer = Racer::start(&root.join("dev/null"), &root.join("dev/link"));
    let mut spec = shell("cat /secret; stat -c '%F %t:%T' /secret; cat /target");
    spec.mounts.retain(|mount| mount.destination != "/dev");
    spec.linux.as_mut().unwrap().masked_paths = vec!["/secret".into(), "/proc/keys".into()];
    let (mut started, mut refused) = (0, 0);
    for _ in 0..150 {
        let (stdio, reader) = pipes();
        match create(&spec, &Rootfs::Directory(root.clone()), stdio) {
            Ok(created) => {
                let container = created.start().unwrap();
                let said = read(reader);
                finish(&container.pidfd);
                assert_eq!(said, "character special file 1:3\ntarget\n");
                started += 1;
            }
            // The device /dev/null is missing then, which is said.
            Err(error) => {
                assert!(error.to_string().contains("/dev/null"), "{error}");
                refused += 1;
            }
        }
    }
    drop(racer);
    assert!(started > 0 && refused > 0, "{started} started, {refused} refused: that was no race");
}
