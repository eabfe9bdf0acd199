//! Limits in the v1 hierarchies (`Documentation/admin-guide/cgroup-v1`).

use std::path::PathBuf;

use creel_types::spec::{BlockIo, Cpu, Memory, Resources, ThrottleDevice};

use crate::devices;
use crate::error::{Error, Result};
use crate::hierarchy::Hierarchies;
use crate::plan::{Missing, Plan, Step, Write};

/// The group's directory in one v1 hierarchy, or `None` when the controller is not in v1.
struct Place<'a> {
    h: &'a Hierarchies,
    path: &'a str,
}

impl Place<'_> {
    fn dir(&self, controller: &str) -> Option<PathBuf> {
        self.h.v1_dir(controller, self.path)
    }
}

fn required(file: PathBuf, value: impl ToString) -> Write {
    Write { file, value: value.to_string(), missing: Missing::Fail }
}

/// Adds the writes for all controllers that are mounted as v1; the others are v2's to set or to miss.
pub(crate) fn limits(plan: &mut Plan, h: &Hierarchies, path: &str, r: &Resources) -> Result<()> {
    let place = Place { h, path };
    if let Some(dir) = place.dir("cpuset")
        && let Some(cpu) = &r.cpu
    {
        for (file, value) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
            if let Some(list) = value.as_ref().filter(|list| !list.is_empty()) {
                plan.write(dir.join(file), list, Missing::Fail);
            }
        }
    }
    if let (Some(dir), Some(m)) = (place.dir("memory"), &r.memory) {
        memory(plan, &dir, m)?;
    }
    if let (Some(dir), Some(c)) = (place.dir("cpu"), &r.cpu) {
        cpu(plan, &dir, c)?;
    }
    if let Some(dir) = place.dir("pids")
        && let Some(limit) = r.pids.as_ref().and_then(|pids| pids.limit)
    {
        plan.write(dir.join("pids.max"), pids_value(limit), Missing::Fail);
    }
    if let (Some(dir), Some(io)) = (place.dir("blkio"), &r.block_io) {
        block_io(plan, &dir, io);
    }
    if let Some(dir) = place.dir("hugetlb") {
        for limit in &r.hugepage_limits {
            let file = |middle: &str| {
                hugepage_size(&limit.page_size)
                    .map(|size| dir.join(format!("hugetlb.{size}.{middle}limit_in_bytes")))
            };
            plan.write(file("")?, limit.limit, Missing::Fail);
            plan.write(file("rsvd.")?, limit.limit, Missing::Skip);
        }
    }
    if let Some(network) = &r.network {
        if let Some(class) = network.class_id {
            let dir = place.dir("net_cls").ok_or_else(|| missing("the network class", "net_cls"))?;
            plan.write(dir.join("net_cls.classid"), class, Missing::Fail);
        }
        for priority in &network.priorities {
            let dir = place.dir("net_prio").ok_or_else(|| missing("a network priority", "net_prio"))?;
            let value = format!("{} {}", priority.name, priority.priority);
            plan.write(dir.join("net_prio.ifpriomap"), value, Missing::Fail);
        }
    }
    if let Some(dir) = place.dir("rdma") {
        for (device, limits) in &r.rdma {
            plan.write(dir.join("rdma.max"), rdma_value(device, limits), Missing::Fail);
        }
    }
    if let Some(dir) = place.dir("devices")
        && !r.devices.is_empty()
    {
        // Refuse now what a v1 list cannot say, not half-way through.
        devices::List::from_rules(&r.devices)?;
        plan.steps.push(Step::DeviceList { dir, rules: r.devices.clone() });
    }
    Ok(())
}

fn missing(what: &str, controller: &'static str) -> Error {
    Error::NoController { what: what.to_owned(), controller }
}

fn memory(plan: &mut Plan, dir: &std::path::Path, m: &Memory) -> Result<()> {
    let set = |value: Option<i64>| value.filter(|value| *value != 0);
    let limit = set(m.limit);
    // Lifting the limit of memory lifts that of memory and swap, which must not be smaller.
    let (swap, implied) = match (set(m.swap), limit) {
        (Some(swap), _) => (Some(swap), false),
        (None, Some(-1)) => (Some(-1), true),
        _ => (None, false),
    };
    if let (Some(limit), Some(swap)) = (limit, swap)
        && limit > 0
        && swap > 0
        && swap < limit
    {
        return Err(Error::Invalid(format!(
            "the limit of memory and swap together ({swap}) must not be below the memory limit ({limit})"
        )));
    }
    let mut writes = Vec::new();
    writes.extend(limit.map(|limit| required(dir.join("memory.limit_in_bytes"), limit)));
    writes.extend(swap.map(|swap| Write {
        file: dir.join("memory.memsw.limit_in_bytes"),
        value: swap.to_string(),
        // Without swap accounting "as much swap as you like" is all there is.
        missing: if implied || swap == -1 { Missing::Skip } else { Missing::Fail },
    }));
    plan.together(writes);
    if let Some(reservation) = set(m.reservation) {
        plan.write(dir.join("memory.soft_limit_in_bytes"), reservation, Missing::Fail);
    }
    if set(m.kernel).is_some() {
        plan.notes.push("the kernel memory limit is passed over: kernels since 5.16 have none".into());
    }
    if let Some(tcp) = set(m.kernel_tcp) {
        // Deprecated by the kernel too: one that has it no more gives no limit, as other runtimes never do.
        plan.write(dir.join("memory.kmem.tcp.limit_in_bytes"), tcp, Missing::Skip);
    }
    if let Some(swappiness) = m.swappiness {
        if swappiness > 100 {
            return Err(Error::Invalid(format!("swappiness must be 0 to 100, not {swappiness}")));
        }
        plan.write(dir.join("memory.swappiness"), swappiness, Missing::Fail);
    }
    if m.disable_oom_killer == Some(true) {
        plan.write(dir.join("memory.oom_control"), 1, Missing::Fail);
    }
    if m.use_hierarchy == Some(true) {
        plan.write(dir.join("memory.use_hierarchy"), 1, Missing::Skip);
    }
    Ok(())
}

