//! Docker's filters: a JSON object of names to values.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::{Error, Result};

/// Filters by name. Values of one name are alternatives, names restrict each other, except `label`, of which all must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads `{"name":["value"]}` and the older `{"name":{"value":true}}`; empty text is no filter.
    pub fn parse(text: &str) -> Result<Self> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let wrong = |why: String| Error::invalid(format!("invalid filter: {why}"));
        let value: Value = serde_json::from_str(text).map_err(|e| wrong(format!("it is not JSON: {e}")))?;
        let Value::Object(names) = value else { return Err(wrong("it is not a JSON object".into())) };
        let mut filters = BTreeMap::new();
        for (name, values) in names {
            let list = match values {
                Value::Array(list) => list
                    .into_iter()
                    .map(|v| match v {
                        Value::String(text) => Ok(text),
                        other => Err(wrong(format!("the value {other} of `{name}` is not a text"))),
                    })
                    .collect::<Result<Vec<_>>>()?,
                Value::Object(set) => {
                    set.into_iter().filter(|(_, on)| *on != Value::Bool(false)).map(|(v, _)| v).collect()
                }
                Value::Null => Vec::new(),
                other => return Err(wrong(format!("`{name}` has {other} where a list is wanted"))),
            };
            filters.insert(name, list);
        }
        Ok(Self(filters))
    }

    /// Fails on a name that is none of `known`.
    pub fn allow(&self, known: &[&str]) -> Result<()> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(Error::invalid(format!("invalid filter '{name}'"))),
            None => Ok(()),
        }
    }

    /// The values of one name.
    pub fn get(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether nothing is filtered.
    pub fn is_empty(&self) -> bool {
        self.0.values().all(Vec::is_empty)
    }

    /// Adds one value.
    pub fn add(&mut self, name: &str, value: &str) {
        self.0.entry(name.to_owned()).or_default().push(value.to_owned());
    }

    /// Whether `test` holds for one of the values of `name`, or there are none.
    pub fn any(&self, name: &str, test: impl Fn(&str) -> bool) -> bool {
        let values = self.get(name);
        values.is_empty() || values.iter().any(|value| test(value))
    }

    /// Whether labels satisfy all filters `label` and none of `label!`.
    pub fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let holds = |filter: &String| match filter.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|v| v == value),
            None => labels.contains_key(filter),
        };
        self.get("label").iter().all(holds) && !self.get("label!").iter().any(holds)
    }

    /// A switch like `dangling`: `None` when absent.
    pub fn switch(&self, name: &str) -> Result<Option<bool>> {
        let mut found = None;
        for value in self.get(name) {
            let on = match value.to_ascii_lowercase().as_str() {
                "1" | "t" | "true" => true,
                "0" | "f" | "false" => false,
                _ => return Err(Error::invalid(format!("invalid filter '{name}=[{value}]'"))),
            };
            if found.is_some_and(|before| before != on) {
                let mut values = self.get(name).to_vec();
                values.sort();
                return Err(Error::invalid(format!("invalid filter '{name}=[{}]'", values.join(" "))));
            }
            found = Some(on);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_forms_are_read() {
        let new = Filters::parse(r#"{"label":["a=b","c"],"name":[]}"#).unwrap();
        assert_eq!(new.get("label"), ["a=b", "c"]);
        let old = Filters::parse(r#"{"label":{"a=b":true,"x":false}}"#).unwrap();
        assert_eq!(old.get("label"), ["a=b"]);
        assert!(Filters::parse("").unwrap().is_empty());
        assert!(Filters::parse("[]").is_err());
        assert!(Filters::parse(r#"{"a":[1]}"#).is_err());
        assert_eq!(new.allow(&["name"]).unwrap_err().to_string(), "invalid filter 'label'");
    }

    #[test]
    fn labels_must_all_hold() {
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned()), ("c".to_owned(), String::new())]);
        let holds = |text: &str| Filters::parse(text).unwrap().labels(&labels);
        assert!(holds(r#"{"label":["a","c"]}"#));
        assert!(holds(r#"{"label":["a=b"]}"#));
        assert!(!holds(r#"{"label":["a=x"]}"#));
        assert!(!holds(r#"{"label":["a","d"]}"#));
        assert!(!holds(r#"{"label!":["c"]}"#));
    }

    proptest! {
        #[test]
        fn any_text_parses_or_errs(text in "\\PC*") {
            let _ = Filters::parse(&text);
        }
    }
}
