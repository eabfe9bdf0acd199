//! Where and when a process runs, and from where its memory comes: scheduler, I/O priority, processors, NUMA policy.

use creel_sys::sched::{self, SchedAttr};
use creel_types::spec::{ExecCpuAffinity, IoPriority, MemoryPolicy, Scheduler};
use serde::Serialize;

use crate::error::Fault;
use crate::{Error, lists};

/// A NUMA policy (set_mempolicy(2)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodePolicy {
    /// `MPOL_*` mode with its `MPOL_F_*` flags.
    pub mode: u32,
    /// Memory nodes, as words of 64 bits.
    pub nodes: Vec<u64>,
}

/// On which processors an exec begins and goes on, as words of 64 bits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Affinity {
    /// Before it is moved into the control group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial: Option<Vec<u64>>,
    /// After that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Vec<u64>>,
}

/// What sched_setattr(2) gets for a Spec's scheduler.
pub(crate) fn scheduler(wanted: &Scheduler) -> Result<SchedAttr, Error> {
    let wrong = |field: &str, reason: String| Error::invalid(format!("process.scheduler.{field}"), reason);
    let policy = match wanted.policy.as_str() {
        "SCHED_OTHER" => 0,
        "SCHED_FIFO" => 1,
        "SCHED_RR" => 2,
        "SCHED_BATCH" => 3,
        "SCHED_ISO" => 4,
        "SCHED_IDLE" => 5,
        "SCHED_DEADLINE" => 6,
        other => return Err(wrong("policy", format!("{other} is no policy"))),
    };
    let mut flags = 0;
    for flag in &wanted.flags {
        flags |= match flag.as_str() {
            "SCHED_FLAG_RESET_ON_FORK" => 0x01,
            "SCHED_FLAG_RECLAIM" => 0x02,
            "SCHED_FLAG_DL_OVERRUN" => 0x04,
            "SCHED_FLAG_KEEP_POLICY" => 0x08,
            "SCHED_FLAG_KEEP_PARAMS" => 0x10,
            "SCHED_FLAG_UTIL_CLAMP_MIN" => 0x20,
            "SCHED_FLAG_UTIL_CLAMP_MAX" => 0x40,
            other => return Err(wrong("flags", format!("{other} is no flag"))),
        };
    }
    if !(-20..=19).contains(&wanted.nice) {
        return Err(wrong("nice", format!("{} does not lie between -20 and 19", wanted.nice)));
    }
    if wanted.priority != 0 && !matches!(policy, 1 | 2) {
        return Err(wrong("priority", "only SCHED_FIFO and SCHED_RR have one".into()));
    }
    if policy != 6 && (wanted.runtime, wanted.deadline, wanted.period) != (0, 0, 0) {
        return Err(wrong("runtime", "runtime, deadline and period are SCHED_DEADLINE's".into()));
    }
    if policy == 6 {
        deadline(wanted)?;
    }
    let mut attr = SchedAttr::default();
    attr.policy = policy;
    attr.flags = flags;
    attr.nice = wanted.nice;
    attr.priority =
        u32::try_from(wanted.priority).map_err(|_| wrong("priority", "it cannot be negative".into()))?;
    (attr.runtime, attr.deadline, attr.period) = (wanted.runtime, wanted.deadline, wanted.period);
    Ok(attr)
}

/// What sched_setattr(2) would only call EINVAL, in crun's words.
fn deadline(wanted: &Scheduler) -> Result<(), Error> {
    const LEAST: u64 = 1024;
    let wrong = |field: &str, text: String| {
        let text = format!("sched_setattr: `SCHED_DEADLINE` {text}");
        Err(Error::invalid(format!("process.scheduler.{field}"), text))
    };
    let Scheduler { runtime, deadline, period, .. } = *wanted;
    if runtime == 0 {
        let text = "requires `runtime`: sched_setattr: `SCHED_DEADLINE` runtime must be greater than 0";
        return wrong("runtime", text.into());
    }
    if deadline == 0 {
        return wrong("deadline", "requires `deadline`".into());
    }
    let most = 1 << 63;
    if !(LEAST..most).contains(&runtime) {
        return wrong("runtime", format!("runtime {runtime} must be between {LEAST} and {}", most - 1));
    }
    if runtime > deadline {
        return wrong("runtime", format!("runtime {runtime} must be <= deadline {deadline}"));
    }
    if period != 0 && deadline > period {
        return wrong("deadline", format!("deadline {deadline} must be <= period {period}"));
    }
    Ok(())
}

