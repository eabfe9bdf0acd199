//! What a group uses and has used, in one form for v1 and v2.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::files;
use crate::tables;

/// Usage of a group. A part is absent when no controller counts it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Processor time.
    pub cpu: Option<CpuStats>,
    /// Memory.
    pub memory: Option<MemoryStats>,
    /// Tasks.
    pub pids: Option<PidsStats>,
    /// Block I/O by device, sorted by device number.
    pub io: Vec<IoDevice>,
    /// Block I/O as v1 tells it, operation by operation.
    #[serde(default)]
    pub blkio: Blkio,
    /// Processors and memory nodes (v1's files; in v2 there are no such flags).
    #[serde(default)]
    pub cpuset: Option<Cpuset>,
    /// RDMA resources in use, by device.
    #[serde(default)]
    pub rdma: Vec<RdmaEntry>,
    /// Limits of RDMA resources, by device.
    #[serde(default)]
    pub rdma_limits: Vec<RdmaEntry>,
    /// What the misc controller counts, by resource (v2).
    #[serde(default)]
    pub misc: BTreeMap<String, MiscStats>,
    /// Huge pages by page size (`2MB`).
    pub hugetlb: BTreeMap<String, HugetlbStats>,
    /// Pressure stall information (`accounting/psi.rst`).
    pub pressure: Pressures,
}

/// Processor time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CpuStats {
    /// Used in all, nanoseconds.
    pub usage_ns: u64,
    /// Of that in user mode, nanoseconds.
    pub user_ns: u64,
    /// Of that in the kernel, nanoseconds.
    pub system_ns: u64,
    /// Used on each processor, nanoseconds; empty in v2.
    pub per_cpu_ns: Vec<u64>,
    /// Enforcement periods that have passed.
    pub periods: u64,
    /// Periods in which the quota was used up.
    pub throttled_periods: u64,
    /// Time for which tasks waited for the next period, nanoseconds.
    pub throttled_ns: u64,
    /// Used on each processor in user mode, nanoseconds; empty in v2.
    #[serde(default)]
    pub per_cpu_user_ns: Vec<u64>,
    /// Used on each processor in the kernel, nanoseconds; empty in v2.
    #[serde(default)]
    pub per_cpu_system_ns: Vec<u64>,
    /// Periods with a burst.
    #[serde(default)]
    pub bursts: u64,
    /// Time used above the quota in bursts, nanoseconds.
    #[serde(default)]
    pub burst_ns: u64,
}

/// A counter of bytes with its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counter {
    /// In use.
    pub usage: u64,
    /// The highest usage so far; 0 if the kernel does not count it.
    pub max: u64,
    /// How often the limit was hit; 0 in v2.
    pub failcnt: u64,
    /// The limit as the kernel tells it: for "none" a number beyond all memory, in v2 [`u64::MAX`].
    pub limit: u64,
}

/// Memory, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MemoryStats {
    /// In use, page cache included.
    pub usage: u64,
    /// The highest usage so far, if the kernel counts it (v2: Linux 5.19).
    pub max_usage: Option<u64>,
    /// The limit; `None` if there is none.
    pub limit: Option<u64>,
    /// Page cache that has not been used for long; `docker stats` shows usage without it.
    pub inactive_file: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
    /// Swap in use, if it is counted.
    pub swap: Option<u64>,
    /// Processes that the OOM killer has ended in this group.
    pub oom_kills: u64,
    /// All lines of `memory.stat`.
    pub stat: BTreeMap<String, u64>,
    /// Page cache.
    #[serde(default)]
    pub cache: u64,
    /// Memory alone.
    #[serde(default)]
    pub memory: Counter,
    /// Memory and swap together, if swap is counted.
    #[serde(default)]
    pub memory_and_swap: Option<Counter>,
    /// The kernel's memory (v1).
    #[serde(default)]
    pub kernel: Option<Counter>,
    /// Buffers of TCP (v1).
    #[serde(default)]
    pub kernel_tcp: Option<Counter>,
}

