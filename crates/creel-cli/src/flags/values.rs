//! Plain values: truth, numbers, durations, filters.

use std::collections::BTreeMap;

use creel_types::spec::IPC_SYSCTLS;

use crate::units;

/// A truth value as Go's `strconv.ParseBool` reads it.
///
/// # Errors
/// For any other text, in Go's words.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

/// A check for whole numbers.
///
/// # Errors
/// For any other text, in Go's words.
pub fn integer(text: &str) -> Result<(), String> {
    match text.parse::<i64>() {
        Ok(_) => Ok(()),
        Err(e) => {
            use std::num::IntErrorKind::{NegOverflow, PosOverflow};
            let why = match e.kind() {
                PosOverflow | NegOverflow => "value out of range",
                _ => "invalid syntax",
            };
            Err(format!("strconv.ParseInt: parsing {text:?}: {why}"))
        }
    }
}

/// A check for IP addresses.
///
/// # Errors
/// For any other text, in Docker's words.
pub fn address(text: &str) -> Result<(), String> {
    let parsed = text.trim().parse::<std::net::IpAddr>();
    parsed.map(drop).map_err(|_| format!("IP address is not correctly formatted: {text}"))
}

/// A check for `--add-host`: `name:address` or `name=address`, where the address may be `host-gateway`.
///
/// # Errors
/// For any other text, in Docker's words.
pub fn extra_host(text: &str) -> Result<(), String> {
    let (name, address) = text.split_once(['=', ':']).unwrap_or(("", ""));
    if name.is_empty() || address.is_empty() {
        return Err(format!("bad format for add-host: {text:?}"));
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    match bare.parse::<std::net::IpAddr>() {
        Err(_) if address != "host-gateway" => Err(format!("invalid IP address in add-host: {address:?}")),
        _ => Ok(()),
    }
}

/// A check for `--sysctl`: `name=value`, where the name is one that a namespace of the container's own has.
///
/// # Errors
/// For any other text, in Docker's words.
pub fn sysctl(text: &str) -> Result<(), String> {
    let name = text.split_once('=').map_or("", |(name, _)| name.trim());
    let own = IPC_SYSCTLS.contains(&name) || name.starts_with("net.") || name.starts_with("fs.mqueue.");
    if own { Ok(()) } else { Err(format!("sysctl '{text}' is not allowed")) }
}

/// A check for sizes like `512m`.
///
/// # Errors
/// For any other text.
pub fn bytes(text: &str) -> Result<(), String> {
    units::parse_bytes(text).map(drop).map_err(|e| e.to_string())
}

/// A check for `--memory-swap`: a size, or -1 for no limit.
///
/// # Errors
/// For any other text.
pub fn bytes_or_unlimited(text: &str) -> Result<(), String> {
    if text == "-1" { Ok(()) } else { bytes(text) }
}

/// Processors as a decimal (`1.5`, `3/2`) in billionths.
///
/// # Errors
/// For what is no number, or finer than a billionth.
pub fn nano_cpus(text: &str) -> Result<i64, String> {
    let wrong = || format!("failed to parse {text} as a rational number");
    let decimal = |t: &str| -> Option<(i128, i128)> {
        let (sign, t) = match t.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, t.strip_prefix('+').unwrap_or(t)),
        };
        let (whole, fraction) = t.split_once('.').unwrap_or((t, ""));
        let digits = format!("{whole}{fraction}");
        if digits.is_empty() || digits.len() > 30 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        Some((sign * digits.parse::<i128>().ok()?, 10i128.checked_pow(u32::try_from(fraction.len()).ok()?)?))
    };
    let (numerator, denominator) = match text.split_once('/') {
        Some((a, b)) => {
            let (a, b) = (a.parse::<i64>().map_err(|_| wrong())?, b.parse::<i64>().map_err(|_| wrong())?);
            (i128::from(a), i128::from(b))
        }
        None => decimal(text).ok_or_else(wrong)?,
    };
    if denominator == 0 {
        return Err(wrong());
    }
    let nano = numerator.checked_mul(1_000_000_000).ok_or_else(wrong)?;
    if nano % denominator != 0 {
        return Err("value is too precise".to_owned());
    }
    i64::try_from(nano / denominator).map_err(|_| wrong())
}

/// A check for [`nano_cpus`].
///
/// # Errors
/// As there.
pub fn cpus(text: &str) -> Result<(), String> {
    nano_cpus(text).map(drop)
}