/// Class and level of an I/O priority.
pub(crate) fn io_priority(wanted: &IoPriority) -> Result<(u32, u32), Error> {
    let field = "process.ioPriority";
    let class = match wanted.class.as_str() {
        "IOPRIO_CLASS_RT" => 1,
        "IOPRIO_CLASS_BE" => 2,
        "IOPRIO_CLASS_IDLE" => 3,
        other => return Err(Error::invalid(field, format!("{other} is no class"))),
    };
    let level = u32::try_from(wanted.priority).ok().filter(|level| *level <= 7);
    Ok((class, level.ok_or_else(|| Error::invalid(field, "the level lies between 0 and 7"))?))
}

/// Reads `linux.memoryPolicy`; which modes want nodes, and which want none, is set_mempolicy(2)'s.
pub(crate) fn memory_policy(wanted: &MemoryPolicy) -> Result<NodePolicy, Error> {
    // The first words are runc's; its callers look for them.
    let wrong = |field: &str, reason: String| {
        let what = field.trim_end_matches('s');
        Error::invalid(
            format!("linux.memoryPolicy.{field}"),
            format!("invalid memory policy {what}: {reason}"),
        )
    };
    let mode = match wanted.mode.as_str() {
        "MPOL_DEFAULT" => 0,
        "MPOL_PREFERRED" => 1,
        "MPOL_BIND" => 2,
        "MPOL_INTERLEAVE" => 3,
        "MPOL_LOCAL" => 4,
        "MPOL_PREFERRED_MANY" => 5,
        "MPOL_WEIGHTED_INTERLEAVE" => 6,
        "" => return Err(wrong("mode", "none is named".into())),
        other => return Err(wrong("mode", format!("{other} is no mode"))),
    };
    let mut flags = 0;
    for flag in &wanted.flags {
        flags |= match flag.as_str() {
            "MPOL_F_NUMA_BALANCING" => 1 << 13,
            "MPOL_F_RELATIVE_NODES" => 1 << 14,
            "MPOL_F_STATIC_NODES" => 1 << 15,
            other => return Err(wrong("flags", format!("{other} is no flag"))),
        };
    }
    let nodes = match wanted.nodes.as_deref().filter(|nodes| !nodes.is_empty()) {
        None => Vec::new(),
        Some(text) => {
            lists::parse(text).ok_or_else(|| wrong("nodes", format!("{text:?} is no list like 0-3,7")))?
        }
    };
    match (mode, nodes.is_empty()) {
        (0 | 4, false) => {
            let count: u32 = nodes.iter().map(|word| word.count_ones()).sum();
            let mode = &wanted.mode;
            Err(wrong("nodes", format!("{mode} mode requires 0 nodes but got {count}")))
        }
        (2 | 3 | 5 | 6, true) => Err(wrong("nodes", format!("{} needs at least one node", wanted.mode))),
        _ => Ok(NodePolicy { mode: mode | flags, nodes }),
    }
}

/// Reads `process.execCPUAffinity`.
pub(crate) fn affinity(wanted: &ExecCpuAffinity) -> Result<Affinity, Error> {
    let read = |name: &str, text: &Option<String>| match text.as_deref().filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => lists::parse(text).map(Some).ok_or_else(|| {
            let field = format!("process.execCPUAffinity.{name}");
            Error::invalid(field, format!("{text:?} is no list of processors like 0-3,7"))
        }),
    };
    Ok(Affinity { initial: read("initial", &wanted.initial)?, last: read("final", &wanted.last)? })
}

/// A list of processors like `0-3,7` as a hexadecimal mask, for logs; `None` for what is no such list.
pub fn mask(list: &str) -> Option<String> {
    let words = lists::parse(list)?;
    let text = words.iter().rev().map(|word| format!("{word:016x}")).collect::<String>();
    Some(format!("0x{}", text.trim_start_matches('0')))
}

/// Applies what holds for all of a container's processes and what this one asks for.
pub(crate) fn apply(
    scheduler: Option<&Scheduler>,
    io_priority: Option<(u32, u32)>,
    memory: Option<&NodePolicy>,
) -> Result<(), Fault> {
    if let Some(wanted) = scheduler {
        let attr = self::scheduler(wanted)
            .map_err(|e| Fault::new(creel_types::ErrorKind::InvalidArgument, e.to_string()))?;
        sched::set_attr(&attr).map_err(|e| Fault::from(e).context("scheduler"))?;
    }
    if let Some((class, level)) = io_priority {
        sched::set_io_priority(class, level).map_err(|e| Fault::from(e).context("ioPriority"))?;
    }
    if let Some(policy) = memory {
        sched::set_memory_policy(policy.mode, &policy.nodes)
            .map_err(|e| Fault::from(e).context("memoryPolicy"))?;
    }
    Ok(())
}

