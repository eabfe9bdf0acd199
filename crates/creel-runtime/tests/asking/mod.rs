//! What a process may ask for, seen from inside: scheduling, processors, memory policy, personality, environment.

use creel_types::spec::*;

use crate::support::*;
use crate::text;

pub(crate) fn unknown_capabilities_warn() {
    let dir = scratch();
    let mut spec = shell("grep CapEff /proc/self/status");
    spec.process.as_mut().unwrap().capabilities = Some(Capabilities {
        bounding: vec!["CAP_FLY".into(), "CAP_CHOWN".into()],
        effective: vec!["CAP_FLY".into(), "CAP_CHOWN".into()],
        permitted: vec!["CAP_CHOWN".into()],
        ..Capabilities::default()
    });
    let (stdio, reader) = pipes();
    let created = create(&spec, &overlay(dir.path()), stdio).unwrap();
    assert_eq!(created.warnings, ["ignoring unknown or unavailable capabilities: [CAP_FLY]"]);
    let started = created.start().unwrap();
    assert_eq!(read(reader), "CapEff:\t0000000000000001\n");
    finish(&started.pidfd);
}

/// What cannot be granted and is an error says with it what was left out before.
pub(crate) fn warnings_come_with_an_error() {
    let mut spec = shell("true");
    spec.process.as_mut().unwrap().capabilities = Some(Capabilities {
        bounding: vec!["CAP_FLY".into()],
        // The kernel gives none that the bounding set has not.
        inheritable: vec!["CAP_KILL".into()],
        ..Capabilities::default()
    });
    let error = run(&spec).unwrap_err().to_string();
    assert!(error.contains("operation not permitted") && error.contains("[CAP_FLY]"), "{error}");
    spec.process.as_mut().unwrap().capabilities.as_mut().unwrap().inheritable.clear();
    spec.linux.as_mut().unwrap().memory_policy =
        Some(MemoryPolicy { mode: "MPOL_BIND".into(), nodes: Some("1023".into()), flags: Vec::new() });
    let error = run(&spec).unwrap_err().to_string();
    assert!(error.contains("memoryPolicy") && error.contains("[CAP_FLY]"), "{error}");
}

pub(crate) fn ids_at_the_edge() {
    let mut spec = shell("id -u; id -g; id -G");
    spec.process.as_mut().unwrap().user = User {
        uid: 3_000_000_000,
        gid: 4_294_967_294,
        additional_gids: vec![2_147_483_648],
        ..User::default()
    };
    let seen = text(run(&spec));
    assert_eq!(seen, "3000000000\n4294967294\n4294967294 2147483648\n");
    let user = |user: User| {
        let mut spec = shell("id");
        spec.process.as_mut().unwrap().user = user;
        run(&spec).unwrap_err().to_string()
    };
    let max = u32::MAX;
    assert!(user(User { uid: max, ..User::default() }).starts_with("process.user.uid: "));
    assert!(user(User { gid: max, ..User::default() }).starts_with("process.user.gid: "));
    assert!(
        user(User { additional_gids: vec![max], ..User::default() })
            .starts_with("process.user.additionalGids")
    );
}

pub(crate) fn environments() {
    let mut spec = docker_like(&["env"]);
    let env = |spec: &mut Spec, text: &[&str]| {
        spec.process.as_mut().unwrap().env = text.iter().map(|entry| entry.to_string()).collect();
    };
    env(&mut spec, &["PATH=/bin", "A=1", "HOME=/x", "B=", "A=2=3"]);
    assert_eq!(text(run(&spec)), "PATH=/bin\nA=2=3\nHOME=/x\nB=\n");
    // An empty home directory is none.
    env(&mut spec, &["PATH=/bin", "HOME=/x", "HOME="]);
    assert_eq!(text(run(&spec)), "PATH=/bin\nHOME=/root\n");
    for wrong in ["NAME", "", "=x", "A=b\0c"] {
        env(&mut spec, &[wrong]);
        assert!(run(&spec).unwrap_err().to_string().starts_with("process.env: "), "{wrong:?}");
    }
    let mut spec = docker_like(&["echo", "a\0b"]);
    assert!(run(&spec).unwrap_err().to_string().starts_with("process.args: "));
    spec.process.as_mut().unwrap().args = vec![String::new()];
    assert!(run(&spec).unwrap_err().to_string().starts_with("process.args: "));
}

