//! From the flags of `run` and `create` to the document that the API takes.

use std::collections::BTreeMap;

use creel_types::image::Empty;
use creel_wire::container::{Config, CreateRequest, EndpointSettings, NetworkingConfig};
use creel_wire::host::{DeviceMapping, HostConfig, LogConfig, RestartPolicy, ThrottleDevice};
use serde_json::{Value, json};

use crate::flags::{Parsed, device, env, mount, ulimit, values, volume};
use crate::units;

/// What the client must know of its own, besides the request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    /// What the API gets.
    pub request: CreateRequest,
    /// Streams to attach to.
    pub stdin: bool,
    /// Streams to attach to.
    pub stdout: bool,
    /// Streams to attach to.
    pub stderr: bool,
}

/// Reads the flags. `args` are the image, the program and its arguments; files that flags name are read.
///
/// # Errors
/// In words, for flags that contradict each other and files that cannot be read.
pub(crate) fn plan(flags: &Parsed, detach: bool) -> Result<Plan, String> {
    let text = |name: &str| flags.get(name).unwrap_or_default().to_owned();
    let number = |name: &str| flags.number::<i64>(name);
    let (image, command) = match flags.args.split_first() {
        Some((image, command)) => (image.clone(), command.to_vec()),
        None => (String::new(), Vec::new()),
    };
    let open_stdin = flags.on("interactive");
    let attached: Vec<String> = flags.all("attach").iter().map(|s| s.to_ascii_lowercase()).collect();
    let has = |name: &str| attached.iter().any(|stream| stream == name);
    let (stdin, stdout, stderr) = match (detach, attached.is_empty()) {
        (true, _) => (false, false, false),
        (false, true) => (open_stdin, true, true),
        (false, false) => (has("stdin"), has("stdout"), has("stderr")),
    };
    let mut environment = Vec::new();
    let of_caller = |name: &str| std::env::var(name).ok();
    for file in flags.all("env-file") {
        environment.extend(env::read_file(file, of_caller).map_err(|e| e.to_string())?);
    }
    environment.extend(env::resolve(&flags.all("env"), of_caller));
    let mut labels = BTreeMap::new();
    for file in flags.all("label-file") {
        let lines = env::read_file(file, |_| Some(String::new())).map_err(|e| e.to_string())?;
        labels.extend(values::pairs(lines.iter().map(String::as_str)));
    }
    labels.extend(values::pairs(flags.all("label")));
    let mut volumes = BTreeMap::new();
    let mut binds = Vec::new();
    for spec in flags.all("volume") {
        match volume::parse(spec)? {
            volume::Volume::Bind(bind) => binds.push(bind),
            volume::Volume::Anonymous(path) => drop(volumes.insert(path, Empty::default())),
        }
    }
    let (mut exposed, bindings) = ports(&flags.all("publish"))?;
    for port in flags.all("expose") {
        if port.contains(':') {
            return Err(format!("invalid port format for --expose: {port}"));
        }
        let port = if port.contains('/') { port.to_owned() } else { format!("{port}/tcp") };
        exposed.insert(port, Empty::default());
    }
    let config = Config {
        hostname: text("hostname"),
        domainname: text("domainname"),
        user: text("user"),
        attach_stdin: stdin,
        attach_stdout: stdout,
        attach_stderr: stderr,
        exposed_ports: (!exposed.is_empty()).then_some(exposed),
        tty: flags.on("tty"),
        open_stdin,
        stdin_once: open_stdin && stdin,
        env: (!environment.is_empty()).then_some(environment),
        cmd: (!command.is_empty()).then_some(command),
        healthcheck: health(flags)?,
        image,
        volumes: (!volumes.is_empty()).then_some(volumes),
        working_dir: text("workdir"),
        entrypoint: flags.get("entrypoint").map(|program| vec![program.to_owned()]),
        labels: Some(labels),
        stop_signal: flags.some("stop-signal").map(str::to_owned),
        stop_timeout: number("stop-timeout"),
        mac_address: flags.some("mac-address").map(str::to_owned),
        ..Config::default()
    };
    let (host_config, networking_config) = host(flags, binds, bindings)?;
    Ok(Plan { request: CreateRequest { config, host_config, networking_config }, stdin, stdout, stderr })
}

