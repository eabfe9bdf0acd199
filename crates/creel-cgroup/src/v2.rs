//! Limits in the unified hierarchy (`Documentation/admin-guide/cgroup-v2.rst`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use creel_types::spec::{BlockIo, Cpu, Memory, Resources};

use crate::convert::{blkio_weight_to_io_weight, or_max, shares_to_weight, swap_alone};
use crate::error::{Error, Result};
use crate::hierarchy::{Hierarchies, Layout};
use crate::plan::{Missing, Plan, Step, Write};
use crate::v1::{hugepage_size, pids_value, rdma_value};

/// The controllers that these limits need and that are not in v1.
pub(crate) fn controllers_needed(h: &Hierarchies, r: &Resources) -> Vec<String> {
    let mut needed: BTreeSet<&str> = wanted(r).into_iter().map(|(_, v2, _)| v2).collect();
    needed.extend(r.unified.keys().filter_map(|key| key.split('.').next()));
    needed.retain(|controller| h.unified_with(controller).is_some());
    needed.into_iter().map(str::to_owned).collect()
}

/// Which controllers are asked for: name in v1, name in v2, what it is for.
fn wanted(r: &Resources) -> Vec<(&'static str, &'static str, &'static str)> {
    let mut wanted = Vec::new();
    let mut want = |asked: bool, v1, v2, what| {
        if asked {
            wanted.push((v1, v2, what));
        }
    };
    let memory = r.memory.clone().unwrap_or_default();
    let limits = [memory.limit, memory.swap, memory.reservation, memory.kernel_tcp];
    want(
        limits.iter().any(|limit| limit.is_some_and(|limit| limit > 0)),
        "memory",
        "memory",
        "a memory limit",
    );
    let cpu = r.cpu.clone().unwrap_or_default();
    let time = cpu.shares.is_some_and(|shares| shares != 0)
        || cpu.quota.is_some_and(|quota| quota > 0)
        || cpu.period.is_some_and(|period| period != 0)
        || cpu.burst.is_some_and(|burst| burst != 0)
        || cpu.realtime_runtime.is_some_and(|runtime| runtime != 0)
        || cpu.realtime_period.is_some_and(|period| period != 0)
        || cpu.idle.is_some();
    want(time, "cpu", "cpu", "a limit or weight of processor time");
    let placed = [&cpu.cpus, &cpu.mems].into_iter().flatten().any(|list| !list.is_empty());
    want(placed, "cpuset", "cpuset", "the placement on processors or memory nodes");
    let pids = r.pids.as_ref().and_then(|pids| pids.limit);
    want(pids.is_some_and(|limit| limit >= 0), "pids", "pids", "the limit of processes");
    want(r.block_io.as_ref().is_some_and(|io| *io != BlockIo::default()), "blkio", "io", "block I/O limits");
    want(!r.hugepage_limits.is_empty(), "hugetlb", "hugetlb", "a limit of huge pages");
    want(!r.rdma.is_empty(), "rdma", "rdma", "RDMA limits");
    wanted
}

/// The first controller that is asked for and that no hierarchy has, and what it was asked for.
pub(crate) fn lacking(h: &Hierarchies, r: &Resources) -> Option<(&'static str, String)> {
    let mut wanted = wanted(r).into_iter();
    wanted
        .find(|(v1, v2, _)| h.v1_with(v1).is_none() && h.unified_with(v2).is_none())
        .map(|(_, v2, what)| (v2, what.to_owned()))
}

