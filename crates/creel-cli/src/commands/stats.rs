//! `stats`.

use std::time::Duration;

use creel_wire::stats::{CpuStats, MemoryStats, Stats};
use futures_util::future::join_all;

use crate::command::{Arity, Command, Context, Outcome, run};
use crate::failure::Failure;
use crate::flags::{Flag, ids};
use crate::format::{Listing, no_method, row};
use crate::output::print;
use crate::template::Value;
use crate::terminal;
use crate::units::{bytes_size, human_size_with};

/// `stats`.
pub(super) const COMMANDS: &[Command] = &[Command {
    paths: &["stats", "container stats"],
    usage: &["[OPTIONS] [CONTAINER...]"],
    about: "Display a live stream of container(s) resource usage statistics",
    long: "",
    flags: &[&[
        Flag::switch("all", "Show those that do not run too").short('a'),
        Flag::text("format", "string", "'table', 'table TEMPLATE', 'json' or a Go template"),
        Flag::switch("no-stream", "Print one reading and end"),
        Flag::switch("no-trunc", "Don't truncate output"),
    ]],
    interspersed: true,
    arity: Arity::AtLeast(0),
    run: run!(stats),
}];

const TABLE: &str =
    "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}";

const HEADINGS: &[(&str, &str)] = &[
    ("Container", "CONTAINER"),
    ("Name", "NAME"),
    ("ID", "CONTAINER ID"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
];

/// A list that nobody asks for by name is read again this often.
const PAUSE: Duration = Duration::from_millis(500);

async fn stats(c: Context) -> Outcome {
    let flags = &c.parsed;
    let (stream, trunc) = (!flags.on("no-stream"), !flags.on("no-trunc"));
    let mut first = true;
    loop {
        let names: Vec<String> = if c.args().is_empty() {
            let list = c.client.list(flags.on("all"), None, false, None).await?;
            list.iter().map(|container| ids::short(&container.id).to_owned()).collect()
        } else {
            c.args().to_vec()
        };
        let readings = join_all(names.iter().map(async |name| {
            let reading = match c.client.stats(name, false).await {
                Ok(mut lines) => lines.next().await.transpose(),
                Err(e) => Err(e),
            };
            (name.clone(), reading)
        }))
        .await;
        let mut rows = Vec::new();
        for (name, reading) in readings {
            match reading {
                Ok(Some(stats)) => rows.push(stats_row(&name, Some(&stats), trunc)),
                Ok(None) => rows.push(stats_row(&name, None, trunc)),
                // One that ended between the list and the reading is no failure; a name that never was is one.
                Err(e) if c.args().is_empty() && e.status().is_some() => {}
                Err(e) if first => return Err(Failure::from(e)),
                Err(_) => rows.push(stats_row(&name, None, trunc)),
            }
        }
        let listing = Listing {
            format: flags.some("format"),
            table: TABLE,
            type_name: "*container.statsContext",
            headings: HEADINGS,
            rows,
            method: &no_method,
        };
        let text = listing.render()?;
        if stream && terminal::stdout_is_terminal() {
            // Home, each line cleared to its end, and what is left of an older, longer list.
            let lines: String = text.lines().map(|line| format!("{line}\x1b[K\n")).collect();
            let clear = if first { "\x1b[2J" } else { "" };
            print(&format!("{clear}\x1b[H{lines}\x1b[J"))?;
        } else {
            print(&text)?;
        }
        if !stream {
            return Ok(0);
        }
        first = false;
        tokio::time::sleep(PAUSE).await;
    }
}

fn percent(value: f64) -> String {
    format!("{value:.2}%")
}

/// Used memory without the page cache that the kernel can drop at once.
fn used_memory(memory: &MemoryStats) -> f64 {
    let usage = memory.usage.unwrap_or(0);
    let inactive = memory.stats.get("total_inactive_file").or_else(|| memory.stats.get("inactive_file"));
    match inactive {
        Some(inactive) if *inactive < usage => (usage - inactive) as f64,
        _ => usage as f64,
    }
}

/// Processor time between two readings in percent of one processor.
fn cpu_percent(now: &CpuStats, before: &CpuStats) -> f64 {
    let used = now.cpu_usage.total_usage as f64 - before.cpu_usage.total_usage as f64;
    let system = now.system_cpu_usage.unwrap_or(0) as f64 - before.system_cpu_usage.unwrap_or(0) as f64;
    let mut processors = f64::from(now.online_cpus.unwrap_or(0));
    if processors == 0.0 {
        processors = now.cpu_usage.percpu_usage.as_ref().map_or(0.0, |list| list.len() as f64);
    }
    if used > 0.0 && system > 0.0 { used / system * processors * 100.0 } else { 0.0 }
}

fn stats_row(name: &str, stats: Option<&Stats>, trunc: bool) -> Value {
    let Some(s) = stats.filter(|s| !s.id.is_empty()) else {
        let dashes = || "--".into();
        return row([
            ("Container", name.into()),
            ("Name", dashes()),
            ("ID", name.into()),
            ("CPUPerc", dashes()),
            ("MemUsage", "-- / --".into()),
            ("MemPerc", dashes()),
            ("NetIO", dashes()),
            ("BlockIO", dashes()),
            ("PIDs", dashes()),
        ]);
    };
    let memory = used_memory(&s.memory_stats);
    let limit = s.memory_stats.limit.unwrap_or(0) as f64;
    let (mut received, mut sent) = (0, 0);
    for network in s.networks.values() {
        received += network.rx_bytes;
        sent += network.tx_bytes;
    }
    let (mut read, mut written) = (0, 0);
    for entry in s.blkio_stats.io_service_bytes_recursive.iter().flatten() {
        match entry.op.to_ascii_lowercase().as_str() {
            "read" => read += entry.value,
            "write" => written += entry.value,
            _ => {}
        }
    }
    let both =
        |a: u64, b: u64| format!("{} / {}", human_size_with(a as f64, 3), human_size_with(b as f64, 3));
    row([
        ("Container", name.into()),
        ("Name", s.name.strip_prefix('/').unwrap_or(&s.name).into()),
        ("ID", if trunc { ids::short(&s.id) } else { &s.id }.into()),
        ("CPUPerc", percent(cpu_percent(&s.cpu_stats, &s.precpu_stats)).into()),
        ("MemUsage", format!("{} / {}", bytes_size(memory), bytes_size(limit)).into()),
        ("MemPerc", percent(if limit > 0.0 { memory / limit * 100.0 } else { 0.0 }).into()),
        ("NetIO", both(received, sent).into()),
        ("BlockIO", both(read, written).into()),
        ("PIDs", s.pids_stats.current.unwrap_or(0).to_string().into()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_row() {
        let mut stats = Stats { id: "0123456789abcdef".into(), name: "/web".into(), ..Stats::default() };
        stats.cpu_stats.cpu_usage.total_usage = 3_000_000_000;
        stats.precpu_stats.cpu_usage.total_usage = 2_500_000_000;
        stats.cpu_stats.system_cpu_usage = Some(12_000_000_000);
        stats.precpu_stats.system_cpu_usage = Some(10_000_000_000);
        stats.cpu_stats.online_cpus = Some(2);
        stats.memory_stats.usage = Some(3 << 20);
        stats.memory_stats.limit = Some(64 << 20);
        stats.memory_stats.stats.insert("total_inactive_file".into(), 1 << 20);
        stats.pids_stats.current = Some(3);
        expect![[r#"{"BlockIO":"0B / 0B","CPUPerc":"50.00%","Container":"web","ID":"0123456789ab","MemPerc":"3.12%","MemUsage":"2MiB / 64MiB","Name":"web","NetIO":"0B / 0B","PIDs":"3"}"#]]
        .assert_eq(&stats_row("web", Some(&stats), true).to_json());
        expect![[r#"{"BlockIO":"--","CPUPerc":"--","Container":"web","ID":"web","MemPerc":"--","MemUsage":"-- / --","Name":"--","NetIO":"--","PIDs":"--"}"#]]
        .assert_eq(&stats_row("web", None, true).to_json());
    }
}
