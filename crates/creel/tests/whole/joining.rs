//! Namespaces of other containers and of the host.

use crate::support::Daemon;

fn namespace(daemon: &Daemon, args: &[&str], kind: &str) -> String {
    let link = format!("/proc/self/ns/{kind}");
    let args: Vec<&str> =
        ["run", "--rm"].iter().chain(args).chain(&["busybox", "readlink", &link]).copied().collect();
    daemon.ok(&args)
}

fn of_process(pid: &str, kind: &str) -> String {
    std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().display().to_string()
}

#[test]
fn pid_and_network_namespaces_of_a_running_container_can_be_joined() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let id = daemon.ok(&["run", "-d", "--name", "donor", "-h", "given", "busybox", "sleep", "1000"]);
    let pid = daemon.inspect("donor", "{{.State.Pid}}");
    assert_eq!(namespace(&daemon, &["--pid", "container:donor"], "pid"), of_process(&pid, "pid"));
    assert_eq!(namespace(&daemon, &["--network", "container:donor"], "net"), of_process(&pid, "net"));
    assert_ne!(namespace(&daemon, &[], "net"), of_process(&pid, "net"));
    // Processes of one are seen by the other, and its end does not end the donor.
    let ps = daemon.ok(&["run", "--rm", "--pid", "container:donor", "busybox", "ps", "-o", "args"]);
    assert!(ps.contains("sleep 1000"), "{ps}");
    // With a network come its name and its files.
    daemon.ok(&["exec", "donor", "sh", "-c", "echo 10.9.8.7 other >>/etc/hosts"]);
    let joined = ["run", "--name", "joined", "--network", "container:donor", "busybox", "sh", "-c"];
    let seen = daemon.ok(&[&joined[..], &["hostname; grep other /etc/hosts"]].concat());
    assert_eq!(seen, "given\n10.9.8.7 other");
    // The id is kept: names change.
    assert_eq!(daemon.inspect("joined", "{{.HostConfig.NetworkMode}}"), format!("container:{id}"));
    assert!(daemon.inspect("joined", "{{.HostsPath}}").contains(&id));
    assert_eq!(daemon.inspect("donor", "{{.State.Running}}"), "true");
    daemon.ok(&["rm", "-f", "donor"]);
    let refused = daemon.fails(1, &["start", "joined"]);
    assert!(refused.contains("No such container"), "{refused}");
    daemon.finish();
}

#[test]
fn what_cannot_be_joined_is_refused_with_the_reason() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    daemon.ok(&["run", "--name", "ended", "busybox", "true"]);
    let run = |args: &[&str]| daemon.fails(125, &[&["run", "--rm"], args, &["busybox", "true"]].concat());
    let id = daemon.inspect("ended", "{{.Id}}");
    let text = run(&["--network", "container:ended"]);
    assert!(
        text.contains("cannot join network namespace of a non running container: container ended is exited"),
        "{text}"
    );
    let text = run(&["--pid", "container:ended"]);
    assert!(text.contains(&format!("failed to join PID namespace: container {id} is not running")), "{text}");
    let text = run(&["--network", "container:nosuch"]);
    assert!(text.contains("joining network namespace of container: No such container: nosuch"), "{text}");
    let text = run(&["--network", "container:ended", "-h", "x"]);
    assert!(text.contains("conflicting options: hostname and the network mode"), "{text}");
    let text = run(&["--ipc", "container:ended"]);
    assert!(text.contains("/dev/shm of one container cannot be shown in another yet"), "{text}");
    assert!(run(&["--uts", "host", "-h", "x"]).contains("conflicting options: hostname and the UTS mode"));
    assert!(run(&["--pid", "foo"]).contains("--pid: invalid PID mode"));
    daemon.finish();
}

#[test]
fn the_hosts_namespaces_are_shared_where_that_is_asked_for() {
    let Some(daemon) = Daemon::with_busybox() else { return };
    let host = |kind: &str| of_process(&daemon.pid().to_string(), kind);
    for (flag, kind) in [("--pid", "pid"), ("--ipc", "ipc"), ("--uts", "uts"), ("--network", "net")] {
        assert_eq!(namespace(&daemon, &[flag, "host"], kind), host(kind), "{flag}");
        assert_ne!(namespace(&daemon, &[], kind), host(kind), "{flag}");
    }
    // /dev/shm goes with the IPC namespace.
    let name = format!("creel-test-{}", std::process::id());
    let file = format!("/dev/shm/{name}");
    std::fs::write(&file, "shared").unwrap();
    let seen = daemon.creel(&["run", "--rm", "--ipc", "host", "busybox", "cat", &file]);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(crate::support::stdout(&seen), "shared");
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(daemon.ok(&["run", "--rm", "--uts", "host", "busybox", "hostname"]), machine.trim());
    // Without a pid namespace of its own the whole group is ended.
    let script = "sleep 987 & exec sleep 988";
    daemon.ok(&["run", "-d", "--name", "wide", "--pid", "host", "busybox", "sh", "-c", script]);
    daemon.ok(&["rm", "-f", "wide"]);
    daemon.finish();
}
