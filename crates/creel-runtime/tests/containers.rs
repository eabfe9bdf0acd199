//! Containers that really run: busybox looks around from inside.
//!
//! Needs root. Every test makes its own namespaces through the library and leaves nothing behind, which is checked at
//! the end. The process has one thread, so the tests run one after the other.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]
#![allow(unreachable_pub, dead_code)]

mod asking;
mod attacks;
mod executing;
mod grouped;
mod mounting;
mod namespaces;
mod notifying;
mod rootless;
mod sourcing;
mod support;

use std::os::unix::fs::symlink;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use asking::*;
use attacks::*;
use creel_runtime::{CreateOptions, Error, Rootfs, Stdio};
use creel_types::spec::*;
use creel_types::{Classify, ErrorKind};
use executing::*;
use grouped::*;
use mounting::*;
use namespaces::*;
use notifying::*;
use rootless::*;
use sourcing::*;
use support::*;

macro_rules! tests {
    ($($name:ident),* $(,)?) => { const TESTS: &[(&str, fn())] = &[$((stringify!($name), $name)),*]; };
}

tests![
    network_devices,
    program_overwritten_from_inside,
    working_directories_of_the_host,
    writes_to_a_false_procfs,
    volumes_that_lead_elsewhere,
    a_false_null_device,
    images_with_traps,
    hostile_specs,
    targets_exchanged_in_flight,
    console_exchanged_in_flight,
    null_exchanged_in_flight,
    notifications,
    notifications_of_an_exec,
    notifications_without_an_agent,
    notifications_to_an_agent_who_does_not_listen,
    every_option_of_a_mount,
    remounts,
    idmapped_mounts,
    read_only_mounts_hold_others,
    targets_are_made_with_sane_modes,
    propagation,
    propagation_from_the_host,
    devices,
    devices_in_a_user_namespace,
    unknown_capabilities_warn,
    warnings_come_with_an_error,
    ids_at_the_edge,
    environments,
    schedulers,
    processors_of_an_exec,
    personalities,
    memory_policies,
    security_modules_that_are_missing,
    what_the_program_sees,
    mounts_are_dockers,
    masked_and_readonly_paths,
    devices_work,
    capabilities_of_root_and_others,
    exit_codes,
    missing_and_unusable_programs,
    users_and_groups,
    home_is_added,
    working_directory,
    readonly_root,
    binds,
    bind_targets_do_not_escape,
    links_where_proc_and_dev_should_be,
    mounts_into_proc_are_refused,
    limits_are_clamped,
    sysctls,
    terminal,
    overlay_vanishes_with_the_process,
    a_dropped_creation_leaves_nothing,
    failed_steps_are_named,
    many_and_long_layers,
    exec_joins,
    exec_errors,
    exec_terminal,
    exec_after_the_end,
    no_descriptors_leak,
    signals_are_reset,
    reaper,
    hooks,
    tmpfs_mode_and_copy_up,
    what_is_not_applied_is_refused,
    joined_network_namespace,
    our_executable_cannot_be_opened,
    seccomp_filter,
    control_group,
    timings,
    user_namespace,
    user_namespace_of_another_user,
    exec_into_a_user_namespace,
    namespaces_are_joined_with_their_user_namespace,
    a_namespace_of_another_kind_is_refused,
    clocks,
    a_gate_that_outlives_the_creator,
    whoever_starts_hears_why_it_failed,
    descriptors_are_handed_on,
    the_group_is_joined_by_somebody_else,
    without_pivot_root,
    a_mount_namespace_is_joined,
    sources_at_their_turn,
    sources_in_a_user_namespace_at_their_turn,
    binds_have_the_attributes_that_are_named,
    what_is_locked_in_a_user_namespace_stays,
    all_processors,
    namespaces_of_another_owner,
    the_host_s_procfs_is_out_of_reach_without_pivot_root,
    without_a_mount_namespace,
    an_ordinary_user_runs_a_container,
    an_ordinary_user_execs_into_his_container,
    what_an_ordinary_user_cannot_have_is_said,
    an_ordinary_user_with_a_range_of_ids,
    an_ordinary_user_has_calls_answered,
];

