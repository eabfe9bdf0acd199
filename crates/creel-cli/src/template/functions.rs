//! The functions of templates: Go's own and those that Docker's client adds.

use super::printf;
use super::value::Value;

const NAMES: [&str; 26] = [
    "and", "eq", "ge", "gt", "index", "join", "json", "le", "len", "lower", "lt", "ne", "not", "or", "pad",
    "print", "printf", "println", "slice", "split", "title", "truncate", "upper", "html", "js", "urlquery",
];

/// Whether there is a function of this name.
pub(super) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

fn text(value: &Value) -> Result<&str, String> {
    match value {
        Value::Text(text) => Ok(text),
        other => Err(format!("wrong type for value; expected string; got {other}")),
    }
}

fn whole(value: &Value) -> Result<i64, String> {
    match value {
        Value::Int(n) => Ok(*n),
        other => Err(format!("wrong type for value; expected int; got {other}")),
    }
}

fn count<const N: usize>(arguments: &[Value]) -> Result<&[Value; N], String> {
    arguments.try_into().map_err(|_| format!("wrong number of args: want {N} got {}", arguments.len()))
}

/// Calls a function.
pub(super) fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    match name {
        "json" => {
            let [value] = count(arguments)?;
            Ok(value.to_json().into())
        }
        "upper" | "lower" | "title" => {
            let [value] = count(arguments)?;
            let value = text(value)?;
            Ok(match name {
                "upper" => value.to_uppercase(),
                "lower" => value.to_lowercase(),
                _ => title(value),
            }
            .into())
        }
        "join" => {
            let [list, separator] = count(arguments)?;
            let items = match list {
                Value::List(list) => list.iter().map(ToString::to_string).collect(),
                Value::Null => Vec::new(),
                other => return Err(format!("wrong type for value; expected []string; got {other}")),
            };
            Ok(items.join(text(separator)?).into())
        }
        "split" => {
            let [value, separator] = count(arguments)?;
            let (value, separator) = (text(value)?, text(separator)?);
            let parts = if separator.is_empty() {
                value.chars().map(|c| c.to_string().into()).collect()
            } else {
                value.split(separator).map(Value::from).collect()
            };
            Ok(Value::List(parts))
        }
        "pad" => {
            let [value, before, after] = count(arguments)?;
            let value = text(value)?;
            if value.is_empty() {
                return Ok("".into());
            }
            let blanks = |n: i64| " ".repeat(usize::try_from(n).unwrap_or(0).min(1 << 16));
            Ok(format!("{}{value}{}", blanks(whole(before)?), blanks(whole(after)?)).into())
        }
        "truncate" => {
            let [value, length] = count(arguments)?;
            let length = usize::try_from(whole(length)?).unwrap_or(0);
            Ok(text(value)?.chars().take(length).collect::<String>().into())
        }
        "print" => Ok(print(arguments).into()),
        "println" => {
            Ok((arguments.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ") + "\n").into())
        }
        "printf" => {
            let Some((format, rest)) = arguments.split_first() else {
                return Err("wrong number of args for printf: want at least 1 got 0".to_owned());
            };
            Ok(printf::printf(text(format)?, rest).into())
        }
        "len" => {
            let [value] = count(arguments)?;
            let length = match value {
                Value::Text(text) => text.len(),
                Value::List(list) => list.len(),
                Value::Map(pairs) => pairs.len(),
                Value::Null => 0,
                other => return Err(format!("len of type {}", kind(other))),
            };
            Ok(Value::Int(length as i64))
        }
        "index" => index(arguments),
        "slice" => slice(arguments),
        "not" => {
            let [value] = count(arguments)?;
            Ok(Value::Bool(!value.truth()))
        }
        "and" | "or" => Ok(arguments.last().cloned().unwrap_or(Value::Null)),
        "eq" | "ne" | "lt" | "le" | "gt" | "ge" => compare(name, arguments),
        "html" => Ok(escape_html(&print(arguments)).into()),
        "js" => Ok(print(arguments)
            .to_owned()
            .replace('\\', "\\\\")
            .replace('\'', "\\'")
            .replace('"', "\\\"")
            .into()),
        "urlquery" => Ok(url_query(&print(arguments)).into()),
        other => Err(format!("function {other:?} not defined")),
    }
}

/// Go's `Sprint`: a blank between neighbours of which neither is a text.
fn print(arguments: &[Value]) -> String {
    let mut out = String::new();
    let mut was_text = true;
    for (n, value) in arguments.iter().enumerate() {
        let is_text = matches!(value, Value::Text(_));
        if n > 0 && !is_text && !was_text {
            out.push(' ');
        }
        out.push_str(&value.to_string());
        was_text = is_text;
    }
    out
}

fn title(text: &str) -> String {
    let mut begin = true;
    text.chars()
        .map(|c| {
            let upper = begin;
            begin = !(c.is_alphanumeric() || c == '_' || c == '\'');
            if upper { c.to_uppercase().next().unwrap_or(c) } else { c }
        })
        .collect()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int",
        Value::Float(_) => "float64",
        Value::Text(_) => "string",
        Value::List(_) => "[]interface {}",
        Value::Map(_) => "map[string]interface {}",
    }
}

