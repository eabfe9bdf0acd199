//! Statistics that come as tables: v1's block I/O, cpusets, processors, RDMA.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Result};
use crate::files;
use crate::stats::{Blkio, BlkioEntry, Cpuset, IoDevice, RdmaEntry};

/// The most numbers that a list may have; the kernel has at most 8192 processors and 1024 memory nodes.
const MOST: usize = 65_536;

/// A list like `0-2,7` (`cgroup-v1/cpusets.rst`, "List format").
pub(crate) fn list(what: &Path, text: &str) -> Result<Vec<u16>> {
    let wrong = || Error::parse(what.display().to_string(), text);
    let mut found = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (u16, u16) = (from.parse().map_err(|_| wrong())?, to.parse().map_err(|_| wrong())?);
        if from > to || found.len() + usize::from(to - from) >= MOST {
            return Err(wrong());
        }
        found.extend(from..=to);
    }
    Ok(found)
}

/// v1's cpuset with its flags; `None` if it is not there.
pub(crate) fn cpuset(dir: &Path) -> Result<Option<Cpuset>> {
    let read = |name: &str| {
        let path = dir.join(name);
        files::read(&path)?.map(|text| list(&path, &text)).transpose()
    };
    let Some(cpus) = read("cpuset.cpus")? else { return Ok(None) };
    let mems = read("cpuset.mems")?.unwrap_or_default();
    let mut flags = BTreeMap::new();
    for name in [
        "cpu_exclusive",
        "mem_exclusive",
        "mem_hardwall",
        "memory_migrate",
        "memory_pressure",
        "memory_spread_page",
        "memory_spread_slab",
        "sched_load_balance",
        "sched_relax_domain_level",
    ] {
        let value =
            files::read(&dir.join(format!("cpuset.{name}")))?.and_then(|text| text.trim().parse().ok());
        flags.extend(value.map(|value: i64| (name.to_owned(), value)));
    }
    Ok(Some(Cpuset { cpus, mems, flags }))
}

/// `cpuacct.usage_all`: a heading, then for each processor its number and its times in user mode and in the kernel.
pub(crate) fn usage_all(text: &str) -> (Vec<u64>, Vec<u64>) {
    let row = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(1).map(str::parse::<u64>);
        Some((fields.next()?.ok()?, fields.next()?.ok()?))
    };
    text.lines().skip(1).filter_map(row).unzip()
}

/// A table of lines `major:minor [Operation] count`. The sum at its end is passed over.
pub(crate) fn entries(text: &str) -> Vec<BlkioEntry> {
    let entry = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (major, minor) = files::device(fields.next()?)?;
        let (operation, value) = match (fields.next()?, fields.next()) {
            (operation, Some(value)) => (operation, value),
            (value, None) => ("", value),
        };
        Some(BlkioEntry { major, minor, operation: operation.to_owned(), value: value.parse().ok()? })
    };
    text.lines().filter_map(entry).collect()
}

/// The tables of v1. The throttling layer counts for every device; a scheduler (BFQ, before Linux 5.0 CFQ) has more
/// tables, and only for those that it serves.
pub(crate) fn blkio_v1(dir: &Path) -> Result<Blkio> {
    let first = |names: &[&str]| -> Result<Vec<BlkioEntry>> {
        for name in names {
            let found = files::read(&dir.join(format!("blkio.{name}")))?
                .map(|text| entries(&text))
                .unwrap_or_default();
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    };
    let of = |name: &str| first(&[&format!("bfq.{name}_recursive"), &format!("{name}_recursive")]);
    Ok(Blkio {
        service_bytes: first(&[
            "throttle.io_service_bytes_recursive",
            "bfq.io_service_bytes_recursive",
            "io_service_bytes_recursive",
            "throttle.io_service_bytes",
        ])?,
        serviced: first(&[
            "throttle.io_serviced_recursive",
            "bfq.io_serviced_recursive",
            "io_serviced_recursive",
            "throttle.io_serviced",
        ])?,
        queued: of("io_queued")?,
        service_time: of("io_service_time")?,
        wait_time: of("io_wait_time")?,
        merged: of("io_merged")?,
        time: of("time")?,
        sectors: of("sectors")?,
    })
}

/// v2's counts in v1's tables.
pub(crate) fn blkio_v2(devices: &[IoDevice]) -> Blkio {
    let rows = |of: fn(&IoDevice) -> [(&'static str, u64); 2]| {
        let rows = |device: &IoDevice| {
            of(device).map(|(operation, value)| BlkioEntry {
                major: device.major,
                minor: device.minor,
                operation: operation.to_owned(),
                value,
            })
        };
        devices.iter().flat_map(rows).collect()
    };
    Blkio {
        service_bytes: rows(|device| [("Read", device.read_bytes), ("Write", device.write_bytes)]),
        serviced: rows(|device| [("Read", device.reads), ("Write", device.writes)]),
        ..Blkio::default()
    }
}

/// `rdma.current` and `rdma.max`: a device and `key=number` pairs in each line.
pub(crate) fn rdma(text: &str) -> Vec<RdmaEntry> {
    let entry = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let mut entry = RdmaEntry { device: fields.next()?.to_owned(), hca_handles: 0, hca_objects: 0 };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let value = if value == "max" { u32::MAX } else { value.parse().ok()? };
            match key {
                "hca_handle" => entry.hca_handles = value,
                "hca_object" => entry.hca_objects = value,
                _ => {}
            }
        }
        Some(entry)
    };
    text.lines().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tables() {
        let what = Path::new("f");
        assert_eq!(list(what, "0-2,7\n").unwrap(), [0, 1, 2, 7]);
        assert!(list(what, "\n").unwrap().is_empty());
        for wrong in ["a", "3-1", "0-99999", "-1", "0-65535,0-65535"] {
            assert!(list(what, wrong).is_err(), "{wrong}");
        }
        assert_eq!(usage_all("cpu user system\n0 5 6\n1 7 8\n"), (vec![5, 7], vec![6, 8]));
        let found = entries("8:0 Read 1\n8:0 Total 3\n8:16 77\nTotal 3\nodd\n");
        let text: Vec<String> =
            found.iter().map(|e| format!("{}:{} {} {}", e.major, e.minor, e.operation, e.value)).collect();
        assert_eq!(text, ["8:0 Read 1", "8:0 Total 3", "8:16  77"]);
        let found = rdma("mlx4_0 hca_handle=2 hca_object=max\nx\n");
        assert_eq!((found[0].hca_handles, found[0].hca_objects), (2, u32::MAX));
        assert_eq!(found[1].device, "x");
    }

    proptest! {
        #[test]
        fn never_panic(text in "(?s)([0-9:,= \n-]|Read|hca_handle|max|.){0,80}") {
            let _ = (list(Path::new("f"), &text), usage_all(&text), entries(&text), rdma(&text));
        }

        #[test]
        fn lists_round_trip(numbers in proptest::collection::vec(any::<u16>(), 0..30)) {
            let text = numbers.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
            prop_assert_eq!(list(Path::new("f"), &text).unwrap(), numbers);
        }
    }
}