pub(crate) fn schedulers() {
    // Fields 18 and 41 of stat(5): nice counts from 20 in priority; the policy is the last but eleven.
    let seen = |scheduler: Scheduler, io: Option<IoPriority>| {
        let mut spec = docker_like(&["cat", "/proc/self/stat"]);
        let process = spec.process.as_mut().unwrap();
        (process.scheduler, process.io_priority) = (Some(scheduler), io);
        let stat = text(run(&spec));
        let fields: Vec<String> =
            stat.rsplit(')').next().unwrap().split_whitespace().map(str::to_string).collect();
        (fields[16].clone(), fields[38].clone())
    };
    let of = |policy: &str| Scheduler { policy: policy.into(), ..Scheduler::default() };
    assert_eq!(seen(Scheduler { nice: 7, ..of("SCHED_BATCH") }, None), ("7".into(), "3".into()));
    assert_eq!(
        seen(Scheduler { flags: vec!["SCHED_FLAG_RESET_ON_FORK".into()], ..of("SCHED_IDLE") }, None).1,
        "5"
    );
    let io = IoPriority { class: "IOPRIO_CLASS_BE".into(), priority: 6 };
    assert_eq!(seen(Scheduler { nice: 3, ..of("SCHED_OTHER") }, Some(io)).0, "3");
}

pub(crate) fn processors_of_an_exec() {
    let sleeper = Sleeper::new(|_| {});
    let seen = |initial: Option<&str>, last: Option<&str>| {
        sleeper.run(&["grep", "Cpus_allowed_list", "/proc/self/status"], |process| {
            process.exec_cpu_affinity = Some(ExecCpuAffinity {
                initial: initial.map(str::to_string),
                last: last.map(str::to_string),
            });
        })
    };
    let own = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        status.lines().find(|line| line.starts_with("Cpus_allowed_list")).unwrap().to_string()
    };
    let before = own();
    assert_eq!(text(seen(Some("0"), None)), "Cpus_allowed_list:\t0\n");
    assert_eq!(text(seen(None, Some("0"))), "Cpus_allowed_list:\t0\n");
    if std::thread::available_parallelism().unwrap().get() > 1 {
        assert_eq!(text(seen(Some("1"), Some("0"))), "Cpus_allowed_list:\t0\n");
        assert_eq!(text(seen(Some("0-1"), Some("1"))), "Cpus_allowed_list:\t1\n");
    }
    for (initial, last) in [(Some("4000"), None), (None, Some("4000")), (Some("x"), None)] {
        assert!(
            seen(initial, last).unwrap_err().to_string().contains("execCPUAffinity"),
            "{initial:?} {last:?}"
        );
    }
    assert_eq!(own(), before, "the caller's processors are as they were");
}

pub(crate) fn personalities() {
    let mut spec = docker_like(&["sh", "-c", "cat /proc/self/personality"]);
    spec.linux.as_mut().unwrap().personality =
        Some(Personality { domain: "LINUX32".into(), ..Personality::default() });
    assert_eq!(text(run(&spec)), "00000008\n");
    let sleeper =
        Sleeper::new(|new| new.linux.as_mut().unwrap().personality = spec.linux.clone().unwrap().personality);
    assert_eq!(text(sleeper.run(&["cat", "/proc/self/personality"], |_| {})), "00000008\n");
    spec.linux.as_mut().unwrap().personality.as_mut().unwrap().flags = vec!["ADDR_NO_RANDOMIZE".into()];
    assert!(run(&spec).unwrap_err().to_string().starts_with("linux.personality.flags"));
    spec.linux.as_mut().unwrap().personality =
        Some(Personality { domain: "BSD".into(), ..Personality::default() });
    assert!(run(&spec).unwrap_err().to_string().starts_with("linux.personality.domain"));
}

pub(crate) fn memory_policies() {
    let mut spec = docker_like(&["sh", "-c", "head -1 /proc/self/numa_maps"]);
    spec.linux.as_mut().unwrap().memory_policy =
        Some(MemoryPolicy { mode: "MPOL_BIND".into(), nodes: Some("0".into()), ..MemoryPolicy::default() });
    match run(&spec) {
        Ok((seen, _)) => assert!(seen.contains(" bind:0 ") || seen.contains("No such file"), "{seen}"),
        // Without NUMA the kernel has no such call, and that is said.
        Err(e) => assert!(e.to_string().contains("memoryPolicy"), "{e}"),
    }
    spec.linux.as_mut().unwrap().memory_policy.as_mut().unwrap().nodes = Some("77".into());
    assert!(run(&spec).unwrap_err().to_string().contains("memoryPolicy"));
    spec.linux.as_mut().unwrap().memory_policy.as_mut().unwrap().mode = "MPOL_SOME".into();
    assert!(run(&spec).unwrap_err().to_string().starts_with("linux.memoryPolicy.mode"));
}