fn host(
    flags: &Parsed,
    binds: Vec<String>,
    port_bindings: BTreeMap<String, Value>,
) -> Result<(HostConfig, Option<NetworkingConfig>), String> {
    let text = |name: &str| flags.get(name).unwrap_or_default().to_owned();
    let number = |name: &str| flags.number::<i64>(name).unwrap_or(0);
    let bytes = |name: &str| -> Result<i64, String> {
        match flags.get(name) {
            None => Ok(0),
            Some("-1") => Ok(-1),
            Some(size) => units::parse_bytes(size).map_err(|e| e.to_string()),
        }
    };
    let pairs = |name: &str| {
        let map = values::pairs(flags.all(name));
        (!map.is_empty()).then_some(map)
    };
    let restart_policy = restart(flags.some("restart").unwrap_or("no"))?;
    let auto_remove = flags.on("rm");
    if auto_remove && restart_policy.name != "no" {
        return Err("conflicting options: cannot specify both --restart and --rm".to_owned());
    }
    let (security_opt, unmasked) = security(&flags.all("security-opt"))?;
    let collect = |name: &str, parse: fn(&str) -> Result<ThrottleDevice, String>| {
        let list = flags.all(name).into_iter().map(parse).collect::<Result<Vec<_>, String>>()?;
        Ok::<_, String>(Some(list))
    };
    // Docker's client sends these lists even when they are empty, and `inspect` shows it.
    let listed = |name: &str| Some(flags.list(name).unwrap_or_default());
    let devices =
        flags.all("device").into_iter().map(device::parse).collect::<Result<Vec<DeviceMapping>, _>>()?;
    let ulimits = flags.all("ulimit").into_iter().map(ulimit::parse).collect::<Result<Vec<_>, _>>()?;
    let mounts = flags.all("mount").into_iter().map(mount::parse).collect::<Result<Vec<_>, _>>()?;
    let tmpfs: BTreeMap<String, String> = flags.all("tmpfs").into_iter().map(volume::tmpfs).collect();
    modes(flags)?;
    let (network_mode, networking) = network(flags)?;
    let swappiness = flags.number::<i64>("memory-swappiness");
    if swappiness.is_some_and(|n| !(-1..=100).contains(&n)) {
        return Err(format!(
            "invalid value: {}. Valid memory swappiness range is 0-100",
            swappiness.unwrap_or(0)
        ));
    }
    let host = HostConfig {
        binds: (!binds.is_empty()).then_some(binds),
        container_id_file: text("cidfile"),
        log_config: LogConfig { kind: text("log-driver"), config: values::pairs(flags.all("log-opt")) },
        network_mode,
        port_bindings,
        restart_policy,
        auto_remove,
        volume_driver: text("volume-driver"),
        volumes_from: flags.list("volumes-from"),
        annotations: pairs("annotation"),
        cap_add: flags.list("cap-add"),
        cap_drop: flags.list("cap-drop"),
        cgroupns_mode: text("cgroupns"),
        dns: listed("dns"),
        dns_options: listed("dns-option"),
        dns_search: listed("dns-search"),
        extra_hosts: flags.list("add-host").map(|hosts| hosts.iter().map(|h| extra_host(h)).collect()),
        group_add: flags.list("group-add"),
        ipc_mode: text("ipc"),
        links: flags.list("link"),
        oom_score_adj: i32::try_from(number("oom-score-adj")).map_err(|e| e.to_string())?,
        pid_mode: text("pid"),
        privileged: flags.on("privileged"),
        publish_all_ports: flags.on("publish-all"),
        readonly_rootfs: flags.on("read-only"),
        security_opt,
        storage_opt: pairs("storage-opt"),
        tmpfs: (!tmpfs.is_empty()).then_some(tmpfs),
        uts_mode: text("uts"),
        userns_mode: text("userns"),
        shm_size: bytes("shm-size")?,
        sysctls: pairs("sysctl"),
        runtime: text("runtime"),
        isolation: text("isolation"),
        cpu_shares: number("cpu-shares"),
        memory: bytes("memory")?,
        nano_cpus: flags.get("cpus").map(values::nano_cpus).transpose()?.unwrap_or(0),
        cgroup_parent: text("cgroup-parent"),
        blkio_weight: u16::try_from(number("blkio-weight")).map_err(|e| e.to_string())?,
        blkio_weight_device: Some(Vec::new()),
        blkio_device_read_bps: collect("device-read-bps", device::parse_bps)?,
        blkio_device_write_bps: collect("device-write-bps", device::parse_bps)?,
        blkio_device_read_iops: collect("device-read-iops", device::parse_iops)?,
        blkio_device_write_iops: collect("device-write-iops", device::parse_iops)?,
        cpu_period: number("cpu-period"),
        cpu_quota: number("cpu-quota"),
        cpu_realtime_period: number("cpu-rt-period"),
        cpu_realtime_runtime: number("cpu-rt-runtime"),
        cpuset_cpus: text("cpuset-cpus"),
        cpuset_mems: text("cpuset-mems"),
        devices: Some(devices),
        device_cgroup_rules: flags.list("device-cgroup-rule"),
        memory_reservation: bytes("memory-reservation")?,
        memory_swap: bytes("memory-swap")?,
        memory_swappiness: swappiness,
        oom_kill_disable: flags.get("oom-kill-disable").map(|_| flags.on("oom-kill-disable")),
        pids_limit: flags.number("pids-limit"),
        ulimits: Some(ulimits),
        mounts: (!mounts.is_empty()).then_some(mounts),
        masked_paths: unmasked.then(Vec::new),
        readonly_paths: unmasked.then(Vec::new),
        init: flags.get("init").map(|_| flags.on("init")),
        ..HostConfig::default()
    };
    Ok((host, networking))
}

