//! The host's part of a create: checked, refused by name where it cannot be honoured, completed by Docker's defaults.
//! Pure.

use std::collections::BTreeMap;

use creel_wire::container::{Config, NetworkingConfig};
use creel_wire::host::HostConfig;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::spec::{capabilities, security};

/// /dev/shm without `--shm-size`, in bytes.
pub(crate) const SHM_SIZE: i64 = 64 << 20;
/// The smallest memory limit, in bytes, below which nothing starts.
const MEMORY_MIN: i64 = 6 << 20;

/// What the machine has, as far as wishes are checked against it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Machine {
    /// Processors.
    pub(crate) cpus: i64,
    /// Whether the OOM killer of a group can be turned off (cgroup v1).
    pub(crate) oom_switch: bool,
    /// Processors that a control group can have, as the kernel lists them; empty if that is not known.
    pub(crate) cpu_list: String,
    /// Memory nodes, likewise.
    pub(crate) node_list: String,
    /// Whether weights of block I/O are possible.
    pub(crate) blkio_weight: bool,
}

fn refuse<T>(what: impl std::fmt::Display, why: &str) -> Result<T> {
    Err(Error::unsupported(format!("{what}: {why}")))
}

fn empty_value(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.iter().all(empty_value),
        Value::Object(map) => map.values().all(empty_value),
    }
}

/// Checks the whole of a request but its mounts; returns what the user should be warned of. What is discarded with a
/// warning is taken out of `host`.
pub(crate) fn check(
    config: &Config,
    host: &mut HostConfig,
    networking: Option<&NetworkingConfig>,
    machine: &Machine,
) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    if host.blkio_weight != 0 && !machine.blkio_weight {
        warnings.push(
            "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."
                .to_owned(),
        );
        host.blkio_weight = 0;
    }
    let host = &*host;
    refusals(config, host, networking)?;
    modes(host)?;
    shared_network(config, host)?;
    resources(host, machine)?;
    let _ = security::parse(host.security_opt.as_deref().unwrap_or_default())?;
    capabilities::check(host.cap_add.as_deref().unwrap_or_default(), "CapAdd")?;
    capabilities::check(host.cap_drop.as_deref().unwrap_or_default(), "CapDrop")?;
    logging(host)?;
    if let Some(signal) = config.stop_signal.as_deref().filter(|text| !text.is_empty())
        && creel_sys::signal::parse(signal).is_none()
    {
        return Err(Error::invalid(format!("invalid signal: {signal}")));
    }
    for entry in config.env.iter().flatten() {
        if entry.is_empty() || entry.starts_with('=') || entry.contains('\0') {
            return Err(Error::invalid(format!("invalid environment variable: {entry}")));
        }
    }
    for host in host.extra_hosts.iter().flatten() {
        if host.split_once(':').is_none_or(|(name, address)| name.is_empty() || address.is_empty()) {
            return Err(Error::invalid(format!("bad format for add-host: \"{host}\"")));
        }
    }
    let probe = config.healthcheck.as_ref().and_then(|check| check.get("Test")).and_then(|test| test.get(0));
    if probe.and_then(Value::as_str).is_some_and(|first| !matches!(first, "NONE" | "")) {
        warnings.push("the health check is kept with the container and not run yet: health checks are not in this version of creel yet".to_owned());
    }
    if host.oom_kill_disable == Some(true) && host.memory == 0 {
        warnings.push("OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.".to_owned());
    }
    Ok(warnings)
}

