//! Messages of the domain name system, as far as a resolver reads and writes them that answers with addresses and names
//! (RFC 1035, sections 3 and 4).

use std::net::{Ipv4Addr, Ipv6Addr};

/// Types of records that are answered here; others are numbers.
pub mod kind {
    /// An IPv4 address.
    pub const A: u16 = 1;
    /// The name of an address.
    pub const PTR: u16 = 12;
    /// An IPv6 address (RFC 3596).
    pub const AAAA: u16 = 28;
    /// All that there is; answered with addresses.
    pub const ANY: u16 = 255;
}

const OPT: u16 = 41;
const INTERNET: u16 = 1;
const HEADER: usize = 12;
/// The longest name, with the lengths of its labels (RFC 1035, 2.3.4).
const LONGEST_NAME: usize = 255;
/// What everybody receives by UDP (RFC 1035, 4.2.1).
const UDP_LEAST: usize = 512;
/// What is sent by UDP at most, whatever the other side takes: no packet of the way is smaller (RFC 9715).
const UDP_MOST: usize = 1400;
/// The longest message by TCP, without the two bytes that tell its length.
pub const TCP_MOST: usize = 65_535;

const IS_ANSWER: u16 = 0x8000;
const OPCODE: u16 = 0x7800;
const AUTHORITATIVE: u16 = 0x0400;
const TRUNCATED: u16 = 0x0200;
const RECURSION_DESIRED: u16 = 0x0100;
const RECURSION_AVAILABLE: u16 = 0x0080;

/// Why bytes are no query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not even its number can be read, or it is an answer: nothing is sent back.
    #[error("no query")]
    Silent,
    /// It has a number and cannot be read.
    #[error("a query that cannot be read")]
    Format {
        /// Its number.
        id: u16,
    },
    /// It wants something else than a look-up.
    #[error("a kind of query that is not answered")]
    Unsupported {
        /// Its number.
        id: u16,
    },
}

/// Extensions of the asking side (RFC 6891).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edns {
    /// How long an answer by UDP may be.
    pub udp: u16,
    /// Its version; 0 is the only one.
    pub version: u8,
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Its number, which the answer repeats.
    pub id: u16,
    /// What is asked for: in small letters, without the last dot. Bytes that are no printable ASCII are written `\ddd`.
    pub name: String,
    /// Which type of record.
    pub kind: u16,
    /// Whether others may be asked.
    pub recursion: bool,
    /// What the asking side can do beyond RFC 1035.
    pub edns: Option<Edns>,
    /// The question as it came, in its own spelling (0x20 bits): the answer repeats it.
    question: Vec<u8>,
}

/// How a question is answered (RFC 1035, 4.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// What is there.
    NoError = 0,
    /// The question cannot be read.
    FormatError = 1,
    /// It cannot be answered now.
    ServerFailure = 2,
    /// There is no such name.
    NoSuchName = 3,
    /// This kind of question is not answered.
    NotImplemented = 4,
    /// It is not answered to this one.
    Refused = 5,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// For how many seconds it may be remembered.
    pub ttl: u32,
    /// What it says of the name that was asked for.
    pub data: Data,
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// Its IPv4 address.
    A(Ipv4Addr),
    /// Its IPv6 address.
    Aaaa(Ipv6Addr),
    /// The address's name.
    Ptr(String),
}

/// Bytes that are read one after the other.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    fn short(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    /// A name that is written out: in a question there is nothing before it that it could refer to.
    fn name(&mut self) -> Option<String> {
        let start = self.at;
        let mut name = String::new();
        loop {
            let length = self.byte()?;
            match length {
                0 => return Some(name),
                1..=63 => {}
                _ => return None,
            }
            if !name.is_empty() {
                name.push('.');
            }
            for &byte in self.take(length.into())? {
                match byte.to_ascii_lowercase() {
                    b'.' | b'\\' => name.extend(['\\', byte.into()]),
                    byte @ 0x21..=0x7e => name.push(byte.into()),
                    byte => name.push_str(&format!("\\{byte:03}")),
                }
            }
            if self.at - start >= LONGEST_NAME {
                return None;
            }
        }
    }

    /// Passes over a name of a record, which may end with a reference.
    fn pass_name(&mut self) -> Option<()> {
        loop {
            match self.byte()? {
                0 => return Some(()),
                length @ 1..=63 => self.take(length.into())?,
                0xc0.. => return self.byte().map(drop),
                _ => return None,
            };
        }
    }
}

