//! Properties in annotations: `org.systemd.property.NAME` with a value in GVariant's text form
//! (<https://docs.gtk.org/glib/gvariant-text-format.html>), of which dictionaries and maybes are left out.

use std::collections::BTreeMap;

use super::wire::{Value, first};
use crate::error::{Error, Result};

/// The properties that annotations ask for, in the order of their names.
///
/// A name that ends in `Sec` (systemd's files know only such ones) becomes `USec`, its number microseconds.
///
/// # Errors
/// [`Error::Invalid`] for a name that is none and for a value that cannot be read.
pub(crate) fn properties(annotations: &BTreeMap<String, String>) -> Result<Vec<(String, Value)>> {
    let mut found = Vec::new();
    for (key, text) in annotations {
        let Some(name) = key.strip_prefix("org.systemd.property.") else { continue };
        let wrong = |why: &str| Error::Invalid(format!("annotation {key}={text:?} {why}"));
        if name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return Err(wrong(
                "does not name a property of systemd's: three letters at least, and nothing else",
            ));
        }
        let value = parse(text).map_err(|why| wrong(&format!("has a value that cannot be read: {why}")))?;
        let seconds =
            name.strip_suffix("Sec").filter(|stem| stem.ends_with(|c: char| c.is_ascii_lowercase()));
        found.push(match seconds {
            Some(stem) => {
                let micros = microseconds(&value).ok_or_else(|| wrong("is not a number of seconds"))?;
                (format!("{stem}USec"), Value::Uint64(micros))
            }
            None => (name.to_owned(), value),
        });
    }
    Ok(found)
}

fn microseconds(value: &Value) -> Option<u64> {
    let whole = match value {
        Value::Byte(n) => u64::from(*n),
        Value::Int16(n) => u64::try_from(*n).ok()?,
        Value::Uint16(n) => u64::from(*n),
        Value::Int32(n) => u64::try_from(*n).ok()?,
        Value::Uint32(n) => u64::from(*n),
        Value::Int64(n) => u64::try_from(*n).ok()?,
        Value::Uint64(n) => *n,
        Value::Double(n) if *n >= 0.0 && *n < 1e13 => return Some((n * 1e6) as u64),
        _ => return None,
    };
    whole.checked_mul(1_000_000)
}

/// Reads a value.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    let mut parser = Parser { text, at: 0 };
    let value = parser.value(None, 0)?;
    parser.blanks();
    if parser.at < text.len() { Err(parser.wrong("the end")) } else { Ok(value) }
}

