//! `--device` and its relatives.

use creel_wire::host::{DeviceMapping, ThrottleDevice};

use crate::units;

fn is_mode(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| "rwm".contains(c))
        && text.chars().enumerate().all(|(n, c)| !text[..n].contains(c))
}

/// Reads `host[:container][:rwm]`.
///
/// # Errors
/// For too many parts or an empty path, in Docker's words.
pub fn parse(text: &str) -> Result<DeviceMapping, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (host, inside, mode) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, mode] if is_mode(mode) => (*host, *host, *mode),
        [host, inside] => (*host, *inside, "rwm"),
        [host, inside, mode] => (*host, *inside, *mode),
        _ => return Err(format!("invalid device specification: {text}")),
    };
    if host.is_empty() {
        return Err(format!("invalid device specification: {text}"));
    }
    if !is_mode(mode) {
        return Err(format!("bad mode specified: {mode}"));
    }
    let inside = if inside.is_empty() { host } else { inside };
    Ok(DeviceMapping {
        path_on_host: host.to_owned(),
        path_in_container: inside.to_owned(),
        cgroup_permissions: mode.to_owned(),
    })
}

/// A check for `--device-cgroup-rule`: `a`, or type, numbers and mode like `c 10:200 rwm`.
///
/// # Errors
/// For any other text, in Docker's words.
pub fn check_rule(text: &str) -> Result<(), String> {
    let wrong = || format!("invalid device cgroup format '{text}'");
    let mut words = text.split(' ');
    let (kind, numbers, mode) = (words.next(), words.next(), words.next());
    let number = |t: &str| t == "*" || (!t.is_empty() && t.bytes().all(|b| b.is_ascii_digit()));
    let fits = matches!(kind, Some("a" | "b" | "c"))
        && numbers.and_then(|t| t.split_once(':')).is_some_and(|(a, b)| number(a) && number(b))
        && mode.is_some_and(is_mode)
        && words.next().is_none();
    if fits { Ok(()) } else { Err(wrong()) }
}

/// Reads `path:rate` with the rate in bytes (`1mb`).
///
/// # Errors
/// For any other text.
pub fn parse_bps(text: &str) -> Result<ThrottleDevice, String> {
    let wrong = || format!("bad format: {text}");
    let (path, rate) = text.split_once(':').ok_or_else(wrong)?;
    if !path.starts_with("/dev/") {
        return Err(format!("bad format for device path: {text}"));
    }
    let rate = units::parse_bytes(rate).map_err(|_| {
        format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. Number must be a \
             positive integer. Unit is optional and can be kb, mb, or gb"
        )
    })?;
    Ok(ThrottleDevice { path: path.to_owned(), rate: u64::try_from(rate).map_err(|_| wrong())? })
}

/// Reads `path:rate` with the rate in operations.
///
/// # Errors
/// For any other text.
pub fn parse_iops(text: &str) -> Result<ThrottleDevice, String> {
    let (path, rate) = text.split_once(':').ok_or_else(|| format!("bad format: {text}"))?;
    if !path.starts_with("/dev/") {
        return Err(format!("bad format for device path: {text}"));
    }
    let rate = rate.parse().map_err(|_| {
        format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>. Number must be a positive \
             integer"
        )
    })?;
    Ok(ThrottleDevice { path: path.to_owned(), rate })
}

/// A check for rates in bytes.
///
/// # Errors
/// As [`parse_bps`].
pub fn check_bps(text: &str) -> Result<(), String> {
    parse_bps(text).map(drop)
}

/// A check for rates in operations.
///
/// # Errors
/// As [`parse_iops`].
pub fn check_iops(text: &str) -> Result<(), String> {
    parse_iops(text).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn devices() {
        let show = |text: &str| {
            parse(text)
                .map(|d| format!("{} {} {}", d.path_on_host, d.path_in_container, d.cgroup_permissions))
        };
        assert_eq!(show("/dev/fuse"), Ok("/dev/fuse /dev/fuse rwm".to_owned()));
        assert_eq!(show("/dev/fuse:r"), Ok("/dev/fuse /dev/fuse r".to_owned()));
        assert_eq!(show("/dev/a:/dev/b"), Ok("/dev/a /dev/b rwm".to_owned()));
        assert_eq!(show("/dev/a:/dev/b:rm"), Ok("/dev/a /dev/b rm".to_owned()));
        for wrong in ["", "a:b:c:d", "/dev/a:/dev/b:x", "/dev/a:/b:rr"] {
            parse(wrong).unwrap_err();
        }
        for right in ["c 10:200 rwm", "a *:* rwm", "b 8:* r"] {
            check_rule(right).unwrap();
        }
        for wrong in ["", "c", "c 10 r", "x 1:1 r", "c 1:1 x", "c 1:1 r r"] {
            check_rule(wrong).unwrap_err();
        }
        assert_eq!(parse_bps("/dev/sda:1mb").unwrap().rate, 1 << 20);
        assert_eq!(parse_iops("/dev/sda:100").unwrap().rate, 100);
        parse_iops("/dev/sda:1mb").unwrap_err();
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[/a:rwm é]{0,14}") {
            let _ = (parse(&text), check_rule(&text), parse_bps(&text), parse_iops(&text));
        }
    }
}