impl Query {
    /// Reads a message that came from a client.
    ///
    /// # Errors
    /// [`Malformed`], which [`Reply::to_malformed`] answers.
    pub fn read(bytes: &[u8]) -> Result<Query, Malformed> {
        let mut reader = Reader { bytes, at: 0 };
        let (Some(id), Some(flags)) = (reader.short(), reader.short()) else { return Err(Malformed::Silent) };
        if flags & IS_ANSWER != 0 {
            return Err(Malformed::Silent);
        }
        if flags & OPCODE != 0 {
            return Err(Malformed::Unsupported { id });
        }
        Query::question(&mut reader, id, flags).ok_or(Malformed::Format { id })
    }

    fn question(reader: &mut Reader<'_>, id: u16, flags: u16) -> Option<Query> {
        let (questions, answers, authorities, more) =
            (reader.short()?, reader.short()?, reader.short()?, reader.short()?);
        // Nobody asks two things at once (RFC 9619).
        if questions != 1 {
            return None;
        }
        let start = reader.at;
        let (name, kind, class) = (reader.name()?, reader.short()?, reader.short()?);
        if !matches!(class, INTERNET | kind::ANY) {
            return None;
        }
        let question = reader.bytes.get(start..reader.at)?.to_vec();
        let mut edns = None;
        for _ in 0..u32::from(answers) + u32::from(authorities) + u32::from(more) {
            let is_root = reader.bytes.get(reader.at) == Some(&0);
            reader.pass_name()?;
            let (found, class) = (reader.short()?, reader.short()?);
            let ttl = reader.take(4)?;
            let length = reader.short()?;
            reader.take(length.into())?;
            if found == OPT {
                // One at most, of no name (RFC 6891, 6.1.1).
                if edns.is_some() || !is_root {
                    return None;
                }
                edns = Some(Edns { udp: class, version: ttl[1] });
            }
        }
        let recursion = flags & RECURSION_DESIRED != 0;
        Some(Query { id, name, kind, recursion, edns, question })
    }

    /// How long an answer by UDP may be.
    fn udp_limit(&self) -> usize {
        self.edns.map_or(UDP_LEAST, |edns| usize::from(edns.udp).clamp(UDP_LEAST, UDP_MOST))
    }
}

/// An answer that is being written.
#[derive(Debug)]
pub struct Reply<'a> {
    /// To what.
    pub query: &'a Query,
    /// How it is answered.
    pub code: Code,
    /// Whether who answers is who decides.
    pub authoritative: bool,
    /// The answers.
    pub records: &'a [Record],
}

fn put(out: &mut Vec<u8>, number: u16) {
    out.extend(number.to_be_bytes());
}

/// A name written out; `None` for one that cannot be written.
fn name_bytes(name: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(name.len() + 2);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let length = u8::try_from(label.len()).ok().filter(|length| *length <= 63)?;
        out.push(length);
        out.extend(label.bytes());
    }
    out.push(0);
    (out.len() <= LONGEST_NAME).then_some(out)
}