const DEPTH: usize = 16;

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn wrong(&self, wanted: &str) -> String {
        let rest: String = self.rest().chars().take(20).collect();
        format!("{wanted} is wanted at byte {} ({rest:?})", self.at)
    }

    fn blanks(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, token: &str) -> bool {
        self.blanks();
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn word(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        self.blanks();
        let rest = self.rest();
        let word = &rest[..rest.find(|c| !belongs(c)).unwrap_or(rest.len())];
        self.at += word.len();
        word
    }

    /// `kind`: the signature that the place asks for, if it does.
    fn value(&mut self, kind: Option<&str>, depth: usize) -> Result<Value, String> {
        if depth > DEPTH {
            return Err("it is nested too deeply".into());
        }
        self.blanks();
        let value = match self.rest().bytes().next() {
            None => return Err(self.wrong("a value")),
            Some(b'@') => {
                self.at += 1;
                let signature =
                    first(self.rest()).map_err(|why| format!("{} ({why})", self.wrong("a type")))?;
                self.at += signature.len();
                return self.value(Some(signature), depth + 1);
            }
            Some(b'\'' | b'"') => {
                let text = self.quoted()?;
                match kind {
                    Some("o") => Value::ObjectPath(text),
                    Some("g") => Value::Signature(text),
                    _ => Value::Text(text),
                }
            }
            Some(b'[') => self.array(kind, depth)?,
            Some(b'(') => self.tuple(kind, depth)?,
            Some(b'<') => {
                self.at += 1;
                let inner = self.value(None, depth + 1)?;
                if !self.eat(">") {
                    return Err(self.wrong("\">\""));
                }
                Value::variant(inner)
            }
            Some(b'b') if matches!(self.rest().as_bytes().get(1), Some(b'\'' | b'"')) => {
                self.at += 1;
                let mut bytes: Vec<Value> = self.quoted()?.bytes().map(Value::Byte).collect();
                bytes.push(Value::Byte(0));
                Value::Array("y".into(), bytes)
            }
            Some(b'a'..=b'z') => {
                let begin = self.at;
                match self.word(|c| c.is_ascii_alphanumeric()) {
                    "true" => Value::Bool(true),
                    "false" => Value::Bool(false),
                    "inf" | "nan" => {
                        self.at = begin;
                        self.number(kind)?
                    }
                    name => match keyword(name) {
                        Some(signature) => return self.value(Some(signature), depth + 1),
                        None => {
                            self.at = begin;
                            return Err(self.wrong("a value (a text is put in quotes)"));
                        }
                    },
                }
            }
            Some(_) => self.number(kind)?,
        };
        match kind {
            Some(kind) if value.signature() != kind => {
                Err(format!("a value of type {kind} is wanted, not {value}"))
            }
            _ => Ok(value),
        }
    }

    fn number(&mut self, kind: Option<&str>) -> Result<Value, String> {
        let begin = self.at;
        let word = self.word(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
        let wrong = || format!("{word:?} at byte {begin} is not a number that fits its type");
        let (negative, digits) = match word.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, word.strip_prefix('+').unwrap_or(word)),
        };
        let whole = if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
            i128::from_str_radix(hex, 16).ok()
        } else if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()) {
            i128::from_str_radix(digits, 8).ok()
        } else {
            digits.parse::<i128>().ok()
        };
        let whole = whole.filter(|_| !digits.starts_with(['+', '-'])).map(|n| if negative { -n } else { n });
        let value = match (kind, whole) {
            (None | Some("d"), None) | (Some("d"), Some(_)) => {
                // Rust's own form of numbers takes a few words more.
                let plain = word.bytes().any(|b| b.is_ascii_digit()) || matches!(digits, "inf" | "nan");
                word.parse().ok().filter(|_| plain).map(Value::Double)
            }
            (None | Some("i"), Some(n)) => n.try_into().ok().map(Value::Int32),
            (Some("y"), Some(n)) => n.try_into().ok().map(Value::Byte),
            (Some("n"), Some(n)) => n.try_into().ok().map(Value::Int16),
            (Some("q"), Some(n)) => n.try_into().ok().map(Value::Uint16),
            (Some("u" | "h"), Some(n)) => n.try_into().ok().map(Value::Uint32),
            (Some("x"), Some(n)) => n.try_into().ok().map(Value::Int64),
            (Some("t"), Some(n)) => n.try_into().ok().map(Value::Uint64),
            _ => None,
        };
        value.ok_or_else(wrong)
    }

    fn array(&mut self, kind: Option<&str>, depth: usize) -> Result<Value, String> {
        self.at += 1;
        let asked = kind.and_then(|kind| kind.strip_prefix('a')).map(str::to_owned);
        let mut of = asked;
        let mut values = Vec::new();
        while !self.eat("]") {
            if !values.is_empty() && !self.eat(",") {
                return Err(self.wrong("\",\" or \"]\""));
            }
            // The first element says what the others are.
            let value = self.value(of.as_deref(), depth + 1)?;
            of.get_or_insert_with(|| value.signature());
            values.push(value);
        }
        let of = of.ok_or("an empty array needs its type, like @as []")?;
        Ok(Value::Array(of, values))
    }

    fn tuple(&mut self, kind: Option<&str>, depth: usize) -> Result<Value, String> {
        self.at += 1;
        let mut asked = kind.and_then(|kind| kind.strip_prefix('(')?.strip_suffix(')'));
        let mut values = Vec::new();
        while !self.eat(")") {
            if !values.is_empty() && !self.eat(",") {
                return Err(self.wrong("\",\" or \")\""));
            }
            if !values.is_empty() && self.eat(")") {
                break;
            }
            let next = asked.and_then(|signature| first(signature).ok());
            values.push(self.value(next, depth + 1)?);
            asked = asked.zip(next).map(|(signature, next)| &signature[next.len()..]);
        }
        if values.is_empty() {
            Err("an empty tuple is no value of D-Bus's".into())
        } else {
            Ok(Value::Struct(values))
        }
    }

    fn quoted(&mut self) -> Result<String, String> {
        let mut chars = self.rest().char_indices();
        let Some((_, quote)) = chars.next() else { return Err(self.wrong("a text")) };
        let mut out = String::new();
        while let Some((at, c)) = chars.next() {
            if c == quote {
                self.at += at + 1;
                return if out.contains('\0') { Err("a NUL can be in no text".into()) } else { Ok(out) };
            }
            if c != '\\' {
                out.push(c);
                continue;
            }
            out.push(match chars.next().map(|(_, c)| c) {
                Some('a') => '\x07',
                Some('b') => '\x08',
                Some('f') => '\x0c',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('v') => '\x0b',
                Some('u') => code(&mut chars, 4).ok_or_else(|| self.wrong("a character's number"))?,
                Some('U') => code(&mut chars, 8).ok_or_else(|| self.wrong("a character's number"))?,
                Some(other) => other,
                None => break,
            });
        }
        Err(self.wrong("a closing quote of the text"))
    }
}

