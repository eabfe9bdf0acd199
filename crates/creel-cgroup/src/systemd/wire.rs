//! D-Bus messages: values and their bytes (D-Bus Specification 0.43, "Type System", "Message Protocol").
//!
//! Own code because so little is needed: one connection that calls and waits, no introspection, no server, no
//! descriptors. The maintained crates bring an async core (zbus) or a second set of system call wrappers (rustbus).

use std::fmt;

/// A value of some D-Bus type.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `y`
    Byte(u8),
    /// `b`
    Bool(bool),
    /// `n`
    Int16(i16),
    /// `q`
    Uint16(u16),
    /// `i`
    Int32(i32),
    /// `u`
    Uint32(u32),
    /// `x`
    Int64(i64),
    /// `t`
    Uint64(u64),
    /// `d`
    Double(f64),
    /// `s`
    Text(String),
    /// `o`
    ObjectPath(String),
    /// `g`
    Signature(String),
    /// `a`: the signature of the elements, and they.
    Array(String, Vec<Value>),
    /// `(…)`
    Struct(Vec<Value>),
    /// `v`
    Variant(Box<Value>),
}

impl Value {
    /// A text.
    pub fn text(text: impl Into<String>) -> Value {
        Value::Text(text.into())
    }

    /// A variant of a value.
    pub(crate) fn variant(value: Value) -> Value {
        Value::Variant(Box::new(value))
    }

    /// Its signature.
    pub fn signature(&self) -> String {
        match self {
            Value::Byte(_) => "y".into(),
            Value::Bool(_) => "b".into(),
            Value::Int16(_) => "n".into(),
            Value::Uint16(_) => "q".into(),
            Value::Int32(_) => "i".into(),
            Value::Uint32(_) => "u".into(),
            Value::Int64(_) => "x".into(),
            Value::Uint64(_) => "t".into(),
            Value::Double(_) => "d".into(),
            Value::Text(_) => "s".into(),
            Value::ObjectPath(_) => "o".into(),
            Value::Signature(_) => "g".into(),
            Value::Array(of, _) => format!("a{of}"),
            Value::Struct(fields) => format!("({})", fields.iter().map(Value::signature).collect::<String>()),
            Value::Variant(_) => "v".into(),
        }
    }

    /// The text of a string, an object path or a signature.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) | Value::ObjectPath(text) | Value::Signature(text) => Some(text),
            _ => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, open: char, values: &[Value], close: char| {
            write!(f, "{open}")?;
            for (i, value) in values.iter().enumerate() {
                write!(f, "{}{value}", if i == 0 { "" } else { ", " })?;
            }
            write!(f, "{close}")
        };
        match self {
            Value::Byte(n) => write!(f, "{n}"),
            Value::Bool(b) => write!(f, "{b}"),
            Value::Int16(n) => write!(f, "{n}"),
            Value::Uint16(n) => write!(f, "{n}"),
            Value::Int32(n) => write!(f, "{n}"),
            Value::Uint32(n) => write!(f, "{n}"),
            Value::Int64(n) => write!(f, "{n}"),
            Value::Uint64(n) => write!(f, "{n}"),
            Value::Double(n) => write!(f, "{n}"),
            Value::Text(text) | Value::ObjectPath(text) | Value::Signature(text) => write!(f, "{text:?}"),
            Value::Array(_, values) => list(f, '[', values, ']'),
            Value::Struct(values) => list(f, '(', values, ')'),
            Value::Variant(value) => write!(f, "<{value}>"),
        }
    }
}

/// Why bytes are no message.
pub(crate) type Malformed = &'static str;

/// The alignment of a type by the first character of its signature.
fn alignment(kind: u8) -> usize {
    match kind {
        b'y' | b'g' | b'v' => 1,
        b'n' | b'q' => 2,
        b'x' | b't' | b'd' | b'(' | b'{' => 8,
        _ => 4,
    }
}

