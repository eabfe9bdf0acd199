//! Talking with the kernel by netlink(7): requests, answers, batches.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::check_int;

// linux/netlink.h
const ERROR: u16 = 2;
const DONE: u16 = 3;
const HEADER: usize = 16;
const CAPPED: u16 = 0x100;
const HAS_ATTRIBUTES: u16 = 0x200;
const INTERRUPTED: u16 = 0x10;
const ERROR_TEXT: u16 = 1;
const OPTION_CAP_ACK: libc::c_int = 10;
const OPTION_EXT_ACK: libc::c_int = 11;
/// The attribute holds others.
const NESTED: u16 = 0x8000;
/// The two upper bits of a type say how the value is to be read.
const TYPE_MASK: u16 = 0x3fff;

/// The message is a request.
const REQUEST: u16 = 0x1;
/// Flag of a request: its success is answered, too.
pub const ACK: u16 = 0x4;
/// Flag of a request: all there are.
pub const DUMP: u16 = 0x300;
/// Flag of a request that makes something: it must not be there yet.
pub const EXCLUSIVE: u16 = 0x200;
/// Flag of a request that makes something: if it is not there.
pub const CREATE: u16 = 0x400;
/// Flag of a request that makes something: after all of its kind.
pub const APPEND: u16 = 0x800;
/// Flag of a request that makes something: in the place of what is there.
pub const REPLACE: u16 = 0x100;

/// Numbers that are errors: what else comes is none of the kernel's (`MAX_ERRNO`).
const MAX_ERROR: i32 = -4095;
/// How often a dump is begun again that changes while it is read.
const DUMPS: usize = 10;
/// As much as the kernel puts into one packet of a dump (`NLMSG_GOODSIZE` and more).
const PACKET: usize = 64 * 1024;
/// Room for the largest batch.
const LARGEST_BATCH: libc::c_int = 16 << 20;

fn align(length: usize) -> usize {
    (length + 3) & !3
}

/// A request that is being written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// A request of this type with these flags; `fixed` is the family's own header, like `struct ifinfomsg`.
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Request {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(REQUEST | flags).to_ne_bytes());
        bytes.extend_from_slice(fixed);
        bytes.resize(align(bytes.len()), 0);
        Request { bytes }
    }

    /// Adds an attribute. One of more than 65,531 bytes does not fit, and the kernel refuses the request.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Request {
        write_attribute(&mut self.bytes, kind, value);
        self
    }

    /// Adds a text that ends with a zero byte.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Request {
        self.attribute(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Adds bytes that are no attribute, like a header within an attribute.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Request {
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(align(self.bytes.len()), 0);
        self
    }

    /// Adds a number in the machine's byte order.
    pub fn number(&mut self, kind: u16, value: u32) -> &mut Request {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Adds a number in network byte order, as netfilter wants its numbers.
    pub fn big(&mut self, kind: u16, value: u32) -> &mut Request {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Adds an attribute that holds what `write` adds.
    pub fn nest(&mut self, kind: u16, write: impl FnOnce(&mut Request) -> &mut Request) -> &mut Request {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        write(self);
        // A length that does not fit is one that the kernel refuses.
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes[start + 2..start + 4].copy_from_slice(&(kind | NESTED).to_ne_bytes());
        self
    }

    /// All that follows netlink's own header.
    pub fn body(&self) -> &[u8] {
        &self.bytes[HEADER..]
    }

    fn finish(&mut self, sequence: u32, more_flags: u16) -> &[u8] {
        let length = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | more_flags;
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        &self.bytes
    }
}

fn write_attribute(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    to.extend_from_slice(&u16::try_from(4 + value.len()).unwrap_or(u16::MAX).to_ne_bytes());
    to.extend_from_slice(&kind.to_ne_bytes());
    to.extend_from_slice(value);
    to.resize(align(to.len()), 0);
}

/// The attributes in a message's body; what is cut short ends the list.
pub fn attributes(mut body: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [a, b, c, d, ..] = *body else { return None };
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = body.get(4..length)?;
        body = body.get(align(length)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & TYPE_MASK, value))
    })
}

/// The value of the first attribute of a type.
pub fn attribute(body: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(body).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// The number at a place, in the machine's byte order.
pub fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_ne_bytes(*word))
}

/// One message of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its type.
    pub kind: u16,
    /// All that follows netlink's own header.
    pub body: Vec<u8>,
}

/// What the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub errno: Errno,
    /// What it says beyond that.
    pub text: Option<String>,
    /// Which request of a batch it was, from 0.
    pub place: usize,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errno = std::io::Error::from(self.errno).to_string();
        let plain = errno.split(" (os error").next().unwrap_or(&errno);
        match &self.text {
            Some(text) => write!(f, "{plain} ({text})"),
            None => f.write_str(plain),
        }
    }
}

impl std::error::Error for Refused {}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Refused {
        Refused { errno, text: None, place: 0 }
    }
}