fn main() {
    let filter: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    // Run as a container's reaper.
    if std::env::args().next().is_some_and(|name| name.ends_with("docker-init")) {
        creel_runtime::pid1::main(std::env::args_os().skip(1));
    }
    // Run by a test in a mount namespace of its own.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("propagation_child") => return propagation_child(&arguments[1..]),
        Some("network_child") => return network_child(),
        Some("agent") => return agent(&arguments[1..]),
        Some("racer") => return racer(&arguments[1..]),
        Some("supervisor") => return supervisor(&arguments[1..]),
        Some("masking_child") => return masking_child(&arguments[1..]),
        _ => {}
    }
    // Run by a container that was made to run this very program: a script hands its own name before the words.
    if arguments.iter().any(|word| word == "overwrite") {
        return overwrite();
    }
    if !rustix::process::geteuid().is_root() {
        if std::env::var_os("CREEL_TEST_ROOT").is_some_and(|value| value == "1") {
            eprintln!("CREEL_TEST_ROOT=1, and this is not root");
            std::process::exit(1);
        }
        println!("skipped: needs root");
        return;
    }
    if std::env::args().any(|arg| arg == "--list") {
        TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    let before = traces();
    let mut failed = Vec::new();
    for (name, test) in TESTS {
        if !filter.is_empty() && !filter.iter().any(|wanted| name.contains(wanted.as_str())) {
            continue;
        }
        let result = catch_unwind(AssertUnwindSafe(test));
        println!("test {name} ... {}", if result.is_ok() { "ok" } else { "FAILED" });
        if result.is_err() {
            failed.push(*name);
        }
    }
    let after = traces();
    if before != after {
        println!("left behind: {before:?} became {after:?}");
        failed.push("nothing is left behind");
    }
    if !failed.is_empty() {
        println!("failed: {}", failed.join(", "));
        std::process::exit(1);
    }
}

/// Mounts of this namespace, our children, our descriptors.
fn traces() -> (String, String, usize) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    // Named network namespaces come and go with others' work on the machine.
    let mounts = mounts.lines().filter(|line| !line.contains(" /run/netns")).collect::<Vec<_>>().join("\n");
    let children =
        std::fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id())).unwrap();
    (mounts, children, std::fs::read_dir("/proc/self/fd").unwrap().count())
}

fn text(result: Result<(String, i32), Error>) -> String {
    let (text, code) = result.unwrap();
    assert_eq!(code, 0, "{text}");
    text
}

fn what_the_program_sees() {
    let text = text(run(&shell(
        "echo pid $$; hostname; id; ls /; cat /proc/1/comm; readlink /proc/self/exe; ip addr show lo | grep -c 127.0.0.1; \
         ls /proc | grep -c '^[0-9]'",
    )));
    assert!(text.starts_with("pid 1\nbox\nuid=0(root) gid=0(root)"), "{text}");
    assert!(text.contains("\n1\n"), "lo is up: {text}");
}

fn mounts_are_dockers() {
    let text = text(run(&shell("cat /proc/self/mountinfo; ls -l /dev /dev/pts; ls /sys/fs/cgroup")));
    for (place, options) in [
        (" / ", "rw,relatime"),
        (" /proc ", "rw,nosuid,nodev,noexec,relatime"),
        (" /dev ", "rw,nosuid"),
        (" /dev/pts ", "rw,nosuid,noexec,relatime"),
        (" /sys ", "ro,nosuid,nodev,noexec,relatime"),
        (" /dev/shm ", "rw,nosuid,nodev,noexec,relatime"),
        (" /dev/mqueue ", "rw,nosuid,nodev,noexec,relatime"),
    ] {
        let line =
            text.lines().find(|line| line.contains(place)).unwrap_or_else(|| panic!("{place} in {text}"));
        assert!(line.contains(options), "{place} {options}: {line}");
    }
    assert!(text.contains("overlay overlay rw,lowerdir"), "{text}");
    assert!(!text.contains("/work/main"), "{text}");
    assert!(text.contains("ptmx -> pts/ptmx") && text.contains("stdin -> /proc/self/fd/0"), "{text}");
    assert!(!text.contains("shared:") && !text.contains("master:"), "nothing propagates: {text}");
}

fn masked_and_readonly_paths() {
    let mut spec = shell(
        "wc -c < /proc/interrupts; wc -c < /proc/keys; ls /sys/firmware | wc -l; touch /sys/firmware/x; \
         echo 1 > /proc/sys/kernel/panic; echo 0 > /proc/irq/default_smp_affinity; \
         grep -c ' /sys/firmware ' /proc/self/mountinfo; true",
    );
    // Twice is once.
    spec.linux.as_mut().unwrap().masked_paths.push("/sys/firmware".into());
    let text = text(run(&spec));
    let mut lines = text.lines();
    assert_eq!([lines.next(), lines.next(), lines.next()], [Some("0"), Some("0"), Some("0")], "{text}");
    assert_eq!(text.matches("Read-only file system").count(), 3, "{text}");
    assert!(text.ends_with("\n1\n"), "{text}");
}