/// Block I/O in v1's tables. In v2 only the first two have entries.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Blkio {
    /// Bytes.
    pub service_bytes: Vec<BlkioEntry>,
    /// Operations.
    pub serviced: Vec<BlkioEntry>,
    /// Operations that wait.
    pub queued: Vec<BlkioEntry>,
    /// Time in the device, nanoseconds.
    pub service_time: Vec<BlkioEntry>,
    /// Time in queues, nanoseconds.
    pub wait_time: Vec<BlkioEntry>,
    /// Operations that were merged.
    pub merged: Vec<BlkioEntry>,
    /// Time of the disk, milliseconds.
    pub time: Vec<BlkioEntry>,
    /// Sectors.
    pub sectors: Vec<BlkioEntry>,
}

/// One line of such a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlkioEntry {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// `Read`, `Write`, `Sync`, `Async`, `Discard`, `Total`, or nothing where operations are not told apart.
    pub operation: String,
    /// The count.
    pub value: u64,
}

/// Where a group may run, and v1's flags (`cgroup-v1/cpusets.rst`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cpuset {
    /// Processors.
    pub cpus: Vec<u16>,
    /// Memory nodes.
    pub mems: Vec<u16>,
    /// Other files without their `cpuset.`, and what they say.
    pub flags: BTreeMap<String, i64>,
}

/// RDMA resources of one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RdmaEntry {
    /// The device.
    pub device: String,
    /// Handles; [`u32::MAX`] for no limit.
    pub hca_handles: u32,
    /// Objects; [`u32::MAX`] for no limit.
    pub hca_objects: u32,
}

/// One resource of the misc controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MiscStats {
    /// In use.
    pub usage: u64,
    /// How often the limit was hit.
    pub events: u64,
}

/// Tasks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PidsStats {
    /// Tasks now.
    pub current: u64,
    /// The limit; `None` if there is none.
    pub limit: Option<u64>,
}

/// Block I/O of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IoDevice {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Bytes discarded.
    pub discard_bytes: u64,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Discards.
    pub discards: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HugetlbStats {
    /// In use.
    pub usage: u64,
    /// The highest usage so far (v1 only).
    pub max_usage: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
}

/// Pressure on the three resources; absent where the kernel does not measure it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Pressures {
    /// Processors.
    pub cpu: Option<Pressure>,
    /// Memory.
    pub memory: Option<Pressure>,
    /// Block I/O.
    pub io: Option<Pressure>,
}

/// Pressure on one resource.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Pressure {
    /// At least one task waited.
    pub some: PressureLine,
    /// All tasks waited.
    pub full: PressureLine,
}

/// One line of a pressure file.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct PressureLine {
    /// Percent of the last 10 seconds.
    pub avg10: f64,
    /// Percent of the last 60 seconds.
    pub avg60: f64,
    /// Percent of the last 300 seconds.
    pub avg300: f64,
    /// In all, microseconds.
    pub total_us: u64,
}