/// Bytes in the making, little-endian.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number<const N: usize>(&mut self, bytes: [u8; N]) {
        self.align(N);
        self.0.extend(bytes);
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Byte(n) => self.0.push(*n),
            Value::Bool(b) => self.number(u32::from(*b).to_le_bytes()),
            Value::Int16(n) => self.number(n.to_le_bytes()),
            Value::Uint16(n) => self.number(n.to_le_bytes()),
            Value::Int32(n) => self.number(n.to_le_bytes()),
            Value::Uint32(n) => self.number(n.to_le_bytes()),
            Value::Int64(n) => self.number(n.to_le_bytes()),
            Value::Uint64(n) => self.number(n.to_le_bytes()),
            Value::Double(n) => self.number(n.to_le_bytes()),
            Value::Text(text) | Value::ObjectPath(text) => {
                self.number((text.len() as u32).to_le_bytes());
                self.0.extend(text.as_bytes());
                self.0.push(0);
            }
            Value::Signature(text) => {
                self.0.push(text.len() as u8);
                self.0.extend(text.as_bytes());
                self.0.push(0);
            }
            Value::Array(of, values) => {
                self.align(4);
                let length_at = self.0.len();
                self.0.extend([0; 4]);
                self.align(alignment(of.bytes().next().unwrap_or(b'y')));
                let begin = self.0.len();
                for value in values {
                    self.value(value);
                }
                let length = (self.0.len() - begin) as u32;
                self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
            }
            Value::Struct(fields) => {
                self.align(8);
                for field in fields {
                    self.value(field);
                }
            }
            Value::Variant(value) => {
                self.value(&Value::Signature(value.signature()));
                self.value(value);
            }
        }
    }
}

/// How deep containers may be nested (the specification allows 64; nothing here comes near).
const DEPTH: usize = 16;

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big: bool,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(count).ok_or("a length overflows")?;
        let taken = self.bytes.get(self.at..end).ok_or("it ends early")?;
        self.at = end;
        Ok(taken)
    }

    fn align(&mut self, to: usize) -> Result<(), Malformed> {
        self.take(self.at.next_multiple_of(to) - self.at).map(drop)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.align(N)?;
        let mut bytes: [u8; N] = self.take(N)?.try_into().map_err(|_| "it ends early")?;
        if self.big {
            bytes.reverse();
        }
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.number().map(u32::from_le_bytes)
    }

    fn text(&mut self, length: usize) -> Result<String, Malformed> {
        let bytes = self.take(length)?;
        if self.take(1)? != [0] {
            return Err("a text without its end");
        }
        String::from_utf8(bytes.to_vec()).map_err(|_| "a text that is not UTF-8")
    }

    fn value(&mut self, signature: &str, depth: usize) -> Result<Value, Malformed> {
        if depth > DEPTH {
            return Err("it is nested too deeply");
        }
        let kind = signature.bytes().next().ok_or("an empty signature")?;
        Ok(match kind {
            b'y' => Value::Byte(self.take(1)?[0]),
            b'b' => Value::Bool(self.u32()? != 0),
            b'n' => Value::Int16(i16::from_le_bytes(self.number()?)),
            b'q' => Value::Uint16(u16::from_le_bytes(self.number()?)),
            b'i' => Value::Int32(i32::from_le_bytes(self.number()?)),
            b'u' | b'h' => Value::Uint32(self.u32()?),
            b'x' => Value::Int64(i64::from_le_bytes(self.number()?)),
            b't' => Value::Uint64(u64::from_le_bytes(self.number()?)),
            b'd' => Value::Double(f64::from_le_bytes(self.number()?)),
            b's' | b'o' => {
                let length = self.u32()? as usize;
                let text = self.text(length)?;
                if kind == b's' { Value::Text(text) } else { Value::ObjectPath(text) }
            }
            b'g' => {
                let length = self.take(1)?[0];
                Value::Signature(self.text(length.into())?)
            }
            b'v' => {
                let length = self.take(1)?[0];
                let signature = self.text(length.into())?;
                if first(&signature)?.len() != signature.len() {
                    return Err("a variant of more than one value");
                }
                Value::variant(self.value(&signature, depth + 1)?)
            }
            b'a' => {
                let of = first(&signature[1..])?;
                let length = self.u32()? as usize;
                self.align(alignment(of.bytes().next().unwrap_or(b'y')))?;
                let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
                let end = end.ok_or("an array that is longer than the message")?;
                let mut values = Vec::new();
                while self.at < end {
                    values.push(self.value(of, depth + 1)?);
                }
                if self.at != end {
                    return Err("an array that does not end with an element");
                }
                Value::Array(of.to_owned(), values)
            }
            // A dictionary's entry is told as a pair.
            b'(' | b'{' => {
                self.align(8)?;
                let inner = first(signature)?;
                Value::Struct(self.values(&inner[1..inner.len() - 1], depth + 1)?)
            }
            _ => return Err("an unknown type"),
        })
    }

    fn values(&mut self, mut signature: &str, depth: usize) -> Result<Vec<Value>, Malformed> {
        let mut values = Vec::new();
        while !signature.is_empty() {
            let one = first(signature)?;
            values.push(self.value(one, depth)?);
            signature = &signature[one.len()..];
        }
        Ok(values)
    }
}

