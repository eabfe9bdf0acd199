//! Query parameters, read as Docker reads them.

use creel_engine::Filters;
use creel_types::{Platform, Reference};
use jiff::Timestamp;

use crate::error::ApiError;

/// The parameters of a query, in their order; a name may come several times.
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    pub(crate) fn of(uri: &http::Uri) -> Result<Self, ApiError> {
        axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map(|query| Self(query.0))
            .map_err(|e| ApiError::invalid(format!("the query does not parse: {e}")))
    }

    /// The first value of `name`, if it is there and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).filter(|v| !v.is_empty())
    }

    /// All values of `name`.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect()
    }

    pub(crate) fn required(&self, name: &str) -> Result<&str, ApiError> {
        self.get(name).ok_or_else(|| ApiError::invalid(format!("the query parameter `{name}` is missing")))
    }

    /// A switch: absent, empty, `0`, `no`, `none` and `false` are off, everything else is on (moby's `BoolValue`).
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.flag_or(name, false)
    }

    /// A switch with a default for when it is absent.
    pub(crate) fn flag_or(&self, name: &str, default: bool) -> bool {
        match self.get(name) {
            None => default,
            Some(value) => {
                !matches!(value.trim().to_ascii_lowercase().as_str(), "0" | "no" | "none" | "false")
            }
        }
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let wrong = |_| {
            ApiError::invalid(format!("the query parameter `{name}` is not a number in range: `{value}`"))
        };
        value.parse().map(Some).map_err(wrong)
    }

    pub(crate) fn filters(&self) -> Result<Filters, ApiError> {
        match self.get("filters") {
            None => Ok(Filters::default()),
            Some(text) => Ok(Filters::parse(text)?),
        }
    }

    /// A time as Docker's clients send it: Unix seconds with an optional fraction, or RFC 3339. 0 means none.
    pub(crate) fn time(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        match self.get(name) {
            None | Some("0") => Ok(None),
            Some(text) => parse_time(text).map(Some).ok_or_else(|| {
                ApiError::invalid(format!(
                    "the query parameter `{name}` is not a time: `{text}` (Unix seconds or RFC 3339)"
                ))
            }),
        }
    }

    pub(crate) fn platform(&self) -> Result<Option<Platform>, ApiError> {
        self.get("platform")
            .map(|text| text.parse().map_err(|e| ApiError::invalid(format!("{e}"))))
            .transpose()
    }
}

fn parse_time(text: &str) -> Option<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().ok()?;
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: i32 = format!("{fraction:0<9}").parse().ok()?;
    Timestamp::new(seconds, nanoseconds).ok()
}

/// A reference from a name and an optional tag or digest, as `images/create` and `commit` take them apart.
pub(crate) fn reference(name: &str, tag: Option<&str>) -> Result<Reference, ApiError> {
    let text = match tag {
        Some(tag) if tag.contains(':') => format!("{name}@{tag}"),
        Some(tag) => format!("{name}:{tag}"),
        None => name.to_owned(),
    };
    text.parse().map_err(|e| ApiError::invalid(format!("{e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn params(query: &str) -> Params {
        Params::of(&format!("/x?{query}").parse().unwrap()).unwrap()
    }

    #[test]
    fn switches_are_mobys() {
        let p = params("a=1&b=true&c=0&d=False&e=&f=yes");
        let on = ["a", "b", "c", "d", "e", "f", "g"].map(|name| p.flag(name));
        assert_eq!(on, [true, true, false, false, false, true, false]);
    }

    #[test]
    fn times_are_seconds_with_a_fraction_or_rfc_3339() {
        let p = params("a=1700000000.5&b=2024-01-01T00:00:00Z&c=x&d=0");
        assert_eq!(p.time("a").unwrap().unwrap().as_millisecond(), 1_700_000_000_500);
        assert_eq!(p.time("b").unwrap().unwrap().as_second(), 1_704_067_200);
        assert!(p.time("c").is_err());
        assert_eq!(p.time("d").unwrap(), None);
    }

    proptest! {
        #[test]
        fn no_time_makes_it_panic(text in "\\PC*") {
            let _ = parse_time(&text);
        }
    }
}
