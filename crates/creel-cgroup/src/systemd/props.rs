//! The properties that runc gives its units (systemd.resource-control(5), org.freedesktop.systemd1(5)).

use creel_types::spec::{Cpu, DeviceRule, Resources};

use super::names::Place;
use super::wire::Value;
use crate::convert::{blkio_weight_to_io_weight, shares_to_weight, swap_alone};
use crate::devices::{Kind, List};
use crate::error::{Error, Result};

/// Names and values, in the order in which systemd is to apply them.
pub(crate) type Properties = Vec<(String, Value)>;

/// What systemd has that matters for the choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Host {
    /// Whether systemd's controllers are those of the unified hierarchy.
    pub(crate) v2: bool,
    /// Its version; `AllowedCPUs=` came with 244, `CPUWeight=idle` with 252.
    pub(crate) version: u32,
}

/// The kernel's default of a period, microseconds.
const PERIOD: u64 = 100_000;

fn property(name: &str, value: Value) -> (String, Value) {
    (name.to_owned(), value)
}

/// Systemd's "no limit", where the specification has -1.
fn or_infinity(value: i64) -> Value {
    Value::Uint64(u64::try_from(value).unwrap_or(u64::MAX))
}

/// What a new unit is, apart from its limits.
pub(crate) fn unit(place: &Place, pid: Option<i32>, host: Host) -> Properties {
    let mut found = vec![property("Description", Value::Text(format!("creel container {}", place.name)))];
    if place.unit.ends_with(".slice") {
        found.push(property("Wants", Value::Array("s".into(), vec![Value::text(&place.slice)])));
    } else {
        found.push(property("Slice", Value::text(&place.slice)));
        found.push(property("Delegate", Value::Bool(true)));
    }
    if let Some(pid) = pid.and_then(|pid| u32::try_from(pid).ok()) {
        found.push(property("PIDs", Value::Array("u".into(), vec![Value::Uint32(pid)])));
    }
    let io = if host.v2 { "IOAccounting" } else { "BlockIOAccounting" };
    for accounting in ["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"] {
        found.push(property(accounting, Value::Bool(true)));
    }
    found.push(property("DefaultDependencies", Value::Bool(false)));
    found
}

/// The limits as far as systemd knows such; the rest is for the files alone. Also tells what is passed over.
pub(crate) fn limits(r: &Resources, host: Host) -> Result<(Properties, Vec<String>)> {
    let mut found = Properties::new();
    let mut notes = Vec::new();
    if !r.devices.is_empty() {
        found.extend(devices(&r.devices, host)?);
    }
    let memory = r.memory.clone().unwrap_or_default();
    let set = |value: Option<i64>| value.filter(|value| *value != 0);
    let name = if host.v2 { "MemoryMax" } else { "MemoryLimit" };
    found.extend(set(memory.limit).map(|limit| property(name, or_infinity(limit))));
    if host.v2 {
        found.extend(set(memory.reservation).map(|low| property("MemoryLow", or_infinity(low))));
        let swap = swap_alone(set(memory.limit), set(memory.swap))?;
        found.extend(swap.map(|swap| property("MemorySwapMax", or_infinity(swap))));
    }
    if let Some(c) = &r.cpu {
        cpu(&mut found, &mut notes, c, host)?;
    }
    if let Some(weight) = r.block_io.as_ref().and_then(|io| io.weight).filter(|weight| *weight != 0) {
        found.push(if host.v2 {
            property("IOWeight", Value::Uint64(blkio_weight_to_io_weight(weight)))
        } else {
            property("BlockIOWeight", Value::Uint64(weight.into()))
        });
    }
    if let Some(limit) = r.pids.as_ref().and_then(|pids| pids.limit) {
        // 0 as the files have it; systemd refuses it.
        found.push(property("TasksMax", or_infinity(if limit == 0 { 1 } else { limit })));
    }
    if host.v2 {
        unified(&mut found, &mut notes, r, host)?;
    }
    Ok((found, notes))
}

