//! When to try again, and how long to wait before.

use std::time::Duration;

use jiff::Timestamp;

/// How often and how patiently what may be passing is tried again: broken connections, 5xx, 408 and 429.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// How often one request is tried in all. A download that made progress starts counting afresh.
    pub attempts: u32,
    /// The wait before the second attempt; each later one doubles it.
    pub base: Duration,
    /// The longest wait, also when a registry's `Retry-After` asks for more.
    pub longest: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts: 6, base: Duration::from_millis(500), longest: Duration::from_secs(60) }
    }
}

impl RetryPolicy {
    /// The wait after `failed` attempts (1 or more); `None` when no more are to be made.
    pub(crate) fn wait(&self, failed: u32, retry_after: Option<Duration>) -> Option<Duration> {
        if failed >= self.attempts {
            return None;
        }
        let doubled =
            self.base.saturating_mul(1u32.checked_shl(failed.saturating_sub(1)).unwrap_or(u32::MAX));
        Some(retry_after.unwrap_or(doubled).min(self.longest))
    }
}

/// Whether an HTTP status may pass if one waits.
pub(crate) fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// Reads `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date, which may have passed. Anything else is answered
/// with the usual wait.
pub(crate) fn retry_after(header: &str) -> Option<Duration> {
    after(header, Timestamp::now())
}

fn after(header: &str, now: Timestamp) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse() {
        return Some(Duration::from_secs(seconds));
    }
    // An HTTP date is RFC 2822's with the zone `GMT`; its two old forms have not been sent for decades.
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(header).ok()?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_end() {
        let policy =
            RetryPolicy { attempts: 4, base: Duration::from_secs(1), longest: Duration::from_secs(3) };
        let waits: Vec<_> = (1..=4).map(|n| policy.wait(n, None).map(|w| w.as_secs())).collect();
        assert_eq!(waits, [Some(1), Some(2), Some(3), None]);
        assert_eq!(policy.wait(1, Some(Duration::ZERO)), Some(Duration::ZERO));
        assert_eq!(policy.wait(1, Some(Duration::from_secs(9999))), Some(Duration::from_secs(3)));
        assert_eq!(RetryPolicy { attempts: 99, ..policy }.wait(90, None), Some(Duration::from_secs(3)));
    }

    #[test]
    fn retry_after_is_read_in_seconds() {
        assert_eq!(retry_after(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("-1"), None);
    }

    #[test]
    fn retry_after_is_read_as_a_date() {
        let now: Timestamp = "2015-10-21T07:27:30Z".parse().unwrap();
        let date = "Wed, 21 Oct 2015 07:28:00 GMT";
        assert_eq!(after(date, now), Some(Duration::from_secs(30)));
        assert_eq!(retry_after(date), Some(Duration::ZERO));
        for bad in ["", "soon", "Wed, 99 Oct 2015 07:28:00 GMT", "2015-10-21T07:28:00Z", "1e9"] {
            assert_eq!(after(bad, now), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_header_makes_it_panic(text in "\\PC*") {
            let _ = retry_after(&text);
        }
    }
}