/// A length of time as Go's `time.ParseDuration` reads it (`1h30m`, `1.5s`, `-2m`), in nanoseconds.
///
/// # Errors
/// For any other text, in Go's words.
pub fn duration(text: &str) -> Result<i64, String> {
    let wrong = || format!("time: invalid duration {text:?}");
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total = 0.0f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..end].parse().map_err(|_| wrong())?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            other => return Err(format!("time: unknown unit {other:?} in duration {text:?}")),
        };
        total += number * unit;
        rest = &rest[end..];
    }
    if total >= 9.2e18 {
        return Err(wrong());
    }
    Ok((sign * total) as i64)
}

/// A check for [`duration`].
///
/// # Errors
/// As there.
pub fn duration_check(text: &str) -> Result<(), String> {
    duration(text).map(drop)
}

/// A check for filters: `name=value`.
///
/// # Errors
/// For a text without `=`.
pub fn filter(text: &str) -> Result<(), String> {
    if text.is_empty() || text.contains('=') {
        Ok(())
    } else {
        Err("bad format of filter (expected name=value)".to_owned())
    }
}

/// Filters as the JSON of the API: `{"name":{"value":true}}`; `None` without any.
pub fn filters_json<'a>(filters: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut map: BTreeMap<String, BTreeMap<String, bool>> = BTreeMap::new();
    for filter in filters {
        if let Some((name, value)) = filter.split_once('=') {
            map.entry(name.trim().to_lowercase()).or_default().insert(value.trim().to_owned(), true);
        }
    }
    if map.is_empty() { None } else { serde_json::to_string(&map).ok() }
}

/// A check for `--attach`.
///
/// # Errors
/// For what is no stream's name.
pub fn stream(text: &str) -> Result<(), String> {
    match text.to_ascii_lowercase().as_str() {
        "stdin" | "stdout" | "stderr" => Ok(()),
        _ => Err("valid streams are STDIN, STDOUT and STDERR".to_owned()),
    }
}

/// A check for `NAME=value` with a name.
///
/// # Errors
/// For a text without a name.
pub fn pair(text: &str) -> Result<(), String> {
    match text.split_once('=') {
        Some((name, _)) if !name.is_empty() => Ok(()),
        _ => Err(format!("bad format for key/value: {text} (expected name=value)")),
    }
}

/// A check for labels: a name, with or without a value.
///
/// # Errors
/// For a text without a name.
pub fn label(text: &str) -> Result<(), String> {
    if text.split('=').next().is_some_and(|name| !name.is_empty()) {
        Ok(())
    } else {
        Err(format!("invalid label '{text}': empty name"))
    }
}

/// Pairs as a map; a bare name has an empty value.
pub fn pairs<'a>(texts: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, String> {
    texts
        .into_iter()
        .map(|text| {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values() {
        assert_eq!(nano_cpus("1.5"), Ok(1_500_000_000));
        assert_eq!(nano_cpus(".5"), Ok(500_000_000));
        assert_eq!(nano_cpus("3/2"), Ok(1_500_000_000));
        assert_eq!(nano_cpus("0.0000000001"), Err("value is too precise".to_owned()));
        for wrong in ["x", "", "1/0", "1.2.3", ".", "1e3", "99999999999999999999999999999999"] {
            nano_cpus(wrong).unwrap_err();
        }
        assert_eq!(duration("1h30m"), Ok(5_400_000_000_000));
        assert_eq!(duration("1.5s"), Ok(1_500_000_000));
        assert_eq!(duration("-2ms"), Ok(-2_000_000));
        assert_eq!(duration("5").unwrap_err(), "time: missing unit in duration \"5\"");
        assert_eq!(
            filters_json(["name=a", "name=b", "label=x=y"]).as_deref(),
            Some(r#"{"label":{"x=y":true},"name":{"a":true,"b":true}}"#)
        );
        assert_eq!(filters_json([]), None);
        assert_eq!(integer("x").unwrap_err(), "strconv.ParseInt: parsing \"x\": invalid syntax");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[-+0-9./hmsuµ]{0,12}|\\PC{0,8}") {
            let _ = (nano_cpus(&text), duration(&text), boolean(&text), integer(&text), bytes(&text), filter(&text));
        }

        #[test]
        fn seconds_are_read_back(n in 0i64..1_000_000) {
            prop_assert_eq!(duration(&format!("{n}s")), Ok(n * 1_000_000_000));
        }
    }
}