/// Adds the writes for the controllers of the unified hierarchy, and refuses what no hierarchy can do.
pub(crate) fn limits(plan: &mut Plan, h: &Hierarchies, path: &str, r: &Resources) -> Result<()> {
    if let Some((controller, what)) = lacking(h, r) {
        return Err(Error::NoController { what, controller });
    }
    let dir = |v1: &str, v2: &str| -> Option<PathBuf> {
        if h.v1_with(v1).is_some() { None } else { h.unified_dir(v2, path) }
    };
    if let (Some(dir), Some(c)) = (dir("cpuset", "cpuset"), &r.cpu) {
        for (file, value) in [("cpuset.cpus", &c.cpus), ("cpuset.mems", &c.mems)] {
            if let Some(list) = value.as_ref().filter(|list| !list.is_empty()) {
                plan.write(dir.join(file), list, Missing::Fail);
            }
        }
    }
    if let (Some(dir), Some(m)) = (dir("memory", "memory"), &r.memory) {
        memory(plan, &dir, m)?;
    }
    if let (Some(dir), Some(c)) = (dir("cpu", "cpu"), &r.cpu) {
        cpu(plan, &dir, c)?;
    }
    if let Some(dir) = dir("pids", "pids")
        && let Some(limit) = r.pids.as_ref().and_then(|pids| pids.limit)
    {
        plan.write(dir.join("pids.max"), pids_value(limit), Missing::Fail);
    }
    if let (Some(dir), Some(io)) = (dir("blkio", "io"), &r.block_io) {
        block_io(plan, &dir, io)?;
    }
    if let Some(dir) = dir("hugetlb", "hugetlb") {
        for limit in &r.hugepage_limits {
            let size = hugepage_size(&limit.page_size)?;
            plan.write(dir.join(format!("hugetlb.{size}.max")), limit.limit, Missing::Fail);
            plan.write(dir.join(format!("hugetlb.{size}.rsvd.max")), limit.limit, Missing::Skip);
        }
    }
    if let Some(dir) = dir("rdma", "rdma") {
        for (device, limits) in &r.rdma {
            plan.write(dir.join("rdma.max"), rdma_value(device, limits), Missing::Fail);
        }
    }
    unified(plan, h, path, r)?;
    if !r.devices.is_empty() && h.v1_with("devices").is_none() {
        let dir = h.unified().map(|unified| unified.dir(path));
        let dir = dir
            .ok_or_else(|| Error::NoController { what: "device rules".to_owned(), controller: "devices" })?;
        plan.steps.push(Step::DeviceProgram { dir, rules: r.devices.clone() });
    }
    Ok(())
}

/// The specification's raw files: `config-linux.md`, "Unified".
fn unified(plan: &mut Plan, h: &Hierarchies, path: &str, r: &Resources) -> Result<()> {
    if r.unified.is_empty() {
        return Ok(());
    }
    // Callers look for these words, which are runc's, and in brackets crun's.
    let wrong = |why: String| Error::Invalid(format!("invalid configuration: resources.unified {why}"));
    let place = h.unified().filter(|_| h.layout() == Layout::V2);
    let dir = place.map(|unified| unified.dir(path)).ok_or_else(|| {
        wrong(
            "is for cgroup v2 alone, and this machine has v1 hierarchies: use the other members of resources"
                .into(),
        )
    })?;
    for (file, value) in &r.unified {
        if file.contains('/') {
            return Err(wrong(format!("has the key {file:?}, which must be a file name (no slashes)")));
        }
        let controller = file.split_once('.').filter(|(name, rest)| !name.is_empty() && !rest.is_empty());
        let Some((controller, _)) = controller.filter(|_| !file.contains('\0')) else {
            return Err(wrong(format!(
                "has the key {file:?}, which must be in the form CONTROLLER.PARAMETER (the specified key has not the \
                 form CONTROLLER.VALUE `{file}`)"
            )));
        };
        if controller != "cgroup" && h.unified_with(controller).is_none() {
            return Err(wrong(format!(
                "can't set {file:?}: controller {controller:?} not available (the requested cgroup controller \
                 `{controller}` is not available)"
            )));
        }
        // Several lines are several settings, and the kernel takes one in each write.
        for line in value.lines().filter(|line| !line.trim().is_empty()) {
            plan.write(dir.join(file), line, Missing::Fail);
        }
    }
    Ok(())
}