const TWO_WEIGHTS: &str =
    "unable to apply both a weight of processor time and idleness; the weight is passed over";

fn idle(value: Option<i64>, host: Host) -> bool {
    value == Some(1) && host.v2 && host.version >= 252
}

fn cpu(found: &mut Properties, notes: &mut Vec<String>, c: &Cpu, host: Host) -> Result<()> {
    let shares = c.shares.filter(|shares| *shares != 0);
    if idle(c.idle, host) {
        // A weight of 0 is systemd's word for idle.
        found.push(property("CPUWeight", Value::Uint64(0)));
        notes.extend(shares.map(|_| TWO_WEIGHTS.to_owned()));
    } else if let Some(shares) = shares {
        found.push(if host.v2 {
            property("CPUWeight", Value::Uint64(shares_to_weight(shares)))
        } else {
            property("CPUShares", Value::Uint64(shares))
        });
    }
    found.extend(quota(c.quota.unwrap_or(0), c.period.unwrap_or(0), host));
    for (list, name) in [(&c.cpus, "AllowedCPUs"), (&c.mems, "AllowedMemoryNodes")] {
        if let Some(list) = list.as_deref().filter(|list| !list.is_empty() && host.version >= 244) {
            found.push(property(name, bits(list)?));
        }
    }
    Ok(())
}

/// 0 is "not said" for both; a negative quota is none.
fn quota(quota: i64, period: u64, host: Host) -> Properties {
    let mut found = Properties::new();
    if period != 0 && host.version >= 242 {
        found.push(property("CPUQuotaPeriodUSec", Value::Uint64(period)));
    }
    if quota != 0 || period != 0 {
        found.push(property(
            "CPUQuotaPerSecUSec",
            Value::Uint64(per_second(quota, period).unwrap_or(u64::MAX)),
        ));
    }
    found
}

/// Microseconds of processor time in a second, rounded up to the percent that systemd counts in.
fn per_second(quota: i64, period: u64) -> Option<u64> {
    let quota = u64::try_from(quota).ok().filter(|quota| *quota > 0)?;
    let period = if period == 0 { PERIOD } else { period };
    Some((quota.saturating_mul(1_000_000) / period).checked_next_multiple_of(10_000).unwrap_or(u64::MAX))
}

/// The quota that systemd makes of the one that was asked for; the file gets the same, lest the two undo each other.
pub(crate) fn rounded(quota: i64, period: u64) -> i64 {
    match per_second(quota, period) {
        Some(per_second) => {
            let period = if period == 0 { PERIOD } else { period };
            let exact = u64::try_from(quota).unwrap_or(0).saturating_mul(1_000_000) / period;
            // What is a whole percent already stays to the microsecond.
            if exact == per_second {
                quota
            } else {
                i64::try_from((per_second / 10_000).saturating_mul(period) / 100).unwrap_or(quota)
            }
        }
        None => quota,
    }
}

/// A list like `0,2-4` as the bit mask that systemd takes, the first eight in the first byte.
pub(crate) fn bits(list: &str) -> Result<Value> {
    let wrong = || Error::Invalid(format!("{list:?} is not a list of processors or memory nodes like 0,2-4"));
    // Far beyond what the kernel can be built for (8192), and no reason to fill the memory.
    let number = |text: &str| text.trim().parse::<usize>().ok().filter(|n| *n < 65_536).ok_or_else(wrong);
    let mut mask: Vec<u8> = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (from, to) = match part.split_once('-') {
            Some((from, to)) => (number(from)?, number(to)?),
            None => (number(part)?, number(part)?),
        };
        if from > to {
            return Err(wrong());
        }
        mask.resize(mask.len().max(to / 8 + 1), 0);
        for n in from..=to {
            mask[n / 8] |= 1 << (n % 8);
        }
    }
    if mask.is_empty() {
        return Err(wrong());
    }
    Ok(Value::Array("y".into(), mask.into_iter().map(Value::Byte).collect()))
}

