//! The flags of `run` and `create`.

use crate::flags::{Flag, device, env, mount, ulimit, values, volume};

/// What both take, in the order of their names.
pub(crate) const CONTAINER: &[Flag] = &[
    Flag::list("add-host", "list", "Add a line to /etc/hosts (host:ip)"),
    Flag::list("annotation", "map", "Add an annotation for the OCI runtime").check(values::pair),
    Flag::list("attach", "list", "Attach to STDIN, STDOUT or STDERR").short('a').check(values::stream),
    Flag::text("blkio-weight", "uint16", "Block I/O weight, 10 to 1000; 0 for none").check(values::integer),
    Flag::list("cap-add", "list", "Add Linux capabilities"),
    Flag::list("cap-drop", "list", "Drop Linux capabilities"),
    Flag::text("cgroup-parent", "string", "Cgroup under which the container's is made"),
    Flag::text("cgroupns", "string", "Cgroup namespace: host or private"),
    Flag::text("cidfile", "string", "Write the container's ID to this file"),
    Flag::text("cpu-period", "int", "CPU period in microseconds").check(values::integer),
    Flag::text("cpu-quota", "int", "CPU quota in microseconds a period").check(values::integer),
    Flag::text("cpu-rt-period", "int", "Real-time CPU period in microseconds").check(values::integer),
    Flag::text("cpu-rt-runtime", "int", "Real-time CPU runtime in microseconds").check(values::integer),
    Flag::text("cpu-shares", "int", "CPU shares (relative weight)").short('c').check(values::integer),
    Flag::text("cpus", "decimal", "Number of CPUs").check(values::cpus),
    Flag::text("cpuset-cpus", "string", "CPUs to run on (0-3, 0,1)"),
    Flag::text("cpuset-mems", "string", "Memory nodes to use (0-3, 0,1)"),
    Flag::list("device", "list", "Give a device of the host to the container").check(check_device),
    Flag::list("device-cgroup-rule", "list", "Add a rule to the list of allowed devices")
        .check(device::check_rule),
    Flag::list("device-read-bps", "list", "Limit reading from a device, bytes a second")
        .check(device::check_bps),
    Flag::list("device-read-iops", "list", "Limit reading from a device, operations a second")
        .check(device::check_iops),
    Flag::list("device-write-bps", "list", "Limit writing to a device, bytes a second")
        .check(device::check_bps),
    Flag::list("device-write-iops", "list", "Limit writing to a device, operations a second")
        .check(device::check_iops),
    Flag::switch("disable-content-trust", "Accepted and without effect").hide(),
    Flag::list("dns", "list", "Use these DNS servers"),
    Flag::list("dns-option", "list", "Set DNS options"),
    Flag::list("dns-search", "list", "Search these DNS domains"),
    Flag::text("domainname", "string", "NIS domain name inside the container"),
    Flag::text("entrypoint", "string", "Run this instead of the image's entrypoint"),
    Flag::list("env", "list", "Set environment variables").short('e').check(env::check),
    Flag::list("env-file", "list", "Read environment variables from a file"),
    Flag::list("expose", "list", "Say that a port is listened on"),
    Flag::list("group-add", "list", "Add supplementary groups"),
    Flag::text("health-cmd", "string", "Command that checks the container's health"),
    Flag::text("health-interval", "duration", "Time between checks (ms|s|m|h)").check(values::duration_check),
    Flag::text("health-retries", "int", "Failed checks until it is unhealthy").check(values::integer),
    Flag::text("health-start-interval", "duration", "Time between checks while it starts")
        .check(values::duration_check),
    Flag::text("health-start-period", "duration", "Time to start in which failures do not count")
        .check(values::duration_check),
    Flag::text("health-timeout", "duration", "Longest time for one check").check(values::duration_check),
    Flag::text("hostname", "string", "Host name inside the container").short('h'),
    Flag::switch("init", "Run a small init as process 1, which forwards signals and reaps"),
    Flag::switch("interactive", "Keep STDIN open even if not attached").short('i'),
    Flag::text("ip", "string", "IPv4 address (e.g., 172.30.100.104)"),
    Flag::text("ip6", "string", "IPv6 address (e.g., 2001:db8::33)"),
    Flag::text("ipc", "string", "IPC namespace: private, shareable, host, none or container:ID"),
    Flag::text("isolation", "string", "Isolation technology").hide(),
    Flag::list("label", "list", "Set a label").short('l').check(values::label),
    Flag::list("label-file", "list", "Read labels from a file"),
    Flag::list("link", "list", "Add a link to another container"),
    Flag::text("log-driver", "string", "Log driver"),
    Flag::list("log-opt", "list", "Set an option of the log driver").check(values::pair),
    Flag::text("mac-address", "string", "MAC address (e.g., 92:d0:c6:0a:29:33)"),
    Flag::text("memory", "bytes", "Memory limit").short('m').check(values::bytes),
    Flag::text("memory-reservation", "bytes", "Soft memory limit").check(values::bytes),
    Flag::text("memory-swap", "bytes", "Limit of memory and swap together; -1 for no limit of swap")
        .check(values::bytes_or_unlimited),
    Flag::text("memory-swappiness", "int", "How readily memory is swapped out (0 to 100)")
        .check(values::integer),
    Flag::list("mount", "mount", "Attach a file system (type=bind|tmpfs,src=…,dst=…)").check(mount::check),
    Flag::text("name", "string", "Give the container a name"),
    Flag::list("network", "network", "Connect to a network: none, host, …"),
    Flag::list("net", "network", "Connect to a network").hide(),
    Flag::list("network-alias", "list", "Add an alias in the network"),
    Flag::list("net-alias", "list", "Add an alias in the network").hide(),
    Flag::switch("no-healthcheck", "Do without the image's health check"),
    Flag::switch("oom-kill-disable", "Do not kill for lack of memory"),
    Flag::text("oom-score-adj", "int", "Adjust the OOM killer's preference (-1000 to 1000)")
        .check(values::integer),
    Flag::text("pid", "string", "PID namespace: host or container:ID"),
    Flag::text("pids-limit", "int", "Limit of tasks; -1 for none").check(values::integer),
    Flag::text("platform", "string", "Platform of the image (os/arch[/variant])"),
    Flag::switch("privileged", "Give the container all privileges"),
    Flag::list("publish", "list", "Publish a container's port on the host").short('p'),
    Flag::switch("publish-all", "Publish all exposed ports").short('P'),
    Flag::text(
        "pull",
        "string",
        "Pull the image first: \"always\", \"missing\" or \"never\" (default \"missing\")",
    ),
    Flag::switch("quiet", "Do not show a pull's progress").short('q'),
    Flag::switch("read-only", "Mount the container's root read-only"),
    Flag::text("restart", "string", "When to start it again after it ended (default \"no\")"),
    Flag::switch("rm", "Remove the container when it ends"),
    Flag::text("runtime", "string", "OCI runtime to use"),
    Flag::list("security-opt", "list", "Security options (seccomp=FILE, no-new-privileges, …)"),
    Flag::text("shm-size", "bytes", "Size of /dev/shm").check(values::bytes),
    Flag::text("stop-signal", "string", "Signal that stops the program"),
    Flag::text("stop-timeout", "int", "Seconds between that signal and SIGKILL").check(values::integer),
    Flag::list("storage-opt", "list", "Set an option of the storage driver").check(values::pair),
    Flag::list("sysctl", "map", "Set a kernel parameter").check(values::pair),
    Flag::list("tmpfs", "list", "Mount a tmpfs (path[:options])"),
    Flag::switch("tty", "Give the program a pseudo-terminal").short('t'),
    Flag::list("ulimit", "ulimit", "Set a resource limit (name=soft[:hard])").check(ulimit::check),
    Flag::text("user", "string", "User and group (<name|uid>[:<group|gid>])").short('u'),
    Flag::text("userns", "string", "User namespace"),
    Flag::text("uts", "string", "UTS namespace: host or a new one"),
    Flag::list("volume", "list", "Bind mount a path or a volume (src:dst[:options])")
        .short('v')
        .check(volume::check),
    Flag::text("volume-driver", "string", "Volume driver"),
    Flag::list("volumes-from", "list", "Mount the volumes of other containers"),
    Flag::text("workdir", "string", "Working directory inside the container").short('w'),
];

/// What only `run` takes.
pub(crate) const RUN: &[Flag] = &[
    Flag::switch("detach", "Run in the background and print the container's ID").short('d'),
    Flag::text("detach-keys", "string", "Keys that detach (default \"ctrl-p,ctrl-q\")"),
    Flag::switch("sig-proxy", "Pass signals on to the program (default true)"),
    Flag::switch("timings", "Print to STDERR where the time went, step by step"),
];

fn check_device(text: &str) -> Result<(), String> {
    device::parse(text).map(drop)
}
