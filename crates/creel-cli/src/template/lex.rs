//! Tokens within an action.

use super::TemplateError;

/// A token and where it begins in the source.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) at: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// `.name`, with a blank before it or not (a field of what stands before).
    Field {
        name: String,
        glued: bool,
    },
    /// A lone `.`.
    Dot,
    /// `$` or `$name`.
    Variable(String),
    /// A function's or keyword's name.
    Word(String),
    Text(String),
    Int(i64),
    Float(f64),
    Pipe,
    Comma,
    Open,
    Close,
    Declare,
    Assign,
}

/// Splits the inside of one action, which begins at `base` of the source.
pub(super) fn tokens(source: &str, base: usize, inside: &str) -> Result<Vec<Token>, TemplateError> {
    let mut list = Vec::new();
    let mut rest = inside;
    let mut glued = false;
    let word_end = |text: &str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    while let Some(c) = rest.chars().next() {
        let at = base + (inside.len() - rest.len());
        let fail = |message: String| TemplateError::at(source, at, message);
        let (kind, length) = match c {
            c if c.is_whitespace() => {
                rest = &rest[c.len_utf8()..];
                glued = false;
                continue;
            }
            '|' => (Kind::Pipe, 1),
            ',' => (Kind::Comma, 1),
            '(' => (Kind::Open, 1),
            ')' => (Kind::Close, 1),
            ':' if rest.starts_with(":=") => (Kind::Declare, 2),
            '=' => (Kind::Assign, 1),
            '.' if rest[1..].starts_with(|c: char| c.is_alphabetic() || c == '_') => {
                let end = 1 + word_end(&rest[1..]);
                (Kind::Field { name: rest[1..end].to_owned(), glued }, end)
            }
            '.' if !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => (Kind::Dot, 1),
            '$' => {
                let end = 1 + word_end(&rest[1..]);
                (Kind::Variable(rest[1..end].to_owned()), end)
            }
            '"' => {
                let end = quoted_end(rest).ok_or_else(|| fail("unterminated quoted string".to_owned()))?;
                (Kind::Text(unquote(&rest[1..end - 1])), end)
            }
            '`' => {
                let end =
                    rest[1..].find('`').ok_or_else(|| fail("unterminated raw quoted string".to_owned()))? + 2;
                (Kind::Text(rest[1..end - 1].to_owned()), end)
            }
            '\'' => {
                let end =
                    rest[1..].find('\'').ok_or_else(|| fail("unterminated character constant".to_owned()))?
                        + 2;
                let text = unquote(&rest[1..end - 1]);
                let value = text.chars().next().map_or(0, |c| i64::from(u32::from(c)));
                (Kind::Int(value), end)
            }
            c if c.is_ascii_digit() || matches!(c, '.' | '-' | '+') => {
                let end = 1 + rest[1..]
                    .find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_'))
                    .unwrap_or(rest.len() - 1);
                let text = rest[..end].replace('_', "");
                let kind = match (parse_int(&text), text.parse::<f64>()) {
                    (Some(n), _) => Kind::Int(n),
                    (None, Ok(n)) => Kind::Float(n),
                    _ => return Err(fail(format!("bad number syntax: {:?}", &rest[..end]))),
                };
                (kind, end)
            }
            c if c.is_alphabetic() || c == '_' => {
                let end = word_end(rest);
                (Kind::Word(rest[..end].to_owned()), end)
            }
            c => {
                return Err(fail(format!(
                    "unexpected bad character U+{:04X} {c:?} in command",
                    u32::from(c)
                )));
            }
        };
        list.push(Token { kind, at });
        rest = &rest[length..];
        glued = true;
    }
    Ok(list)
}

fn parse_int(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let number = match digits.get(..2) {
        Some("0x" | "0X") => i64::from_str_radix(&digits[2..], 16),
        Some("0o" | "0O") => i64::from_str_radix(&digits[2..], 8),
        Some("0b" | "0B") => i64::from_str_radix(&digits[2..], 2),
        _ => digits.parse(),
    };
    number.ok().map(|n| sign * n)
}

/// Length of a quoted text that begins here, quotes included.
fn quoted_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(at + 1),
            '\n' => return None,
            _ => {}
        }
    }
    None
}

fn unquote(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        let Some(escape) = (c == '\\').then(|| rest.chars().next()).flatten() else {
            out.push(c);
            continue;
        };
        rest = &rest[escape.len_utf8()..];
        let digits = match escape {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        if digits > 0 {
            let code = rest.get(..digits).and_then(|hex| u32::from_str_radix(hex, 16).ok());
            if let Some(c) = code.and_then(char::from_u32) {
                out.push(c);
                rest = &rest[digits..];
                continue;
            }
        }
        out.push(match escape {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'v' => '\u{b}',
            other => other,
        });
    }
    out
}