pub(crate) fn security_modules_that_are_missing() {
    if std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y")) {
        println!("skipped: AppArmor is on");
        return;
    }
    let dir = scratch();
    let mut spec = shell("echo runs");
    spec.process.as_mut().unwrap().apparmor_profile = Some("some".into());
    let created = create(&spec, &overlay(dir.path()), Default::default()).unwrap();
    assert!(
        created.warnings[0].starts_with("the AppArmor profile some was not set"),
        "{:?}",
        created.warnings
    );
    drop(created);
    let sleeper = Sleeper::new(|_| {});
    assert_eq!(text(sleeper.run(&["true"], |process| process.apparmor_profile = Some("some".into()))), "");
    // A label for mounts is passed over where nothing would enforce it.
    let mut spec = shell("true");
    spec.linux.as_mut().unwrap().mount_label = Some("system_u:object_r:x:s0".into());
    let created = create(&spec, &overlay(dir.path()), Default::default()).unwrap();
    assert!(created.warnings[0].starts_with("the label system_u:object_r:x:s0"), "{:?}", created.warnings);
    drop(created);
    assert_eq!(text(run_on(&spec, &overlay(dir.path()))), "");
}

/// Network devices move, in a network namespace that stands for the host's.
pub(crate) fn network_devices() {
    let program = std::env::current_exe().unwrap();
    let output =
        std::process::Command::new("unshare").arg("-n").arg(program).arg("network_child").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said, "done\n", "{}", String::from_utf8_lossy(&output.stderr));
}

/// The other side of [`network_devices`].
pub(crate) fn network_child() {
    let ip = |words: &str| {
        let output = std::process::Command::new("ip").args(words.split(' ')).output().unwrap();
        assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    for name in ["one", "two", "three"] {
        ip(&format!("link add {name} type veth peer name {name}-peer"));
    }
    ip("link set one mtu 1345 address 02:00:00:00:00:01 up");
    ip("addr add 192.0.2.7/24 dev one");
    ip("addr add 192.0.2.8/32 dev one scope link");
    ip("-6 addr add 2001:db8::7/64 dev one nodad");
    let dir = scratch();
    let devices = |list: &[(&str, &str)]| {
        let mut spec = shell(
            "for f in /sys/class/net/*; do echo ${f##*/} $(cat $f/mtu $f/address $f/operstate); done; \
                              ip addr show inside; cat /proc/net/if_inet6",
        );
        for (name, inside) in list {
            let device = NetDevice { name: Some(inside.to_string()).filter(|name| !name.is_empty()) };
            spec.linux.as_mut().unwrap().net_devices.insert(name.to_string(), device);
        }
        run_on(&spec, &overlay(dir.path()))
    };
    let seen = text(devices(&[("one", "inside"), ("two", "tmpl%d")]));
    assert!(seen.contains("inside 1345 02:00:00:00:00:01"), "{seen}");
    assert!(seen.contains("tmpl0 ") && seen.contains("192.0.2.7/24"), "{seen}");
    assert!(!seen.contains("192.0.2.8"), "its scope is not global: {seen}");
    assert!(seen.contains("20010db8000000000000000000000007"), "{seen}");
    assert!(seen.contains("UP"), "{seen}");
    assert!(!ip("link").contains(" one@"), "it is not on the host any more");
    // All or nothing.
    for (bad, word) in [
        (&[("three", ""), ("nope", "")][..], "no such network device"),
        (&[("three", "lo")], "already"),
        (&[("lo", "x")], "loopback"),
        (&[("three", "a/b")], "no name"),
    ] {
        let error = devices(bad).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
        assert!(ip("link").contains(" three@"), "{bad:?}");
    }
    let mut spec = shell("true");
    spec.linux.as_mut().unwrap().net_devices.insert("three".into(), NetDevice::default());
    spec.linux.as_mut().unwrap().namespaces.retain(|space| space.kind != NamespaceKind::Network);
    assert!(run_on(&spec, &overlay(dir.path())).unwrap_err().to_string().starts_with("linux.netDevices: "));
    println!("done");
}