/// Reads all. `v1` gives the group's directory for a v1 controller; `owns` says what the unified hierarchy controls.
pub(crate) fn read(
    v1: &dyn Fn(&str) -> Option<PathBuf>,
    unified: Option<&Path>,
    owns: &dyn Fn(&str) -> bool,
) -> Result<Stats> {
    let mut stats = Stats { cpu: cpu(v1, unified)?, ..Stats::default() };
    let v2 = |controller: &str| unified.filter(|_| owns(controller));
    stats.memory = match (v1("memory"), v2("memory")) {
        (Some(dir), _) => memory_v1(&dir)?,
        (None, Some(dir)) => memory_v2(dir)?,
        _ => None,
    };
    if let Some(dir) = v1("pids").or_else(|| v2("pids").map(Path::to_path_buf))
        && let Some(current) = files::read_number(&dir.join("pids.current"))?
    {
        let limit = files::read_number(&dir.join("pids.max"))?.filter(|limit| *limit != u64::MAX);
        stats.pids = Some(PidsStats { current, limit });
    } else if let Some(dir) = unified
        && let Some(text) = files::read(&dir.join("cgroup.procs"))?
    {
        // Without the controller processes are counted, not tasks.
        stats.pids = Some(PidsStats { current: text.lines().count() as u64, limit: None });
    }
    match (v1("blkio"), v2("io")) {
        (Some(dir), _) => {
            stats.io = io_v1(&dir)?;
            stats.blkio = tables::blkio_v1(&dir)?;
        }
        (None, Some(dir)) => {
            stats.io = files::read(&dir.join("io.stat"))?.map(|text| io_stat(&text)).unwrap_or_default();
            stats.blkio = tables::blkio_v2(&stats.io);
        }
        _ => {}
    }
    if let Some(dir) = v1("cpuset") {
        stats.cpuset = tables::cpuset(&dir)?;
    }
    if let Some(dir) = v1("rdma").or_else(|| v2("rdma").map(Path::to_path_buf)) {
        let read = |name| -> Result<Vec<RdmaEntry>> {
            Ok(files::read(&dir.join(name))?.map(|text| tables::rdma(&text)).unwrap_or_default())
        };
        (stats.rdma, stats.rdma_limits) = (read("rdma.current")?, read("rdma.max")?);
    }
    if let Some(dir) = v2("misc") {
        let events = files::read_keyed(&dir.join("misc.events"))?;
        let misc = files::read_keyed(&dir.join("misc.current"))?.into_iter();
        stats.misc = misc
            .map(|(name, usage)| {
                let events = events.get(&format!("{name}.max")).copied().unwrap_or(0);
                (name, MiscStats { usage, events })
            })
            .collect();
    }
    stats.hugetlb = match (v1("hugetlb"), v2("hugetlb")) {
        (Some(dir), _) => hugetlb(&dir, true)?,
        (None, Some(dir)) => hugetlb(dir, false)?,
        _ => BTreeMap::new(),
    };
    if let Some(dir) = unified {
        // The files exist without PSI too; reading them then fails with EOPNOTSUPP.
        let read = |name: &str| -> Result<Option<Pressure>> {
            Ok(files::read(&dir.join(name))?.and_then(|text| pressure(&text)))
        };
        stats.pressure = Pressures {
            cpu: read("cpu.pressure")?,
            memory: read("memory.pressure")?,
            io: read("io.pressure")?,
        };
    }
    Ok(stats)
}

fn cpu(v1: &dyn Fn(&str) -> Option<PathBuf>, unified: Option<&Path>) -> Result<Option<CpuStats>> {
    if let Some(dir) = v1("cpuacct") {
        let Some(usage_ns) = files::read_number(&dir.join("cpuacct.usage"))? else { return Ok(None) };
        let read = |name: &str| files::read_number(&dir.join(name)).map(Option::unwrap_or_default);
        let (per_cpu_user_ns, per_cpu_system_ns) = files::read(&dir.join("cpuacct.usage_all"))?
            .map(|text| tables::usage_all(&text))
            .unwrap_or_default();
        let per_cpu = files::read(&dir.join("cpuacct.usage_percpu"))?.unwrap_or_default();
        let mut cpu = CpuStats {
            usage_ns,
            user_ns: read("cpuacct.usage_user")?,
            system_ns: read("cpuacct.usage_sys")?,
            per_cpu_ns: per_cpu.split_whitespace().filter_map(|n| n.parse().ok()).collect(),
            per_cpu_user_ns,
            per_cpu_system_ns,
            ..CpuStats::default()
        };
        if let Some(dir) = v1("cpu") {
            let stat = files::read_keyed(&dir.join("cpu.stat"))?;
            let get = |key: &str| stat.get(key).copied().unwrap_or(0);
            cpu.periods = get("nr_periods");
            cpu.throttled_periods = get("nr_throttled");
            cpu.throttled_ns = get("throttled_time");
            cpu.bursts = get("nr_bursts");
            cpu.burst_ns = get("burst_time");
        }
        return Ok(Some(cpu));
    }
    // In the unified hierarchy times are counted with or without the cpu controller.
    let Some(dir) = unified else { return Ok(None) };
    let stat = files::read_keyed(&dir.join("cpu.stat"))?;
    let get = |key: &str| stat.get(key).copied().unwrap_or(0);
    let ns = |key: &str| get(key).saturating_mul(1000);
    Ok((!stat.is_empty()).then(|| CpuStats {
        usage_ns: ns("usage_usec"),
        user_ns: ns("user_usec"),
        system_ns: ns("system_usec"),
        bursts: get("nr_bursts"),
        burst_ns: ns("burst_usec"),
        periods: get("nr_periods"),
        throttled_periods: get("nr_throttled"),
        throttled_ns: ns("throttled_usec"),
        ..CpuStats::default()
    }))
}

