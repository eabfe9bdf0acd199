//! Statistics in the JSON of `runc events --stats`, which callers of OCI runtimes read (containerd's and podman's
//! shims among them). Its members and the zeros that it leaves out are runc's; there is no specification of it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::stats::{self, Pressure, Stats};

/// What stands under `data` of a `stats` event, but for the network's interfaces, which are no control group's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RuncStats {
    cpu: Cpu,
    cpuset: Cpuset,
    memory: Memory,
    pids: Pids,
    blkio: Blkio,
    hugetlb: BTreeMap<String, Hugetlb>,
    intel_rdt: Nothing,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Nothing {}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Cpu {
    usage: CpuUsage,
    throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct CpuUsage {
    #[serde(skip_serializing_if = "zero")]
    total: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu_user: Vec<u64>,
    kernel: u64,
    user: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Throttling {
    #[serde(skip_serializing_if = "zero")]
    periods: u64,
    #[serde(skip_serializing_if = "zero")]
    throttled_periods: u64,
    #[serde(skip_serializing_if = "zero")]
    throttled_time: u64,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
struct Cpuset {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cpus: Vec<u16>,
    cpu_exclusive: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mems: Vec<u16>,
    mem_hardwall: i64,
    mem_exclusive: i64,
    memory_migrate: i64,
    memory_spread_page: i64,
    memory_spread_slab: i64,
    memory_pressure: i64,
    sched_load_balance: i64,
    sched_relax_domain_level: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Memory {
    #[serde(skip_serializing_if = "zero")]
    cache: u64,
    usage: MemoryEntry,
    swap: MemoryEntry,
    kernel: MemoryEntry,
    #[serde(rename = "kernelTCP")]
    kernel_tcp: MemoryEntry,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
struct MemoryEntry {
    limit: u64,
    #[serde(skip_serializing_if = "zero")]
    usage: u64,
    #[serde(skip_serializing_if = "zero")]
    max: u64,
    failcnt: u64,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
struct Pids {
    #[serde(skip_serializing_if = "zero")]
    current: u64,
    #[serde(skip_serializing_if = "zero")]
    limit: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Blkio {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_bytes_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_serviced_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_queue_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_wait_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_merged_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sectors_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct BlkioEntry {
    #[serde(skip_serializing_if = "zero32")]
    major: u32,
    #[serde(skip_serializing_if = "zero32")]
    minor: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    op: String,
    #[serde(skip_serializing_if = "zero")]
    value: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Hugetlb {
    #[serde(skip_serializing_if = "zero")]
    usage: u64,
    #[serde(skip_serializing_if = "zero")]
    max: u64,
    failcnt: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Psi {
    some: PsiLine,
    full: PsiLine,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct PsiLine {
    avg10: f64,
    avg60: f64,
    avg300: f64,
    total: u64,
}

fn zero(n: &u64) -> bool {
    *n == 0
}

fn zero32(n: &u32) -> bool {
    *n == 0
}

fn psi(pressure: Option<Pressure>) -> Option<Psi> {
    let line = |line: stats::PressureLine| PsiLine {
        avg10: line.avg10,
        avg60: line.avg60,
        avg300: line.avg300,
        total: line.total_us,
    };
    pressure.map(|pressure| Psi { some: line(pressure.some), full: line(pressure.full) })
}

fn entry(counter: Option<stats::Counter>) -> MemoryEntry {
    counter.map_or_else(MemoryEntry::default, |counter| MemoryEntry {
        limit: counter.limit,
        usage: counter.usage,
        max: counter.max,
        failcnt: counter.failcnt,
    })
}

fn table(entries: &[stats::BlkioEntry]) -> Vec<BlkioEntry> {
    let entry = |entry: &stats::BlkioEntry| BlkioEntry {
        major: entry.major,
        minor: entry.minor,
        op: entry.operation.clone(),
        value: entry.value,
    };
    entries.iter().map(entry).collect()
}

impl From<&Stats> for RuncStats {
    fn from(stats: &Stats) -> RuncStats {
        let cpu = stats.cpu.clone().unwrap_or_default();
        let memory = stats.memory.clone().unwrap_or_default();
        let pids = stats.pids.clone().unwrap_or_default();
        let cpuset = stats.cpuset.clone().unwrap_or_default();
        let flag = |name: &str| cpuset.flags.get(name).copied().unwrap_or(0);
        let hugetlb = |(size, pages): (&String, &stats::HugetlbStats)| {
            (size.clone(), Hugetlb { usage: pages.usage, max: pages.max_usage, failcnt: pages.failcnt })
        };
        RuncStats {
            cpu: Cpu {
                usage: CpuUsage {
                    total: cpu.usage_ns,
                    percpu: cpu.per_cpu_ns,
                    percpu_kernel: cpu.per_cpu_system_ns,
                    percpu_user: cpu.per_cpu_user_ns,
                    kernel: cpu.system_ns,
                    user: cpu.user_ns,
                },
                throttling: Throttling {
                    periods: cpu.periods,
                    throttled_periods: cpu.throttled_periods,
                    throttled_time: cpu.throttled_ns,
                },
                psi: psi(stats.pressure.cpu),
            },
            cpuset: Cpuset {
                cpu_exclusive: flag("cpu_exclusive"),
                mem_hardwall: flag("mem_hardwall"),
                mem_exclusive: flag("mem_exclusive"),
                memory_migrate: flag("memory_migrate"),
                memory_spread_page: flag("memory_spread_page"),
                memory_spread_slab: flag("memory_spread_slab"),
                memory_pressure: flag("memory_pressure"),
                sched_load_balance: flag("sched_load_balance"),
                sched_relax_domain_level: flag("sched_relax_domain_level"),
                cpus: cpuset.cpus,
                mems: cpuset.mems,
            },
            memory: Memory {
                cache: memory.cache,
                usage: entry(Some(memory.memory)),
                swap: entry(memory.memory_and_swap),
                kernel: entry(memory.kernel),
                kernel_tcp: entry(memory.kernel_tcp),
                raw: memory.stat,
                psi: psi(stats.pressure.memory),
            },
            pids: Pids { current: pids.current, limit: pids.limit.unwrap_or(0) },
            blkio: Blkio {
                io_service_bytes_recursive: table(&stats.blkio.service_bytes),
                io_serviced_recursive: table(&stats.blkio.serviced),
                io_queue_recursive: table(&stats.blkio.queued),
                io_service_time_recursive: table(&stats.blkio.service_time),
                io_wait_time_recursive: table(&stats.blkio.wait_time),
                io_merged_recursive: table(&stats.blkio.merged),
                io_time_recursive: table(&stats.blkio.time),
                sectors_recursive: table(&stats.blkio.sectors),
                psi: psi(stats.pressure.io),
            },
            hugetlb: stats.hugetlb.iter().map(hugetlb).collect(),
            intel_rdt: Nothing {},
        }
    }
}