/// Wishes that cannot be honoured, whatever they say.
fn refusals(config: &Config, host: &HostConfig, networking: Option<&NetworkingConfig>) -> Result<()> {
    const NETWORKS: &str = "networks are not in this version of creel yet; there are `--network none` (the default for now) and `--network host`";
    if !host.port_bindings.is_empty() || host.publish_all_ports {
        return refuse("publishing ports", NETWORKS);
    }
    if host.links.iter().flatten().next().is_some() {
        return refuse("links", NETWORKS);
    }
    if config.mac_address.as_deref().is_some_and(|text| !text.is_empty()) {
        return refuse("a MAC address", NETWORKS);
    }
    for (name, endpoint) in networking.and_then(|n| n.endpoints_config.as_ref()).into_iter().flatten() {
        let plain = serde_json::to_value(endpoint).is_ok_and(|value| empty_value(&value));
        if !matches!(name.as_str(), "default" | "none" | "host") || !plain {
            return refuse(format_args!("the network \"{name}\""), NETWORKS);
        }
    }
    if !matches!(host.restart_policy.name.as_str(), "" | "no") {
        return refuse(
            format_args!("the restart policy \"{}\"", host.restart_policy.name),
            "restart policies are not in this version of creel yet; only `no` is there",
        );
    }
    if !matches!(host.runtime.as_str(), "" | "creel") {
        return Err(Error::invalid(format!("unknown or invalid runtime name: {}", host.runtime)));
    }
    if !matches!(host.isolation.as_str(), "" | "default") {
        return Err(Error::invalid(format!(
            "invalid isolation ({}): linux only supports 'default'",
            host.isolation
        )));
    }
    if !matches!(host.userns_mode.as_str(), "" | "host") {
        return refuse(
            format_args!("the user namespace mode \"{}\"", host.userns_mode),
            "user namespaces are not in this version of creel yet",
        );
    }
    let absent: [(&str, bool, &str); 8] = [
        ("Cgroup", host.cgroup.is_empty(), "a container's cgroup cannot be shared"),
        (
            "StorageOpt",
            host.storage_opt.as_ref().is_none_or(BTreeMap::is_empty),
            "the overlay storage has no options",
        ),
        (
            "DeviceRequests",
            host.device_requests.iter().flatten().next().is_none(),
            "there are no device drivers (--gpus)",
        ),
        ("KernelMemory", host.kernel_memory.unwrap_or(0) <= 0, "the kernel has retired this limit"),
        ("KernelMemoryTCP", host.kernel_memory_tcp.unwrap_or(0) <= 0, "the kernel has retired this limit"),
        ("CpuCount", host.cpu_count == 0, "it exists on Windows only"),
        ("CpuPercent", host.cpu_percent == 0, "it exists on Windows only"),
        (
            "IOMaximumIOps/IOMaximumBandwidth",
            host.io_maximum_iops == 0 && host.io_maximum_bandwidth == 0,
            "it exists on Windows only",
        ),
    ];
    for (name, fine, why) in absent {
        if !fine {
            return refuse(format_args!("HostConfig.{name}"), why);
        }
    }
    for (name, value) in &host.unknown {
        if !empty_value(value) {
            return refuse(format_args!("HostConfig.{name}"), "creel does not know this field");
        }
    }
    Ok(())
}

fn modes(host: &HostConfig) -> Result<()> {
    let shared = |mode: &str| mode.strip_prefix("container:").is_some_and(|id| !id.is_empty());
    let network = host.network_mode.as_str();
    if network == "container:" {
        return Err(Error::invalid("invalid network mode: invalid container format container:<name|id>"));
    }
    if !matches!(network, "" | "default" | "none" | "host") && !shared(network) {
        return refuse(
            format_args!("the network mode \"{network}\""),
            "bridge and other networks are not in this version of creel yet; use `--network none` (the default for now) or `--network host`",
        );
    }
    if !matches!(host.pid_mode.as_str(), "" | "host") && !shared(&host.pid_mode) {
        return Err(Error::invalid(format!("invalid PID mode: {}", host.pid_mode)));
    }
    if !matches!(host.ipc_mode.as_str(), "" | "private" | "shareable" | "none" | "host")
        && !shared(&host.ipc_mode)
    {
        return Err(Error::invalid(format!("invalid IPC mode: {}", host.ipc_mode)));
    }
    if host.ipc_mode == "shareable" || host.ipc_mode.starts_with("container:") {
        return refuse(
            format_args!("the IPC mode \"{}\"", host.ipc_mode),
            "/dev/shm of one container cannot be shown in another yet; there are `private`, `host` and `none`",
        );
    }
    if !matches!(host.uts_mode.as_str(), "" | "host") {
        return Err(Error::invalid(format!("invalid UTS mode: {}", host.uts_mode)));
    }
    if !matches!(host.cgroupns_mode.as_str(), "" | "private" | "host") {
        return Err(Error::invalid(format!("invalid cgroup namespace mode: {}", host.cgroupns_mode)));
    }
    if host.cgroup_parent.split('/').any(|part| part == "..") {
        return Err(Error::invalid(format!("invalid cgroup parent: {}", host.cgroup_parent)));
    }
    for name in host.sysctls.iter().flatten().map(|(name, _)| name.as_str()) {
        let ipc = matches!(
            name,
            "kernel.msgmax"
                | "kernel.msgmnb"
                | "kernel.msgmni"
                | "kernel.sem"
                | "kernel.shmall"
                | "kernel.shmmax"
                | "kernel.shmmni"
                | "kernel.shm_rmid_forced"
        ) || name.starts_with("fs.mqueue.");
        let net = name.starts_with("net.");
        if !(ipc || net || matches!(name, "kernel.domainname" | "kernel.hostname")) {
            return Err(Error::invalid(format!(
                "sysctl '{name}' is not allowed: it is not of a namespace of the container's"
            )));
        }
        if net && network == "host" {
            return Err(Error::invalid(format!("sysctl '{name}' is not allowed with the host's network")));
        }
        if ipc && host.ipc_mode == "host" {
            return Err(Error::invalid(format!(
                "sysctl '{name}' is not allowed with the host's IPC namespace"
            )));
        }
    }
    Ok(())
}