/// Whom a socket speaks with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Links, addresses, routes (rtnetlink(7)).
    Route,
    /// Packet filters.
    Netfilter,
}

/// A netlink socket. It speaks for the network namespace that it was opened in, for as long as it lives.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    packet: Vec<u8>,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    /// Opens one in the calling thread's network namespace.
    ///
    /// # Errors
    /// The kernel's; EPROTONOSUPPORT where it lacks the family.
    pub fn open(family: Family) -> Result<Socket, Errno> {
        let protocol = match family {
            // NETLINK_ROUTE is 0.
            Family::Route => None,
            Family::Netfilter => Some(rustix::net::netlink::NETFILTER),
        };
        let flags = SocketFlags::CLOEXEC;
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        // Without them errors have no text, and repeat the whole request; older kernels lack them (4.3, 4.12).
        let _ = set(&fd, libc::SOL_NETLINK, OPTION_EXT_ACK, 1);
        let _ = set(&fd, libc::SOL_NETLINK, OPTION_CAP_ACK, 1);
        Ok(Socket { fd, sequence: 0, packet: Vec::new() })
    }

    /// Sends one request; returns what came before its end or its acknowledgement. [`ACK`] is added unless it is a dump.
    ///
    /// # Errors
    /// What the kernel refuses; EINTR for a dump that never stands still.
    pub fn ask(&mut self, mut request: Request) -> Result<Vec<Answer>, Refused> {
        let dumps = u16::from_ne_bytes([request.bytes[6], request.bytes[7]]) & DUMP == DUMP;
        for _ in 0..DUMPS {
            self.sequence = self.sequence.wrapping_add(1);
            let sequence = self.sequence;
            let bytes = request.finish(sequence, if dumps { 0 } else { ACK });
            rustix::net::send(&self.fd, bytes, SendFlags::empty())?;
            let mut answers = Vec::new();
            let mut torn = false;
            let end = self.receive(|message| {
                if message.sequence != sequence {
                    return None;
                }
                torn |= message.flags & INTERRUPTED != 0;
                match message.outcome() {
                    Some(outcome) => Some(outcome),
                    None => {
                        answers.push(Answer { kind: message.kind, body: message.body.to_vec() });
                        None
                    }
                }
            })?;
            match end {
                Ok(()) if torn => {}
                Ok(()) => return Ok(answers),
                Err(refused) => return Err(refused),
            }
        }
        Err(Errno::INTR.into())
    }

    /// Sends requests between `begin` and `end`, of which the kernel does all or none.
    ///
    /// # Errors
    /// The first that the kernel refuses; none has been done then.
    pub fn batch(
        &mut self,
        mut begin: Request,
        requests: Vec<Request>,
        mut end: Request,
    ) -> Result<(), Refused> {
        let count = requests.len();
        if count == 0 {
            return Ok(());
        }
        let first = self.sequence.wrapping_add(1);
        let last = first.wrapping_add(count as u32);
        self.sequence = last.wrapping_add(1);
        let mut bytes = begin.finish(first, 0).to_vec();
        for (number, mut request) in requests.into_iter().enumerate() {
            let acknowledged = if number + 1 == count { ACK } else { 0 };
            bytes.extend_from_slice(
                request.finish(first.wrapping_add(1).wrapping_add(number as u32), acknowledged),
            );
        }
        bytes.extend_from_slice(end.finish(self.sequence, 0));
        match rustix::net::send(&self.fd, &bytes, SendFlags::empty()) {
            Err(Errno::MSGSIZE | Errno::NOBUFS) => {
                set(&self.fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, LARGEST_BATCH)?;
                rustix::net::send(&self.fd, &bytes, SendFlags::empty())?
            }
            other => other?,
        };
        let mut refused: Option<Refused> = None;
        self.receive(|message| {
            let place = message.sequence.wrapping_sub(first);
            if place > count as u32 {
                return None;
            }
            let outcome = message.outcome()?;
            if let Err(mut error) = outcome {
                error.place = (place as usize).saturating_sub(1);
                refused.get_or_insert(error);
            }
            // The kernel speaks of the batch as a whole under the number of its beginning.
            (place == 0 || message.sequence == last).then_some(())
        })?;
        refused.map_or(Ok(()), Err)
    }

    /// Reads packets until `take` has had enough.
    fn receive<T>(&mut self, mut take: impl FnMut(&Message<'_>) -> Option<T>) -> Result<T, Errno> {
        self.packet.resize(PACKET, 0);
        loop {
            let (n, _) = rustix::io::retry_on_intr(|| {
                rustix::net::recv(&self.fd, &mut *self.packet, RecvFlags::empty())
            })?;
            let mut rest = self.packet.get(..n).ok_or(Errno::PROTO)?;
            while let Some(message) = Message::read(&mut rest) {
                if let Some(end) = take(&message) {
                    return Ok(end);
                }
            }
        }
    }
}

/// A message as it came.
#[derive(Debug)]
struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