fn allow_list(entries: Vec<Value>) -> (String, Value) {
    property("DeviceAllow", Value::Array("(ss)".into(), entries))
}

/// Device rules. Systemd knows only lists of what is allowed, by kind, by major number or one by one. What it cannot
/// say: in v1 all is denied until our own list is written; in v2, where its program and ours add up, it is left out.
fn devices(rules: &[DeviceRule], host: Host) -> Result<Properties> {
    // An empty list takes away what an existing unit allows.
    let clear = allow_list(Vec::new());
    let policy = |name: &str| property("DevicePolicy", Value::text(name));
    let list = match List::from_rules(rules) {
        Ok(list) => list,
        Err(_) if host.v2 => return Ok(vec![clear, policy("auto")]),
        Err(error) => return Err(error),
    };
    let mut entries = Vec::new();
    let mut all_said = true;
    let Some(allowed) = list.allowed() else {
        return Ok(vec![clear, policy(if host.v2 || list.is_open() { "auto" } else { "strict" })]);
    };
    for (which, access) in allowed {
        let (group, dir) = match which.kind {
            Kind::Block => ("block", "block"),
            Kind::Char => ("char", "char"),
        };
        let path = match (which.major, which.minor) {
            (None, None) => format!("{group}-*"),
            (Some(major), None) => format!("{group}-{major}"),
            (Some(major), Some(minor)) => format!("/dev/{dir}/{major}:{minor}"),
            (None, Some(_)) => {
                all_said = false;
                continue;
            }
        };
        entries.push(Value::Struct(vec![Value::Text(path), Value::Text(access)]));
    }
    if host.v2 && !all_said {
        return Ok(vec![clear, policy("auto")]);
    }
    Ok(vec![clear, policy("strict"), allow_list(entries)])
}

/// `resources.unified`, as far as systemd knows it; later ones win over what the other members of resources said.
fn unified(found: &mut Properties, notes: &mut Vec<String>, r: &Resources, host: Host) -> Result<()> {
    let idle = idle(r.unified.get("cpu.idle").and_then(|text| text.trim().parse().ok()), host);
    for (key, value) in &r.unified {
        let value = value.trim();
        let wrong =
            || Error::Invalid(format!("invalid configuration: resources.unified has {key:?} with {value:?}"));
        let number = || match value {
            "max" => Ok(Value::Uint64(u64::MAX)),
            _ => value.parse().map(Value::Uint64).map_err(|_| wrong()),
        };
        let name = match key.as_str() {
            "cpu.idle" if idle => {
                found.push(property("CPUWeight", Value::Uint64(0)));
                continue;
            }
            "cpu.weight" if idle => {
                notes.push(TWO_WEIGHTS.to_owned());
                continue;
            }
            "cpu.max" => {
                let mut words = value.split_whitespace();
                let limit = match words.next() {
                    Some("max") => 0,
                    Some(word) => word.parse().map_err(|_| wrong())?,
                    None => return Err(wrong()),
                };
                let period = words.next().map_or(Ok(PERIOD), str::parse).map_err(|_| wrong())?;
                if words.next().is_some() {
                    return Err(wrong());
                }
                found.extend(quota(limit, period, host));
                continue;
            }
            "cpuset.cpus" | "cpuset.mems" if host.version >= 244 => {
                let name = if key == "cpuset.cpus" { "AllowedCPUs" } else { "AllowedMemoryNodes" };
                found.push(property(name, bits(value)?));
                continue;
            }
            "cpu.weight" => "CPUWeight",
            "memory.high" => "MemoryHigh",
            "memory.low" => "MemoryLow",
            "memory.min" => "MemoryMin",
            "memory.max" => "MemoryMax",
            "memory.swap.max" => "MemorySwapMax",
            "pids.max" => "TasksMax",
            _ => continue,
        };
        found.push(property(name, number()?));
    }
    Ok(())
}

