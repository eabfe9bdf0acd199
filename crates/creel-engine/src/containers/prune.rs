//! Prune: removes all containers that do not run.

use std::sync::Arc;

use creel_wire::container::ContainersPrune;
use jiff::{SignedDuration, Timestamp};

use super::remove;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::filters::Filters;
use crate::options::RemoveOptions;

/// Removes what the filters select.
pub(crate) async fn prune(core: &Arc<Core>, filters: Filters) -> Result<ContainersPrune> {
    filters.allow(&["until", "label", "label!"])?;
    let until = until(&filters)?;
    let mut deleted = Vec::new();
    let mut space = 0;
    for container in core.containers.all() {
        let record = container.record();
        let taken = container.life().running.is_none()
            && until.is_none_or(|time| record.created < time)
            && filters.labels(&record.labels());
        if !taken {
            continue;
        }
        let size = super::list::sizes(core, &container).await.0.unwrap_or(0);
        match remove::remove(core, container.id.as_str(), RemoveOptions::default()).await {
            Ok(()) => {
                space += u64::try_from(size).unwrap_or(0);
                deleted.push(container.id.to_string());
            }
            // It was started or removed meanwhile: then it is not ours to remove.
            Err(e) => tracing::debug!(container = container.id.short(), "pruning: {e}"),
        }
    }
    core.events.tell("container", "prune", "", [("reclaimed".to_owned(), space.to_string())].into());
    Ok(ContainersPrune { containers_deleted: Some(deleted), space_reclaimed: space })
}

/// The filter `until`: a time (without a zone it is UTC), Unix seconds, or a span before now like `10m` or `1h30m`.
pub(crate) fn until(filters: &Filters) -> Result<Option<Timestamp>> {
    let values = filters.get("until");
    if values.len() > 1 {
        return Err(Error::invalid("more than one until filter specified"));
    }
    let Some(text) = values.first() else { return Ok(None) };
    let wrong =
        || Error::invalid(format!("invalid filter 'until={text}': a time or a span like 1h30m is wanted"));
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(Some(time));
    }
    if let Ok(seconds) = text.split('.').next().unwrap_or_default().parse::<i64>() {
        return Timestamp::from_second(seconds).map(Some).map_err(|_| wrong());
    }
    if let Ok(time) = text.parse::<jiff::civil::DateTime>() {
        return jiff::tz::TimeZone::UTC.to_timestamp(time).map(Some).map_err(|_| wrong());
    }
    let span = span(text).ok_or_else(wrong)?;
    Timestamp::now().checked_sub(span).map(Some).map_err(|_| wrong())
}

/// Go's notation of a span: `1h30m`, `1.5h`, `300ms`.
fn span(text: &str) -> Option<SignedDuration> {
    let mut total = 0f64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let units =
            [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("h", 3600.0), ("m", 60.0), ("s", 1.0)];
        let (unit, after) = units
            .iter()
            .find_map(|(unit, seconds)| rest.strip_prefix(unit).map(|after| (*seconds, after)))?;
        total += number * unit;
        rest = after;
    }
    SignedDuration::try_from_secs_f64(total).ok().filter(|_| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_times() {
        let seconds = |text: &str| span(text).map(|span| span.as_secs_f64());
        assert_eq!(seconds("1h30m5s"), Some(5405.0));
        assert_eq!((seconds("1.5h"), seconds("300ms")), (Some(5400.0), Some(0.3)));
        assert_eq!(span("10x"), None);
        assert_eq!(span(""), None);
        let with = |text: &str| {
            let mut filters = Filters::default();
            filters.add("until", text);
            until(&filters)
        };
        assert_eq!(with("2026-01-02T03:04:05Z").unwrap().unwrap().as_second(), 1_767_323_045);
        assert_eq!(with("2026-01-02").unwrap(), with("2026-01-02T00:00").unwrap());
        assert_eq!(with("2026-01-02T03:04:05").unwrap().unwrap().as_second(), 1_767_323_045);
        assert_eq!(with("1700000000").unwrap().unwrap().as_second(), 1_700_000_000);
        assert!(with("yesterday").is_err());
    }
}