fn devices_work() {
    let text = text(run(&shell(
        "head -c 3 /dev/zero | wc -c; echo x > /dev/null; echo x > /dev/full; head -c 4 /dev/urandom | wc -c; \
         ls -ln /dev/null | cut -c1-10; echo x | cat /dev/stdin; true",
    )));
    assert!(
        text.contains("3\n") && text.contains("No space left") && text.contains("4\ncrw-rw-rw-\nx\n"),
        "{text}"
    );
}

fn capabilities_of_root_and_others() {
    let root = text(run(&shell("grep Cap /proc/self/status; grep NoNewPrivs /proc/self/status")));
    let spaced = root.replace('\t', " ");
    for line in [
        "CapInh: 0000000000000000",
        "CapPrm: 00000000a80425fb",
        "CapEff: 00000000a80425fb",
        "CapBnd: 00000000a80425fb",
        "CapAmb: 0000000000000000",
        "NoNewPrivs: 0",
    ] {
        assert!(spaced.contains(line), "{line}: {root}");
    }
    let mut spec = shell("grep Cap /proc/self/status; grep NoNewPrivs /proc/self/status; id");
    let process = spec.process.as_mut().unwrap();
    (process.user.uid, process.user.gid) = (1000, 1000);
    process.no_new_privileges = true;
    let web = text(run(&spec)).replace('\t', " ");
    for line in
        ["CapPrm: 0000000000000000", "CapEff: 0000000000000000", "CapBnd: 00000000a80425fb", "NoNewPrivs: 1"]
    {
        assert!(web.contains(line), "{line}: {web}");
    }
    let process = spec.process.as_mut().unwrap();
    let sets = process.capabilities.as_mut().unwrap();
    sets.ambient = vec!["CAP_NET_BIND_SERVICE".into()];
    sets.inheritable = sets.ambient.clone();
    let ambient = text(run(&spec)).replace('\t', " ");
    assert!(
        ambient.contains("CapEff: 0000000000000400") && ambient.contains("CapAmb: 0000000000000400"),
        "{ambient}"
    );
}

fn exit_codes() {
    assert_eq!(run(&shell("exit 7")).unwrap().1, 7);
    assert_eq!(
        run(&shell("kill -KILL $$; sleep 0.1; exit 3")).unwrap().1,
        3,
        "process 1 does not kill itself"
    );
}

fn missing_and_unusable_programs() {
    let fails = |args: &[&str]| {
        let error = run(&docker_like(args)).unwrap_err();
        (error.kind(), error.to_string())
    };
    assert_eq!(
        fails(&["foo"]),
        (ErrorKind::ProgramNotFound, "exec: \"foo\": executable file not found in $PATH".into())
    );
    assert_eq!(
        fails(&["/foo"]),
        (ErrorKind::ProgramNotFound, "exec: \"/foo\": stat /foo: no such file or directory".into())
    );
    assert_eq!(
        fails(&["/etc/passwd"]),
        (ErrorKind::ProgramNotExecutable, "exec: \"/etc/passwd\": permission denied".into())
    );
    assert_eq!(fails(&["/etc"]), (ErrorKind::ProgramNotExecutable, "exec: \"/etc\": is a directory".into()));
    let dir = scratch();
    let script = path(&dir, "root/bin/script");
    for (content, kind, words) in [
        ("#!/none\n", ErrorKind::ProgramNotFound, "exec /bin/script: no such file or directory"),
        ("\u{1}garbage", ErrorKind::ProgramNotExecutable, "exec /bin/script: exec format error"),
    ] {
        std::fs::write(&script, content).unwrap();
        std::process::Command::new("chmod").arg("755").arg(&script).status().unwrap();
        let error = run_on(&docker_like(&["script"]), &overlay(dir.path())).unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (kind, words.to_string()));
    }
}

fn users_and_groups() {
    let mut spec = shell("id; umask; touch /tmp/mine; echo out > /dev/stdout");
    let process = spec.process.as_mut().unwrap();
    process.user = User { uid: 1000, gid: 1000, umask: Some(0o27), additional_gids: vec![50] };
    let dir = scratch();
    std::process::Command::new("chmod").arg("1777").arg(path(&dir, "root/tmp")).status().unwrap();
    let text = text(run_on(&spec, &overlay(dir.path())));
    assert_eq!(text, "uid=1000(web) gid=1000(web) groups=50(extra)\n0027\nout\n");
}

