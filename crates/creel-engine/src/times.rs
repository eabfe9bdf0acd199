//! Times as Docker writes them: RFC 3339 for programs, rough words for people. Pure.

use jiff::Timestamp;

/// Docker's "never".
pub(crate) const NEVER: &str = "0001-01-01T00:00:00Z";

/// RFC 3339 with as many digits as are needed; year 1 for none.
pub(crate) fn rfc3339(time: Option<Timestamp>) -> String {
    time.map_or_else(|| NEVER.to_owned(), |time| time.to_string())
}

/// A span in the words of `docker ps`: `Less than a second`, `About an hour`, `3 weeks`.
pub(crate) fn rough(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

/// How long ago a time is, in those words.
pub(crate) fn since(time: Timestamp, now: Timestamp) -> String {
    rough(now.as_second() - time.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_dockers() {
        let all = [0, 1, 30, 60, 119, 120, 3599, 5400, 86_400, 172_800, 1_209_600, 6_000_000, 70_000_000]
            .map(rough);
        assert_eq!(
            all,
            [
                "Less than a second",
                "1 second",
                "30 seconds",
                "About a minute",
                "About a minute",
                "2 minutes",
                "59 minutes",
                "2 hours",
                "24 hours",
                "2 days",
                "2 weeks",
                "2 months",
                "2 years"
            ]
        );
        assert_eq!(rfc3339(None), NEVER);
    }
}
