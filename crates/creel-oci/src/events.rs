//! `events`: statistics and OOM kills, line by line in the JSON that runc prints and others read.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use creel_cgroup::{Cgroup, OomWatch, Pressure, PressureLine, Stats};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use crate::container;
use crate::error::{Error, Result};
use crate::flags::Parsed;
use crate::options::Options;
use crate::out;
use crate::record::Status;

/// How often statistics come, if nothing else was asked.
const INTERVAL: Duration = Duration::from_secs(5);

/// How soon after an announcement the kill itself is looked for: the kernel announces first.
const SOON: Duration = Duration::from_millis(20);

/// `events ID`.
pub(crate) fn events(o: &Options, parsed: &Parsed, id: &str) -> Result<()> {
    let loaded = container::load(o, id)?;
    let interval = match parsed.text("interval") {
        None => INTERVAL,
        Some(text) => duration(&text).ok_or_else(|| {
            Error::Invalid(format!("invalid value {text:?} for flag -interval: parse error"))
        })?,
    };
    if interval.is_zero() {
        return Err(Error::Invalid("duration interval must be greater than 0".into()));
    }
    if loaded.status() == Status::Stopped {
        return Err(Error::State(format!("container with id {id} is not running")));
    }
    let cgroup = loaded.record.group.required("read statistics")?;
    if parsed.on("stats") {
        return tell(id, &cgroup);
    }
    let init = loaded.init()?;
    // Without a memory controller there is nothing to watch.
    let watch = cgroup.oom_watch().ok();
    let mut kills = watch.as_ref().map_or(0, |watch| watch.oom_kills().unwrap_or(0));
    let mut next = Instant::now() + interval;
    let mut looking_until: Option<Instant> = None;
    loop {
        let now = Instant::now();
        let mut wait = next.saturating_duration_since(now);
        if looking_until.is_some() {
            wait = wait.min(SOON);
        }
        let timeout = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        let mut fds = vec![PollFd::new(&init, PollFlags::IN)];
        fds.extend(watch.as_ref().map(|watch| PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN)));
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Error::call("poll", e)),
        }
        let ended = !fds[0].revents().is_empty();
        let announced = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        drop(fds);
        if announced {
            looking_until = Some(Instant::now() + Duration::from_secs(1));
        }
        if announced || looking_until.is_some() || ended {
            kills = tell_oom(id, watch.as_ref(), kills)?;
        }
        looking_until = looking_until.filter(|until| Instant::now() < *until);
        if ended {
            return Ok(());
        }
        if Instant::now() >= next {
            next = Instant::now() + interval;
            match tell(id, &cgroup) {
                Err(Error::Cgroup(creel_cgroup::Error::NotFound { .. })) => return Ok(()),
                Err(error) => o.log.fail(&error.to_string()),
                Ok(()) => {}
            }
        }
    }
}

fn tell_oom(id: &str, watch: Option<&OomWatch>, before: u64) -> Result<u64> {
    let Some(watch) = watch else { return Ok(before) };
    let _ = watch.consume();
    let now = watch.oom_kills().unwrap_or(before);
    for _ in before..now {
        print(&Event { kind: "oom", id, data: None })?;
    }
    Ok(now.max(before))
}

fn tell(id: &str, cgroup: &Cgroup) -> Result<()> {
    let data = Data::new(&cgroup.stats()?, &Files { cgroup });
    print(&Event { kind: "stats", id, data: Some(data) })
}

fn print(event: &Event<'_>) -> Result<()> {
    let text = serde_json::to_string(event).map_err(|e| Error::Invalid(e.to_string()))?;
    out::print(&format!("{text}\n"))
}

/// A duration as Go writes it: numbers with units, like `1m30s` or `1.5h`.
fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        rest = &rest[end..];
        sum = sum.checked_add(Duration::try_from_secs_f64(number * unit).ok()?)?;
    }
    (!text.is_empty()).then_some(sum)
}

#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data>,
}

fn zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Serialize)]
struct Data {
    cpu: Cpu,
    cpuset: BTreeMap<&'static str, serde_json::Value>,
    memory: Memory,
    pids: Pids,
    blkio: Blkio,
    hugetlb: BTreeMap<String, Entry>,
    intel_rdt: BTreeMap<(), ()>,
    network_interfaces: Option<()>,
}

#[derive(Serialize)]
struct Cpu {
    usage: Usage,
    throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Serialize)]