/// The first complete type of a signature.
pub(crate) fn first(signature: &str) -> Result<&str, Malformed> {
    const WRONG: Malformed = "a signature that is not one";
    let mut open = Vec::new();
    for (at, c) in signature.bytes().enumerate() {
        match c {
            b'a' => continue,
            b'(' | b'{' => {
                open.push(c);
                continue;
            }
            b')' if open.pop() == Some(b'(') && at > 1 && signature.as_bytes()[at - 1] != b'a' => {}
            b'}' if open.pop() == Some(b'{') && signature.as_bytes()[at - 1] != b'a' => {}
            b'y' | b'b' | b'n' | b'q' | b'i' | b'u' | b'x' | b't' | b'd' | b's' | b'o' | b'g' | b'v'
            | b'h' => {}
            _ => return Err(WRONG),
        }
        if open.is_empty() {
            // `()` is no type, which the arm above sees only for the outermost.
            return if signature[..=at].contains("()") { Err(WRONG) } else { Ok(&signature[..=at]) };
        }
    }
    Err(WRONG)
}

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Call,
    Reply,
    Error,
    Signal,
}

/// A message.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    /// Whether the caller wants no answer.
    pub(crate) silent: bool,
    pub(crate) serial: u32,
    pub(crate) reply_to: Option<u32>,
    pub(crate) path: String,
    pub(crate) interface: String,
    /// Method, signal, or the error's name.
    pub(crate) member: String,
    pub(crate) destination: String,
    pub(crate) body: Vec<Value>,
}

/// The least that tells how long a message is.
pub(crate) const HEADER: usize = 16;
/// No message that is expected here comes near.
const MOST: usize = 1 << 20;

