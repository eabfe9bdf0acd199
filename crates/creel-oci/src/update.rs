//! `update`: new limits for a running container.

use std::io::Read;
use std::path::Path;

use creel_types::spec::Resources;

use crate::container;
use crate::error::{Error, Result};
use crate::flags::Parsed;
use crate::options::Options;
use crate::record::Status;

/// The largest document that is read.
const MAX_DOCUMENT: u64 = 16 << 20;

/// `update ID`.
pub(crate) fn update(o: &Options, parsed: &Parsed, id: &str) -> Result<()> {
    let loaded = container::load_locked(o, id)?;
    let mut wanted = match parsed.value("resources") {
        Some(path) => document(Path::new(path))?,
        None => from_flags(parsed)?,
    };
    for (flag, what) in
        [("l3-cache-schema", "Intel RDT/CAT: l3 cache"), ("mem-bw-schema", "Intel RDT/MBA: memory bandwidth")]
    {
        if parsed.value(flag).is_some() && !Path::new("/sys/fs/resctrl/schemata").exists() {
            return Err(Error::Invalid(format!("{what} schema is not enabled")));
        }
    }
    if loaded.status() == Status::Stopped {
        return Err(Error::NotRunning);
    }
    if wanted.memory.as_ref().is_some_and(|memory| memory.kernel.is_some() || memory.kernel_tcp.is_some()) {
        o.log.warn("Kernel memory settings are ignored and will be removed");
    }
    if let Some(memory) = &mut wanted.memory {
        memory.kernel = None;
        memory.kernel_tcp = None;
    }
    let mut spec = loaded.entry.spec()?;
    let current = spec.linux.get_or_insert_default().resources.get_or_insert_default();
    complete(&mut wanted, current);
    // Device rules cannot be changed: a plug-in may have added its own.
    wanted.devices.clear();
    let schema = schemata(parsed, &spec)?;
    let notes = loaded.record.group.required("update")?.update(&wanted)?;
    notes.iter().for_each(|note| o.log.warn(note));
    if let Some(line) = schema {
        let path = resctrl_dir(&spec, id).join("schemata");
        std::fs::write(&path, line).map_err(|e| Error::on("write", &path, e))?;
    }
    let linux = spec.linux.get_or_insert_default();
    merge(linux.resources.get_or_insert_default(), wanted);
    loaded.entry.store_spec(&spec)
}

/// What the kernel wants to know together although only a part of it is new.
fn complete(wanted: &mut Resources, current: &Resources) {
    if let Some(memory) = &mut wanted.memory
        && memory.limit == Some(-1)
        && memory.swap.is_none()
    {
        // Without a limit of memory there is none of both together either.
        memory.swap = Some(-1);
    }
    // v2 keeps swap apart, and needs the limit of memory to tell how much of both together is swap.
    if let (Some(memory), Some(before)) = (&mut wanted.memory, &current.memory)
        && memory.swap.is_some_and(|swap| swap > 0)
        && memory.limit.is_none()
    {
        memory.limit = before.limit;
    }
    if let (Some(cpu), Some(before)) = (&mut wanted.cpu, &current.cpu) {
        // 0 means "unset" to callers of runc; quota and period are one value in v2.
        cpu.period = cpu.period.filter(|period| *period != 0);
        cpu.quota = cpu.quota.filter(|quota| *quota != 0);
        match (cpu.period, cpu.quota) {
            (Some(_), None) => cpu.quota = before.quota.filter(|quota| *quota != 0),
            (None, Some(_)) => cpu.period = before.period.filter(|period| *period != 0),
            _ => {}
        }
    }
}

/// Overlays what is new; what is not mentioned stays.
fn merge(current: &mut Resources, new: Resources) {
    fn over<T: serde::Serialize + serde::de::DeserializeOwned + Default>(
        old: Option<T>,
        new: Option<T>,
    ) -> Option<T> {
        let Some(new) = new else { return old };
        let Some(old) = old else { return Some(new) };
        let as_object = |value: &T| serde_json::to_value(value).unwrap_or_default();
        let (mut all, new_value) = (as_object(&old), as_object(&new));
        if let (Some(all), serde_json::Value::Object(new)) = (all.as_object_mut(), new_value) {
            all.extend(new);
        }
        Some(serde_json::from_value(all).unwrap_or(new))
    }
    current.memory = over(current.memory.take(), new.memory);
    current.cpu = over(current.cpu.take(), new.cpu);
    current.pids = over(current.pids.take(), new.pids);
    current.block_io = over(current.block_io.take(), new.block_io);
    current.network = over(current.network.take(), new.network);
    for limit in new.hugepage_limits {
        current.hugepage_limits.retain(|old| old.page_size != limit.page_size);
        current.hugepage_limits.push(limit);
    }
    current.rdma.extend(new.rdma);
    current.unified.extend(new.unified);
}