struct Usage {
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

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Throttling {
    #[serde(skip_serializing_if = "zero")]
    periods: u64,
    #[serde(skip_serializing_if = "zero")]
    throttled_periods: u64,
    #[serde(skip_serializing_if = "zero")]
    throttled_time: u64,
}

#[derive(Serialize)]
struct Psi {
    some: PsiLine,
    full: PsiLine,
}

#[derive(Serialize)]
struct PsiLine {
    avg10: f64,
    avg60: f64,
    avg300: f64,
    total: u64,
}

impl From<Pressure> for Psi {
    fn from(pressure: Pressure) -> Psi {
        let line = |line: PressureLine| PsiLine {
            avg10: line.avg10,
            avg60: line.avg60,
            avg300: line.avg300,
            total: line.total_us,
        };
        Psi { some: line(pressure.some), full: line(pressure.full) }
    }
}

#[derive(Serialize, Default)]
struct Entry {
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    #[serde(skip_serializing_if = "zero")]
    usage: u64,
    #[serde(skip_serializing_if = "zero")]
    max: u64,
    failcnt: u64,
}

#[derive(Serialize)]
struct Memory {
    #[serde(skip_serializing_if = "zero")]
    cache: u64,
    usage: Entry,
    swap: Entry,
    kernel: Entry,
    #[serde(rename = "kernelTCP")]
    kernel_tcp: Entry,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Serialize)]
struct Pids {
    #[serde(skip_serializing_if = "zero")]
    current: u64,
    #[serde(skip_serializing_if = "zero")]
    limit: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Blkio {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_bytes_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_serviced_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Serialize)]
struct BlkioEntry {
    #[serde(skip_serializing_if = "zero")]
    major: u64,
    #[serde(skip_serializing_if = "zero")]
    minor: u64,
    op: &'static str,
    #[serde(skip_serializing_if = "zero")]
    value: u64,
}

/// Files of a group that the statistics proper have no place for.
struct Files<'a> {
    cgroup: &'a Cgroup,
}

impl Files<'_> {
    fn dir(&self, controller: &str) -> Option<PathBuf> {
        let (hierarchies, path) = (self.cgroup.hierarchies(), self.cgroup.path());
        hierarchies.v1_dir(controller, path).or_else(|| hierarchies.unified_dir(controller, path))
    }

    fn text(&self, controller: &str, file: &str) -> Option<String> {
        std::fs::read_to_string(self.dir(controller)?.join(file)).ok()
    }

    /// A number; `max` is the greatest there is.
    fn number(&self, controller: &str, file: &str) -> Option<u64> {
        match self.text(controller, file)?.trim() {
            "max" => Some(u64::MAX),
            text => text.parse().ok(),
        }
    }

    fn is_v1(&self, controller: &str) -> bool {
        self.cgroup.hierarchies().v1_with(controller).is_some()
    }

    /// v1's counters of one kind of memory.
    fn memory_v1(&self, kind: &str) -> Entry {
        let number = |name: &str| self.number("memory", &format!("memory.{kind}{name}"));
        Entry {
            limit: Some(number("limit_in_bytes").unwrap_or(0)),
            usage: number("usage_in_bytes").unwrap_or(0),
            max: number("max_usage_in_bytes").unwrap_or(0),
            failcnt: number("failcnt").unwrap_or(0),
        }
    }

    fn memory_v2(&self, prefix: &str, failcnt: u64) -> Entry {
        let number = |name: &str| self.number("memory", &format!("memory.{prefix}{name}"));
        Entry {
            limit: Some(number("max").unwrap_or(0)),
            usage: number("current").unwrap_or(0),
            max: number("peak").unwrap_or(0),
            failcnt,
        }
    }
}

/// Expands a list like `0-2,5`, up to a sane length.
fn list(text: &str) -> Vec<u16> {
    let mut all = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) {
            all.extend((first..=last).take(8192));
        }
    }
    all
}