fn cpu(plan: &mut Plan, dir: &std::path::Path, c: &Cpu) -> Result<()> {
    // An idle group takes no shares, so that it ceases to be idle first and becomes so last.
    if c.idle == Some(0) {
        plan.write(dir.join("cpu.idle"), 0, Missing::Fail);
    }
    if let Some(shares) = c.shares.filter(|shares| *shares != 0) {
        // The kernel would silently take the nearest that it can.
        if shares < 2 {
            return Err(Error::Invalid(format!("the minimum allowed cpu-shares is 2, not {shares}")));
        }
        if shares > 262_144 {
            return Err(Error::Invalid(format!("the maximum allowed cpu-shares is 262144, not {shares}")));
        }
        plan.write(dir.join("cpu.shares"), shares, Missing::Fail);
    }
    let mut bandwidth = Vec::new();
    bandwidth.extend(c.period.filter(|p| *p != 0).map(|p| required(dir.join("cpu.cfs_period_us"), p)));
    bandwidth.extend(c.quota.filter(|q| *q != 0).map(|q| required(dir.join("cpu.cfs_quota_us"), q.max(-1))));
    bandwidth.extend(c.burst.map(|burst| required(dir.join("cpu.cfs_burst_us"), burst)));
    plan.together(bandwidth);
    let mut real_time = Vec::new();
    real_time
        .extend(c.realtime_period.filter(|p| *p != 0).map(|p| required(dir.join("cpu.rt_period_us"), p)));
    real_time
        .extend(c.realtime_runtime.filter(|r| *r != 0).map(|r| required(dir.join("cpu.rt_runtime_us"), r)));
    plan.together(real_time);
    if let Some(idle) = c.idle.filter(|idle| *idle != 0) {
        plan.write(dir.join("cpu.idle"), idle, Missing::Fail);
    }
    Ok(())
}

fn block_io(plan: &mut Plan, dir: &std::path::Path, io: &BlockIo) {
    // With the BFQ scheduler the weight has another name; with neither there is none.
    let first = |plan: &mut Plan, files: [&str; 2], value: String| {
        let writes = files.map(|file| required(dir.join(file), &value)).to_vec();
        plan.steps.push(Step::WriteFirst(writes));
    };
    if let Some(weight) = io.weight.filter(|weight| *weight != 0) {
        first(plan, ["blkio.weight", "blkio.bfq.weight"], weight.to_string());
    }
    if let Some(weight) = io.leaf_weight.filter(|weight| *weight != 0) {
        plan.write(dir.join("blkio.leaf_weight"), weight, Missing::Fail);
    }
    for device in &io.weight_device {
        let number = format!("{}:{}", device.major, device.minor);
        if let Some(weight) = device.weight.filter(|weight| *weight != 0) {
            first(plan, ["blkio.weight_device", "blkio.bfq.weight_device"], format!("{number} {weight}"));
        }
        if let Some(weight) = device.leaf_weight.filter(|weight| *weight != 0) {
            plan.write(dir.join("blkio.leaf_weight_device"), format!("{number} {weight}"), Missing::Fail);
        }
    }
    let mut throttle = |file: &str, devices: &[ThrottleDevice]| {
        for d in devices {
            plan.write(dir.join(file), format!("{}:{} {}", d.major, d.minor, d.rate), Missing::Fail);
        }
    };
    throttle("blkio.throttle.read_bps_device", &io.throttle_read_bps_device);
    throttle("blkio.throttle.write_bps_device", &io.throttle_write_bps_device);
    throttle("blkio.throttle.read_iops_device", &io.throttle_read_iops_device);
    throttle("blkio.throttle.write_iops_device", &io.throttle_write_iops_device);
}

/// `pids.max`: negative numbers are no limit; 0 is a limit (`config-linux.md` 1.3, "PIDs"). As the first process is
/// there already it lets no second one be, which 1 says too, and systemd knows no 0.
pub(crate) fn pids_value(limit: i64) -> String {
    if limit < 0 { "max".into() } else { limit.max(1).to_string() }
}

/// A page size like `2MB` as it stands in file names; anything else could name another file.
pub(crate) fn hugepage_size(text: &str) -> Result<&str> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_uppercase());
    let unit = &text[number.len()..];
    let good = number.parse::<u64>().is_ok_and(|n| n.is_power_of_two())
        && number.bytes().all(|b| b.is_ascii_digit())
        && matches!(unit, "KB" | "MB" | "GB");
    if good {
        Ok(text)
    } else {
        Err(Error::Invalid(format!("huge page size {text:?} is not like 64KB, 2MB or 1GB")))
    }
}

/// A line of `rdma.max` (the same in v1 and v2).
pub(crate) fn rdma_value(device: &str, limits: &creel_types::spec::Rdma) -> String {
    let mut value = device.to_owned();
    if let Some(handles) = limits.hca_handles {
        value += &format!(" hca_handle={handles}");
    }
    if let Some(objects) = limits.hca_objects {
        value += &format!(" hca_object={objects}");
    }
    value
}