fn home_is_added() {
    let mut spec = shell("echo $HOME");
    assert_eq!(text(run(&spec)), "/root\n");
    spec.process.as_mut().unwrap().user.uid = 1000;
    assert_eq!(text(run(&spec)), "/home/web\n");
    spec.process.as_mut().unwrap().user.uid = 4242;
    assert_eq!(text(run(&spec)), "/\n");
    spec.process.as_mut().unwrap().env.push("HOME=/given".into());
    assert_eq!(text(run(&spec)), "/given\n");
    // The last of two wins, and an empty one is none.
    let process = spec.process.as_mut().unwrap();
    process.env.push("HOME=".into());
    process.user.uid = 1000;
    assert_eq!(text(run(&spec)), "/home/web\n");
}

fn working_directory() {
    let mut spec = shell("pwd");
    spec.process.as_mut().unwrap().cwd = "/made/here".into();
    assert_eq!(text(run(&spec)), "/made/here\n");
    let mut private = shell("pwd");
    let dir = scratch();
    std::fs::create_dir(path(&dir, "root/private")).unwrap();
    std::process::Command::new("chmod").arg("700").arg(path(&dir, "root/private")).status().unwrap();
    private.process.as_mut().unwrap().cwd = "/private".into();
    private.process.as_mut().unwrap().user.uid = 1000;
    assert_eq!(text(run_on(&private, &overlay(dir.path()))), "/private\n");
    // A descriptor of the host as the working directory (CVE-2024-21626).
    let held = std::fs::File::open("/").unwrap();
    for n in 3..10 {
        spec.process.as_mut().unwrap().cwd = format!("/proc/self/fd/{n}");
        match run(&spec) {
            Err(_) => {}
            Ok((text, _)) => panic!("/proc/self/fd/{n} led to {text}"),
        }
    }
    drop(held);
}

fn readonly_root() {
    let mut spec = shell("touch /x; touch /dev/shm/y && touch /dev/z && echo fine; mount | head -1");
    spec.root.as_mut().unwrap().readonly = true;
    let text = text(run(&spec));
    assert!(text.starts_with("touch: /x: Read-only file system\nfine\n"), "{text}");
    assert!(text.contains("(ro,relatime"), "{text}");
}

