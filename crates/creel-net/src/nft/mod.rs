//! The packet filter as a value, and its way into the kernel: nf_tables by netlink, one batch that is done as a whole or not
//! at all.
//!
//! Only what creel's own table needs is here. A [`Table`] prints as nft(8) would read it.

mod encode;
mod expr;

use std::fmt;
use std::net::IpAddr;

use creel_sys::netlink::{Family, Socket};

pub use expr::{Address, Ct, Field, Hook, Key, Statement, Verdict};

use crate::error::{Error, Result};

/// A table of the family `inet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its maps and sets.
    pub sets: Vec<Set>,
    /// Its chains, those that are jumped to before those that jump.
    pub chains: Vec<Chain>,
}

/// A set, or a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// What an element is.
    pub key: Vec<Key>,
    /// What an element leads to.
    pub data: Data,
    /// Whether an element is a range: the key is of one part then.
    pub is_interval: bool,
    /// What is in it.
    pub elements: Vec<Element>,
}

/// What the elements of a set lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// Nothing: it is a set.
    Nothing,
    /// A verdict.
    Verdict,
    /// An address, and a port.
    Value(Vec<Key>),
}

/// One element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// The parts of its key; of a range the first one.
    pub key: Vec<Value>,
    /// The last one of a range.
    pub end: Option<Value>,
    /// What it leads to.
    pub data: Target,
}

/// What an element leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// It is in the set, and that is all.
    Nothing,
    /// A verdict.
    Verdict(Verdict),
    /// Values.
    Value(Vec<Value>),
}

/// Part of an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// An address.
    Address(IpAddr),
    /// A transport protocol's number.
    Protocol(u8),
    /// A port.
    Port(u16),
    /// The name of an interface.
    Name(String),
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Where packets come to it; `None` for one that is jumped to.
    pub hook: Option<Hook>,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// Statements, done one after the other until one does not match.
pub type Rule = Vec<Statement>;

/// Puts a table into the place of the one that has its name, in one step: no packet meets a half of it.
///
/// # Errors
/// [`Error::Step`]; nothing has changed then.
pub fn apply(table: &Table) -> Result<()> {
    batch(encode::replace(table), || format!("load the packet filter's table {}", table.name))
}

/// Adds elements to a set of a table.
///
/// # Errors
/// [`Error::Step`], with EEXIST for one that is there and leads elsewhere; nothing has changed then.
pub fn add(table: &str, set: &Set, elements: &[Element]) -> Result<()> {
    batch(encode::elements(table, set, elements, true), || {
        format!("add to {} of the packet filter's table {table}", set.name)
    })
}

/// Takes elements out of a set of a table.
///
/// # Errors
/// [`Error::Step`], with ENOENT for one that is not there; nothing has changed then.
pub fn take_out(table: &str, set: &Set, elements: &[Element]) -> Result<()> {
    batch(encode::elements(table, set, elements, false), || {
        format!("take out of {} of the packet filter's table {table}", set.name)
    })
}

/// Removes a table; one that is not there is no error.
///
/// # Errors
/// [`Error::Step`].
pub fn remove(table: &str) -> Result<()> {
    batch(encode::remove(table), || format!("remove the packet filter's table {table}"))
}

fn batch(requests: Vec<creel_sys::netlink::Request>, step: impl Fn() -> String) -> Result<()> {
    let mut socket = Socket::open(Family::Netfilter).map_err(|e| Error::step(step(), e))?;
    let (begin, end) = encode::around();
    socket.batch(begin, requests, end).map_err(|refused| Error::step(step(), refused))
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {} {{", self.name)?;
        for set in &self.sets {
            write!(f, "{set}")?;
        }
        for chain in &self.chains {
            writeln!(f, "\tchain {} {{", chain.name)?;
            if let Some(hook) = &chain.hook {
                writeln!(f, "\t\t{hook}")?;
            }
            for rule in &chain.rules {
                let words: Vec<String> = rule.iter().map(ToString::to_string).collect();
                writeln!(f, "\t\t{}", words.join(" "))?;
            }
            writeln!(f, "\t}}")?;
        }
        writeln!(f, "}}")
    }
}

fn join(parts: &[impl ToString]) -> String {
    parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(" . ")
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.data == Data::Nothing { "set" } else { "map" };
        writeln!(f, "\t{word} {} {{", self.name)?;
        let data = match &self.data {
            Data::Nothing => String::new(),
            Data::Verdict => " : verdict".into(),
            Data::Value(parts) => format!(" : {}", join(parts)),
        };
        writeln!(f, "\t\ttype {}{data}", join(&self.key))?;
        if self.is_interval {
            writeln!(f, "\t\tflags interval")?;
        }
        if !self.elements.is_empty() {
            let elements: Vec<String> = self.elements.iter().map(ToString::to_string).collect();
            writeln!(f, "\t\telements = {{ {} }}", elements.join(", "))?;
        }
        writeln!(f, "\t}}")
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&join(&self.key))?;
        if let Some(end) = &self.end {
            write!(f, "-{end}")?;
        }
        match &self.data {
            Target::Nothing => Ok(()),
            Target::Verdict(verdict) => write!(f, " : {verdict}"),
            Target::Value(parts) => write!(f, " : {}", join(parts)),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Address(ip) => write!(f, "{ip}"),
            Value::Protocol(6) => f.write_str("tcp"),
            Value::Protocol(17) => f.write_str("udp"),
            Value::Protocol(132) => f.write_str("sctp"),
            Value::Protocol(number) => write!(f, "{number}"),
            Value::Port(port) => write!(f, "{port}"),
            Value::Name(name) => write!(f, "\"{name}\""),
        }
    }
}
