//! Stats: one reading of a container's cgroup, in Docker's form.

use std::collections::BTreeMap;
use std::sync::Arc;

use creel_wire::stats::{
    BlkioEntry, BlkioStats, CpuStats, CpuUsage, MemoryStats, NetworkStats, PidsStats, Stats, ThrottlingData,
};
use jiff::Timestamp;

use super::create::online_cpus;
use crate::core::{Core, blocking};
use crate::error::{Error, Result};
use crate::times;

/// Nanoseconds in a clock tick of /proc/stat.
const TICK: u64 = 10_000_000;

/// Takes one reading. A container that does not run has one without figures, as with Docker.
pub(crate) async fn stats(core: &Arc<Core>, id: &str) -> Result<Stats> {
    let container = core.containers.find(id)?;
    let base = Stats {
        name: format!("/{}", container.name()),
        id: container.id.to_string(),
        read: Timestamp::now().to_string(),
        preread: times::NEVER.to_owned(),
        ..Stats::default()
    };
    let Some(running) = container.running() else {
        return Ok(Stats { read: times::NEVER.to_owned(), ..base });
    };
    let cgroup =
        running.cgroup.ok_or_else(|| Error::unsupported("the container's cgroup cannot be reached"))?;
    let pid = running.pid;
    blocking(move || {
        let read = cgroup.stats().map_err(|e| Error::of(&e))?;
        Ok(Stats { networks: networks(pid), ..convert(base, read) })
    })
    .await
}

fn convert(base: Stats, read: creel_cgroup::Stats) -> Stats {
    let cpu = read.cpu.unwrap_or_default();
    let memory = read.memory.map(|memory| MemoryStats {
        usage: Some(memory.usage),
        max_usage: memory.max_usage,
        limit: Some(memory.limit.unwrap_or_else(host_memory)),
        failcnt: Some(memory.failcnt),
        stats: memory.stat,
    });
    let mut blkio =
        BlkioStats { io_service_bytes_recursive: Some(Vec::new()), io_serviced_recursive: Some(Vec::new()) };
    for device in read.io {
        let entry = |op: &str, value| BlkioEntry {
            major: u64::from(device.major),
            minor: u64::from(device.minor),
            op: op.to_owned(),
            value,
        };
        let bytes = [entry("read", device.read_bytes), entry("write", device.write_bytes)];
        let operations = [entry("read", device.reads), entry("write", device.writes)];
        blkio.io_service_bytes_recursive.get_or_insert_default().extend(bytes);
        blkio.io_serviced_recursive.get_or_insert_default().extend(operations);
    }
    Stats {
        pids_stats: read.pids.map_or_else(PidsStats::default, |pids| PidsStats {
            current: Some(pids.current),
            limit: pids.limit,
        }),
        blkio_stats: blkio,
        cpu_stats: CpuStats {
            cpu_usage: CpuUsage {
                total_usage: cpu.usage_ns,
                percpu_usage: Some(cpu.per_cpu_ns).filter(|list| !list.is_empty()),
                usage_in_kernelmode: cpu.system_ns,
                usage_in_usermode: cpu.user_ns,
            },
            system_cpu_usage: host_cpu(),
            online_cpus: online_cpus().and_then(|n| u32::try_from(n).ok()),
            throttling_data: ThrottlingData {
                periods: cpu.periods,
                throttled_periods: cpu.throttled_periods,
                throttled_time: cpu.throttled_ns,
            },
        },
        memory_stats: memory.unwrap_or_default(),
        ..base
    }
}

/// Processor time of the whole host in nanoseconds.
fn host_cpu() -> Option<u64> {
    parse_host_cpu(&std::fs::read_to_string("/proc/stat").ok()?)
}

/// The first eight numbers of the first line (proc_stat(5)); the rest is counted in them.
fn parse_host_cpu(text: &str) -> Option<u64> {
    let fields = text.lines().next()?.strip_prefix("cpu ")?.split_whitespace().take(7);
    let ticks = fields.map(|field| field.parse::<u64>().ok()).sum::<Option<u64>>()?;
    ticks.checked_mul(TICK)
}

/// The host's memory in bytes.
pub(crate) fn host_memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram as u64 * u64::from(info.mem_unit.max(1))
}

/// Traffic in the network namespace of a process, its loopback left out.
fn networks(pid: i32) -> BTreeMap<String, NetworkStats> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    parse_networks(&text)
}

fn parse_networks(text: &str) -> BTreeMap<String, NetworkStats> {
    let lines = text.lines().skip(2).filter_map(|line| {
        let (name, rest) = line.split_once(':')?;
        let n: Vec<u64> = rest.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
        let name = name.trim();
        (n.len() >= 12 && name != "lo").then(|| {
            let stats = NetworkStats {
                rx_bytes: n[0],
                rx_packets: n[1],
                rx_errors: n[2],
                rx_dropped: n[3],
                tx_bytes: n[8],
                tx_packets: n[9],
                tx_errors: n[10],
                tx_dropped: n[11],
            };
            (name.to_owned(), stats)
        })
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_figures_are_read() {
        assert_eq!(parse_host_cpu("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1\n"), Some(28 * TICK));
        assert_eq!(parse_host_cpu(""), None);
        assert!(host_memory() > 1 << 20);
        let text = "Inter-|\n face |\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 5 6 7 8 0 0 0 0 9 10 11 12 0 0 0 0\n";
        let networks = parse_networks(text);
        assert_eq!(networks.len(), 1);
        assert_eq!((networks["eth0"].rx_bytes, networks["eth0"].tx_dropped), (5, 12));
    }
}