fn binds() {
    let dir = scratch();
    std::fs::create_dir(path(&dir, "host")).unwrap();
    std::fs::write(path(&dir, "host/file"), "from the host\n").unwrap();
    let host = path(&dir, "host").display().to_string();
    let mut spec = shell(
        "cat /new/dir/file /data/one; touch /new/dir/x; touch /rw/y; grep -E ' (/rw|/new/dir) ' /proc/self/mountinfo | cut -d' ' -f6",
    );
    spec.mounts.push(mount("/new/dir", "bind", &host, "rbind,ro,nosuid,rprivate"));
    spec.mounts.push(mount("/data/one", "", &format!("{host}/file"), "bind"));
    spec.mounts.push(mount("/rw", "bind", &host, "rbind,noexec,nodev"));
    let text = text(run_on(&spec, &overlay(dir.path())));
    assert!(
        text.starts_with("from the host\nfrom the host\ntouch: /new/dir/x: Read-only file system\n"),
        "{text}"
    );
    assert!(text.contains("ro,nosuid,relatime") && text.contains("rw,nodev,noexec,relatime"), "{text}");
    assert!(path(&dir, "host/y").exists());
    assert!(!path(&dir, "host/x").exists());
    spec.mounts.push(mount("/etc/passwd", "bind", &host, "bind"));
    let error = run_on(&spec, &overlay(dir.path())).unwrap_err();
    assert!(error.to_string().contains("a directory cannot be mounted onto a file"), "{error}");
    spec.mounts.pop();
    spec.mounts.push(mount("/q", "bind", "/nowhere/at/all", "bind"));
    let error = run_on(&spec, &overlay(dir.path())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "mount /nowhere/at/all on /q: cannot open /nowhere/at/all: no such file or directory"
    );
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

fn limits_are_clamped() {
    let mut spec = shell("ulimit -n; ulimit -c");
    let limits = &mut spec.process.as_mut().unwrap().rlimits;
    limits.push(Rlimit { kind: "RLIMIT_NOFILE".into(), soft: 1024, hard: u64::MAX - 1 });
    limits.push(Rlimit { kind: "RLIMIT_CORE".into(), soft: 0, hard: 0 });
    let dir = scratch();
    let (stdio, reader) = pipes();
    let created = create(&spec, &overlay(dir.path()), stdio).unwrap();
    let privileged = creel_sys::caps::get().unwrap().effective & 1 << 24 != 0;
    if !privileged {
        assert!(
            created.warnings.iter().any(|text| text.starts_with("RLIMIT_NOFILE was limited")),
            "{:?}",
            created.warnings
        );
    }
    let started = created.start().unwrap();
    assert_eq!(read(reader), "1024\n0\n");
    assert_eq!(finish(&started.pidfd), 0);
}

fn sysctls() {
    let mut spec = shell("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmni");
    let sysctl = &mut spec.linux.as_mut().unwrap().sysctl;
    sysctl.insert("net.ipv4.ip_unprivileged_port_start".into(), "0".into());
    sysctl.insert("kernel.shmmni".into(), "77".into());
    assert_eq!(text(run(&spec)), "0\n77\n");
    spec.linux.as_mut().unwrap().sysctl.insert("kernel.panic".into(), "1".into());
    assert_eq!(run(&spec).unwrap_err().kind(), ErrorKind::InvalidArgument);
}

fn terminal() {
    let dir = scratch();
    let mut spec = shell(
        "tty; stty size; ls -l /dev/console | cut -c1; echo > /dev/tty && echo has tty; id -u; stat -c %u $(tty)",
    );
    symlink("busybox", path(&dir, "root/bin/stty")).unwrap();
    let process = spec.process.as_mut().unwrap();
    process.terminal = true;
    process.console_size = Some(ConsoleSize { height: 33, width: 111 });
    process.user.uid = 1000;
    let mut created = create(&spec, &overlay(dir.path()), Stdio::default()).unwrap();
    let console = created.console.take().unwrap();
    let started = created.start().unwrap();
    let text = read(console).replace('\r', "");
    assert_eq!(finish(&started.pidfd), 0, "{text}");
    assert_eq!(text, "/dev/pts/0\n33 111\nc\n\nhas tty\n1000\n1000\n");
}

fn overlay_vanishes_with_the_process() {
    let sleeper = Sleeper::new(|_| {});
    let inside = std::fs::read_to_string(format!("/proc/{}/mountinfo", sleeper.started.pid)).unwrap();
    let outside = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(inside.contains(" - overlay ") && !outside.contains("creel-runtime-"), "{outside}");
    assert!(!inside.contains(" ext4 "), "nothing of the host is left: {inside}");
}

fn a_dropped_creation_leaves_nothing() {
    let dir = scratch();
    let created = create(&shell("true"), &overlay(dir.path()), Stdio::default()).unwrap();
    let pid = created.pid;
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    drop(created);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

fn failed_steps_are_named() {
    let mut spec = shell("true");
    spec.mounts.push(mount("/data", "nosuchfs", "x", ""));
    let error = run(&spec).unwrap_err();
    assert_eq!(error.to_string(), "mount nosuchfs on /data: this kernel has no file system nosuchfs");
    let mut spec = shell("true");
    spec.mounts.push(mount("/data", "tmpfs", "x", "size=many"));
    let error = run(&spec).unwrap_err().to_string();
    assert!(error.starts_with("mount tmpfs on /data: option size: "), "{error}");
    let dir = scratch();
    let rootfs = Rootfs::Overlay {
        lower: vec![path(&dir, "nothing")],
        upper: path(&dir, "upper"),
        work: path(&dir, "work"),
    };
    let error = run_on(&shell("true"), &rootfs).unwrap_err().to_string();
    assert!(error.starts_with("mount the overlay root: ") && error.contains("nothing"), "{error}");
}

fn many_and_long_layers() {
    let dir = scratch();
    let long = path(&dir, &format!("{}/{}", "l".repeat(200), "m".repeat(200)));
    std::fs::create_dir_all(&long).unwrap();
    let mut lower = vec![];
    for n in 0..120 {
        let layer = long.join(n.to_string());
        std::fs::create_dir(&layer).unwrap();
        std::fs::write(layer.join(format!("f{n}")), "").unwrap();
        lower.push(layer);
    }
    lower.push(path(&dir, "root"));
    let rootfs = Rootfs::Overlay { lower, upper: path(&dir, "upper"), work: path(&dir, "work") };
    assert_eq!(text(run_on(&shell("ls -d /f* | wc -l"), &rootfs)), "120\n");
}

fn with_init(spec: &Spec, rootfs: &Rootfs, stdio: Stdio) -> Result<creel_runtime::Created, Error> {
    creel_runtime::create(CreateOptions {
        stdio,
        init: Some(std::env::current_exe().unwrap()),
        ..CreateOptions::new("test", spec, Path::new("/var/tmp"), rootfs)
    })
}

fn reaper() {
    let dir = scratch();
    let rootfs = overlay(dir.path());
    let (stdio, reader) = pipes();
    let script = "cat /proc/1/cmdline | tr '\\0' ' '; (sleep 0.05 &) ; sleep 0.2; ls /proc | grep -c '^[0-9]'; touch /sbin/docker-init; exit 5";
    let started = with_init(&shell(script), &rootfs, stdio).unwrap().start().unwrap();
    let text = read(reader);
    assert_eq!(finish(&started.pidfd), 5, "{text}");
    assert!(text.starts_with("/sbin/docker-init -- sh -c"), "{text}");
    assert!(text.contains("Read-only file system"), "{text}");
    // Process 1, the shell, ls and grep: the orphan was reaped.
    assert!(text.contains("\n4\n") || text.contains("5 4\n"), "{text}");

    let (stdio, reader) = pipes();
    let script = "trap 'echo term; exit 6' TERM; echo up; while true; do sleep 0.02; done";
    let started = with_init(&shell(script), &rootfs, stdio).unwrap().start().unwrap();
    let mut up = [0; 3];
    let mut reader = std::fs::File::from(reader);
    std::io::Read::read_exact(&mut reader, &mut up).unwrap();
    creel_sys::pidfd::send_signal(&started.pidfd, libc::SIGTERM).unwrap();
    assert_eq!(finish(&started.pidfd), 6);
    assert_eq!((&up, &*read(reader.into())), (b"up\n", "term\n"));
    assert_eq!(
        with_init(&docker_like(&["nope"]), &rootfs, Stdio::default()).unwrap_err().kind(),
        ErrorKind::ProgramNotFound
    );
}

fn hooks() {
    let dir = scratch();
    let seen = path(&dir, "seen");
    let hook = |script: String, timeout| Hook {
        path: "/bin/sh".into(),
        args: vec!["sh".into(), "-c".into(), script],
        env: vec!["WORD=creel".into(), "PATH=/bin:/usr/bin".into()],
        timeout,
    };
    let mut spec = shell("true");
    spec.hooks = Some(Hooks {
        create_runtime: vec![hook(format!("(echo $WORD; pwd; cat) > {}", seen.display()), None)],
        ..Hooks::default()
    });
    text(run_on(&spec, &overlay(dir.path())));
    let seen = std::fs::read_to_string(seen).unwrap();
    assert!(
        seen.starts_with(
            "creel\n/var/tmp\n{\"ociVersion\":\"1.2.0\",\"id\":\"test\",\"status\":\"creating\",\"pid\":"
        ),
        "{seen}"
    );
    // The kinds that run inside: before the pivot the host's files are still there, at the start only the image's.
    let mut inside = shell("cat /dev/shm/word");
    let both = "(ls -d home/web; hostname) > ";
    inside.hooks = Some(Hooks {
        create_container: vec![hook(format!("{both}{}/created", dir.path().display()), None)],
        start_container: vec![hook("(echo started; hostname) > /dev/shm/word".into(), None)],
        ..Hooks::default()
    });
    assert_eq!(text(run_on(&inside, &overlay(dir.path()))), "started\nbox\n");
    assert_eq!(std::fs::read_to_string(path(&dir, "created")).unwrap(), "home/web\nbox\n");
    // crun's annotations say where words go.
    let said = |name: &str| path(&dir, name).display().to_string();
    spec.hooks.as_mut().unwrap().create_runtime = vec![hook("echo out; echo err >&2".into(), None); 2];
    spec.annotations.insert("run.oci.hooks.stdout".into(), said("out"));
    spec.annotations.insert("run.oci.hooks.stderr".into(), said("err"));
    text(run_on(&spec, &overlay(dir.path())));
    let read = |name: &str| std::fs::read_to_string(path(&dir, name)).unwrap();
    assert_eq!((read("out").as_str(), read("err").as_str()), ("out\nout\n", "err\nerr\n"));
    spec.annotations.clear();
    // Without an environment of its own the hook has the program's; and the filter holds for it as for the program.
    let mut bare = hook("echo $WORD $HOME > /dev/shm/word".into(), None);
    bare.env.clear();
    inside.process.as_mut().unwrap().env.push("WORD=program".into());
    inside.hooks.as_mut().unwrap().start_container = vec![bare];
    assert_eq!(text(run_on(&inside, &overlay(dir.path()))), "program /root\n");
    let linux = inside.linux.as_mut().unwrap();
    let refused = serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]});
    linux.seccomp = Some(serde_json::from_value(refused).unwrap());
    let making = "mkdir /dev/shm/made 2>/dev/null; test -d /dev/shm/made; echo $? > /dev/shm/word";
    inside.hooks.as_mut().unwrap().start_container = vec![hook(making.into(), None)];
    assert_eq!(text(run_on(&inside, &overlay(dir.path()))), "1\n");
    let killed = serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL"}]});
    inside.linux.as_mut().unwrap().seccomp = Some(serde_json::from_value(killed).unwrap());
    // The last command, so that the shell becomes it.
    inside.hooks.as_mut().unwrap().start_container = vec![hook("exec mkdir /dev/shm/made".into(), None)];
    let error = run_on(&inside, &overlay(dir.path())).unwrap_err().to_string();
    assert!(error.contains("startContainer hook #0: /bin/sh: bad system call"), "{error}");
    inside.linux.as_mut().unwrap().seccomp = None;
    inside.hooks.as_mut().unwrap().start_container = vec![hook("exit 4".into(), None)];
    let error = run_on(&inside, &overlay(dir.path())).unwrap_err().to_string();
    assert!(
        error.starts_with(
            "run the startContainer hooks: error running startContainer hook #0: /bin/sh: exit status 4"
        ),
        "{error}"
    );
    spec.hooks.as_mut().unwrap().create_runtime = vec![hook("sleep 10".into(), Some(1))];
    let error = run_on(&spec, &overlay(dir.path())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "error running createRuntime hook #0: /bin/sh: it did not end in time and was killed"
    );
    // Nobody waits for a hook to read its state, however long that is.
    let mut long = spec.clone();
    long.annotations.insert("long".into(), "x".repeat(300_000));
    let begun = std::time::Instant::now();
    assert!(run_on(&long, &overlay(dir.path())).unwrap_err().to_string().contains("did not end in time"));
    assert!(begun.elapsed() < std::time::Duration::from_secs(8), "{:?}", begun.elapsed());
    // What it said is quoted, also while a process that it left behind keeps its output open.
    spec.hooks.as_mut().unwrap().create_runtime = vec![hook("echo why >&2; sleep 1 & exit 3".into(), None)];
    let error = run_on(&spec, &overlay(dir.path())).unwrap_err().to_string();
    assert!(error.contains("exit status 3; it said: why"), "{error}");
}