fn document(path: &Path) -> Result<Resources> {
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(MAX_DOCUMENT)
            .read_to_end(&mut bytes)
            .map_err(|e| Error::call("read standard input", e))?;
    } else {
        bytes = std::fs::read(path).map_err(|e| Error::on("open", path, e))?;
    }
    creel_types::spec::from_json(&bytes).map_err(|e| Error::Invalid(format!("resources: {e}")))
}

/// Limits from single flags.
fn from_flags(parsed: &Parsed) -> Result<Resources> {
    let mut r = Resources::default();
    let whole = |flag: &str| -> Result<Option<i64>> {
        parsed.text(flag).map(|text| integer(flag, &text)).transpose()
    };
    let natural = |flag: &str| -> Result<Option<u64>> {
        parsed.text(flag).map(|text| unsigned(flag, &text)).transpose()
    };
    let size =
        |flag: &str| -> Result<Option<i64>> { parsed.text(flag).map(|text| bytes(flag, &text)).transpose() };
    if let Some(weight) = parsed.number("blkio-weight").filter(|weight| *weight != 0) {
        let weight = u16::try_from(weight).map_err(|_| {
            Error::Invalid(format!("invalid value for blkio-weight: {weight} is out of range"))
        })?;
        r.block_io.get_or_insert_default().weight = Some(weight);
    }
    let cpu = creel_types::spec::Cpu {
        shares: natural("cpu-share")?,
        quota: whole("cpu-quota")?,
        burst: natural("cpu-burst")?,
        period: natural("cpu-period")?,
        realtime_runtime: whole("cpu-rt-runtime")?,
        realtime_period: natural("cpu-rt-period")?,
        cpus: parsed.text("cpuset-cpus"),
        mems: parsed.text("cpuset-mems"),
        idle: whole("cpu-idle")?,
    };
    r.cpu = Some(cpu).filter(|cpu| *cpu != creel_types::spec::Cpu::default());
    let memory = creel_types::spec::Memory {
        limit: size("memory")?,
        swap: size("memory-swap")?,
        reservation: size("memory-reservation")?,
        kernel: size("kernel-memory")?,
        kernel_tcp: size("kernel-memory-tcp")?,
        ..creel_types::spec::Memory::default()
    };
    r.memory = Some(memory).filter(|memory| *memory != creel_types::spec::Memory::default());
    if let Some(limit) = parsed.number("pids-limit") {
        r.pids.get_or_insert_default().limit = Some(limit);
    }
    Ok(r)
}

fn integer(flag: &str, text: &str) -> Result<i64> {
    text.parse().map_err(|e| number_error(flag, text, "ParseInt", &e))
}

fn unsigned(flag: &str, text: &str) -> Result<u64> {
    text.parse().map_err(|e| number_error(flag, text, "ParseUint", &e))
}

fn number_error(flag: &str, text: &str, call: &str, error: &std::num::ParseIntError) -> Error {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    let reason = match error.kind() {
        PosOverflow | NegOverflow => "value out of range",
        _ => "invalid syntax",
    };
    Error::Invalid(format!("invalid value for {flag}: strconv.{call}: parsing {text:?}: {reason}"))
}

/// A size in bytes: a number, a fraction too, and a unit of powers of 1024 (`k`, `MB`, `GiB`, in any case); -1 is no
/// limit.
fn bytes(flag: &str, text: &str) -> Result<i64> {
    if text == "-1" {
        return Ok(-1);
    }
    parse_size(text)
        .ok_or_else(|| Error::Invalid(format!("invalid value for {flag}: invalid size: '{text}'")))
}

pub(crate) fn parse_size(text: &str) -> Option<i64> {
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.')? + 1;
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().ok().filter(|number: &f64| *number >= 0.0 && number.is_finite())?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let power = match unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit) {
        "" if unit == "ib" => return None,
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let bytes = number * 1024f64.powi(power);
    (bytes < i64::MAX as f64).then_some(bytes as i64)
}

