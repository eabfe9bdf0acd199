//! `events`: statistics and OOM kills, line by line in the JSON that runc prints and others read.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use creel_cgroup::{Cgroup, OomWatch, RuncStats};
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
    let data = Data { stats: RuncStats::from(&cgroup.stats()?), network_interfaces: None };
    print(&Event { kind: "stats", id, data: Some(data) })
}

fn print(event: &Event<'_>) -> Result<()> {
    let text = serde_json::to_string(event).map_err(|e| Error::Invalid(e.to_string()))?;
    out::print(&format!("{text}\n"))
}

/// A duration as Go writes it: numbers with units, like `1m30s` or `1.5h`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
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

#[derive(Serialize)]
struct Data {
    #[serde(flatten)]
    stats: RuncStats,
    /// Networks are made by the callers, who know their interfaces.
    network_interfaces: Option<()>,
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

    proptest! {
        #[test]
        fn any_text_is_a_duration_or_refused(text in "[0-9.a-zµ-]{0,12}") {
            let _ = duration(&text);
        }
    }
}
