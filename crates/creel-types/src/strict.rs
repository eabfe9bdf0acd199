//! Reading JSON documents strictly in type and leniently in what is left out: only an object is an object, `null` is
//! the same as a missing list, and an error says which field it is about.

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Visitor};

/// A document that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct ReadError {
    /// Where, like `process.user.uid`; `.` for the document itself.
    pub path: String,
    /// What is wrong there, with line and column.
    pub reason: String,
}

impl crate::Classify for ReadError {
    fn kind(&self) -> crate::ErrorKind {
        crate::ErrorKind::InvalidArgument
    }
}

/// Reads a document of UTF-8 JSON. Fields that are not known are passed over (runtime-spec, "Extensibility").
///
/// # Errors
/// [`ReadError`] with the path of the field that has the wrong type, or of the object that lacks one.
pub fn from_json<T: DeserializeOwned>(json: &[u8]) -> Result<T, ReadError> {
    // Keeping the path costs time that a document without errors need not spend.
    serde_json::from_slice(json).map_err(|first| {
        let mut document = serde_json::Deserializer::from_slice(json);
        let path = match serde_path_to_error::deserialize::<_, T>(&mut document) {
            // A field whose name is empty says nothing.
            Err(error) => Some(error.path().to_string()).filter(|path| !path.is_empty()),
            Ok(_) => None,
        };
        let path = path.unwrap_or_else(|| ".".into());
        ReadError { path, reason: first.to_string() }
    })
}

/// A text that is there and says something.
pub(crate) fn not_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()))
}

/// A deserializer that takes a structure from an object only: serde would also take it from an array, field by field,
/// which no other reader of these documents does.
pub(crate) struct ObjectOnly<D>(pub(crate) D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for ObjectOnly<D> {
    type Error = D::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// `null` is the same as a missing field: Go's encoder writes it for empty lists.
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use crate::spec::{Spec, from_json};

    fn error(json: &str) -> String {
        from_json::<Spec>(json.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_the_field() {
        for (json, start) in [
            (r#"{"ociVersion": 1}"#, "ociVersion: invalid type: integer `1`, expected a string"),
            (r#"{"ociVersion": "1.0.0", "root": ["rootfs", true]}"#, "root: invalid type: sequence"),
            (
                r#"{"ociVersion": "1.0.0", "linux": {"namespaces": {"type": "pid"}}}"#,
                "linux.namespaces: invalid type: map",
            ),
            (
                r#"{"ociVersion": "1.0.0", "process": {"cwd": "/", "user": {"uid": -1}}}"#,
                "process.user.uid: invalid value: integer `-1`, expected u32",
            ),
            (
                r#"{"ociVersion": "1.0.0", "process": {"cwd": "/", "user": {"uid": 4294967296}}}"#,
                "process.user.uid: invalid value: integer `4294967296`",
            ),
            (
                r#"{"ociVersion": "1.0.0", "process": {"cwd": "/", "user": {"uid": "0"}}}"#,
                "process.user.uid: invalid type: string",
            ),
            (
                r#"{"ociVersion": "1.0.0", "mounts": [{"destination": "/x"}, {"destination": "/y", "options": "ro"}]}"#,
                "mounts[1].options: invalid type: string \"ro\"",
            ),
            (
                r#"{"ociVersion": "1.0.0", "linux": {"namespaces": [{"type": "pids"}]}}"#,
                "linux.namespaces[0].type: unknown variant `pids`",
            ),
            (r#"{"mounts": []}"#, ".: missing field `ociVersion`"),
            (r#"{"": [}"#, ".: expected value"),
            (r#"[]"#, ".: invalid type: sequence"),
            (r#"{"ociVersion": "1.0.0"} {}"#, ".: trailing characters"),
        ] {
            let text = error(json);
            assert!(text.starts_with(start), "{json}: {text}");
        }
    }

    #[test]
    fn a_namespace_without_a_path_is_a_new_one() {
        use crate::spec::Namespace;
        for (text, path) in [("\"\"", None), ("null", None), ("\"/x\"", Some("/x"))] {
            let json = format!("{{\"type\":\"ipc\",\"path\":{text}}}");
            assert_eq!(from_json::<Namespace>(json.as_bytes()).unwrap().path.as_deref(), path);
        }
    }

    #[test]
    fn what_is_not_known_or_null_is_passed_over() {
        let spec: Spec = from_json(
            br#"{"ociVersion": "1.0.0", "mounts": null, "new": {"a": [1]}, "process": {"cwd": "/", "args": null,
                 "terminal": null, "capabilities": null, "env": null}, "linux": {"sysctl": null, "devices": null}}"#,
        )
        .unwrap();
        assert!(spec.mounts.is_empty() && spec.linux.unwrap().devices.is_empty());
    }
}