/// Refuses what is no mode of a namespace; whose namespace it is, is the daemon's to know.
fn modes(flags: &Parsed) -> Result<(), String> {
    for (flag, known, word) in [
        ("pid", &["host"][..], "PID"),
        ("uts", &["host"], "UTS"),
        ("userns", &["host"], "USER"),
        ("cgroupns", &["host", "private"], "CGROUP"),
    ] {
        let Some(mode) = flags.some(flag) else { continue };
        if !(known.contains(&mode) || flag == "pid" && mode.starts_with("container:")) {
            return Err(format!("--{flag}: invalid {word} mode"));
        }
    }
    Ok(())
}

/// `host:ip` and `host=ip` both become `host:ip`.
fn extra_host(text: &str) -> String {
    match text.split_once(['=', ':']) {
        Some((name, address)) => {
            format!("{name}:{}", address.trim_start_matches('[').trim_end_matches(']'))
        }
        None => text.to_owned(),
    }
}

fn restart(text: &str) -> Result<RestartPolicy, String> {
    let (name, count) = match text.split_once(':') {
        Some((name, count)) => {
            let count = count
                .parse()
                .map_err(|_| "invalid restart policy format: maximum retry count must be an integer")?;
            (name, count)
        }
        None => (text, 0),
    };
    if name.is_empty() {
        return Err("invalid restart policy format: no policy provided before colon".to_owned());
    }
    Ok(RestartPolicy { name: name.to_owned(), maximum_retry_count: count })
}

/// Security options, with seccomp profiles read in; and whether no system path is to be masked.
fn security(options: &[&str]) -> Result<(Option<Vec<String>>, bool), String> {
    let mut list = Vec::new();
    let mut unmasked = false;
    for option in options {
        let (name, value) = option.split_once('=').or_else(|| option.split_once(':')).unwrap_or((option, ""));
        if value.is_empty() && !matches!(name, "no-new-privileges" | "disable") {
            return Err(format!("Invalid --security-opt: {option:?}"));
        }
        match (name, value) {
            ("systempaths", "unconfined") => unmasked = true,
            ("seccomp", "unconfined" | "builtin") => list.push(format!("{name}={value}")),
            ("seccomp", file) => {
                let content = std::fs::read(file).map_err(|e| {
                    format!("opening seccomp profile ({file}) failed: open {file}: {}", crate::os_words(&e))
                })?;
                let profile: Value = serde_json::from_slice(&content)
                    .map_err(|e| format!("compacting json for seccomp profile ({file}) failed: {e}"))?;
                list.push(format!("seccomp={profile}"));
            }
            _ => list.push((*option).to_owned()),
        }
    }
    Ok(((!list.is_empty()).then_some(list), unmasked))
}