/// The number at the beginning of systemd's version, like `v252.6-1` or `254`.
pub(crate) fn version(text: &str) -> u32 {
    let digits = text.trim_start_matches(['"', 'v']);
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    const V2: Host = Host { v2: true, version: 252 };
    const V1: Host = Host { v2: false, version: 252 };

    fn check(json: &str, host: Host, want: Expect) {
        let (found, notes) = limits(&serde_json::from_str(json).unwrap(), host).unwrap();
        let lines = found.iter().map(|(name, value)| format!("{name}: {} {value}\n", value.signature()));
        let notes = notes.iter().map(|note| format!("note: {note}\n"));
        want.assert_eq(&lines.chain(notes).collect::<String>());
    }

    const COMMON: &str = r#"{
        "devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "access": "m"},
            {"allow": true, "type": "c", "major": 136, "access": "rw"}, {"allow": true, "type": "b", "major": 8, "minor": 0}],
        "memory": {"limit": 33554432, "reservation": 25165824, "swap": 67108864},
        "cpu": {"shares": 100, "quota": 500000, "period": 1000000, "cpus": "0,2-3", "mems": "0"},
        "pids": {"limit": 20},
        "blockIO": {"weight": 750}
    }"#;

    #[test]
    fn as_runc_sets_them() {
        check(
            COMMON,
            V2,
            expect![[r#"
                DeviceAllow: a(ss) []
                DevicePolicy: s "strict"
                DeviceAllow: a(ss) [("char-*", "m"), ("char-136", "rw"), ("/dev/block/8:0", "rwm")]
                MemoryMax: t 33554432
                MemoryLow: t 25165824
                MemorySwapMax: t 33554432
                CPUWeight: t 17
                CPUQuotaPeriodUSec: t 1000000
                CPUQuotaPerSecUSec: t 500000
                AllowedCPUs: ay [13]
                AllowedMemoryNodes: ay [1]
                IOWeight: t 7475
                TasksMax: t 20
            "#]],
        );
        check(
            COMMON,
            V1,
            expect![[r#"
                DeviceAllow: a(ss) []
                DevicePolicy: s "strict"
                DeviceAllow: a(ss) [("char-*", "m"), ("char-136", "rw"), ("/dev/block/8:0", "rwm")]
                MemoryLimit: t 33554432
                CPUShares: t 100
                CPUQuotaPeriodUSec: t 1000000
                CPUQuotaPerSecUSec: t 500000
                AllowedCPUs: ay [13]
                AllowedMemoryNodes: ay [1]
                BlockIOWeight: t 750
                TasksMax: t 20
            "#]],
        );
        check(
            r#"{"memory": {"limit": -1}, "cpu": {"quota": -1}, "pids": {"limit": -1}}"#,
            V2,
            expect![[r#"
            MemoryMax: t 18446744073709551615
            MemorySwapMax: t 18446744073709551615
            CPUQuotaPerSecUSec: t 18446744073709551615
            TasksMax: t 18446744073709551615
        "#]],
        );
    }

    #[test]
    fn what_systemd_cannot_say() {
        // v2: our own program says it, and systemd's must not stand against it.
        for json in [
            r#"{"devices": [{"allow": false}, {"allow": true, "type": "c", "minor": 5}]}"#,
            r#"{"devices": [{"allow": true}, {"allow": false, "type": "c", "major": 1}]}"#,
            r#"{"devices": [{"allow": true}]}"#,
        ] {
            check(
                json,
                V2,
                expect![[r#"
                DeviceAllow: a(ss) []
                DevicePolicy: s "auto"
            "#]],
            );
        }
        // v1: nothing until our own list is there.
        check(
            r#"{"devices": [{"allow": true}, {"allow": false, "type": "c", "major": 1}]}"#,
            V1,
            expect![[r#"
                DeviceAllow: a(ss) []
                DevicePolicy: s "strict"
            "#]],
        );
    }

    #[test]
    fn unified_and_idle() {
        check(
            r#"{"cpu": {"shares": 200, "idle": 1}, "unified": {
                "cpu.max": "5000 50000", "cpu.weight": "42", "memory.min": "131072", "memory.high": "max",
                "pids.max": "99", "cpuset.cpus": "1", "io.max": "8:0 rbps=1"}}"#,
            V2,
            expect![[r#"
                CPUWeight: t 0
                CPUQuotaPeriodUSec: t 50000
                CPUQuotaPerSecUSec: t 100000
                CPUWeight: t 42
                AllowedCPUs: ay [2]
                MemoryHigh: t 18446744073709551615
                MemoryMin: t 131072
                TasksMax: t 99
                note: unable to apply both a weight of processor time and idleness; the weight is passed over
            "#]],
        );
        check(
            r#"{"cpu": {"idle": 0}, "unified": {"cpu.idle": "1", "cpu.weight": "8"}}"#,
            V2,
            expect![[r#"
            CPUWeight: t 0
            note: unable to apply both a weight of processor time and idleness; the weight is passed over
        "#]],
        );
        check(r#"{"cpu": {"idle": 1}}"#, Host { version: 251, ..V2 }, expect![[""]]);
        for json in [r#"{"unified": {"memory.max": "x"}}"#, r#"{"unified": {"cpu.max": "1 2 3"}}"#] {
            assert!(limits(&serde_json::from_str(json).unwrap(), V2).is_err());
        }
    }

    #[test]
    fn units() {
        let show = |path, pid, host| {
            let place = Place::parse(Some(path), "abc", false).unwrap();
            let found = unit(&place, pid, host);
            found.iter().map(|(name, value)| format!("{name}={value}\n")).collect::<String>()
        };
        expect![[r#"
            Description="creel container abc"
            Slice="machine.slice"
            Delegate=true
            PIDs=[77]
            MemoryAccounting=true
            CPUAccounting=true
            IOAccounting=true
            TasksAccounting=true
            DefaultDependencies=false
        "#]]
        .assert_eq(&show("machine.slice:libpod:abc", Some(77), V2));
        expect![[r#"
            Description="creel container a-pod.slice"
            Wants=["a.slice"]
            MemoryAccounting=true
            CPUAccounting=true
            BlockIOAccounting=true
            TasksAccounting=true
            DefaultDependencies=false
        "#]]
        .assert_eq(&show("a.slice:x:a-pod.slice", None, V1));
    }

    #[test]
    fn versions_and_quotas() {
        for (text, want) in [("252.39-1~deb12u1", 252), ("v245.4-1.fc32", 245), ("\"219\"", 219), ("x", 0)] {
            assert_eq!(version(text), want);
        }
        assert_eq!(rounded(500_000, 1_000_000), 500_000);
        // A third of a percent more.
        assert_eq!(rounded(4_033, 100_000), 5_000);
        assert_eq!(rounded(-1, 0), -1);
        assert!(
            bits("4-2").is_err() && bits("").is_err() && bits("4294967295").is_err() && bits("a").is_err()
        );
    }

    proptest! {
        #[test]
        fn masks(mut list in proptest::collection::vec(0usize..300, 1..20)) {
            let text = list.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
            let Value::Array(_, bytes) = bits(&text).unwrap() else { panic!() };
            let mut read = Vec::new();
            for (i, byte) in bytes.iter().enumerate() {
                let Value::Byte(byte) = byte else { panic!() };
                read.extend((0..8).filter(|bit| byte & (1 << bit) != 0).map(|bit| i * 8 + bit));
            }
            list.sort_unstable();
            list.dedup();
            prop_assert_eq!(read, list);
        }

        #[test]
        fn lists_never_panic(text in "[0-9,\\- a]{0,20}") {
            let _ = bits(&text);
        }

        #[test]
        fn a_rounded_quota_is_stable_and_not_less(quota in 1i64..10_000_000, period in 1000u64..1_000_000) {
            let once = rounded(quota, period);
            prop_assert!(once >= quota - 1, "{once} {quota}");
            prop_assert_eq!(per_second(once, period).unwrap() / 10_000, per_second(quota, period).unwrap() / 10_000);
        }
    }
}
