//! Go's `fmt.Sprintf`, as far as formats use it.

use super::value::{Value, float};

#[derive(Default)]
struct Spec {
    minus: bool,
    plus: bool,
    zero: bool,
    sharp: bool,
    space: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// Widest padding that is printed.
const WIDTH_LIMIT: usize = 1 << 16;

pub(super) fn printf(format: &str, arguments: &[Value]) -> String {
    let mut out = String::new();
    let mut arguments = arguments.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut spec = Spec::default();
        while let Some(flag) = chars.next_if(|c| "-+0# ".contains(*c)) {
            match flag {
                '-' => spec.minus = true,
                '+' => spec.plus = true,
                '0' => spec.zero = true,
                '#' => spec.sharp = true,
                _ => spec.space = true,
            }
        }
        let mut number = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            if chars.next_if_eq(&'*').is_some() {
                return match arguments.next() {
                    Some(Value::Int(n)) => usize::try_from(*n).ok(),
                    _ => None,
                };
            }
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            digits.parse().ok()
        };
        spec.width = number(&mut chars).map(|n: usize| n.min(WIDTH_LIMIT));
        if chars.next_if_eq(&'.').is_some() {
            spec.precision = Some(number(&mut chars).unwrap_or(0).min(WIDTH_LIMIT));
        }
        match chars.next() {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(verb) => match arguments.next() {
                None => out.push_str(&format!("%!{verb}(MISSING)")),
                Some(value) => out.push_str(&pad(&verb_text(verb, value, &spec), value, &spec)),
            },
        }
    }
    let rest: Vec<String> = arguments.map(|v| format!("{}={v}", go_type(v))).collect();
    if !rest.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", rest.join(", ")));
    }
    out
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int",
        Value::Float(_) => "float64",
        Value::Text(_) => "string",
        Value::List(_) => "[]interface {}",
        Value::Map(_) => "map[string]interface {}",
    }
}

fn pad(text: &str, value: &Value, spec: &Spec) -> String {
    let missing = spec.width.unwrap_or(0).saturating_sub(text.chars().count());
    if missing == 0 {
        return text.to_owned();
    }
    if spec.minus {
        return format!("{text}{}", " ".repeat(missing));
    }
    if spec.zero && matches!(value, Value::Int(_) | Value::Float(_)) {
        let (sign, digits) = match text.strip_prefix(['-', '+']) {
            Some(digits) => (&text[..1], digits),
            None => ("", text),
        };
        return format!("{sign}{}{digits}", "0".repeat(missing));
    }
    format!("{}{text}", " ".repeat(missing))
}

fn verb_text(verb: char, value: &Value, spec: &Spec) -> String {
    let wrong = || format!("%!{verb}({}={value})", go_type(value));
    let signed = |text: String| if spec.plus && !text.starts_with('-') { format!("+{text}") } else { text };
    match (verb, value) {
        ('v', Value::Text(text)) if spec.sharp => Value::Text(text.clone()).to_json(),
        ('v', Value::Int(n)) | ('d', Value::Int(n)) => signed(n.to_string()),
        ('v', value) => value.to_string(),
        ('s', Value::Text(text)) => text.chars().take(spec.precision.unwrap_or(usize::MAX)).collect(),
        ('s', Value::List(list)) => {
            let items: Vec<String> = list.iter().map(|v| verb_text('s', v, spec)).collect();
            format!("[{}]", items.join(" "))
        }
        ('s', Value::Map(_)) => value.to_string(),
        ('q', Value::Text(text)) => Value::Text(text.clone()).to_json(),
        ('t', Value::Bool(b)) => b.to_string(),
        ('x', Value::Int(n)) => format!("{n:x}"),
        ('X', Value::Int(n)) => format!("{n:X}"),
        ('o', Value::Int(n)) => format!("{n:o}"),
        ('b', Value::Int(n)) => format!("{n:b}"),
        ('c', Value::Int(n)) => {
            u32::try_from(*n).ok().and_then(char::from_u32).unwrap_or('\u{fffd}').to_string()
        }
        ('x', Value::Text(text)) => text.bytes().map(|b| format!("{b:02x}")).collect(),
        ('X', Value::Text(text)) => text.bytes().map(|b| format!("{b:02X}")).collect(),
        ('f' | 'F', Value::Float(n)) => signed(format!("{n:.*}", spec.precision.unwrap_or(6))),
        ('g', Value::Float(n)) => signed(float(*n)),
        ('e', Value::Float(n)) => {
            let text = format!("{n:.*e}", spec.precision.unwrap_or(6));
            let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let exponent: i32 = exponent.parse().unwrap_or(0);
            format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
        }
        ('T', value) => go_type(value).to_owned(),
        _ => wrong(),
    }
}