impl Message {
    /// Its bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Writer::default();
        for value in &self.body {
            body.value(value);
        }
        let mut fields = Vec::new();
        let mut field = |code: u8, value: Value| {
            fields.push(Value::Struct(vec![Value::Byte(code), Value::variant(value)]));
        };
        if !self.path.is_empty() {
            field(1, Value::ObjectPath(self.path.clone()));
        }
        if !self.interface.is_empty() {
            field(2, Value::text(&self.interface));
        }
        if !self.member.is_empty() {
            field(if self.kind == Kind::Error { 4 } else { 3 }, Value::text(&self.member));
        }
        if let Some(serial) = self.reply_to {
            field(5, Value::Uint32(serial));
        }
        if !self.destination.is_empty() {
            field(6, Value::text(&self.destination));
        }
        let signature: String = self.body.iter().map(Value::signature).collect();
        if !signature.is_empty() {
            field(8, Value::Signature(signature));
        }
        let kind = match self.kind {
            Kind::Call => 1,
            Kind::Reply => 2,
            Kind::Error => 3,
            Kind::Signal => 4,
        };
        let mut bytes = Writer(vec![b'l', kind, u8::from(self.silent), 1]);
        bytes.value(&Value::Uint32(body.0.len() as u32));
        bytes.value(&Value::Uint32(self.serial));
        bytes.value(&Value::Array("(yv)".into(), fields));
        bytes.align(8);
        bytes.0.extend(body.0);
        bytes.0
    }

    /// The length of the message of which these are the first [`HEADER`] bytes.
    pub(crate) fn length(header: &[u8]) -> Result<usize, Malformed> {
        let mut reader = Message::reader(header)?;
        let body = reader.u32()? as usize;
        reader.u32()?;
        let fields = reader.u32()? as usize;
        if body > MOST || fields > MOST {
            return Err("it is too long");
        }
        Ok((HEADER + fields).next_multiple_of(8) + body)
    }

    fn reader(bytes: &[u8]) -> Result<Reader<'_>, Malformed> {
        let big = match bytes.first() {
            Some(b'l') => false,
            Some(b'B') => true,
            _ => return Err("an unknown byte order"),
        };
        if bytes.get(3) != Some(&1) {
            return Err("an unknown version of the protocol");
        }
        Ok(Reader { bytes, at: 4, big })
    }

    /// The message of these bytes; `None` for a kind that is to be passed over.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<Message>, Malformed> {
        let mut reader = Message::reader(bytes)?;
        let kind = match bytes[1] {
            1 => Kind::Call,
            2 => Kind::Reply,
            3 => Kind::Error,
            4 => Kind::Signal,
            _ => return Ok(None),
        };
        let length = reader.u32()? as usize;
        let mut message = Message {
            kind,
            silent: bytes[2] & 1 != 0,
            serial: reader.u32()?,
            reply_to: None,
            path: String::new(),
            interface: String::new(),
            member: String::new(),
            destination: String::new(),
            body: Vec::new(),
        };
        let mut signature = String::new();
        let Value::Array(_, fields) = reader.value("a(yv)", 0)? else { return Err("no header") };
        for field in fields {
            let Value::Struct(pair) = field else { continue };
            let [Value::Byte(code), Value::Variant(value)] = pair.as_slice() else { continue };
            let text = || value.as_text().unwrap_or_default().to_owned();
            match (code, value.as_ref()) {
                (1, _) => message.path = text(),
                (2, _) => message.interface = text(),
                (3 | 4, _) => message.member = text(),
                (5, Value::Uint32(serial)) => message.reply_to = Some(*serial),
                (6, _) => message.destination = text(),
                (8, _) => signature = text(),
                _ => {}
            }
        }
        reader.align(8)?;
        if reader.bytes.len() - reader.at != length {
            return Err("a body of another length");
        }
        // Alignment in the body counts from its own beginning, which is a multiple of 8 as well.
        message.body = reader.values(&signature, 0)?;
        Ok(Some(message))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<u8>().prop_map(Value::Byte),
            any::<bool>().prop_map(Value::Bool),
            any::<i16>().prop_map(Value::Int16),
            any::<u16>().prop_map(Value::Uint16),
            any::<i32>().prop_map(Value::Int32),
            any::<u32>().prop_map(Value::Uint32),
            any::<i64>().prop_map(Value::Int64),
            any::<u64>().prop_map(Value::Uint64),
            (-1e9f64..1e9).prop_map(Value::Double),
            "[^\0]{0,12}".prop_map(Value::Text),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                inner.clone().prop_map(Value::variant),
                proptest::collection::vec(inner.clone(), 1..4).prop_map(Value::Struct),
                (inner, 0usize..4)
                    .prop_map(|(value, count)| Value::Array(value.signature(), vec![value; count])),
            ]
        })
    }

    fn message(body: Vec<Value>) -> Message {
        Message {
            kind: Kind::Call,
            silent: false,
            serial: 7,
            reply_to: Some(3),
            path: "/org/freedesktop/systemd1".into(),
            interface: "a.b".into(),
            member: "M".into(),
            destination: "c.d".into(),
            body,
        }
    }

    #[test]
    fn known_bytes() {
        // As `busctl` and the specification have it: a call of Hello.
        let hello = Message {
            kind: Kind::Call,
            silent: false,
            serial: 1,
            reply_to: None,
            path: "/org/freedesktop/DBus".into(),
            interface: "org.freedesktop.DBus".into(),
            member: "Hello".into(),
            destination: "org.freedesktop.DBus".into(),
            body: Vec::new(),
        };
        let bytes = hello.encode();
        assert_eq!(&bytes[..16], b"l\x01\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00\x6d\x00\x00\x00");
        assert_eq!(&bytes[16..45], b"\x01\x01o\x00\x15\x00\x00\x00/org/freedesktop/DBus");
        assert_eq!(bytes.len(), 128);
        assert_eq!(Message::length(&bytes[..16]), Ok(128));
    }

    #[test]
    fn signatures() {
        for (text, want) in
            [("s", "s"), ("as", "as"), ("a(sv)u", "a(sv)"), ("(s(uu))x", "(s(uu))"), ("a{sv}", "a{sv}")]
        {
            assert_eq!(first(text), Ok(want));
        }
        for text in ["", "a", "(", "()", "(a)", "(s", ")", "z", "(()s)"] {
            assert!(first(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(body in proptest::collection::vec(any_value(), 0..5)) {
            let message = message(body);
            let bytes = message.encode();
            prop_assert_eq!(Message::length(&bytes[..HEADER]), Ok(bytes.len()));
            prop_assert_eq!(Message::decode(&bytes).unwrap().unwrap(), message);
        }

        #[test]
        fn damaged_bytes_never_panic(
            body in proptest::collection::vec(any_value(), 0..5),
            damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
            cut in any::<proptest::sample::Index>(),
        ) {
            let mut bytes = message(body).encode();
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let _ = Message::length(&bytes[..HEADER]);
            let _ = Message::decode(&bytes);
            let _ = Message::decode(&bytes[..cut.index(bytes.len())]);
        }
    }
}
