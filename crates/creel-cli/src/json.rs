//! JSON texts re-indented without being read into values, so that order and numbers stay as the daemon sent them.

/// Indents a JSON text as Go's `json.Indent` does: one member a line, empty objects and arrays as `{}` and `[]`.
/// `prefix` begins every line but the first.
pub(crate) fn indent(text: &[u8], prefix: &str, step: &str) -> String {
    let mut out = Vec::with_capacity(text.len() * 2);
    let mut depth = 0usize;
    let mut in_string = false;
    let mut escaped = false;
    let mut opened = false;
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.extend_from_slice(prefix.as_bytes());
        for _ in 0..depth {
            out.extend_from_slice(step.as_bytes());
        }
    };
    for byte in text.iter().copied() {
        if in_string {
            out.push(byte);
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        if byte.is_ascii_whitespace() {
            continue;
        }
        if opened && !matches!(byte, b'}' | b']') {
            line(&mut out, depth);
        }
        let was_opened = std::mem::replace(&mut opened, false);
        match byte {
            b'{' | b'[' => {
                depth += 1;
                opened = true;
                out.push(byte);
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if !was_opened {
                    line(&mut out, depth);
                }
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            _ => {
                in_string = byte == b'"';
                out.push(byte);
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_are_indented() {
        let text = br#"{"a":1,"b":[],"c":{},"d":[1,{"e":"x:,{\"\\"}], "f" : null}"#;
        let want = "{\n    \"a\": 1,\n    \"b\": [],\n    \"c\": {},\n    \"d\": [\n        1,\n        {\n            \
                    \"e\": \"x:,{\\\"\\\\\"\n        }\n    ],\n    \"f\": null\n}";
        assert_eq!(indent(text, "", "    "), want);
    }

    proptest! {
        #[test]
        fn the_value_stays(pairs in prop::collection::btree_map("\\PC{0,5}", prop::collection::vec("\\PC{0,5}", 0..3), 0..4)) {
            let value = serde_json::to_value(&pairs).unwrap();
            let text = indent(value.to_string().as_bytes(), "  ", "\t");
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
        }
    }
}