fn memory(plan: &mut Plan, dir: &Path, m: &Memory) -> Result<()> {
    let set = |value: Option<i64>| value.filter(|value| *value != 0);
    let (limit, swap) = (set(m.limit), set(m.swap));
    if let Some(alone) = swap_alone(limit, swap)? {
        // Without swap accounting there may be no file; "max" and "none" lose nothing by that.
        let missing = if alone <= 0 { Missing::Skip } else { Missing::Fail };
        plan.write(dir.join("memory.swap.max"), or_max(alone), missing);
    }
    if let Some(limit) = limit {
        plan.write(dir.join("memory.max"), or_max(limit), Missing::Fail);
    }
    if let Some(reservation) = set(m.reservation) {
        plan.write(dir.join("memory.low"), or_max(reservation), Missing::Fail);
    }
    // As in v1, where kernels have it no more either, and as with other runtimes.
    if set(m.kernel).is_some() {
        plan.notes.push("the kernel memory limit is passed over: cgroup v2 has none".into());
    }
    refuse(set(m.kernel_tcp).is_some(), "memory.kernelTCP")?;
    refuse(m.swappiness.is_some(), "memory.swappiness")?;
    refuse(m.disable_oom_killer == Some(true), "memory.disableOOMKiller")
}

/// `config-linux.md`, "Unified": what cannot be converted is an error.
fn refuse(asked: bool, field: &str) -> Result<()> {
    if asked {
        return Err(Error::Invalid(format!(
            "resources.{field} cannot be set: cgroup v2 has nothing like it"
        )));
    }
    Ok(())
}

fn cpu(plan: &mut Plan, dir: &Path, c: &Cpu) -> Result<()> {
    // An idle group takes no weight, so that it ceases to be idle first and becomes so last.
    if c.idle == Some(0) {
        plan.write(dir.join("cpu.idle"), 0, Missing::Fail);
    }
    if let Some(shares) = c.shares.filter(|shares| *shares != 0) {
        plan.write(dir.join("cpu.weight"), shares_to_weight(shares), Missing::Fail);
    }
    let mut bandwidth = Vec::new();
    let quota = c.quota.unwrap_or(0);
    let period = c.period.filter(|period| *period != 0);
    if let (0, Some(period)) = (quota, period) {
        plan.steps.push(Step::Period { file: dir.join("cpu.max"), period });
    } else if quota != 0 {
        let quota = if quota > 0 { quota.to_string() } else { "max".into() };
        bandwidth.push(Write {
            file: dir.join("cpu.max"),
            // The kernel keeps the period when only the quota is written.
            value: period.map_or(quota.clone(), |period| format!("{quota} {period}")),
            missing: Missing::Fail,
        });
    }
    if let Some(burst) = c.burst {
        bandwidth.push(Write {
            file: dir.join("cpu.max.burst"),
            value: burst.to_string(),
            missing: Missing::Fail,
        });
    }
    plan.together(bandwidth);
    if let Some(idle) = c.idle.filter(|idle| *idle != 0) {
        plan.write(dir.join("cpu.idle"), idle, Missing::Fail);
    }
    refuse(c.realtime_runtime.is_some_and(|r| r != 0), "cpu.realtimeRuntime")?;
    refuse(c.realtime_period.is_some_and(|p| p != 0), "cpu.realtimePeriod")
}

fn block_io(plan: &mut Plan, dir: &Path, io: &BlockIo) -> Result<()> {
    let weight = |plan: &mut Plan, prefix: &str, weight: u16| {
        let write = |file: &str, value: String| Write {
            file: dir.join(file),
            value: format!("{prefix}{value}"),
            missing: Missing::Fail,
        };
        plan.steps.push(Step::WriteFirst(vec![
            write("io.bfq.weight", weight.to_string()),
            write("io.weight", blkio_weight_to_io_weight(weight).to_string()),
        ]));
    };
    if let Some(value) = io.weight.filter(|weight| *weight != 0) {
        weight(plan, "", value);
    }
    for device in &io.weight_device {
        if let Some(value) = device.weight.filter(|weight| *weight != 0) {
            weight(plan, &format!("{}:{} ", device.major, device.minor), value);
        }
    }
    let leaves = io.weight_device.iter().map(|device| device.leaf_weight);
    refuse(leaves.chain([io.leaf_weight]).flatten().any(|weight| weight != 0), "blockIO.leafWeight")?;
    for (key, devices) in [
        ("rbps", &io.throttle_read_bps_device),
        ("wbps", &io.throttle_write_bps_device),
        ("riops", &io.throttle_read_iops_device),
        ("wiops", &io.throttle_write_iops_device),
    ] {
        for d in devices {
            plan.write(
                dir.join("io.max"),
                format!("{}:{} {key}={}", d.major, d.minor, d.rate),
                Missing::Fail,
            );
        }
    }
    Ok(())
}