/// v1's "no limit" is the greatest multiple of the page size: whatever is beyond 2^62 is none.
fn limit_v1(limit: u64) -> Option<u64> {
    (limit < 1 << 62).then_some(limit)
}

/// A counter of v1: four files of one name.
fn counter_v1(dir: &Path, name: &str) -> Result<Option<Counter>> {
    let read = |what: &str| files::read_number(&dir.join(format!("{name}.{what}")));
    let Some(usage) = read("usage_in_bytes")? else { return Ok(None) };
    Ok(Some(Counter {
        usage,
        max: read("max_usage_in_bytes")?.unwrap_or(0),
        failcnt: read("failcnt")?.unwrap_or(0),
        limit: read("limit_in_bytes")?.unwrap_or(0),
    }))
}

fn memory_v1(dir: &Path) -> Result<Option<MemoryStats>> {
    let Some(memory) = counter_v1(dir, "memory")? else { return Ok(None) };
    let stat = files::read_keyed(&dir.join("memory.stat"))?;
    let memory_and_swap = counter_v1(dir, "memory.memsw")?;
    Ok(Some(MemoryStats {
        usage: memory.usage,
        max_usage: Some(memory.max),
        limit: limit_v1(memory.limit),
        inactive_file: stat.get("total_inactive_file").copied().unwrap_or(0),
        failcnt: memory.failcnt,
        swap: memory_and_swap.map(|both| both.usage.saturating_sub(memory.usage)),
        oom_kills: files::read_keyed(&dir.join("memory.oom_control"))?.get("oom_kill").copied().unwrap_or(0),
        cache: stat.get("cache").copied().unwrap_or(0),
        memory,
        memory_and_swap,
        kernel: counter_v1(dir, "memory.kmem")?,
        kernel_tcp: counter_v1(dir, "memory.kmem.tcp")?,
        stat,
    }))
}

fn memory_v2(dir: &Path) -> Result<Option<MemoryStats>> {
    let Some(usage) = files::read_number(&dir.join("memory.current"))? else { return Ok(None) };
    let read = |name: &str| files::read_number(&dir.join(name));
    let stat = files::read_keyed(&dir.join("memory.stat"))?;
    let events = files::read_keyed(&dir.join("memory.events"))?;
    let max_usage = read("memory.peak")?;
    let limit = read("memory.max")?.unwrap_or(u64::MAX);
    let swap = read("memory.swap.current")?;
    let swap_limit = read("memory.swap.max")?.unwrap_or(u64::MAX);
    Ok(Some(MemoryStats {
        usage,
        max_usage,
        limit: Some(limit).filter(|limit| *limit != u64::MAX),
        inactive_file: stat.get("inactive_file").copied().unwrap_or(0),
        failcnt: events.get("max").copied().unwrap_or(0),
        swap,
        oom_kills: events.get("oom_kill").copied().unwrap_or(0),
        cache: stat.get("file").copied().unwrap_or(0),
        memory: Counter { usage, max: max_usage.unwrap_or(0), failcnt: 0, limit },
        // Added up as v1 has it; of the two peaks nobody knows whether they met.
        memory_and_swap: swap.map(|swap| Counter {
            usage: usage.saturating_add(swap),
            limit: limit.saturating_add(swap_limit),
            ..Counter::default()
        }),
        stat,
        ..MemoryStats::default()
    }))
}

fn io_v1(dir: &Path) -> Result<Vec<IoDevice>> {
    // BFQ counts only where it is the scheduler; the throttle layer counts everywhere (since Linux 3.x for all I/O).
    let mut devices = BTreeMap::new();
    let mut found = false;
    for names in [
        ["blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_serviced_recursive"],
        ["blkio.bfq.io_service_bytes_recursive", "blkio.bfq.io_serviced_recursive"],
        ["blkio.throttle.io_service_bytes", "blkio.throttle.io_serviced"],
    ] {
        for (name, bytes) in names.iter().zip([true, false]) {
            if let Some(text) = files::read(&dir.join(name))? {
                found |= blkio(&text, bytes, &mut devices);
            }
        }
        if found {
            break;
        }
    }
    Ok(devices.into_values().collect())
}