/// Lets the calling process run on every processor that its control group allows, now or later, whatever its creator was
/// put on: the kernel cuts the mask down to the group's cpuset, and remembers the rest (sched_setaffinity(2)).
pub(crate) fn run_anywhere() {
    /// As many processors as Linux can be built for.
    const ALL: [u64; 128] = [u64::MAX; 128];
    // A kernel that says no leaves it where it was born, which is no reason to fail.
    let _ = sched::set_affinity(&ALL);
}

/// Puts the calling process on processors.
pub(crate) fn run_on(cpus: &[u64], name: &str) -> Result<(), Fault> {
    sched::set_affinity(cpus).map_err(|e| Fault::from(e).context(format!("execCPUAffinity.{name}")))
}

/// The caller's processors while `initial` holds, put back when this is dropped: a child born meanwhile begins there.
#[derive(Debug)]
pub(crate) struct Held(Vec<u64>);

impl Held {
    /// Changes the calling process's processors, if that is asked for.
    pub(crate) fn begin(initial: Option<&[u64]>) -> Result<Option<Held>, Error> {
        let Some(initial) = initial else { return Ok(None) };
        let failed =
            |e: std::io::Error| Error::setup("cannot set execCPUAffinity.initial", crate::error::plain(&e));
        let before = sched::affinity().map_err(failed)?;
        sched::set_affinity(initial).map_err(failed)?;
        Ok(Some(Held(before)))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = sched::set_affinity(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_contradicts_itself_is_refused() {
        let of = |policy: &str| Scheduler { policy: policy.into(), ..Scheduler::default() };
        assert!(scheduler(&of("SCHED_BATCH")).is_ok());
        for wrong in [
            of("SCHED_NONE"),
            Scheduler { nice: 20, ..of("SCHED_OTHER") },
            Scheduler { priority: 1, ..of("SCHED_OTHER") },
            Scheduler { priority: -1, ..of("SCHED_FIFO") },
            Scheduler { runtime: 1, ..of("SCHED_RR") },
            Scheduler { flags: vec!["SCHED_FLAG_NONE".into()], ..of("SCHED_RR") },
        ] {
            assert!(scheduler(&wrong).is_err(), "{wrong:?}");
        }
        let deadline = |runtime, deadline, period| {
            scheduler(&Scheduler { runtime, deadline, period, ..of("SCHED_DEADLINE") })
        };
        assert_eq!(deadline(1024, 2000, 3000).unwrap().deadline, 2000);
        assert!(deadline(1024, 2000, 0).is_ok());
        for wrong in [
            (0, 1, 1),
            (1024, 0, 3000),
            (1023, 2000, 3000),
            (3000, 2000, 4000),
            (1024, 3000, 2000),
            (1 << 63, 1 << 63, 0),
        ] {
            assert!(deadline(wrong.0, wrong.1, wrong.2).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn masks() {
        assert_eq!(mask("0,1").as_deref(), Some("0x3"));
        assert_eq!(mask("64,0").as_deref(), Some("0x10000000000000001"));
        assert_eq!(mask("x"), None);
    }

    #[test]
    fn memory_policies() {
        let policy = |mode: &str, nodes: &str, flags: &[&str]| {
            memory_policy(&MemoryPolicy {
                mode: mode.into(),
                nodes: Some(nodes.into()),
                flags: flags.iter().map(|flag| flag.to_string()).collect(),
            })
        };
        assert_eq!(policy("MPOL_BIND", "0-1", &["MPOL_F_STATIC_NODES"]).unwrap().mode, 2 | 1 << 15);
        assert!(policy("MPOL_DEFAULT", "", &[]).unwrap().nodes.is_empty());
        assert_eq!(policy("MPOL_PREFERRED", "", &[]).unwrap().mode, 1);
        for (mode, nodes, flags, words) in [
            ("MPOL_BIND", "", &[][..], "invalid memory policy node"),
            ("MPOL_LOCAL", "0-7", &[], "MPOL_LOCAL mode requires 0 nodes but got 8"),
            ("MPOL_BIND", "x", &[], "invalid memory policy node"),
            ("MPOL_BIND", "0-9876543210", &[], "invalid memory policy node"),
            ("BIND", "0", &[], "invalid memory policy mode"),
            ("", "0", &[], "invalid memory policy mode"),
            ("MPOL_BIND", "0", &["STATIC"], "invalid memory policy flag"),
        ] {
            let error = policy(mode, nodes, flags).unwrap_err().to_string();
            assert!(error.contains(words), "{mode} {nodes}: {error}");
        }
    }
}