fn tmpfs_mode_and_copy_up() {
    let dir = scratch();
    std::fs::write(path(&dir, "root/data/file"), "copied\n").unwrap();
    symlink("file", path(&dir, "root/data/link")).unwrap();
    std::process::Command::new("chmod").arg("751").arg(path(&dir, "root/data")).status().unwrap();
    let mut spec = shell("cat /data/link; stat -c %a /data /fresh; grep ' /data ' /proc/mounts");
    spec.mounts.push(mount("/data", "tmpfs", "tmpfs", "size=64k,tmpcopyup,noexec"));
    spec.mounts.push(mount("/fresh", "tmpfs", "tmpfs", ""));
    let text = text(run_on(&spec, &overlay(dir.path())));
    assert!(
        text.starts_with("copied\n751\n1777\ntmpfs /data tmpfs rw,noexec,relatime,size=64k,mode=751"),
        "{text}"
    );
}

fn what_is_not_applied_is_refused() {
    type Change = fn(&mut Spec);
    let changes: [(&str, ErrorKind, Change); 11] = [
        ("linux.intelRdt", ErrorKind::Unsupported, |s| {
            s.linux.as_mut().unwrap().intel_rdt = Some(IntelRdt::default())
        }),
        ("linux.uidMappings", ErrorKind::InvalidArgument, |s| {
            s.linux.as_mut().unwrap().namespaces[0].kind = NamespaceKind::User;
        }),
        ("linux.timeOffsets.boottime", ErrorKind::InvalidArgument, |s| {
            s.linux.as_mut().unwrap().time_offsets.insert("boottime".into(), TimeOffset::default());
        }),
        ("linux.namespaces[1]", ErrorKind::InvalidArgument, |s| {
            s.linux.as_mut().unwrap().namespaces[1].kind = NamespaceKind::Mount;
        }),
        ("ociVersion", ErrorKind::InvalidArgument, |s| s.oci_version = "nonsense".into()),
        ("hostname", ErrorKind::InvalidArgument, |s| s.hostname = Some("a\0b".into())),
        ("process.args", ErrorKind::InvalidArgument, |s| s.process.as_mut().unwrap().args.clear()),
        ("process.cwd", ErrorKind::InvalidArgument, |s| s.process.as_mut().unwrap().cwd = "x".into()),
        ("linux.maskedPaths[0]", ErrorKind::InvalidArgument, |s| {
            s.linux.as_mut().unwrap().masked_paths[0] = "relative".into();
        }),
        ("process.selinuxLabel", ErrorKind::Unsupported, |s| {
            s.process.as_mut().unwrap().selinux_label = Some("a:b:c:s0".into());
        }),
        ("mounts[7]", ErrorKind::InvalidArgument, |s| {
            s.mounts.push(mount("/x", "bind", "/tmp", "bind,idmap"))
        }),
    ];
    for (field, kind, change) in changes {
        let mut spec = shell("true");
        change(&mut spec);
        let error = run(&spec).unwrap_err();
        assert_eq!(error.kind(), kind, "{field}: {error}");
        assert!(error.to_string().starts_with(&format!("{field}: ")), "{error}");
    }
}