fn health(flags: &Parsed) -> Result<Option<Value>, String> {
    let duration =
        |name: &str| flags.get(name).map(values::duration).transpose().map(Option::unwrap_or_default);
    let options =
        ["health-cmd", "health-interval", "health-retries", "health-timeout", "health-start-period"];
    let given =
        options.iter().any(|name| flags.get(name).is_some()) || flags.get("health-start-interval").is_some();
    if flags.on("no-healthcheck") {
        if given {
            return Err("--no-healthcheck conflicts with --health-* options".to_owned());
        }
        return Ok(Some(json!({"Test": ["NONE"]})));
    }
    if !given {
        return Ok(None);
    }
    let mut check = json!({
        "Interval": duration("health-interval")?,
        "Timeout": duration("health-timeout")?,
        "StartPeriod": duration("health-start-period")?,
        "StartInterval": duration("health-start-interval")?,
        "Retries": flags.number::<i64>("health-retries").unwrap_or(0),
    });
    if let Some(command) = flags.some("health-cmd") {
        check["Test"] = json!(["CMD-SHELL", command]);
    }
    Ok(Some(check))
}

type Ports = (BTreeMap<String, Empty>, BTreeMap<String, Value>);

/// `[ip:][host-port:]container-port[/protocol]`.
fn ports(specs: &[&str]) -> Result<Ports, String> {
    let (mut exposed, mut bindings) = (BTreeMap::new(), BTreeMap::<String, Value>::new());
    for spec in specs {
        let wrong =
            |why: &str| format!("invalid publish opts format (should be name=value but got '{spec}'): {why}");
        let (rest, protocol) = spec.rsplit_once('/').unwrap_or((spec, "tcp"));
        let (rest, inside) = match rest.rsplit_once(':') {
            Some((rest, inside)) => (Some(rest), inside),
            None => (None, rest),
        };
        if inside.is_empty() || !inside.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
            return Err(format!("invalid containerPort: {inside}"));
        }
        let (address, outside) = match rest {
            None => ("", ""),
            Some(rest) => match rest.rsplit_once(':') {
                Some((address, port)) => (address.trim_start_matches('[').trim_end_matches(']'), port),
                None => ("", rest),
            },
        };
        if !matches!(protocol, "tcp" | "udp" | "sctp") {
            return Err(wrong("unknown protocol"));
        }
        let port = format!("{inside}/{protocol}");
        exposed.insert(port.clone(), Empty::default());
        let entry = bindings.entry(port).or_insert_with(|| json!([]));
        if let Some(list) = entry.as_array_mut() {
            list.push(json!({"HostIp": address, "HostPort": outside}));
        }
    }
    Ok((exposed, bindings))
}