/// A v1 file of lines `major:minor Operation count`; tells whether it had any.
fn blkio(text: &str, bytes: bool, devices: &mut BTreeMap<(u32, u32), IoDevice>) -> bool {
    let mut found = false;
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        let device = fields.next().and_then(files::device);
        let (Some((major, minor)), Some(operation), Some(Ok(count))) =
            (device, fields.next(), fields.next().map(str::parse::<u64>))
        else {
            continue;
        };
        found = true;
        let entry = devices.entry((major, minor)).or_insert(IoDevice { major, minor, ..IoDevice::default() });
        match (operation, bytes) {
            ("Read", true) => entry.read_bytes = count,
            ("Write", true) => entry.write_bytes = count,
            ("Discard", true) => entry.discard_bytes = count,
            ("Read", false) => entry.reads = count,
            ("Write", false) => entry.writes = count,
            ("Discard", false) => entry.discards = count,
            _ => {}
        }
    }
    found
}

/// v2's `io.stat`: a device and `key=number` pairs in each line.
fn io_stat(text: &str) -> Vec<IoDevice> {
    let mut devices = Vec::new();
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        let Some((major, minor)) = fields.next().and_then(files::device) else { continue };
        let mut device = IoDevice { major, minor, ..IoDevice::default() };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let Ok(value) = value.parse() else { continue };
            match key {
                "rbytes" => device.read_bytes = value,
                "wbytes" => device.write_bytes = value,
                "dbytes" => device.discard_bytes = value,
                "rios" => device.reads = value,
                "wios" => device.writes = value,
                "dios" => device.discards = value,
                _ => {}
            }
        }
        devices.push(device);
    }
    devices.sort_by_key(|device| (device.major, device.minor));
    devices
}

fn hugetlb(dir: &Path, v1: bool) -> Result<BTreeMap<String, HugetlbStats>> {
    let mut found = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(found) };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let suffix = if v1 { ".usage_in_bytes" } else { ".current" };
        let size = name.to_str().and_then(|name| name.strip_prefix("hugetlb.")?.strip_suffix(suffix));
        let Some(size) = size.filter(|size| !size.contains('.')) else { continue };
        let read = |name: &str| files::read_number(&dir.join(format!("hugetlb.{size}.{name}")));
        // What is reserved is what the limit is held against, where the kernel counts that (Linux 5.7).
        let usage = |name: &str| -> Result<u64> {
            let reserved = read(&format!("rsvd.{name}"))?;
            Ok(reserved.map_or_else(|| read(name), |n| Ok(Some(n)))?.unwrap_or(0))
        };
        let stats = if v1 {
            HugetlbStats {
                usage: usage("usage_in_bytes")?,
                max_usage: usage("max_usage_in_bytes")?,
                failcnt: usage("failcnt")?,
            }
        } else {
            let events = files::read_keyed(&dir.join(format!("hugetlb.{size}.events")))?;
            let failcnt = events.get("max").copied().unwrap_or(0);
            HugetlbStats { usage: usage("current")?, max_usage: 0, failcnt }
        };
        found.insert(size.to_owned(), stats);
    }
    Ok(found)
}

fn pressure(text: &str) -> Option<Pressure> {
    let mut pressure = Pressure::default();
    let mut found = false;
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        let target = match fields.next() {
            Some("some") => &mut pressure.some,
            Some("full") => &mut pressure.full,
            _ => continue,
        };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            match key {
                "avg10" => target.avg10 = value.parse().ok()?,
                "avg60" => target.avg60 = value.parse().ok()?,
                "avg300" => target.avg300 = value.parse().ok()?,
                "total" => target.total_us = value.parse().ok()?,
                _ => {}
            }
        }
        found = true;
    }
    found.then_some(pressure)
}