fn joined_network_namespace() {
    let sleeper = Sleeper::new(|_| {});
    let join = |kind: NamespaceKind| Some(format!("/proc/{}/ns/{}", sleeper.started.pid, kind.proc_name()));
    let mut spec =
        shell("readlink /proc/self/ns/net; readlink /proc/self/ns/pid; hostname; cat /proc/1/comm");
    spec.hostname = None;
    for space in &mut spec.linux.as_mut().unwrap().namespaces {
        if matches!(space.kind, NamespaceKind::Network | NamespaceKind::Uts | NamespaceKind::Pid) {
            space.path = join(space.kind);
        }
    }
    let text = text(run(&spec));
    let link = |kind: &str| {
        std::fs::read_link(format!("/proc/{}/ns/{kind}", sleeper.started.pid)).unwrap().display().to_string()
    };
    assert_eq!(text, format!("{}\n{}\nbox\nsleep\n", link("net"), link("pid")));
}

fn our_executable_cannot_be_opened() {
    // A container that tries for the executable of every process that comes, as root.
    let sleeper = Sleeper::new(|spec| {
        spec.process.as_mut().unwrap().args = [
            "sh",
            "-c",
            "while true; do for p in /proc/[0-9]*; do l=$(readlink $p/exe) && case $l in /bin/busybox|'') ;; *) echo $l >> /tmp/seen;; esac; done; done",
        ]
        .map(str::to_string)
        .to_vec();
    });
    for _ in 0..40 {
        sleeper.run(&["true"], |_| {}).unwrap();
    }
    let seen = std::fs::read_to_string(path(&sleeper.dir, "upper/tmp/seen")).unwrap_or_default();
    assert_eq!(seen, "");
    let sealed = creel_runtime::seal::sealed_executable(Path::new("/proc/self/exe")).unwrap();
    let mount = rustix::fs::fstatvfs(&sealed).unwrap();
    assert!(mount.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
}

fn seccomp_filter() {
    let mut spec = shell("grep '^Seccomp:' /proc/self/status; mkdir /tmp/refused; echo still here");
    spec.linux.as_mut().unwrap().seccomp = Some(Seccomp {
        default_action: "SCMP_ACT_ALLOW".into(),
        syscalls: vec![SyscallRule {
            names: vec!["mkdir".into(), "mkdirat".into()],
            action: "SCMP_ACT_ERRNO".into(),
            errno_ret: Some(libc::ENOTEMPTY as u32),
            args: vec![],
        }],
        ..Seccomp::default()
    });
    for (uid, no_new_privileges) in [(0, false), (0, true), (1000, false), (1000, true)] {
        let process = spec.process.as_mut().unwrap();
        process.user.uid = uid;
        process.no_new_privileges = no_new_privileges;
        let text = text(run(&spec));
        assert!(text.contains("Seccomp:\t2") && text.contains("Directory not empty"), "{uid}: {text}");
    }
    let sleeper =
        Sleeper::new(|wanted| wanted.linux.as_mut().unwrap().seccomp = spec.linux.clone().unwrap().seccomp);
    let text =
        text(sleeper.run(&["sh", "-c", "grep '^Seccomp:' /proc/self/status; mkdir /tmp/x; true"], |_| {}));
    assert!(text.contains("Seccomp:\t2") && text.contains("Directory not empty"), "{text}");
}

fn timings() {
    let dir = scratch();
    let mut spec = shell("true");
    let capabilities = spec.process.as_ref().unwrap().capabilities.as_ref().unwrap().bounding.clone();
    spec.linux.as_mut().unwrap().seccomp = Some(creel_runtime::seccomp::default_profile(&capabilities));
    let created = create(&spec, &overlay(dir.path()), Stdio::default()).unwrap();
    let names: Vec<&str> = created.timings.iter().map(|(name, _)| name.as_str()).collect();
    for name in
        ["plan", "clone", "namespaces", "root", "mounts", "devices", "paths", "pivot", "process", "create"]
    {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    println!("{:?}", created.timings);
    let started = created.start().unwrap();
    println!("{:?}", started.timings);
    finish(&started.pidfd);
}
