//! What a container can and cannot see and do: Docker's defaults.

use crate::support::{Daemon, stdout};

#[test]
fn namespaces_are_its_own() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let inside = daemon.ok(&[
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "for n in mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done",
    ]);
    for line in inside.lines() {
        let name = line.split(':').next().unwrap();
        let ours = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(line, ours.to_str().unwrap());
    }
    assert_eq!(inside.lines().count(), 6);
    assert_eq!(daemon.ok(&["run", "--rm", "busybox", "sh", "-c", "echo $$; ls /sys/class/net"]), "1\nlo");
    let host = daemon.ok(&["run", "--rm", "--network", "host", "busybox", "readlink", "/proc/self/ns/net"]);
    assert_eq!(host, std::fs::read_link(format!("/proc/{}/ns/net", daemon.pid())).unwrap().to_str().unwrap());
    daemon.finish();
}

#[test]
fn capabilities_and_seccomp_are_dockers() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let status = |flags: &[&str]| {
        let args = [
            &["run", "--rm"],
            flags,
            &["busybox", "grep", "-E", "^(CapEff|CapBnd|CapInh|NoNewPrivs|Seccomp):", "/proc/self/status"],
        ]
        .concat();
        stdout(&daemon.creel(&args)).split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    let docker = "00000000a80425fb";
    assert_eq!(
        status(&[]),
        format!("CapInh: 0000000000000000 CapEff: {docker} CapBnd: {docker} NoNewPrivs: 0 Seccomp: 2")
    );
    assert!(status(&["--cap-drop", "ALL", "--cap-add", "NET_RAW"]).contains("CapEff: 0000000000002000"));
    assert!(status(&["--security-opt", "no-new-privileges"]).contains("NoNewPrivs: 1"));
    assert!(status(&["--security-opt", "seccomp=unconfined"]).contains("Seccomp: 0"));
    let privileged = status(&["--privileged"]);
    assert!(privileged.contains("Seccomp: 0") && !privileged.contains(docker), "{privileged}");
    daemon.finish();
}

#[test]
fn a_seccomp_profile_of_the_users_is_applied() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let profile = daemon.dir.path().join("profile.json");
    std::fs::write(&profile, r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}"#).unwrap();
    let option = format!("seccomp={}", profile.display());
    let stderr = daemon.fails(1, &["run", "--rm", "--security-opt", &option, "busybox", "mkdir", "/x"]);
    assert!(stderr.contains("Operation not supported") || stderr.contains("not supported"), "{stderr}");
    daemon.finish();
}

#[test]
fn the_kernels_doors_are_masked() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let sh = |script: &str| daemon.creel(&["run", "--rm", "busybox", "sh", "-c", script]);
    assert_eq!(
        stdout(&sh("wc -c </proc/interrupts; ls /proc/acpi /sys/firmware 2>/dev/null | grep -v : | wc -w")),
        "0\n0\n"
    );
    assert!(!sh("echo 1 >/proc/sys/kernel/hostname").status.success());
    assert!(!sh("echo b >/proc/sysrq-trigger").status.success());
    assert!(!sh("mount -t tmpfs x /tmp").status.success());
    assert!(!sh("echo 0 >/sys/kernel/mm/x").status.success());
    let devices = stdout(&sh("ls /dev"));
    for name in [
        "null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "mqueue", "fd", "stdin",
        "stdout", "stderr",
    ] {
        assert!(devices.lines().any(|line| line == name), "/dev/{name} is missing in {devices}");
    }
    assert!(
        !sh("mknod /dev/mem2 c 1 1 && head -c 1 /dev/mem2").status.success(),
        "a device outside the list opens"
    );
    daemon.finish();
}

#[test]
fn devices_are_given_only_on_request() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let given = daemon.ok(&[
        "run",
        "--rm",
        "--device",
        "/dev/kmsg:/dev/log2:r",
        "busybox",
        "sh",
        "-c",
        "ls -l /dev/log2 | cut -c1",
    ]);
    assert_eq!(given, "c");
    let missing = daemon.fails(127, &["run", "--rm", "--device", "/dev/no-such", "busybox", "true"]);
    assert!(missing.contains("/dev/no-such"), "{missing}");
    daemon.finish();
}

#[test]
fn what_cannot_be_had_is_refused_with_the_reason() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    for flags in [
        ["--network", "bridge"],
        ["-p", "80:80"],
        ["--restart", "always"],
        ["-v", "name:/x:what"],
        ["--security-opt", "what=ever"],
    ] {
        let stderr = daemon.fails(125, &[&["run", "--rm"], flags.as_slice(), &["busybox", "true"]].concat());
        assert!(stderr.len() > 40, "{flags:?}: {stderr}");
    }
    assert_eq!(daemon.ok(&["ps", "-aq"]), "");
    daemon.finish();
}