impl<'a> Message<'a> {
    fn read(rest: &mut &'a [u8]) -> Option<Message<'a>> {
        let length = word(rest, 0)? as usize;
        let body = rest.get(HEADER..length)?;
        let message = Message {
            kind: u16::from_ne_bytes([rest[4], rest[5]]),
            flags: u16::from_ne_bytes([rest[6], rest[7]]),
            sequence: word(rest, 8)?,
            body,
        };
        *rest = rest.get(align(length)..).unwrap_or_default();
        Some(message)
    }

    /// Whether it ends an answer, and how.
    fn outcome(&self) -> Option<Result<(), Refused>> {
        match self.kind {
            DONE => Some(match word(self.body, 0).map(|number| number as i32) {
                Some(number @ MAX_ERROR..0) => Err(Errno::from_raw_os_error(-number).into()),
                _ => Ok(()),
            }),
            ERROR => Some(match word(self.body, 0).map(|number| number as i32) {
                Some(0) => Ok(()),
                Some(number @ MAX_ERROR..0) => {
                    Err(Refused { errno: Errno::from_raw_os_error(-number), text: self.text(), place: 0 })
                }
                _ => Err(Errno::PROTO.into()),
            }),
            _ => None,
        }
    }

    /// The kernel's words, which follow what it repeats of the request.
    fn text(&self) -> Option<String> {
        if self.flags & HAS_ATTRIBUTES == 0 {
            return None;
        }
        let repeated = if self.flags & CAPPED != 0 { HEADER } else { word(self.body, 4)? as usize };
        let text = attribute(self.body.get(4 + align(repeated)..)?, ERROR_TEXT)?;
        let text = String::from_utf8_lossy(text.split(|byte| *byte == 0).next()?);
        Some(text.trim_end_matches('.').to_owned()).filter(|text| !text.is_empty())
    }
}

/// What a packet says in answer to the request of number 1: whether it ends the answer, and the messages before. `None` for
/// an answer that refuses. For the fuzzer.
#[doc(hidden)]
pub fn read_packet(mut packet: &[u8]) -> Option<(bool, Vec<Answer>)> {
    let mut answers = Vec::new();
    while let Some(message) = Message::read(&mut packet) {
        match message.outcome() {
            _ if message.sequence != 1 => {}
            Some(outcome) => return outcome.ok().map(|()| (true, answers)),
            None => answers.push(Answer { kind: message.kind, body: message.body.to_vec() }),
        }
    }
    Some((false, answers))
}

fn set(fd: &OwnedFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> Result<(), Errno> {
    // SAFETY: setsockopt(2) reads one int, whose size is named.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    check_int(result).map(drop).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::INVAL))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GET_LINK: u16 = 18;
    const IFLA_IFNAME: u16 = 3;

    #[test]
    fn loopback_is_seen() {
        let mut socket = Socket::open(Family::Route).unwrap();
        for _ in 0..3 {
            let answers = socket.ask(Request::new(GET_LINK, DUMP, &[0; 16])).unwrap();
            let name = |answer: &Answer| attribute(&answer.body[16..], IFLA_IFNAME).map(<[u8]>::to_vec);
            assert!(answers.iter().any(|answer| name(answer).as_deref() == Some(b"lo\0")), "{answers:?}");
        }
    }

    #[test]
    fn the_kernel_says_why() {
        let mut socket = Socket::open(Family::Route).unwrap();
        let mut request = Request::new(GET_LINK, 0, &[0; 16]);
        request.text(IFLA_IFNAME, "no-such-link");
        assert_eq!(socket.ask(request).unwrap_err().errno, Errno::NODEV);
        // A header that is too short.
        let refused = socket.ask(Request::new(GET_LINK, 0, &[0; 4])).unwrap_err();
        assert_eq!(refused.errno, Errno::INVAL);
        assert_eq!(refused.to_string().split(" (").next(), Some("Invalid argument"));
    }

    proptest! {
        #[test]
        fn any_packet_is_read_to_its_end(bytes: Vec<u8>) {
            let mut rest = &bytes[..];
            while let Some(message) = Message::read(&mut rest) {
                let _ = message.outcome();
            }
            attributes(&bytes).for_each(drop);
        }

        #[test]
        fn attributes_come_back(
            list in proptest::collection::vec((0u16..0x3fff, proptest::collection::vec(any::<u8>(), 0..20)), 0..5)
        ) {
            let mut request = Request::new(1, 0, &[0; 3]);
            request.nest(7, |request| {
                for (kind, value) in &list {
                    request.attribute(*kind, value);
                }
                request
            });
            let bytes = request.finish(9, ACK).to_vec();
            let message = Message::read(&mut &bytes[..]).unwrap();
            prop_assert_eq!((message.kind, message.flags, message.sequence), (1, REQUEST | ACK, 9));
            let nested = attribute(&message.body[4..], 7).unwrap();
            let back: Vec<_> = attributes(nested).map(|(kind, value)| (kind, value.to_vec())).collect();
            prop_assert_eq!(back, list);
        }
    }
}
