//! Limits: memory, processors, tasks, block I/O, devices, and the old resource limits of setrlimit(2).

use creel_types::spec::{BlockIo, Cpu, Memory, Pids, Resources, Rlimit, ThrottleDevice, WeightDevice};
use creel_wire::host::HostConfig;

use super::Facts;
use super::devices;
use crate::error::{Error, Result};

/// The period of CPU quotas made out of `--cpus`, in microseconds.
const PERIOD: u64 = 100_000;

pub(super) fn rlimits(host: &HostConfig) -> Vec<Rlimit> {
    let limit = |n: i64| u64::try_from(n).unwrap_or(u64::MAX);
    host.ulimits
        .iter()
        .flatten()
        .map(|ulimit| Rlimit {
            kind: format!("RLIMIT_{}", ulimit.name.to_ascii_uppercase()),
            soft: limit(ulimit.soft),
            hard: limit(ulimit.hard),
        })
        .collect()
}

pub(super) fn all(host: &HostConfig, facts: &Facts) -> Result<Resources> {
    let mut rules = if host.privileged { devices::every_device() } else { devices::default_rules() };
    if !host.privileged {
        rules.extend(facts.devices.iter().map(devices::HostDevice::rule));
    }
    for rule in host.device_cgroup_rules.iter().flatten() {
        rules.push(devices::parse_rule(rule)?);
    }
    Ok(Resources {
        devices: rules,
        memory: memory(host),
        cpu: cpu(host),
        // Docker's 0 is no limit, the specification's is one.
        pids: host.pids_limit.map(|limit| Pids { limit: Some(if limit == 0 { -1 } else { limit }) }),
        block_io: block_io(host, facts)?,
        ..Resources::default()
    })
}

fn not_zero(n: i64) -> Option<i64> {
    Some(n).filter(|n| *n != 0)
}

fn memory(host: &HostConfig) -> Option<Memory> {
    let memory = Memory {
        limit: not_zero(host.memory),
        reservation: not_zero(host.memory_reservation),
        swap: not_zero(host.memory_swap),
        swappiness: host.memory_swappiness.and_then(|n| u64::try_from(n).ok()),
        disable_oom_killer: host.oom_kill_disable.filter(|off| *off),
        ..Memory::default()
    };
    Some(memory).filter(|memory| *memory != Memory::default())
}

fn cpu(host: &HostConfig) -> Option<Cpu> {
    let natural = |n: i64| u64::try_from(n).ok().filter(|n| *n > 0);
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let mut cpu = Cpu {
        shares: natural(host.cpu_shares),
        quota: not_zero(host.cpu_quota),
        period: natural(host.cpu_period),
        realtime_runtime: not_zero(host.cpu_realtime_runtime),
        realtime_period: natural(host.cpu_realtime_period),
        cpus: text(&host.cpuset_cpus),
        mems: text(&host.cpuset_mems),
        ..Cpu::default()
    };
    if host.nano_cpus > 0 {
        cpu.period = Some(PERIOD);
        cpu.quota = Some(host.nano_cpus.saturating_mul(PERIOD as i64) / 1_000_000_000);
    }
    Some(cpu).filter(|cpu| *cpu != Cpu::default())
}

fn block_io(host: &HostConfig, facts: &Facts) -> Result<Option<BlockIo>> {
    let numbers = |path: &str| {
        let found = facts.block_devices.iter().find(|(known, _)| known == path);
        found
            .map(|(_, numbers)| *numbers)
            .ok_or_else(|| Error::invalid(format!("{path} is not a block device")))
    };
    let throttle = |list: &Option<Vec<creel_wire::host::ThrottleDevice>>| -> Result<Vec<ThrottleDevice>> {
        list.iter()
            .flatten()
            .map(|device| {
                let (major, minor) = numbers(&device.path)?;
                Ok(ThrottleDevice { major, minor, rate: device.rate })
            })
            .collect()
    };
    let mut weights = Vec::new();
    for (path, weight) in weight_devices(host)? {
        let (major, minor) = numbers(&path)?;
        weights.push(WeightDevice { major, minor, weight: Some(weight), leaf_weight: None });
    }
    let block_io = BlockIo {
        weight: Some(host.blkio_weight).filter(|weight| *weight != 0),
        weight_device: weights,
        throttle_read_bps_device: throttle(&host.blkio_device_read_bps)?,
        throttle_write_bps_device: throttle(&host.blkio_device_write_bps)?,
        throttle_read_iops_device: throttle(&host.blkio_device_read_iops)?,
        throttle_write_iops_device: throttle(&host.blkio_device_write_iops)?,
        ..BlockIo::default()
    };
    Ok(Some(block_io).filter(|block_io| *block_io != BlockIo::default()))
}

/// `--blkio-weight-device`: paths and weights.
fn weight_devices(host: &HostConfig) -> Result<Vec<(String, u16)>> {
    host.blkio_weight_device
        .iter()
        .flatten()
        .map(|value| {
            let path = value.get("Path").and_then(|path| path.as_str());
            let weight = value.get("Weight").and_then(serde_json::Value::as_u64);
            match (path, weight.and_then(|n| u16::try_from(n).ok()).filter(|n| (10..=1000).contains(n))) {
                (Some(path), Some(weight)) => Ok((path.to_owned(), weight)),
                _ => Err(Error::invalid(format!("invalid block I/O weight of a device: {value}"))),
            }
        })
        .collect()
}

/// The paths of all block devices that limits name.
pub(crate) fn block_device_paths(host: &HostConfig) -> Result<Vec<String>> {
    let throttles = [
        &host.blkio_device_read_bps,
        &host.blkio_device_write_bps,
        &host.blkio_device_read_iops,
        &host.blkio_device_write_iops,
    ];
    let mut paths: Vec<String> =
        throttles.into_iter().flatten().flatten().map(|device| device.path.clone()).collect();
    paths.extend(weight_devices(host)?.into_iter().map(|(path, _)| path));
    Ok(paths)
}
