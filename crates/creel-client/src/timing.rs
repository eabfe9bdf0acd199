//! How long the daemon's steps took, from the `Server-Timing` header (W3C Server Timing).

use std::time::Duration;

use http::HeaderMap;

/// One step of the daemon's work.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The step's name.
    pub name: String,
    /// How long it took.
    pub duration: Duration,
}

/// An answer and what the daemon said about its time.
#[derive(Debug, Clone, PartialEq)]
pub struct Timed<T> {
    /// The answer.
    pub value: T,
    /// The daemon's steps, in its order; empty when it says nothing.
    pub steps: Vec<Step>,
}

/// Reads all `Server-Timing` headers; what does not parse is passed over.
pub(crate) fn steps(headers: &HeaderMap) -> Vec<Step> {
    headers
        .get_all("server-timing")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .filter_map(|entry| {
            let mut parts = entry.split(';').map(str::trim);
            let name = parts.next().filter(|name| !name.is_empty())?.to_owned();
            let milliseconds = parts
                .find_map(|part| part.strip_prefix("dur="))
                .and_then(|number| number.trim_matches('"').parse::<f64>().ok())
                .filter(|number| (0.0..1e12).contains(number))?;
            Some(Step { name, duration: Duration::from_secs_f64(milliseconds / 1e3) })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_timing_is_read() {
        let mut headers = HeaderMap::new();
        headers
            .append("server-timing", "clone;dur=1.5, pivot;desc=\"x\";dur=0.25,;dur=1,bare".parse().unwrap());
        headers.append("server-timing", "exec;dur=2, bad;dur=-1".parse().unwrap());
        let read: Vec<_> = steps(&headers).into_iter().map(|s| (s.name, s.duration.as_micros())).collect();
        assert_eq!(read, [("clone".to_owned(), 1500), ("pivot".to_owned(), 250), ("exec".to_owned(), 2000)]);
    }
}