impl Record {
    fn write(&self) -> Option<Vec<u8>> {
        let (kind, data) = match &self.data {
            Data::A(ip) => (kind::A, ip.octets().to_vec()),
            Data::Aaaa(ip) => (kind::AAAA, ip.octets().to_vec()),
            Data::Ptr(name) => (kind::PTR, name_bytes(name)?),
        };
        let mut out = Vec::with_capacity(12 + data.len());
        // Of the name in the question, which begins right after the header.
        put(&mut out, 0xc000 | HEADER as u16);
        put(&mut out, kind);
        put(&mut out, INTERNET);
        out.extend(self.ttl.to_be_bytes());
        put(&mut out, data.len() as u16);
        out.extend(data);
        Some(out)
    }
}

impl Reply<'_> {
    /// The answer for UDP: what does not fit is left out, and said to be.
    pub fn for_udp(&self) -> Vec<u8> {
        self.write(self.query.udp_limit())
    }

    /// The answer for TCP, without the two bytes that tell its length.
    pub fn for_tcp(&self) -> Vec<u8> {
        self.write(TCP_MOST)
    }

    fn write(&self, limit: usize) -> Vec<u8> {
        let query = self.query;
        let records: Vec<Vec<u8>> = self.records.iter().filter_map(Record::write).collect();
        let edns = if query.edns.is_some() { 11 } else { 0 };
        let mut room = limit.saturating_sub(HEADER + query.question.len() + edns);
        let fitting = records.iter().take_while(|record| match room.checked_sub(record.len()) {
            Some(rest) => {
                room = rest;
                true
            }
            None => false,
        });
        let fitting: Vec<&Vec<u8>> = fitting.collect();
        let mut flags = IS_ANSWER | RECURSION_AVAILABLE | self.code as u16;
        for (flag, is) in [
            (AUTHORITATIVE, self.authoritative),
            (RECURSION_DESIRED, query.recursion),
            (TRUNCATED, fitting.len() < records.len()),
        ] {
            flags |= if is { flag } else { 0 };
        }
        let mut out = Vec::with_capacity(limit.min(UDP_MOST));
        for number in [query.id, flags, 1, fitting.len() as u16, 0, u16::from(edns > 0)] {
            put(&mut out, number);
        }
        out.extend(&query.question);
        fitting.into_iter().for_each(|record| out.extend(record));
        if edns > 0 {
            // No name, OPT, what is received here, no extended code, version 0, no flags, no options.
            out.push(0);
            put(&mut out, OPT);
            put(&mut out, UDP_MOST as u16);
            out.extend([0; 6]);
        }
        out
    }

    /// What is sent back for a message that is no query; `None` when nothing is.
    pub fn to_malformed(error: Malformed) -> Option<Vec<u8>> {
        let (id, code) = match error {
            Malformed::Silent => return None,
            Malformed::Format { id } => (id, Code::FormatError),
            Malformed::Unsupported { id } => (id, Code::NotImplemented),
        };
        let mut out = Vec::with_capacity(HEADER);
        for number in [id, IS_ANSWER | RECURSION_AVAILABLE | code as u16, 0, 0, 0, 0] {
            put(&mut out, number);
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A query as dig(1) writes it.
    fn ask(name: &str, kind: u16, edns: Option<u16>) -> Vec<u8> {
        let mut out = Vec::new();
        for number in [7, RECURSION_DESIRED | 0x20, 1, 0, 0, u16::from(edns.is_some())] {
            put(&mut out, number);
        }
        out.extend(name_bytes(name).unwrap());
        put(&mut out, kind);
        put(&mut out, INTERNET);
        if let Some(udp) = edns {
            out.push(0);
            put(&mut out, OPT);
            put(&mut out, udp);
            out.extend([0; 6]);
        }
        out
    }

    fn addresses(count: u8) -> Vec<Record> {
        (0..count).map(|n| Record { ttl: 600, data: Data::A([10, 0, 0, n].into()) }).collect()
    }

    #[test]
    fn a_question_and_its_answer() {
        let query = Query::read(&ask("Web.Example", kind::A, None)).unwrap();
        assert_eq!((query.name.as_str(), query.kind, query.recursion), ("web.example", kind::A, true));
        let reply = Reply { query: &query, code: Code::NoError, authoritative: true, records: &addresses(1) };
        let bytes = reply.for_udp();
        let mut expected = vec![0, 7, 0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
        // The question keeps its spelling.
        expected.extend(b"\x03Web\x07Example\0\0\x01\0\x01");
        expected.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 2, 0x58, 0, 4, 10, 0, 0, 0]);
        assert_eq!(bytes, expected);
        assert_eq!(bytes, reply.for_tcp());
    }

    #[test]
    fn what_does_not_fit_by_udp() {
        for (edns, fitting) in [(None, 30), (Some(100), 29), (Some(1232), 74), (Some(65_000), 85)] {
            let query = Query::read(&ask("many", kind::A, edns)).unwrap();
            let records = addresses(200);
            let reply = Reply { query: &query, code: Code::NoError, authoritative: true, records: &records };
            let bytes = reply.for_udp();
            assert_eq!(u16::from_be_bytes([bytes[6], bytes[7]]), fitting, "{edns:?}");
            assert!(bytes.len() <= query.udp_limit() && bytes[2] & 2 != 0);
            let whole = reply.for_tcp();
            assert!(u16::from_be_bytes([whole[6], whole[7]]) == 200 && whole[2] & 2 == 0);
        }
    }

    #[test]
    fn what_is_no_question() {
        let good = ask("web", kind::A, Some(1232));
        assert!(Query::read(&good).is_ok());
        assert_eq!(Query::read(&good[..3]), Err(Malformed::Silent));
        for end in 4..good.len() {
            assert_eq!(Query::read(&good[..end]), Err(Malformed::Format { id: 7 }), "{end}");
        }
        let changed = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            Query::read(&bytes)
        };
        assert_eq!(changed(2, 0x80), Err(Malformed::Silent), "an answer");
        assert_eq!(changed(2, 0x28), Err(Malformed::Unsupported { id: 7 }), "an update");
        assert_eq!(changed(5, 2), Err(Malformed::Format { id: 7 }), "two questions");
        assert_eq!(changed(12, 0xc0), Err(Malformed::Format { id: 7 }), "a reference into nowhere");
        assert_eq!(changed(12, 64), Err(Malformed::Format { id: 7 }), "a label that is too long");
        let long = "a.".repeat(130);
        let mut bytes = good[..12].to_vec();
        bytes.extend(long.split('.').filter(|l| !l.is_empty()).flat_map(|l| [1, l.as_bytes()[0]]));
        bytes.extend([0, 0, 1, 0, 1]);
        assert_eq!(Query::read(&bytes), Err(Malformed::Format { id: 7 }), "a name that is too long");
        let answer = Reply::to_malformed(Malformed::Format { id: 7 }).unwrap();
        assert_eq!(answer, [0, 7, 0x80, 0x81, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Reply::to_malformed(Malformed::Silent), None);
    }

    #[test]
    fn names_that_are_not_names() {
        let mut bytes = ask("x", kind::A, None);
        bytes.splice(12..14, *b"\x04a.\\\x01");
        assert_eq!(Query::read(&bytes).unwrap().name, "a\\.\\\\\\001");
        assert_eq!(Query::read(&ask("", kind::A, None)).unwrap().name, "");
    }

    proptest! {
        #[test]
        fn whatever_is_sent_is_read_or_refused(bytes: Vec<u8>) {
            if let Ok(query) = Query::read(&bytes) {
                let records = addresses(3);
                let reply = Reply { query: &query, code: Code::NoError, authoritative: false, records: &records };
                let out = reply.for_udp();
                prop_assert!(out.len() <= query.udp_limit());
            }
        }

        #[test]
        fn nothing_spoils_a_question(at in 0usize..40, byte: u8, more: Vec<u8>) {
            let mut bytes = ask("web.example", kind::AAAA, Some(1232));
            let place = at % bytes.len();
            bytes[place] = byte;
            bytes.extend(more);
            let _ = Query::read(&bytes);
        }
    }
}
