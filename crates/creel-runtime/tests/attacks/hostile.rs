//! Hostile images, volumes and Specs.

use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::process::Command;

use creel_runtime::{Rootfs, Stdio};
use creel_types::spec::NamespaceKind;
use creel_types::{Classify, ErrorKind};

use crate::support::*;
use crate::text;

/// CVE-2019-5736: the container has this very program run inside, and writes to it through `/proc/self/exe`. A supervisor
/// runs from a sealed copy of its executable, so that this is a read-only file.
pub(crate) fn program_overwritten_from_inside() {
    let dir = scratch();
    std::fs::write(path(&dir, "root/bin/script"), "#!/proc/self/exe\n").unwrap();
    let chmod = Command::new("chmod").arg("755").arg(path(&dir, "root/bin/script")).status();
    assert!(chmod.unwrap().success());
    let sealed = creel_runtime::seal::sealed_executable(&std::env::current_exe().unwrap()).unwrap();
    for attack in ["direct", "script"] {
        let output = Command::new(format!("/proc/self/fd/{}", sealed.as_raw_fd()))
            .arg("supervisor")
            .arg(dir.path())
            .arg(attack)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let errno = format!("opened: Err({})\n", libc::EROFS);
        assert_eq!(said, errno, "{attack}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The sealed program: creates a container that runs this program again.
pub(crate) fn supervisor(arguments: &[String]) {
    let dir = std::path::PathBuf::from(&arguments[0]);
    let spec = match arguments[1].as_str() {
        "direct" => docker_like(&["/proc/self/exe", "overwrite"]),
        _ => docker_like(&["/bin/script", "overwrite"]),
    };
    let (said, _) = run_on(&spec, &overlay(&dir)).unwrap();
    print!("{said}");
}

/// Inside: truncating is checked before anything else that could refuse.
pub(crate) fn overwrite() {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC;
    let opened = rustix::fs::open("/proc/self/exe", flags, Mode::empty()).map(drop);
    println!("opened: {:?}", opened.map_err(|e| e.raw_os_error()));
}

/// CVE-2024-21626: a working directory that is a descriptor of the host.
pub(crate) fn working_directories_of_the_host() {
    let dir = scratch();
    // Careless: a descriptor of the host's root that is inherited.
    let careless = rustix::fs::open("/", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
    let sleeper = Sleeper::new(|_| {});
    let script = "ls ../../../../../../../../../..";
    let mut refused = 0;
    for base in ["/proc/self/fd", "/proc/thread-self/fd", "/dev/fd", "/proc/1/fd", "/link"] {
        for number in 0..16 {
            let cwd = if base == "/link" {
                let _ = std::fs::remove_file(path(&dir, "root/link"));
                symlink(format!("/proc/self/fd/{number}"), path(&dir, "root/link")).unwrap();
                "/link".to_string()
            } else {
                format!("{base}/{number}")
            };
            let mut spec = shell(script);
            spec.process.as_mut().unwrap().cwd = cwd.clone();
            let created = run_on(&spec, &overlay(dir.path()));
            let execed = sleeper.run(&["sh", "-c", script], |process| process.cwd = cwd.clone());
            for result in [created, execed] {
                match result {
                    Ok((seen, _)) => {
                        assert!(seen.contains("home") && !seen.contains("var\n"), "{cwd} led out: {seen}")
                    }
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(refused > 40, "{refused}");
    drop(careless);
}

/// CVE-2025-52881: an image brings its own /proc, with links in it, for the runtime to write to.
pub(crate) fn writes_to_a_false_procfs() {
    let dir = scratch();
    let outside = path(&dir, "outside");
    std::fs::write(&outside, "untouched").unwrap();
    let root = path(&dir, "root");
    for place in ["sys/net/ipv4", "self/attr/apparmor", "1/attr/apparmor", "thread-self/attr"] {
        std::fs::create_dir_all(root.join("proc").join(place)).unwrap();
    }
    symlink(&outside, root.join("proc/sys/net/ipv4/ip_forward")).unwrap();
    for place in ["self/oom_score_adj", "1/oom_score_adj"] {
        symlink(&outside, root.join("proc").join(place)).unwrap();
    }
    std::fs::create_dir(root.join("real")).unwrap();
    let mut spec = shell("cat /real/sys/net/ipv4/ip_forward /real/self/oom_score_adj");
    spec.mounts.retain(|mount| mount.destination != "/proc");
    spec.mounts.push(mount("/real", "proc", "proc", "nosuid,noexec,nodev"));
    let linux = spec.linux.as_mut().unwrap();
    linux.sysctl.insert("net.ipv4.ip_forward".into(), "1".into());
    linux.masked_paths.clear();
    linux.readonly_paths.clear();
    spec.process.as_mut().unwrap().oom_score_adj = Some(321);
    for rootfs in [overlay(dir.path()), Rootfs::Directory(root.clone())] {
        assert_eq!(text(run_on(&spec, &rootfs)), "1\n321\n");
    }
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), "untouched");
    // And /proc itself can only be procfs.
    let mut spec = shell("true");
    spec.mounts.retain(|mount| mount.destination != "/proc");
    spec.mounts.insert(0, mount("/proc", "bind", &root.join("proc").display().to_string(), "bind"));
    let error = run_on(&spec, &overlay(dir.path())).unwrap_err();
    assert!(error.to_string().contains("only procfs"), "{error}");
}

/// Links in a volume lead mounts, devices and masks to /proc and /dev, or out.
pub(crate) fn volumes_that_lead_elsewhere() {
    let dir = scratch();
    let volume = path(&dir, "volume");
    let outside = path(&dir, "outside");
    std::fs::create_dir(&volume).unwrap();
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(path(&dir, "file"), "").unwrap();
    symlink("/proc", volume.join("proc")).unwrap();
    symlink("../../../../../../proc/self", volume.join("own")).unwrap();
    symlink(&outside, volume.join("out")).unwrap();
    let bind =
        |destination: &str| mount(destination, "bind", &path(&dir, "file").display().to_string(), "bind");
    for bad in [
        mount("/volume/proc/sys", "tmpfs", "tmpfs", ""),
        mount("/volume/own/attr", "tmpfs", "tmpfs", ""),
        mount("/volume/proc", "tmpfs", "tmpfs", ""),
        bind("/volume/proc/version"),
        bind("/volume/proc/self/oom_score_adj"),
        bind("/volume/proc/uptime"),
    ] {
        let mut spec = shell("true");
        spec.mounts.push(mount("/volume", "bind", &volume.display().to_string(), "bind"));
        spec.mounts.push(bad.clone());
        let error = run_on(&spec, &overlay(dir.path())).expect_err(&bad.destination);
        assert!(error.to_string().contains("leads into /proc"), "{}: {error}", bad.destination);
    }
    let mut spec = shell("true");
    spec.mounts.push(mount("/volume", "bind", &volume.display().to_string(), "bind"));
    spec.mounts.push(mount("/volume/out/a", "tmpfs", "tmpfs", ""));
    spec.mounts.push(bind("/volume/out/b"));
    let linux = spec.linux.as_mut().unwrap();
    linux.masked_paths.push("/volume/out".into());
    linux.devices.push(creel_types::spec::Device {
        path: "/volume/out/c".into(),
        kind: "c".into(),
        major: Some(1),
        minor: Some(3),
        ..Default::default()
    });
    text(run_on(&spec, &overlay(dir.path())));
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    // A volume's own device does not work where the Spec says nodev.
    let at = std::fs::File::open(&volume).unwrap();
    creel_sys::dev::mknodat(&at, c"zero", libc::S_IFCHR | 0o666, creel_sys::dev::makedev(1, 5)).unwrap();
    let mut spec = shell("head -c 1 /volume/zero 2>&1 | wc -c; head -c 1 /volume/zero 2>&1");
    spec.mounts.push(mount("/volume", "bind", &volume.display().to_string(), "bind,nodev"));
    let (seen, _) = run_on(&spec, &overlay(dir.path())).unwrap();
    assert!(seen.contains("Permission denied"), "{seen}");
}

/// What the host calls /dev/null is looked at before it is mounted over anything.
pub(crate) fn a_false_null_device() {
    let dir = scratch();
    std::fs::write(path(&dir, "file"), "chosen by somebody\n").unwrap();
    let script = format!(
        "mount --bind {} /dev/null && exec {} masking_child {}",
        path(&dir, "file").display(),
        std::env::current_exe().unwrap().display(),
        dir.path().display()
    );
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", &script])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("is no null device"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

/// The other side of [`a_false_null_device`].
pub(crate) fn masking_child(arguments: &[String]) {
    let dir = std::path::PathBuf::from(&arguments[0]);
    // Streams of its own, not the false device.
    let (stdin, _) = std::io::pipe().unwrap();
    let (stdio, reader) = pipes();
    let stdio = Stdio { stdin: Some(stdin.into()), ..stdio };
    match create(&shell("cat /proc/keys"), &overlay(&dir), stdio) {
        Ok(created) => {
            let started = created.start().unwrap();
            let said = read(reader);
            finish(&started.pidfd);
            println!("started: {said}");
        }
        Err(error) => println!("{error}"),
    }
}

/// Images whose files are not what they seem.
pub(crate) fn images_with_traps() {
    // The home directory is looked up in a passwd file that is a fifo: nobody ever writes to it.
    let dir = scratch();
    std::fs::remove_file(path(&dir, "root/etc/passwd")).unwrap();
    let etc = std::fs::File::open(path(&dir, "root/etc")).unwrap();
    creel_sys::dev::mknodat(&etc, c"passwd", libc::S_IFIFO | 0o666, 0).unwrap();
    for rootfs in [overlay(dir.path()), Rootfs::Directory(path(&dir, "root"))] {
        assert_eq!(text(run_on(&shell("echo $HOME"), &rootfs)), "/\n");
    }
    // A link where the terminal goes, and no tmpfs over /dev.
    let dir = scratch();
    std::fs::create_dir(path(&dir, "root/dev/pts")).unwrap();
    symlink("/proc/version", path(&dir, "root/dev/console")).unwrap();
    let mut spec = shell("true");
    spec.mounts.retain(|mount| mount.destination != "/dev");
    spec.process.as_mut().unwrap().terminal = true;
    let error = create(&spec, &overlay(dir.path()), Stdio::default()).unwrap_err().to_string();
    assert!(error.contains("/dev/console is a symbolic link"), "{error}");
    // A link where a device goes: made through it, the device would be elsewhere.
    let dir = scratch();
    std::fs::create_dir(path(&dir, "root/dev/pts")).unwrap();
    let outside = path(&dir, "outside");
    symlink(&outside, path(&dir, "root/dev/null")).unwrap();
    let mut spec = shell("true");
    spec.mounts.retain(|mount| mount.destination != "/dev");
    let error = run_on(&spec, &overlay(dir.path())).unwrap_err().to_string();
    assert!(error.contains("/dev/null") && !outside.exists(), "{error}");
    // What tmpcopyup copies are links, not what they lead to.
    let dir = scratch();
    symlink("/etc/shadow", path(&dir, "root/data/link")).unwrap();
    let mut spec = shell("readlink /data/link");
    spec.mounts.push(mount("/data", "tmpfs", "tmpfs", "tmpcopyup"));
    assert_eq!(text(run_on(&spec, &overlay(dir.path()))), "/etc/shadow\n");
}

/// Specs that ask for too much, or for nothing that makes sense.
pub(crate) fn hostile_specs() {
    let mut spec = docker_like(&["true"]);
    spec.process.as_mut().unwrap().args.push("x".repeat(3 << 20));
    let error = run(&spec).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    let mut spec = docker_like(&["true"]);
    spec.process.as_mut().unwrap().env.push(format!("A={}", "x".repeat(3 << 20)));
    assert_eq!(run(&spec).unwrap_err().kind(), ErrorKind::InvalidArgument);
    // Sysctls that are not the container's own, however they are written.
    for name in [
        "kernel.core_pattern",
        "kernel/core_pattern",
        "net/../kernel/core_pattern",
        "net.ipv4.//kernel.core_pattern",
        "../kernel.shmmax",
        "kernel.shmmax/../core_pattern",
        "kernel",
        "",
        "net",
    ] {
        let mut spec = shell("true");
        spec.linux.as_mut().unwrap().sysctl.insert(name.into(), "x".into());
        let error = run(&spec).expect_err(name);
        assert!(
            error.to_string().contains("sysctl") || error.to_string().contains("kernel parameter"),
            "{error}"
        );
    }
    // Nor those of the host by way of a namespace that is the host's.
    for (kind, field) in
        [(NamespaceKind::Network, "linux.sysctl.net.ipv4.ip_forward"), (NamespaceKind::Uts, "hostname")]
    {
        let mut spec = shell("true");
        let linux = spec.linux.as_mut().unwrap();
        linux.sysctl.insert("net.ipv4.ip_forward".into(), "1".into());
        let joined = linux.namespaces.iter_mut().find(|space| space.kind == kind).unwrap();
        joined.path = Some(format!("/proc/{}/ns/{}", std::process::id(), kind.proc_name()));
        let error = run(&spec).unwrap_err().to_string();
        assert!(error.starts_with(field) && error.contains("host's own"), "{error}");
    }
    let before = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let mut spec = shell("echo x > /proc/sys/kernel/core_pattern; true");
    spec.linux.as_mut().unwrap().readonly_paths.retain(|path| path != "/proc/bus");
    let _ = run(&spec);
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), before);
    // As many rights as the Spec names, and none through what a program inherits.
    let mut spec = shell("grep -E 'Cap(Inh|Amb)' /proc/self/status | cut -f2 | tr '\\n' ' '");
    spec.process.as_mut().unwrap().user.uid = 1000;
    assert_eq!(text(run(&spec)), "0000000000000000 0000000000000000 ");
}
