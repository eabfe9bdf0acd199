//! Sizes and durations as people read them, exactly as Docker's clients print them.

/// Four significant digits at most, as Go's `%.4g` prints them; `digits` as `%.*g`.
fn significant(value: f64, digits: usize) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    // The exponent after rounding to that many digits decides the form.
    let scientific = format!("{value:.*e}", digits - 1);
    let exponent: i32 = scientific.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    if exponent < -4 || exponent >= digits as i32 {
        let (mantissa, _) = scientific.split_once('e').unwrap_or((&scientific, ""));
        let mantissa = trim_zeros(mantissa);
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let decimals = usize::try_from(digits as i32 - 1 - exponent).unwrap_or(0);
    trim_zeros(&format!("{value:.decimals$}")).to_owned()
}

fn trim_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

fn scaled(mut value: f64, base: f64, names: &[&'static str]) -> (f64, &'static str) {
    let mut at = 0;
    while value >= base && at < names.len() - 1 {
        value /= base;
        at += 1;
    }
    (value, names[at])
}

const DECIMAL: [&str; 9] = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
const BINARY: [&str; 9] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];

/// Bytes in powers of 1000 with four digits: `1.234MB`.
pub fn human_size(bytes: f64) -> String {
    human_size_with(bytes, 4)
}

/// Bytes in powers of 1000 with this many digits: `117MB` with three.
pub fn human_size_with(bytes: f64, digits: usize) -> String {
    let (value, unit) = scaled(bytes, 1000.0, &DECIMAL);
    format!("{}{unit}", significant(value, digits))
}

/// Bytes in powers of 1024 with four digits: `64MiB`.
pub fn bytes_size(bytes: f64) -> String {
    let (value, unit) = scaled(bytes, 1024.0, &BINARY);
    format!("{}{unit}", significant(value, 4))
}

/// A length of time in words: `5 minutes`, `About an hour`.
pub fn human_duration(seconds: i64) -> String {
    let minutes = seconds / 60;
    let hours = (seconds as f64 / 3600.0 + 0.5).floor() as i64;
    match seconds {
        s if s < 1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        s if s < 60 => format!("{s} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        s => format!("{} years", s / 3600 / 24 / 365),
    }
}

/// Why a text is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid size: '{0}'")]
pub struct SizeError(String);

/// Bytes from a number and a unit of powers of 1024: `512m`, `1.5GiB`, `64`.
///
/// # Errors
/// For a text without a number, with an unknown unit, negative, or beyond an `i64`.
pub fn parse_bytes(text: &str) -> Result<i64, SizeError> {
    let wrong = || SizeError(text.to_owned());
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.').map(|at| at + 1).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(end);
    let number = number.strip_suffix(' ').unwrap_or(number);
    // Go's parser takes no blanks, no sign of exponent beyond its own grammar, no `inf`.
    if !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(wrong());
    }
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let power = match unit.as_str() {
        "" | "b" => 0,
        _ => {
            let mut chars = unit.chars();
            let letter = chars.next().ok_or_else(wrong)?;
            let power = "kmgtp".find(letter).ok_or_else(wrong)? + 1;
            if !matches!(chars.as_str(), "" | "b" | "ib") {
                return Err(wrong());
            }
            power
        }
    };
    let bytes = number * 1024f64.powi(i32::try_from(power).unwrap_or(0));
    if !(0.0..9.2e18).contains(&bytes) {
        return Err(wrong());
    }
    Ok(bytes as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_dockers() {
        for (bytes, text) in [
            (0.0, "0B"),
            (1.0, "1B"),
            (999.0, "999B"),
            (1000.0, "1kB"),
            (1024.0, "1.024kB"),
            (1_000_000.0, "1MB"),
            (1_234_567.0, "1.235MB"),
            (2_061_000.0, "2.061MB"),
            (999_999.0, "1000kB"),
            (1e9 * 117.0, "117GB"),
        ] {
            assert_eq!(human_size(bytes), text, "{bytes}");
        }
        assert_eq!(human_size_with(117_234_000.0, 3), "117MB");
        assert_eq!(human_size_with(2_061_000.0, 3), "2.06MB");
        assert_eq!(bytes_size(1.5 * 1024.0 * 1024.0), "1.5MiB");
        assert_eq!(bytes_size(64.0 * 1024.0), "64KiB");
    }

    #[test]
    fn durations_are_dockers() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3600, "About an hour"),
            (5399, "About an hour"),
            (5400, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (14 * 86400, "2 weeks"),
            (60 * 86400, "2 months"),
            (730 * 86400, "2 years"),
        ] {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("512m", Ok(512 << 20)),
            ("1g", Ok(1 << 30)),
            ("1.5GiB", Ok(3 << 29)),
            ("64", Ok(64)),
            ("64 kb", Ok(64 << 10)),
            ("32B", Ok(32)),
        ] {
            assert_eq!(parse_bytes(text), bytes, "{text}");
        }
        for text in ["", "abc", "m", "-1", "1x", "1mm", "1.2.3", "1e3", "99999999p", "1 2", "inf"] {
            parse_bytes(text).unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn every_whole_number_of_bytes_is_read_back(n in 0i64..1 << 50) {
            prop_assert_eq!(parse_bytes(&n.to_string()), Ok(n));
            prop_assert_eq!(parse_bytes(&format!("{n}b")), Ok(n));
        }

        #[test]
        fn no_text_panics(text in "\\PC*", n in any::<f64>()) {
            let _ = parse_bytes(&text);
            let _ = human_size(n);
            let _ = bytes_size(n);
        }
    }
}
