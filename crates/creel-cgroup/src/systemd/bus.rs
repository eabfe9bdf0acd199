//! A connection to a message bus, or to systemd itself.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::{Duration, Instant};

use super::wire::{HEADER, Kind, Message, Value};
use crate::error::{Error, Result};

/// Where systemd answers.
pub(crate) const SYSTEMD: &str = "org.freedesktop.systemd1";
/// Its one object that matters here.
pub(crate) const OBJECT: &str = "/org/freedesktop/systemd1";
/// The interface of that object.
pub(crate) const MANAGER: &str = "org.freedesktop.systemd1.Manager";
/// How long systemd may take, for an answer or for a job.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which systemd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// The machine's.
    System,
    /// The calling user's.
    User,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Bus {
    stream: UnixStream,
    serial: u32,
    /// Signals that came while something else was waited for.
    signals: VecDeque<Message>,
    deadline: Instant,
}

fn failed(what: &str, why: impl std::fmt::Display) -> Error {
    Error::Systemd { what: what.to_owned(), name: String::new(), why: why.to_string() }
}

impl Bus {
    /// Connects to the bus on which systemd is, or without one (as root) to systemd's private socket.
    pub(crate) fn connect(which: Which) -> Result<Bus> {
        let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(|v: OsString| v.into_vec());
        let runtime = set("XDG_RUNTIME_DIR");
        let beside = |name: &str| runtime.clone().map(|dir| [dir, name.as_bytes().to_vec()].concat());
        let (address, default, private) = match which {
            Which::System => (
                set("DBUS_SYSTEM_BUS_ADDRESS"),
                Some(b"/run/dbus/system_bus_socket".to_vec()),
                Some(b"/run/systemd/private".to_vec()),
            ),
            Which::User => (set("DBUS_SESSION_BUS_ADDRESS"), beside("/bus"), beside("/systemd/private")),
        };
        let mut tried = Vec::new();
        let addresses = match address {
            Some(text) => addresses(&text),
            None => default.into_iter().map(Address::Path).collect(),
        };
        for (address, private) in addresses
            .into_iter()
            .map(|address| (address, false))
            .chain(private.into_iter().map(|path| (Address::Path(path), true)))
        {
            match Bus::open(&address, private) {
                Ok(bus) => return Ok(bus),
                Err(why) => tried.push(format!("{address}: {why}")),
            }
        }
        let hint = match which {
            Which::System => "is systemd this machine's init? without it leave out --systemd-cgroup",
            Which::User => {
                "is there a session (XDG_RUNTIME_DIR, DBUS_SESSION_BUS_ADDRESS), and dbus-user-session installed?"
            }
        };
        Err(failed("connect to systemd", format!("{}; {hint}", tried.join("; "))))
    }

    fn open(address: &Address, private: bool) -> io::Result<Bus> {
        let address = match address {
            Address::Path(path) => {
                SocketAddr::from_pathname(std::path::PathBuf::from(OsString::from_vec(path.clone())))?
            }
            Address::Abstract(name) => SocketAddr::from_abstract_name(name)?,
        };
        Bus::over(UnixStream::connect_addr(&address)?, private)
    }

    /// Introduces itself over a connected socket: the kernel tells who we are ("EXTERNAL", without naming an id, which
    /// would be another one from inside of a user namespace). `private`: no bus is between, which wants no `Hello`.
    pub(crate) fn over(stream: UnixStream, private: bool) -> io::Result<Bus> {
        let mut bus =
            Bus { stream, serial: 0, signals: VecDeque::new(), deadline: Instant::now() + PATIENCE };
        // All at once, and nothing more before it answers: a message that systemd's private socket reads in one piece
        // with the BEGIN stays unseen until something else arrives.
        bus.stream.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        let refused =
            |line: &str| io::Error::new(io::ErrorKind::PermissionDenied, format!("it answers {line:?}"));
        let line = bus.line()?;
        if !line.starts_with("DATA") {
            return Err(refused(&line));
        }
        let line = bus.line()?;
        if !line.starts_with("OK") {
            return Err(refused(&line));
        }
        if !private {
            let hello = |member: &str, body| Message {
                kind: Kind::Call,
                silent: member != "Hello",
                serial: 0,
                reply_to: None,
                path: "/org/freedesktop/DBus".into(),
                interface: "org.freedesktop.DBus".into(),
                member: member.into(),
                destination: "org.freedesktop.DBus".into(),
                body,
            };
            bus.send(hello("Hello", Vec::new()))?;
            let rule = format!(
                "type='signal',sender='{SYSTEMD}',path='{OBJECT}',interface='{MANAGER}',member='JobRemoved'"
            );
            bus.send(hello("AddMatch", vec![Value::Text(rule)]))?;
            // Newer ones tell whoever asked for a job of its end, older ones only subscribers.
            bus.send(Message {
                path: OBJECT.into(),
                interface: MANAGER.into(),
                destination: SYSTEMD.into(),
                ..hello("Subscribe", Vec::new())
            })?;
        }
        Ok(bus)
    }

