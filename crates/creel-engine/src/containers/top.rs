//! Top: the processes of a container, from the host's /proc, or by the host's `ps` when its options are asked for.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use creel_wire::container::Top;
use jiff::Timestamp;

use crate::core::{Core, blocking};
use crate::error::{Error, Result};

/// Clock ticks in a second, as /proc counts them on every architecture of Linux.
const TICKS: u64 = 100;

/// Lists the processes.
pub(crate) async fn top(core: &Arc<Core>, id: &str, ps_args: Option<&str>) -> Result<Top> {
    let container = core.containers.find(id)?;
    let running = container
        .running()
        .ok_or_else(|| Error::conflict(format!("container {} is not running", container.id)))?;
    let cgroup =
        running.cgroup.ok_or_else(|| Error::unsupported("the container's cgroup cannot be reached"))?;
    let mut pids = blocking(move || cgroup.pids().map_err(|e| Error::of(&e))).await?;
    pids.sort_unstable();
    match ps_args.map(str::trim).filter(|args| !args.is_empty() && *args != "-ef") {
        None => blocking(move || Ok(own(&pids))).await,
        Some(args) => ps(args, &pids).await,
    }
}

/// As `ps -ef` shows it.
fn own(pids: &[i32]) -> Top {
    let titles = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    Top {
        titles: titles.map(str::to_owned).to_vec(),
        // A process that ended meanwhile is left out.
        processes: pids.iter().filter_map(|pid| row(*pid, &users)).collect(),
    }
}

fn row(pid: i32, users: &str) -> Option<Vec<String>> {
    let dir = format!("/proc/{pid}");
    let uid = std::fs::metadata(&dir).ok()?.uid();
    let stat = Stat::parse(&std::fs::read_to_string(format!("{dir}/stat")).ok()?)?;
    let command = std::fs::read(format!("{dir}/cmdline")).ok()?;
    let command = if command.is_empty() {
        format!("[{}]", stat.name)
    } else {
        let text = String::from_utf8_lossy(&command);
        text.trim_end_matches('\0').replace('\0', " ")
    };
    let uptime = uptime()?;
    let age = uptime.saturating_sub(stat.started / TICKS).max(1);
    let used = stat.ticks / TICKS;
    let started = Timestamp::now().as_second() - i64::try_from(age).unwrap_or(0);
    Some(vec![
        user(uid, users),
        pid.to_string(),
        stat.parent.to_string(),
        (used * 100 / age).min(99).to_string(),
        start_word(started),
        terminal(stat.terminal),
        format!("{:02}:{:02}:{:02}", used / 3600, used / 60 % 60, used % 60),
        command,
    ])
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: String,
    parent: i32,
    terminal: i64,
    ticks: u64,
    started: u64,
}

impl Stat {
    /// Reads `/proc/PID/stat` (proc_pid_stat(5)); the name may hold blanks and parentheses.
    fn parse(text: &str) -> Option<Self> {
        let (head, rest) = text.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |n: usize| fields.get(n - 3).and_then(|text| text.parse::<u64>().ok());
        Some(Self {
            name: name.to_owned(),
            parent: fields.get(1)?.parse().ok()?,
            terminal: fields.get(4)?.parse().ok()?,
            ticks: number(14)? + number(15)?,
            started: number(22)?,
        })
    }
}

fn uptime() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    text.split('.').next()?.parse().ok()
}

fn user(uid: u32, passwd: &str) -> String {
    let names = passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _, id) = (fields.next()?, fields.next()?, fields.next()?);
        (id.parse() == Ok(uid)).then(|| name.to_owned())
    });
    names.take(1).next().unwrap_or_else(|| uid.to_string())
}

/// Hour and minute in UTC today, the date before.
fn start_word(seconds: i64) -> String {
    let Ok(time) = Timestamp::from_second(seconds) else { return "?".to_owned() };
    let today = Timestamp::now().as_second() / 86_400 == seconds / 86_400;
    let format = if today { "%H:%M" } else { "%b%d" };
    time.strftime(format).to_string()
}

fn terminal(device: i64) -> String {
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xfff00);
    match major {
        0 => "?".to_owned(),
        4 if minor < 64 => format!("tty{minor}"),
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        _ => format!("{major}:{minor}"),
    }
}

/// The host's `ps` with these options, of which only the container's lines are kept.
async fn ps(args: &str, pids: &[i32]) -> Result<Top> {
    let output = tokio::process::Command::new("ps")
        .args(args.split_whitespace())
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|e| Error::io("running the host's `ps` (it is needed for options other than -ef)", e))?;
    if !output.status.success() {
        return Err(Error::invalid(format!(
            "ps: {}",
            String::from_utf8_lossy(&output.stderr).trim().lines().next().unwrap_or_default()
        )));
    }
    filter(&String::from_utf8_lossy(&output.stdout), pids)
}

/// Keeps the lines of these processes.
fn filter(output: &str, pids: &[i32]) -> Result<Top> {
    let mut lines = output.lines();
    let titles: Vec<String> =
        lines.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let column = titles
        .iter()
        .position(|title| title == "PID")
        .ok_or_else(|| Error::invalid("Couldn't find PID field in ps output"))?;
    let mut processes = Vec::new();
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        let pid = words.get(column).and_then(|word| word.parse().ok());
        if !pid.is_some_and(|pid| pids.contains(&pid)) {
            continue;
        }
        // The last column is the rest of the line, blanks and all.
        let last = titles.len().saturating_sub(1).min(words.len());
        let mut row: Vec<String> = words[..last].iter().map(|word| (*word).to_owned()).collect();
        row.push(words[last..].join(" "));
        processes.push(row);
    }
    Ok(Top { titles, processes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_stat_with_an_odd_name_is_read() {
        let text = "12 (a) b (c) S 3 12 12 34816 12 4194560 1 2 3 4 150 50 0 0 20 0 1 0 777 8 9";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(
            stat,
            Stat { name: "a) b (c".into(), parent: 3, terminal: 34816, ticks: 200, started: 777 }
        );
        assert_eq!(terminal(stat.terminal), "pts/0");
        assert_eq!(terminal(0), "?");
    }

    #[test]
    fn lines_of_other_processes_are_left_out() {
        let top = filter("  PID CMD\n    1 init\n   42 sh -c x  y\n", &[42]).unwrap();
        assert_eq!(top.processes, [["42", "sh -c x y"]]);
        assert!(filter("CMD\nx\n", &[1]).is_err());
    }

    #[test]
    fn this_process_is_shown() {
        let own = own(&[i32::try_from(std::process::id()).unwrap()]);
        assert_eq!(own.processes.len(), 1);
        assert_eq!(own.processes[0].len(), own.titles.len());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,60}") {
            let _ = Stat::parse(&text);
            let _ = filter(&text, &[1]);
        }
    }
}