fn index(arguments: &[Value]) -> Result<Value, String> {
    let Some((first, keys)) = arguments.split_first() else {
        return Err("wrong number of args for index: want at least 1 got 0".to_owned());
    };
    let mut value = first.clone();
    for key in keys {
        value = match (&value, key) {
            (Value::Map(_), Value::Text(key)) => value.get(key).cloned().unwrap_or_else(|| "".into()),
            (Value::Map(_), other) => {
                return Err(format!("value has type {}; should be string", kind(other)));
            }
            (Value::List(list), Value::Int(n)) => usize::try_from(*n)
                .ok()
                .and_then(|n| list.get(n))
                .cloned()
                .ok_or_else(|| format!("index out of range: {n}"))?,
            (Value::Text(text), Value::Int(n)) => usize::try_from(*n)
                .ok()
                .and_then(|n| text.as_bytes().get(n))
                .map(|b| Value::Int(i64::from(*b)))
                .ok_or_else(|| format!("index out of range: {n}"))?,
            (Value::List(_) | Value::Text(_), other) => {
                return Err(format!("cannot index slice/array with type {}", kind(other)));
            }
            // A map that is not there has no entries, as Go's nil maps.
            (Value::Null, Value::Text(_)) => "".into(),
            (Value::Null, _) => return Err("index of nil pointer".to_owned()),
            (other, _) => return Err(format!("can't index item of type {}", kind(other))),
        };
    }
    Ok(value)
}

fn slice(arguments: &[Value]) -> Result<Value, String> {
    let Some((value, bounds)) = arguments.split_first() else {
        return Err("wrong number of args for slice: want at least 1 got 0".to_owned());
    };
    let length = match value {
        Value::Text(text) => text.len(),
        Value::List(list) => list.len(),
        other => return Err(format!("can't slice item of type {}", kind(other))),
    };
    let bound = |n: usize, default: usize| -> Result<usize, String> {
        let Some(value) = bounds.get(n) else { return Ok(default) };
        let number = whole(value)?;
        usize::try_from(number)
            .ok()
            .filter(|n| *n <= length)
            .ok_or_else(|| format!("index out of range: {number}"))
    };
    let (from, to) = (bound(0, 0)?, bound(1, length)?);
    if from > to {
        return Err(format!("invalid slice index: {from} > {to}"));
    }
    Ok(match value {
        Value::Text(text) => String::from_utf8_lossy(&text.as_bytes()[from..to]).into_owned().into(),
        Value::List(list) => Value::List(list[from..to].to_vec()),
        _ => Value::Null,
    })
}

fn compare(name: &str, arguments: &[Value]) -> Result<Value, String> {
    use std::cmp::Ordering;
    let [first, rest @ ..] = arguments else { return Err("missing argument for comparison".to_owned()) };
    if rest.is_empty() || (rest.len() > 1 && name != "eq") {
        return Err("missing argument for comparison".to_owned());
    }
    let wrong = || "incompatible types for comparison".to_owned();
    if name == "eq" || name == "ne" {
        let mut found = false;
        for other in rest {
            let basic = |v: &Value| !matches!(v, Value::List(_) | Value::Map(_));
            if !basic(first) || !basic(other) {
                return Err("non-comparable type".to_owned());
            }
            let null = matches!(first, Value::Null) || matches!(other, Value::Null);
            found |= match first.compare(other) {
                Some(order) => order == Ordering::Equal,
                None if null => false,
                None => return Err(wrong()),
            };
        }
        return Ok(Value::Bool(found == (name == "eq")));
    }
    let order = first.compare(&rest[0]).ok_or_else(wrong)?;
    Ok(Value::Bool(match name {
        "lt" => order == Ordering::Less,
        "le" => order != Ordering::Greater,
        "gt" => order == Ordering::Greater,
        _ => order != Ordering::Less,
    }))
}

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&#34;")
        .replace('\'', "&#39;")
}

fn url_query(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => char::from(b).to_string(),
            b' ' => "+".to_owned(),
            b => format!("%{b:02X}"),
        })
        .collect()
}