/// The lines for the container's resctrl group, when a schema is to be changed.
fn schemata(parsed: &Parsed, spec: &creel_types::spec::Spec) -> Result<Option<String>> {
    let lines: Vec<String> =
        ["l3-cache-schema", "mem-bw-schema"].iter().filter_map(|flag| parsed.text(flag)).collect();
    if lines.is_empty() {
        return Ok(None);
    }
    if spec.linux.as_ref().is_none_or(|linux| linux.intel_rdt.is_none()) {
        return Err(Error::Invalid(
            "updating a non-existent Intel RDT configuration is not supported".into(),
        ));
    }
    Ok(Some(lines.iter().map(|line| format!("{line}\n")).collect()))
}

fn resctrl_dir(spec: &creel_types::spec::Spec, id: &str) -> std::path::PathBuf {
    let value = spec.linux.as_ref().and_then(|linux| serde_json::to_value(&linux.intel_rdt).ok());
    let closid = value.as_ref().and_then(|rdt| rdt.get("closID")?.as_str()).filter(|name| !name.is_empty());
    Path::new("/sys/fs/resctrl").join(closid.unwrap_or(id))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::flags;
    use expect_test::expect;
    use proptest::prelude::*;
    use std::ffi::OsString;

    fn read(line: &str) -> std::result::Result<String, String> {
        let verb = crate::verbs::find("update").unwrap();
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let parsed = flags::parse(verb.flags, &words, false).unwrap();
        from_flags(&parsed).map(|r| serde_json::to_string(&r).unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn flags_are_limits() {
        expect![[r#"{"memory":{"limit":52428800,"reservation":1024,"swap":-1},"cpu":{"shares":512,"quota":50000,"burst":10,"period":100000,"cpus":"0-1","mems":"0","idle":1},"pids":{"limit":-1},"blockIO":{"weight":100}}"#]]
        .assert_eq(&read("--memory 50m --memory-reservation=1k --memory-swap -1 --cpu-share 512 --cpu-quota 50000 --cpu-burst 10 --cpu-period 100000 --cpuset-cpus 0-1 --cpuset-mems 0 --cpu-idle 1 --pids-limit -1 --blkio-weight 100 c").unwrap());
        assert_eq!(read("c").unwrap(), "{}");
        for (line, error) in [
            (
                "--cpu-quota abc c",
                "invalid value for cpu-quota: strconv.ParseInt: parsing \"abc\": invalid syntax",
            ),
            (
                "--cpu-share -1 c",
                "invalid value for cpu-share: strconv.ParseUint: parsing \"-1\": invalid syntax",
            ),
            ("--memory xx c", "invalid value for memory: invalid size: 'xx'"),
            ("--memory -2 c", "invalid value for memory: invalid size: '-2'"),
            ("--blkio-weight 70000 c", "invalid value for blkio-weight: 70000 is out of range"),
        ] {
            assert_eq!(read(line).unwrap_err(), error, "{line}");
        }
    }

    #[test]
    fn sizes() {
        for (text, size) in [
            ("0", Some(0)),
            ("32", Some(32)),
            ("1k", Some(1024)),
            ("1kb", Some(1024)),
            ("1KiB", Some(1024)),
            ("1.5 GB", Some(1 << 30 | 1 << 29)),
            ("2p", Some(2 << 50)),
            ("", None),
            ("k", None),
            ("1x", None),
            ("1ib", None),
            ("--1", None),
            ("99999999999999999999p", None),
        ] {
            assert_eq!(parse_size(text), size, "{text}");
        }
    }

    #[test]
    fn half_of_a_pair_is_completed_and_the_rest_stays() {
        let read = |text: &str| serde_json::from_str::<Resources>(text).unwrap();
        let mut current = read(r#"{"cpu":{"quota":50000,"period":100000,"shares":7},"unified":{"a":"1"}}"#);
        let mut new =
            read(r#"{"cpu":{"period":200000,"quota":0},"memory":{"limit":-1},"unified":{"b":"2"}}"#);
        complete(&mut new, &current);
        assert_eq!(
            new,
            read(
                r#"{"cpu":{"period":200000,"quota":50000},"memory":{"limit":-1,"swap":-1},"unified":{"b":"2"}}"#
            )
        );
        merge(&mut current, new);
        assert_eq!(
            current,
            read(
                r#"{"cpu":{"quota":50000,"period":200000,"shares":7},"memory":{"limit":-1,"swap":-1},"unified":{"a":"1","b":"2"}}"#
            )
        );
    }

    proptest! {
        #[test]
        fn any_text_is_a_size_or_refused(text in "[-0-9.a-zA-Z ]{0,12}") {
            if let Some(size) = parse_size(&text) {
                prop_assert!(size >= 0);
            }
        }
    }
}
