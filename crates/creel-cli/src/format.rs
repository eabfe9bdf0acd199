//! `--format` for lists: tables, JSON lines and templates over rows.

use std::cell::RefCell;

use crate::failure::Failure;
use crate::table::{self, LIST};
use crate::template::{Scope, Template, Value};

/// A method of rows: row, name and arguments to a value.
pub(crate) type Method<'a> = &'a dyn Fn(&Value, &str, &[Value]) -> Option<Value>;

/// A list to be shown.
#[derive(Clone)]
pub(crate) struct Listing<'a> {
    /// What the user gave as `--format`.
    pub format: Option<&'a str>,
    /// The template of the table without `--format`.
    pub table: &'a str,
    /// Go's name of a row's type, for messages.
    pub type_name: &'a str,
    /// Fields and their column headings.
    pub headings: &'a [(&'a str, &'a str)],
    /// The rows: fields in the order of their names.
    pub rows: Vec<Value>,
    /// A method of rows besides their fields: row, name and arguments to a value.
    pub method: Method<'a>,
}

/// Nothing besides fields.
pub(crate) fn no_method(_: &Value, _: &str, _: &[Value]) -> Option<Value> {
    None
}

/// A row from fields and texts, in the order of names.
pub(crate) fn row(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    let mut pairs: Vec<(String, Value)> = fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    Value::Map(pairs)
}

impl Listing<'_> {
    /// The list as text.
    ///
    /// # Errors
    /// When the template cannot be parsed or executed.
    pub(crate) fn render(&self) -> Result<String, Failure> {
        let given = self.format.filter(|format| !format.is_empty()).unwrap_or("table");
        let (is_table, source) = match given.strip_prefix("table") {
            Some("") => (true, self.table.to_owned()),
            Some(rest) => (true, rest.to_owned()),
            None if given == "json" => (false, "{{json .}}".to_owned()),
            None => (false, given.to_owned()),
        };
        let source = source.trim_matches(' ').replace("\\t", "\t").replace("\\n", "\n");
        let template =
            Template::parse(&source).map_err(|e| Failure::new(format!("failed to parse template: {e}")))?;
        // Docker escapes <, > and & where a whole row becomes JSON, but not for single fields.
        let whole = source == "{{json .}}";
        let mut text = String::new();
        if is_table {
            let headings: Vec<(String, Value)> = self
                .headings
                .iter()
                .map(|(field, heading)| ((*field).to_owned(), (*heading).into()))
                .collect();
            let method = |name: &str, arguments: &[Value]| heading_of_method(name, arguments);
            let scope = Scope { type_name: self.type_name, method: &method };
            text.push_str(&template.execute(&Value::Map(headings), &scope).map_err(failed)?);
            text.push('\n');
        }
        let current = RefCell::new(Value::Null);
        let method = |name: &str, arguments: &[Value]| (self.method)(&current.borrow(), name, arguments);
        let scope = Scope { type_name: self.type_name, method: &method };
        for row in &self.rows {
            current.replace(row.clone());
            let line = template.execute(row, &scope).map_err(failed)?;
            if whole {
                text.push_str(&line.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e"));
            } else {
                text.push_str(&line);
            }
            text.push('\n');
        }
        Ok(if is_table { table::align(&text, LIST) } else { text })
    }
}

fn failed(error: crate::template::TemplateError) -> Failure {
    Failure::new(format!("failed to execute template: {error}"))
}

/// The heading of a column made by a method with an argument: `{{.Label "com.x.my-name"}}` is `my name`.
fn heading_of_method(name: &str, arguments: &[Value]) -> Option<Value> {
    match (name, arguments) {
        ("Label", [Value::Text(label)]) => {
            let last = label.rsplit('.').next().unwrap_or(label);
            Some(last.replace(['-', '_'], " ").into())
        }
        _ => None,
    }
}

/// Cuts a text to `width` characters, the last of them an ellipsis.
pub(crate) fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn render(format: Option<&str>) -> String {
        let rows = vec![
            row([("ID", "1".into()), ("Name", "a<b".into())]),
            row([("Name", "".into()), ("ID", "2".into())]),
        ];
        let listing = Listing {
            format,
            table: "table {{.ID}}\t{{.Name}}"[5..].trim_start(),
            type_name: "*formatter.Test",
            headings: &[("ID", "THE ID"), ("Name", "NAME")],
            rows,
            method: &|_, name, arguments| (name == "Label").then(|| format!("{}!", arguments[0]).into()),
        };
        match listing.render() {
            Ok(text) => text,
            Err(e) => format!("{} {}", e.code, e.message),
        }
    }

    #[test]
    fn lists() {
        expect![[r#"
            THE ID    NAME
            1         a<b
            2         
        "#]]
        .assert_eq(&render(None));
        expect![[r#"
            {"ID":"1","Name":"a\u003cb"}
            {"ID":"2","Name":""}
        "#]]
        .assert_eq(&render(Some("json")));
        expect![[r#"
            NAME      my name
            a<b       com.x.my-name!
                      com.x.my-name!
        "#]]
        .assert_eq(&render(Some("table {{.Name}}\\t{{.Label \"com.x.my-name\"}}")));
        expect![["1 failed to execute template: template: :1:2: executing \"\" at <.Foo>: can't evaluate field Foo in type *formatter.Test"]].assert_eq(&render(Some("{{.Foo}}")));
        expect!["1 failed to parse template: template: :1: unclosed action"]
            .assert_eq(&render(Some("{{.ID")));
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(ellipsis("\"echo 'hello world this\"", 20), "\"echo 'hello world …");
        assert_eq!(ellipsis("short", 20), "short");
    }
}
