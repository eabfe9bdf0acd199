//! Query strings.

/// A request's query, percent-encoded as it grows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(String);

impl Query {
    /// An empty query.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `name=value`.
    pub fn with(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        encode(name, &mut self.0);
        self.0.push('=');
        encode(value.as_ref(), &mut self.0);
        self
    }

    /// Adds `name=value` if there is a value.
    pub fn with_some(self, name: &str, value: Option<impl AsRef<str>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Adds `name=1` if `on`.
    pub fn with_flag(self, name: &str, on: bool) -> Self {
        if on { self.with(name, "1") } else { self }
    }

    /// The query as it stands in a path, with its `?`; empty without any parameter.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Percent-encodes everything but RFC 3986's unreserved characters.
pub(crate) fn encode(text: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

/// One path segment, percent-encoded.
pub(crate) fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    encode(text, &mut out);
    out
}

/// An image's name within a path: its slashes, colons and `@` stand as they are.
pub(crate) fn name(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for part in text.split_inclusive(['/', ':', '@']) {
        match part.char_indices().last() {
            Some((at, separator @ ('/' | ':' | '@'))) => {
                encode(&part[..at], &mut out);
                out.push(separator);
            }
            _ => encode(part, &mut out),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn queries() {
        let query = Query::new().with("a b", "ü&=").with_flag("x", true).with_flag("y", false);
        assert_eq!(query.as_str(), "?a%20b=%C3%BC%26%3D&x=1");
        assert_eq!(name("localhost:5000/a/b:tag"), "localhost:5000/a/b:tag");
        assert_eq!(name("a?b c"), "a%3Fb%20c");
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_a_valid_uri(text in "\\PC*") {
            let path = format!("/images/{}/json{}", name(&text), Query::new().with("q", &text).as_str());
            prop_assert!(path.parse::<http::Uri>().is_ok());
        }
    }
}