/// A character by the number of so many hexadecimal digits.
fn code(chars: &mut std::str::CharIndices<'_>, digits: usize) -> Option<char> {
    let hex: String = chars.take(digits).map(|(_, c)| c).collect();
    u32::from_str_radix(&hex, 16).ok().filter(|_| hex.len() == digits).and_then(char::from_u32)
}

fn keyword(name: &str) -> Option<&'static str> {
    Some(match name {
        "boolean" => "b",
        "byte" => "y",
        "int16" => "n",
        "uint16" => "q",
        "int32" => "i",
        "handle" => "h",
        "uint32" => "u",
        "int64" => "x",
        "uint64" => "t",
        "double" => "d",
        "string" => "s",
        "objectpath" => "o",
        "signature" => "g",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values() {
        let text = |text: &str| Value::text(text);
        for (source, want) in [
            ("true", Value::Bool(true)),
            (" false ", Value::Bool(false)),
            ("5", Value::Int32(5)),
            ("-5", Value::Int32(-5)),
            ("0x10", Value::Int32(16)),
            ("010", Value::Int32(8)),
            ("uint64 18446744073709551615", Value::Uint64(u64::MAX)),
            ("@t 7", Value::Uint64(7)),
            ("byte 0xff", Value::Byte(255)),
            ("int16 -1", Value::Int16(-1)),
            ("1.5", Value::Double(1.5)),
            ("double 2", Value::Double(2.0)),
            ("'inactive-or-failed'", text("inactive-or-failed")),
            (r#""a\"b\u00e4\n'""#, text("a\"bä\n'")),
            ("objectpath '/a'", Value::ObjectPath("/a".into())),
            (
                "['a.service', 'b.service']",
                Value::Array("s".into(), vec![text("a.service"), text("b.service")]),
            ),
            ("@as []", Value::Array("s".into(), vec![])),
            ("[uint32 1, 2]", Value::Array("u".into(), vec![Value::Uint32(1), Value::Uint32(2)])),
            (
                "@a(su) [('x', 1)]",
                Value::Array("(su)".into(), vec![Value::Struct(vec![text("x"), Value::Uint32(1)])]),
            ),
            ("<'x'>", Value::variant(text("x"))),
            ("b'ab'", Value::Array("y".into(), vec![Value::Byte(97), Value::Byte(98), Value::Byte(0)])),
        ] {
            assert_eq!(parse(source), Ok(want), "{source}");
        }
        for source in [
            "",
            "inactive",
            "'open",
            "5 6",
            "[",
            "[1, 'a']",
            "[]",
            "()",
            "byte 256",
            "uint32 -1",
            "2147483648",
            "--5",
            "@s 5",
            "@z 1",
            "<5",
            "'\\u12'",
            "'a\0b'",
            "uint64",
            "{'a': 1}",
            &"[".repeat(1000),
            &"<".repeat(1000),
        ] {
            assert!(parse(source).is_err(), "{source}: {:?}", parse(source));
        }
    }

    #[test]
    fn annotations() {
        let read = |name: &str, value: &str| {
            let name = format!("org.systemd.property.{name}");
            properties(&[(name, value.to_owned()), ("other".into(), "x".into())].into())
        };
        for (name, value, want) in [
            ("TimeoutStopUSec", "uint64 123456789", ("TimeoutStopUSec", Value::Uint64(123_456_789))),
            ("TimeoutStopSec", "5", ("TimeoutStopUSec", Value::Uint64(5_000_000))),
            ("RuntimeMaxSec", "1.5", ("RuntimeMaxUSec", Value::Uint64(1_500_000))),
            ("CollectMode", "'inactive-or-failed'", ("CollectMode", Value::text("inactive-or-failed"))),
            // No lower-case letter before: it is not seconds.
            ("FOOSec", "5", ("FOOSec", Value::Int32(5))),
        ] {
            assert_eq!(read(name, value).unwrap(), [(want.0.to_owned(), want.1)]);
        }
        for (name, value) in
            [("TimeoutSec", "'x'"), ("TimeoutSec", "-1"), ("Ab", "1"), ("A-b", "1"), ("Foo", "bar")]
        {
            assert!(matches!(read(name, value), Err(Error::Invalid(_))), "{name} {value}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "(?s)([\\[\\](){}<>'\"@\\\\,0-9a-z. -]|.){0,60}") {
            let _ = parse(&text);
        }

        #[test]
        fn texts_round_trip(text in "[^\0]{0,40}") {
            let quoted = text.replace('\\', "\\\\").replace('\'', "\\'");
            prop_assert_eq!(parse(&format!("'{quoted}'")), Ok(Value::Text(text)));
        }

        #[test]
        fn numbers_round_trip(n: i32, m: u64) {
            prop_assert_eq!(parse(&n.to_string()), Ok(Value::Int32(n)));
            prop_assert_eq!(parse(&format!("uint64 {m}")), Ok(Value::Uint64(m)));
        }
    }
}