impl Data {
    fn new(stats: &Stats, files: &Files<'_>) -> Data {
        let cpu = stats.cpu.clone().unwrap_or_default();
        let per_cpu = |column: usize| -> Vec<u64> {
            let text = files.text("cpuacct", "cpuacct.usage_all").unwrap_or_default();
            text.lines().skip(1).filter_map(|line| line.split(' ').nth(column)?.parse().ok()).collect()
        };
        let pressure = stats.pressure;
        Data {
            cpu: Cpu {
                usage: Usage {
                    total: cpu.usage_ns,
                    percpu: cpu.per_cpu_ns,
                    percpu_kernel: per_cpu(2),
                    percpu_user: per_cpu(1),
                    kernel: cpu.system_ns,
                    user: cpu.user_ns,
                },
                throttling: Throttling {
                    periods: cpu.periods,
                    throttled_periods: cpu.throttled_periods,
                    throttled_time: cpu.throttled_ns,
                },
                psi: pressure.cpu.map(Psi::from),
            },
            cpuset: cpuset(files),
            memory: memory(stats, files, pressure.memory.map(Psi::from)),
            pids: Pids {
                current: stats.pids.as_ref().map_or(0, |pids| pids.current),
                limit: stats.pids.as_ref().and_then(|pids| pids.limit).unwrap_or(0),
            },
            blkio: Blkio {
                io_service_bytes_recursive: blkio(stats, true),
                io_serviced_recursive: blkio(stats, false),
                psi: pressure.io.map(Psi::from),
            },
            hugetlb: stats
                .hugetlb
                .iter()
                .map(|(size, one)| {
                    let entry =
                        Entry { limit: None, usage: one.usage, max: one.max_usage, failcnt: one.failcnt };
                    (size.clone(), entry)
                })
                .collect(),
            intel_rdt: BTreeMap::new(),
            network_interfaces: None,
        }
    }
}

fn cpuset(files: &Files<'_>) -> BTreeMap<&'static str, serde_json::Value> {
    const NUMBERS: [&str; 9] = [
        "cpu_exclusive",
        "mem_hardwall",
        "mem_exclusive",
        "memory_migrate",
        "memory_spread_page",
        "memory_spread_slab",
        "memory_pressure",
        "sched_load_balance",
        "sched_relax_domain_level",
    ];
    let mut set = BTreeMap::new();
    for name in NUMBERS {
        let text = files.text("cpuset", &format!("cpuset.{name}")).unwrap_or_default();
        set.insert(name, text.trim().parse::<i64>().unwrap_or(0).into());
    }
    for name in ["cpus", "mems"] {
        let text = files.text("cpuset", &format!("cpuset.{name}")).unwrap_or_default();
        let all = list(&text);
        if !all.is_empty() {
            set.insert(name, all.into());
        }
    }
    set
}

fn memory(stats: &Stats, files: &Files<'_>, psi: Option<Psi>) -> Memory {
    let of = stats.memory.clone().unwrap_or_default();
    let stat = |name: &str| of.stat.get(name).copied().unwrap_or(0);
    let (cache, usage, swap, kernel, kernel_tcp);
    if files.is_v1("memory") {
        cache = stat("cache");
        usage = files.memory_v1("");
        swap = files.memory_v1("memsw.");
        kernel = files.memory_v1("kmem.");
        kernel_tcp = files.memory_v1("kmem.tcp.");
    } else {
        cache = stat("file");
        usage = files.memory_v2("", of.failcnt);
        swap = files.memory_v2("swap.", 0);
        kernel = Entry { limit: Some(0), ..Entry::default() };
        kernel_tcp = Entry { limit: Some(0), ..Entry::default() };
    }
    Memory { cache, usage, swap, kernel, kernel_tcp, raw: of.stat, psi }
}

fn blkio(stats: &Stats, bytes: bool) -> Vec<BlkioEntry> {
    let mut all = Vec::new();
    for device in &stats.io {
        let [read, write, discard] = if bytes {
            [device.read_bytes, device.write_bytes, device.discard_bytes]
        } else {
            [device.reads, device.writes, device.discards]
        };
        for (op, value) in
            [("Read", read), ("Write", write), ("Discard", discard), ("Total", read + write + discard)]
        {
            all.push(BlkioEntry { major: device.major.into(), minor: device.minor.into(), op, value });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations() {
        for (text, wanted) in [
            ("5s", Some(5000)),
            ("100ms", Some(100)),
            ("1m30s", Some(90_000)),
            ("1.5h", Some(5_400_000)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("", None),
            ("5", None),
            ("s", None),
            ("-1s", None),
            ("1x", None),
        ] {
            assert_eq!(duration(text), wanted.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn lists() {
        assert_eq!(list("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(list(""), [0u16; 0]);
        assert_eq!(list("x,3-1"), [0u16; 0]);
    }

    proptest! {
        #[test]
        fn any_text_is_a_duration_or_refused(text in "[0-9.a-zµ-]{0,12}") {
            let _ = duration(&text);
        }
    }
}