/// The network mode, and the endpoints' settings if more than a name is given.
fn network(flags: &Parsed) -> Result<(String, Option<NetworkingConfig>), String> {
    let mut given = flags.all("network");
    given.extend(flags.all("net"));
    let mut endpoints = BTreeMap::new();
    let mut mode = None;
    for value in &given {
        let mut name = None;
        let mut endpoint = EndpointSettings::default();
        if value.contains('=') {
            for field in mount::csv(value)? {
                let (key, text) = field.split_once('=').unwrap_or((field.as_str(), ""));
                match key.to_ascii_lowercase().as_str() {
                    "name" => name = Some(text.to_owned()),
                    "alias" => endpoint.aliases.get_or_insert_default().push(text.to_owned()),
                    "mac-address" => endpoint.mac_address = text.to_owned(),
                    "ip" => endpoint.ipam_config = Some(json!({"IPv4Address": text})),
                    "ip6" => endpoint.ipam_config = Some(json!({"IPv6Address": text})),
                    _ => return Err(format!("invalid field {key}")),
                }
            }
        } else {
            name = Some((*value).to_owned());
        }
        let name = name.ok_or("network name is required")?;
        mode.get_or_insert_with(|| name.clone());
        endpoints.insert(name, endpoint);
    }
    let mode = mode.unwrap_or_else(|| "default".to_owned());
    let mut aliases = flags.list("network-alias").unwrap_or_default();
    aliases.extend(flags.list("net-alias").unwrap_or_default());
    let mut ipam = serde_json::Map::new();
    for (flag, field) in [("ip", "IPv4Address"), ("ip6", "IPv6Address")] {
        if let Some(address) = flags.some(flag) {
            ipam.insert(field.to_owned(), json!(address));
        }
    }
    if !aliases.is_empty() || !ipam.is_empty() {
        let endpoint = endpoints.entry(mode.clone()).or_insert_with(EndpointSettings::default);
        if !aliases.is_empty() {
            endpoint.aliases.get_or_insert_default().extend(aliases);
        }
        if !ipam.is_empty() {
            endpoint.ipam_config = Some(ipam.into());
        }
    }
    let plain = endpoints.len() <= 1 && endpoints.values().all(|e| *e == EndpointSettings::default());
    Ok((mode, (!plain).then_some(NetworkingConfig { endpoints_config: Some(endpoints) })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container_flags::{CONTAINER, RUN};
    use crate::flags::{self, Flags};
    use expect_test::{Expect, expect};

    const FLAGS: Flags = &[CONTAINER, RUN];

    /// The request without what is empty, so that a test shows only what its flags did.
    fn check(line: &[&str], expect: Expect) {
        let parsed = flags::parse(FLAGS, false, line.iter().map(|s| (*s).to_owned())).unwrap();
        let detach = parsed.on("detach");
        let text = match plan(&parsed, detach) {
            Err(e) => e,
            Ok(plan) => {
                let mut value = serde_json::to_value(&plan.request).unwrap();
                drop_empty(&mut value);
                serde_json::to_string(&value).unwrap()
            }
        };
        expect.assert_eq(&text);
    }

    fn drop_empty(value: &mut Value) {
        if let Some(map) = value.as_object_mut() {
            map.values_mut().for_each(drop_empty);
            map.retain(|_, v| {
                !matches!(v, Value::Null | Value::Bool(false))
                    && *v != json!("")
                    && *v != json!(0)
                    && *v != json!({})
                    && *v != json!([0, 0])
            });
        }
    }

    #[test]
    fn requests() {
        check(
            &["-it", "--rm", "busybox", "sh", "-c", "echo -n x"],
            expect![[
                r#"{"AttachStderr":true,"AttachStdin":true,"AttachStdout":true,"Cmd":["sh","-c","echo -n x"],"HostConfig":{"AutoRemove":true,"BlkioDeviceReadBps":[],"BlkioDeviceReadIOps":[],"BlkioDeviceWriteBps":[],"BlkioDeviceWriteIOps":[],"BlkioWeightDevice":[],"Devices":[],"Dns":[],"DnsOptions":[],"DnsSearch":[],"NetworkMode":"default","RestartPolicy":{"Name":"no"},"Ulimits":[]},"Image":"busybox","OpenStdin":true,"StdinOnce":true,"Tty":true}"#
            ]],
        );
        check(
            &[
                "-d",
                "--name",
                "x",
                "-e",
                "A=1",
                "-m",
                "512m",
                "--memory-swap",
                "-1",
                "--cpus",
                "1.5",
                "--pids-limit",
                "7",
                "busybox",
            ],
            expect![[
                r#"{"Env":["A=1"],"HostConfig":{"BlkioDeviceReadBps":[],"BlkioDeviceReadIOps":[],"BlkioDeviceWriteBps":[],"BlkioDeviceWriteIOps":[],"BlkioWeightDevice":[],"Devices":[],"Dns":[],"DnsOptions":[],"DnsSearch":[],"Memory":536870912,"MemorySwap":-1,"NanoCpus":1500000000,"NetworkMode":"default","PidsLimit":7,"RestartPolicy":{"Name":"no"},"Ulimits":[]},"Image":"busybox"}"#
            ]],
        );
        check(
            &[
                "-v",
                "/a:/b:ro",
                "-v",
                "/anon",
                "--mount",
                "type=tmpfs,dst=/t",
                "--tmpfs",
                "/run:size=1m",
                "--read-only",
                "x",
            ],
            expect![[
                r#"{"AttachStderr":true,"AttachStdout":true,"HostConfig":{"Binds":["/a:/b:ro"],"BlkioDeviceReadBps":[],"BlkioDeviceReadIOps":[],"BlkioDeviceWriteBps":[],"BlkioDeviceWriteIOps":[],"BlkioWeightDevice":[],"Devices":[],"Dns":[],"DnsOptions":[],"DnsSearch":[],"Mounts":[{"Target":"/t","Type":"tmpfs"}],"NetworkMode":"default","ReadonlyRootfs":true,"RestartPolicy":{"Name":"no"},"Tmpfs":{"/run":"size=1m"},"Ulimits":[]},"Image":"x"}"#
            ]],
        );
        check(
            &[
                "--cap-add",
                "NET_ADMIN",
                "--cap-drop",
                "ALL",
                "--security-opt",
                "no-new-privileges",
                "--security-opt",
                "systempaths=unconfined",
                "--privileged",
                "--init",
                "x",
            ],
            expect![[
                r#"{"AttachStderr":true,"AttachStdout":true,"HostConfig":{"BlkioDeviceReadBps":[],"BlkioDeviceReadIOps":[],"BlkioDeviceWriteBps":[],"BlkioDeviceWriteIOps":[],"BlkioWeightDevice":[],"CapAdd":["NET_ADMIN"],"CapDrop":["ALL"],"Devices":[],"Dns":[],"DnsOptions":[],"DnsSearch":[],"Init":true,"MaskedPaths":[],"NetworkMode":"default","Privileged":true,"ReadonlyPaths":[],"RestartPolicy":{"Name":"no"},"SecurityOpt":["no-new-privileges"],"Ulimits":[]},"Image":"x"}"#
            ]],
        );
        check(
            &[
                "--ulimit",
                "nofile=1:2",
                "--device",
                "/dev/fuse",
                "--shm-size",
                "1g",
                "--network",
                "none",
                "--entrypoint",
                "",
                "--stop-timeout",
                "0",
                "x",
            ],
            expect![[
                r#"{"AttachStderr":true,"AttachStdout":true,"Entrypoint":[""],"HostConfig":{"BlkioDeviceReadBps":[],"BlkioDeviceReadIOps":[],"BlkioDeviceWriteBps":[],"BlkioDeviceWriteIOps":[],"BlkioWeightDevice":[],"Devices":[{"CgroupPermissions":"rwm","PathInContainer":"/dev/fuse","PathOnHost":"/dev/fuse"}],"Dns":[],"DnsOptions":[],"DnsSearch":[],"NetworkMode":"none","RestartPolicy":{"Name":"no"},"ShmSize":1073741824,"Ulimits":[{"Hard":2,"Name":"nofile","Soft":1}]},"Image":"x"}"#
            ]],
        );
        check(
            &[
                "-a",
                "stdout",
                "-i",
                "--health-cmd",
                "true",
                "--health-interval",
                "5s",
                "-p",
                "127.0.0.1:80:8080",
                "--network",
                "name=n,alias=a",
                "x",
            ],
            expect![[
                r#"{"AttachStdout":true,"Healthcheck":{"Interval":5000000000,"Test":["CMD-SHELL","true"]},"HostConfig":{"BlkioDeviceReadBps":[],"BlkioDeviceReadIOps":[],"BlkioDeviceWriteBps":[],"BlkioDeviceWriteIOps":[],"BlkioWeightDevice":[],"Devices":[],"Dns":[],"DnsOptions":[],"DnsSearch":[],"NetworkMode":"n","PortBindings":{"8080/tcp":[{"HostIp":"127.0.0.1","HostPort":"80"}]},"RestartPolicy":{"Name":"no"},"Ulimits":[]},"Image":"x","NetworkingConfig":{"EndpointsConfig":{"n":{"Aliases":["a"]}}},"OpenStdin":true}"#
            ]],
        );
        check(
            &["--rm", "--restart", "always", "x"],
            expect!["conflicting options: cannot specify both --restart and --rm"],
        );
        check(
            &["--security-opt", "seccomp=/none.json", "x"],
            expect![
                "opening seccomp profile (/none.json) failed: open /none.json: no such file or directory"
            ],
        );
        check(&["--security-opt", "apparmor", "x"], expect![[r#"Invalid --security-opt: "apparmor""#]]);
        check(&["--env-file", "/none", "x"], expect!["open /none: no such file or directory"]);
    }
}