fn resources(host: &HostConfig, machine: &Machine) -> Result<()> {
    let wrong = |text: &str| Err(Error::invalid(text));
    if host.memory != 0 && host.memory < MEMORY_MIN {
        return wrong("Minimum memory limit allowed is 6MB");
    }
    if host.memory > 0 && host.memory_swap > 0 && host.memory_swap < host.memory {
        return wrong("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if host.memory == 0 && host.memory_swap > 0 {
        return wrong("You should always set the Memory limit when using Memoryswap limit, see usage");
    }
    if host.memory_swap < -1 {
        return wrong("invalid memory swap limit: a size in bytes, or -1 for no limit, is wanted");
    }
    if let Some(n) = host.memory_swappiness.filter(|n| !(-1..=100).contains(n)) {
        return Err(Error::invalid(format!("Invalid value: {n}, valid memory swappiness range is 0-100")));
    }
    if host.memory_reservation != 0 && host.memory_reservation < MEMORY_MIN {
        return wrong("Minimum memory reservation allowed is 6MB");
    }
    if host.memory > 0 && host.memory_reservation > host.memory {
        return wrong("Minimum memory limit can not be less than memory reservation limit, see usage");
    }
    if host.nano_cpus != 0 && host.cpu_period != 0 {
        return wrong("Conflicting options: Nano CPUs and CPU Period cannot both be set");
    }
    if host.nano_cpus != 0 && host.cpu_quota != 0 {
        return wrong("Conflicting options: Nano CPUs and CPU Quota cannot both be set");
    }
    if host.nano_cpus < 0 || host.nano_cpus > machine.cpus.saturating_mul(1_000_000_000) {
        return Err(Error::invalid(format!(
            "range of CPUs is from 0.01 to {0}.00, as there are only {0} CPUs available",
            machine.cpus
        )));
    }
    if host.cpu_period != 0 && !(1000..=1_000_000).contains(&host.cpu_period) {
        return wrong("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)");
    }
    if host.cpu_quota > 0 && host.cpu_quota < 1000 {
        return wrong("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    if host.cpu_shares < 0 {
        return Err(Error::invalid(format!(
            "invalid CPU shares ({}): value must be a positive integer",
            host.cpu_shares
        )));
    }
    if host.blkio_weight != 0 && !(10..=1000).contains(&host.blkio_weight) {
        return wrong("Range of blkio weight is from 10 to 1000");
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return Err(Error::invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    if host.shm_size < 0 {
        return wrong("SHM size can not be less than 0");
    }
    for (list, available, what, name) in [
        (&host.cpuset_cpus, &machine.cpu_list, "CPUs", "cpus"),
        (&host.cpuset_mems, &machine.node_list, "memory nodes", "mems"),
    ] {
        let wanted = ranges(list).ok_or_else(|| {
            Error::invalid(format!("Invalid value {list} for cpuset {name}: invalid format: {list}"))
        })?;
        let there = ranges(available).unwrap_or_default();
        let has = |n: u32| there.iter().any(|(first, last)| (*first..=*last).contains(&n));
        if !there.is_empty() && wanted.iter().any(|(first, last)| (*first..=*last).any(|n| !has(n))) {
            return Err(Error::invalid(format!(
                "Requested {what} are not available - requested {list}, available: {available}"
            )));
        }
    }
    for limit in host.ulimits.iter().flatten() {
        if !creel_wire::host::ULIMITS.contains(&limit.name.as_str()) {
            return Err(Error::invalid(format!("invalid ulimit type: {}", limit.name)));
        }
        if limit.hard != -1 && (limit.soft == -1 || limit.soft > limit.hard) {
            return Err(Error::invalid(format!(
                "ulimit {}: soft limit must be less than or equal to hard limit: {} > {}",
                limit.name, limit.soft, limit.hard
            )));
        }
    }
    for rule in host.device_cgroup_rules.iter().flatten() {
        crate::spec::devices::parse_rule(rule)?;
    }
    Ok(())
}

/// A kernel list like `0-2,4` as first and last numbers; an empty one is empty.
fn ranges(text: &str) -> Option<Vec<(u32, u32)>> {
    let number = |n: &str| {
        let digits = !n.is_empty() && n.len() <= 6 && n.bytes().all(|b| b.is_ascii_digit());
        n.parse::<u32>().ok().filter(|_| digits)
    };
    if text.is_empty() {
        return Some(Vec::new());
    }
    text.split(',')
        .map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some((first, last))
        })
        .collect()
}

/// What cannot be said of a network that is another container's.
fn shared_network(config: &Config, host: &HostConfig) -> Result<()> {
    if !host.network_mode.starts_with("container:") {
        return Ok(());
    }
    let given = |list: &Option<Vec<String>>| list.iter().flatten().next().is_some();
    let conflicts = [
        (!config.hostname.is_empty(), "hostname"),
        (given(&host.dns), "dns"),
        (given(&host.extra_hosts), "custom host-to-IP mapping"),
    ];
    match conflicts.into_iter().find(|(there, _)| *there) {
        Some((_, what)) => Err(Error::invalid(format!("conflicting options: {what} and the network mode"))),
        None => Ok(()),
    }
}

fn logging(host: &HostConfig) -> Result<()> {
    let log = &host.log_config;
    match log.kind.as_str() {
        "" | "json-file" => {
            log_limits(host)?;
        }
        "none" => {
            if let Some(option) = log.config.keys().next() {
                return Err(Error::invalid(format!("unknown log opt '{option}' for none log driver")));
            }
        }
        other => {
            return refuse(format_args!("the log driver \"{other}\""), "only json-file and none are there");
        }
    }
    Ok(())
}

/// Size at which a json-file log is rotated, and how many files are kept.
pub(crate) fn log_limits(host: &HostConfig) -> Result<(Option<u64>, Option<u32>)> {
    let (mut size, mut files) = (None, None);
    for (name, value) in &host.log_config.config {
        match name.as_str() {
            "max-size" if value == "-1" => {}
            "max-size" => {
                let bytes = parse_size(value).filter(|n| *n > 0);
                size =
                    Some(bytes.ok_or_else(|| {
                        Error::invalid(format!("invalid value for log opt max-size: {value}"))
                    })?);
            }
            "max-file" => {
                let count = value.parse::<u32>().ok().filter(|n| *n > 0);
                files =
                    Some(count.ok_or_else(|| {
                        Error::invalid(format!("invalid value for log opt max-file: {value}"))
                    })?);
            }
            other => {
                return Err(Error::invalid(format!(
                    "unknown log opt '{other}' for json-file log driver (max-size and max-file are there)"
                )));
            }
        }
    }
    if size.is_none() && files.is_some_and(|n| n > 1) {
        return Err(Error::invalid("log opt max-file needs max-size: without a size nothing is rotated"));
    }
    Ok((size, files))
}

/// A size like `10m`, in bytes (powers of 1024).
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let digits = lower.trim_end_matches(['k', 'm', 'g', 't']);
    let shift = match &lower[digits.len()..] {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Writes Docker's defaults into what was left open, so that `inspect` shows what holds.
pub(crate) fn complete(host: &mut HostConfig, machine: &Machine) {
    let default = |text: &mut String, value: &str| {
        if text.is_empty() {
            *text = value.to_owned();
        }
    };
    if host.network_mode == "default" {
        host.network_mode.clear();
    }
    default(&mut host.network_mode, "none");
    default(&mut host.ipc_mode, "private");
    default(&mut host.cgroupns_mode, "private");
    default(&mut host.restart_policy.name, "no");
    default(&mut host.log_config.kind, "json-file");
    default(&mut host.runtime, "creel");
    if host.shm_size == 0 {
        host.shm_size = SHM_SIZE;
    }
    if host.memory > 0 && host.memory_swap == 0 {
        host.memory_swap = host.memory.saturating_mul(2);
    }
    // cgroup v2 has no such switch.
    host.oom_kill_disable = machine.oom_switch.then_some(host.oom_kill_disable.unwrap_or(false));
    if host.memory_swappiness == Some(-1) {
        host.memory_swappiness = None;
    }
    if host.pids_limit.is_some_and(|n| n <= 0) {
        host.pids_limit = None;
    }
    if host.masked_paths.is_none() {
        host.masked_paths = Some(if host.privileged { Vec::new() } else { security::masked_paths() });
    }
    if host.readonly_paths.is_none() {
        host.readonly_paths = Some(if host.privileged { Vec::new() } else { security::readonly_paths() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn machine() -> Machine {
        Machine {
            cpus: 2,
            oom_switch: true,
            cpu_list: "0-1".into(),
            node_list: "0".into(),
            blkio_weight: false,
        }
    }

    fn refused(json: &str) -> String {
        let mut host: HostConfig = serde_json::from_str(json).unwrap();
        match check(&Config::default(), &mut host, None, &machine()) {
            Ok(_) => "accepted".to_owned(),
            Err(e) => format!("{}: {e}", e.kind()),
        }
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        let all = [
            r#"{"NetworkMode":"bridge"}"#,
            r#"{"NetworkMode":"mine"}"#,
            r#"{"PortBindings":{"80/tcp":[{"HostPort":"80"}]}}"#,
            r#"{"RestartPolicy":{"Name":"always"}}"#,
            r#"{"Links":["a:b"]}"#,
            r#"{"Runtime":"runc"}"#,
            r#"{"LogConfig":{"Type":"syslog"}}"#,
            r#"{"LogConfig":{"Type":"json-file","Config":{"tag":"x"}}}"#,
            r#"{"UsernsMode":"keep-id"}"#,
            r#"{"Surprise":1}"#,
            r#"{"Surprise":0}"#,
            r#"{"DeviceRequests":[{"Driver":"nvidia"}]}"#,
            r#"{"Memory":1000}"#,
            r#"{"NanoCpus":3000000000}"#,
            r#"{"CpusetCpus":"2-1"}"#,
            r#"{"CpusetCpus":"0-1"}"#,
            r#"{"CpusetCpus":"900"}"#,
            r#"{"CpusetMems":"0,3"}"#,
            r#"{"CapAdd":["NOPE"]}"#,
            r#"{"SecurityOpt":["apparmor=docker-default"]}"#,
            r#"{"Sysctls":{"vm.swappiness":"1"}}"#,
            r#"{"Ulimits":[{"Name":"nofile","Soft":5,"Hard":4}]}"#,
            r#"{"PidMode":"weird"}"#,
            r#"{"IpcMode":"shareable"}"#,
        ]
        .map(refused)
        .join("\n");
        expect![[r#"
            unsupported: the network mode "bridge": bridge and other networks are not in this version of creel yet; use `--network none` (the default for now) or `--network host`
            unsupported: the network mode "mine": bridge and other networks are not in this version of creel yet; use `--network none` (the default for now) or `--network host`
            unsupported: publishing ports: networks are not in this version of creel yet; there are `--network none` (the default for now) and `--network host`
            unsupported: the restart policy "always": restart policies are not in this version of creel yet; only `no` is there
            unsupported: links: networks are not in this version of creel yet; there are `--network none` (the default for now) and `--network host`
            invalid argument: unknown or invalid runtime name: runc
            unsupported: the log driver "syslog": only json-file and none are there
            invalid argument: unknown log opt 'tag' for json-file log driver (max-size and max-file are there)
            unsupported: the user namespace mode "keep-id": user namespaces are not in this version of creel yet
            unsupported: HostConfig.Surprise: creel does not know this field
            accepted
            unsupported: HostConfig.DeviceRequests: there are no device drivers (--gpus)
            invalid argument: Minimum memory limit allowed is 6MB
            invalid argument: range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available
            invalid argument: Invalid value 2-1 for cpuset cpus: invalid format: 2-1
            accepted
            invalid argument: Requested CPUs are not available - requested 900, available: 0-1
            invalid argument: Requested memory nodes are not available - requested 0,3, available: 0
            invalid argument: invalid CapAdd: unknown capability: "CAP_NOPE"
            unsupported: security-opt apparmor=docker-default: AppArmor profiles are not in this version of creel yet; only `apparmor=unconfined` is there
            invalid argument: sysctl 'vm.swappiness' is not allowed: it is not of a namespace of the container's
            invalid argument: ulimit nofile: soft limit must be less than or equal to hard limit: 5 > 4
            invalid argument: invalid PID mode: weird
            unsupported: the IPC mode "shareable": /dev/shm of one container cannot be shown in another yet; there are `private`, `host` and `none`"#]]
        .assert_eq(&all);
    }

    #[test]
    fn defaults_are_written_down() {
        let mut host =
            HostConfig { memory: 8 << 20, network_mode: "default".into(), ..HostConfig::default() };
        complete(&mut host, &machine());
        assert_eq!((host.memory_swap, host.shm_size), (16 << 20, SHM_SIZE));
        assert_eq!((host.network_mode.as_str(), host.cgroupns_mode.as_str()), ("none", "private"));
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("10m"), Some(10 << 20));
        assert_eq!(parse_size("1KB"), Some(1 << 10));
        assert_eq!(parse_size("x"), None);
        assert_eq!(parse_size("99999999999999999999t"), None);
    }
}