    /// A line of the introduction. Byte by byte, so that nothing of what follows is taken.
    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.fill(&mut byte)?;
            line.extend(byte);
            if line.len() > 1024 {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line without end"));
            }
        }
        line.truncate(line.len() - 2);
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no answer within {} s", PATIENCE.as_secs()),
                ));
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut buffer[filled..]) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up")),
                Ok(count) => filled += count,
                Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn send(&mut self, mut message: Message) -> io::Result<u32> {
        self.serial += 1;
        message.serial = self.serial;
        self.stream.write_all(&message.encode())?;
        Ok(self.serial)
    }

    fn receive(&mut self) -> io::Result<Message> {
        let wrong =
            |why| io::Error::new(io::ErrorKind::InvalidData, format!("it sent what is no message: {why}"));
        loop {
            let mut bytes = vec![0; HEADER];
            self.fill(&mut bytes)?;
            let length = Message::length(&bytes).map_err(wrong)?;
            bytes.resize(length, 0);
            self.fill(&mut bytes[HEADER..])?;
            if let Some(message) = Message::decode(&bytes).map_err(wrong)? {
                return Ok(message);
            }
        }
    }

    /// Calls a method of systemd's and waits for its answer.
    ///
    /// # Errors
    /// [`Error::Systemd`], with the error's D-Bus name if systemd refused.
    pub(crate) fn call(&mut self, interface: &str, member: &str, body: Vec<Value>) -> Result<Vec<Value>> {
        self.deadline = Instant::now() + PATIENCE;
        let call = Message {
            kind: Kind::Call,
            silent: false,
            serial: 0,
            reply_to: None,
            path: OBJECT.into(),
            interface: interface.into(),
            member: member.into(),
            destination: SYSTEMD.into(),
            body,
        };
        let lost = |cause: io::Error| failed(&format!("call systemd's {member}"), cause);
        let serial = self.send(call).map_err(lost)?;
        loop {
            let message = self.receive().map_err(lost)?;
            match message.kind {
                Kind::Signal => self.signals.push_back(message),
                Kind::Reply if message.reply_to == Some(serial) => return Ok(message.body),
                Kind::Error if message.reply_to == Some(serial) => {
                    let why = message.body.first().and_then(Value::as_text).unwrap_or("it does not say why");
                    return Err(Error::Systemd {
                        what: format!("call systemd's {member}"),
                        name: message.member,
                        why: why.to_owned(),
                    });
                }
                _ => {}
            }
        }
    }

    /// Waits until systemd has done a job; tells its result (`done`, `failed`, `timeout`, `canceled`, …).
    pub(crate) fn job_result(&mut self, job: &str) -> Result<String> {
        self.deadline = Instant::now() + PATIENCE;
        loop {
            let message = match self.signals.pop_front() {
                Some(message) => message,
                None => self.receive().map_err(|cause| failed("wait for systemd's job", cause))?,
            };
            // u id, o job, s unit, s result
            if message.kind == Kind::Signal
                && message.member == "JobRemoved"
                && message.body.get(1).and_then(Value::as_text) == Some(job)
            {
                return Ok(message.body.get(3).and_then(Value::as_text).unwrap_or_default().to_owned());
            }
        }
    }

    /// A property of systemd's manager object.
    pub(crate) fn manager_property(&mut self, name: &str) -> Result<Value> {
        let body = vec![Value::text(MANAGER), Value::text(name)];
        match self.call("org.freedesktop.DBus.Properties", "Get", body)?.into_iter().next() {
            Some(Value::Variant(value)) => Ok(*value),
            _ => Err(failed(&format!("read systemd's {name}"), "the answer is no value")),
        }
    }
}

/// A socket of a bus.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Address {
    Path(Vec<u8>),
    Abstract(Vec<u8>),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Path(path) => f.write_str(&String::from_utf8_lossy(path)),
            Address::Abstract(name) => write!(f, "@{}", String::from_utf8_lossy(name)),
        }
    }
}

/// The unix sockets of an address list (D-Bus Specification, "Server Addresses"); other transports are passed over.
fn addresses(text: &[u8]) -> Vec<Address> {
    let mut found = Vec::new();
    for address in text.split(|c| *c == b';') {
        let Some(keys) = address.strip_prefix(b"unix:") else { continue };
        for pair in keys.split(|c| *c == b',') {
            if let Some(path) = pair.strip_prefix(b"path=") {
                found.extend(unescape(path).map(Address::Path));
            } else if let Some(name) = pair.strip_prefix(b"abstract=") {
                found.extend(unescape(name).map(Address::Abstract));
            }
        }
    }
    found
}

/// Undoes `%20` and the like; `None` if it is not of that form.
fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        let mut digit = || (*bytes.next()? as char).to_digit(16);
        out.push((digit()? * 16 + digit()?) as u8);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn address_lists() {
        assert_eq!(
            addresses(b"tcp:host=x;unix:path=/run/user/1000/b%20us,guid=00;unix:abstract=/tmp/x"),
            [Address::Path(b"/run/user/1000/b us".to_vec()), Address::Abstract(b"/tmp/x".to_vec())]
        );
        assert_eq!(addresses(b"unix:path=/a%2"), []);
        assert_eq!(addresses(b""), []);
    }

    proptest! {
        #[test]
        fn addresses_never_panic(text in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = addresses(&text);
        }
    }
}
