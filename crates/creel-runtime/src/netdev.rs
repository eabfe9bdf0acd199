//! Network devices of the host that become the container's (runtime-spec, "Network Devices"), by rtnetlink(7).
//!
//! The creator does this when everything else is done: a virtual device would vanish with a container that fails. All
//! that can be checked is checked before the first device is moved, and what was moved before a failure comes back.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use creel_sys::netlink::{CREATE, DUMP, Family, Refused, Request, Socket, attribute, attributes, word};
use creel_types::spec::NetDevice;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::Error;
use crate::error::plain;

// linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const PERMANENT: u32 = 0x80;
/// What of an address's flags is its owner's wish: NODAD, HOMEADDRESS, MANAGETEMPADDR, NOPREFIXROUTE, MCAUTOJOIN.
const KEPT_FLAGS: u32 = 0x02 | 0x10 | 0x100 | 0x200 | 0x400;
const UNIVERSE: u8 = 0;
const UP: u32 = libc::IFF_UP as u32;
const LOOPBACK: u32 = libc::IFF_LOOPBACK as u32;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    index: i32,
    flags: u32,
    name: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    index: u32,
    family: u8,
    prefix: u8,
    scope: u8,
    flags: u32,
    /// `IFA_ADDRESS`, `IFA_LOCAL` and `IFA_BROADCAST`, as they came.
    parts: Vec<(u16, Vec<u8>)>,
}

fn link(body: &[u8]) -> Option<Link> {
    let (index, flags) = (word(body, 4)? as i32, word(body, 8)?);
    let name = attribute(body.get(16..)?, IFLA_IFNAME)?;
    let name = name.split(|byte| *byte == 0).next()?;
    Some(Link { index, flags, name: String::from_utf8_lossy(name).into_owned() })
}

fn address(body: &[u8]) -> Option<Address> {
    let &[family, prefix, flags, scope, ..] = body else { return None };
    let list = body.get(8..)?;
    let long = attribute(list, IFA_FLAGS).and_then(|value| word(value, 0));
    let kept = |kind: &u16| [IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST].contains(kind);
    let parts = attributes(list).filter(|(kind, _)| kept(kind));
    let parts = parts.map(|(kind, value)| (kind, value.to_vec())).collect();
    let flags = long.unwrap_or(u32::from(flags));
    Some(Address { index: word(body, 4)?, family, prefix, scope, flags, parts })
}

fn links(socket: &mut Socket) -> Result<Vec<Link>, Refused> {
    let answers = socket.ask(Request::new(GET_LINK, DUMP, &[0; 16]))?;
    let new = answers.iter().filter(|answer| answer.kind == NEW_LINK);
    Ok(new.filter_map(|answer| link(&answer.body)).collect())
}

fn addresses(socket: &mut Socket) -> Result<Vec<Address>, Refused> {
    let answers = socket.ask(Request::new(GET_ADDRESS, DUMP, &[0; 8]))?;
    let new = answers.iter().filter(|answer| answer.kind == NEW_ADDRESS);
    Ok(new.filter_map(|answer| address(&answer.body)).collect())
}

/// A request that changes a link.
fn change(index: i32, flags: u32, mask: u32) -> Request {
    let mut fixed = [0; 16];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
    fixed[12..].copy_from_slice(&mask.to_ne_bytes());
    Request::new(NEW_LINK, 0, &fixed)
}

/// The request that gives a device an address.
fn adding(index: i32, address: &Address) -> Request {
    let mut fixed = [address.family, address.prefix, 0, address.scope, 0, 0, 0, 0];
    fixed[4..].copy_from_slice(&index.to_ne_bytes());
    let mut request = Request::new(NEW_ADDRESS, CREATE, &fixed);
    for (kind, value) in &address.parts {
        request.attribute(*kind, value);
    }
    request.number(IFA_FLAGS, address.flags & KEPT_FLAGS);
    request
}

fn add(socket: &mut Socket, index: i32, address: &Address) -> Result<(), Refused> {
    match socket.ask(adding(index, address)) {
        Err(refused) if refused.errno == Errno::EXIST => Ok(()),
        other => other.map(drop),
    }
}

/// What a packet from rtnetlink says in answer to the first request: whether it is the last, names of devices, and for
/// each address what would be sent to set it. For the fuzzer, which cannot reach further in.
#[doc(hidden)]
pub fn read_packet(packet: &[u8]) -> Option<(bool, Vec<String>, Vec<Vec<u8>>)> {
    let (last, answers) = creel_sys::netlink::read_packet(packet)?;
    let of =
        |wanted: u16| answers.iter().filter(move |answer| answer.kind == wanted).map(|answer| &answer.body);
    let names = of(NEW_LINK).filter_map(|body| link(body)).map(|link| link.name).collect();
    let addresses = of(NEW_ADDRESS).filter_map(|body| address(body));
    Some((last, names, addresses.map(|address| adding(1, &address).body().to_vec()).collect()))
}

/// One device, with what it takes along.
#[derive(Debug)]
struct Move {
    link: Link,
    name: String,
    addresses: Vec<Address>,
}

/// The moves, all checked: the devices are there, and their names are free on the other side.
fn plan(
    devices: &BTreeMap<String, NetDevice>,
    host: &[Link],
    addresses: &[Address],
    inside: &[Link],
) -> Result<Vec<Move>, Error> {
    let mut moves: Vec<Move> = Vec::new();
    for (name, device) in devices {
        let field = format!("linux.netDevices.{name}");
        let Some(link) = host.iter().find(|link| link.name == *name) else {
            return Err(Error::invalid(field, "the host has no such network device"));
        };
        if link.flags & LOOPBACK != 0 {
            return Err(Error::invalid(field, "a loopback device cannot be moved"));
        }
        let wanted = device.name.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| name.clone());
        let taken =
            inside.iter().any(|link| link.name == wanted) || moves.iter().any(|other| other.name == wanted);
        if taken && !wanted.contains("%d") {
            let text = format!("the container has a network device {wanted} already");
            return Err(Error::invalid(field, text));
        }
        let kept = |address: &&Address| {
            address.index == link.index as u32 && address.scope == UNIVERSE && address.flags & PERMANENT != 0
        };
        let addresses = addresses.iter().filter(kept).cloned().collect();
        moves.push(Move { link: link.clone(), name: wanted, addresses });
    }
    Ok(moves)
}

/// Moves one device and brings it up; returns its index on the other side.
fn transfer(
    from: &mut Socket,
    to: &mut Socket,
    namespace: &OwnedFd,
    index: i32,
    what: &Move,
) -> Result<i32, Refused> {
    let before = links(to)?;
    let mut request = change(index, 0, 0);
    request.number(IFLA_NET_NS_FD, namespace.as_raw_fd() as u32).text(IFLA_IFNAME, &what.name);
    from.ask(request)?;
    // The index may be another one there, and a template's name is the kernel's choice.
    let after = links(to)?;
    let arrived = after.iter().find(|link| !before.iter().any(|known| known.index == link.index));
    let index = arrived.ok_or(Errno::NODEV)?.index;
    for address in &what.addresses {
        add(to, index, address)?;
    }
    to.ask(change(index, UP, UP))?;
    Ok(index)
}

/// Moves the devices into the network namespace of `process`, a pidfd.
///
/// # Errors
/// [`Error::Invalid`] for a device that is missing or a name that is taken, [`Error::Setup`] for what the kernel refuses;
/// the devices are where they were then.
pub(crate) fn move_all(devices: &BTreeMap<String, NetDevice>, process: impl AsFd) -> Result<(), Error> {
    if devices.is_empty() {
        return Ok(());
    }
    let failed = |e: Errno| Error::setup("cannot move network devices into the container", plain(&e.into()));
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let own = rustix::fs::open("/proc/self/ns/net", flags, Mode::empty()).map_err(failed)?;
    let refused = |e: Refused| Error::setup("cannot move network devices into the container", e);
    let mut host = Socket::open(Family::Route).map_err(failed)?;
    let enter = |fd: &dyn AsFd| {
        creel_sys::ns::setns(fd.as_fd(), creel_sys::clone::NEWNET)
            .map_err(|e| Error::setup("cannot join the container's network namespace", plain(&e)))
    };
    enter(&process)?;
    let opened = Socket::open(Family::Route)
        .and_then(|socket| Ok((socket, rustix::fs::open("/proc/self/ns/net", flags, Mode::empty())?)));
    enter(&own)?;
    let (mut inside, theirs) = opened.map_err(failed)?;
    let moves = plan(
        devices,
        &links(&mut host).map_err(refused)?,
        &addresses(&mut host).map_err(refused)?,
        &links(&mut inside).map_err(refused)?,
    )?;
    let mut done: Vec<(i32, &Move)> = Vec::new();
    for what in &moves {
        match transfer(&mut host, &mut inside, &theirs, what.link.index, what) {
            Ok(index) => done.push((index, what)),
            Err(e) => {
                for (index, what) in done.into_iter().rev() {
                    let back = Move {
                        name: what.link.name.clone(),
                        link: what.link.clone(),
                        addresses: what.addresses.clone(),
                    };
                    let _ = transfer(&mut inside, &mut host, &own, index, &back);
                }
                let text = format!("cannot move the network device {} into the container", what.link.name);
                return Err(Error::setup(text, e));
            }
        }
    }
    Ok(())
}

/// Checks a device's name on the host and its name inside, where `%d` stands for a number of the kernel's choice
/// (`dev_valid_name`: at most 15 bytes, no slash, colon or blank).
pub(crate) fn check(devices: &BTreeMap<String, NetDevice>) -> Result<(), Error> {
    for (name, device) in devices {
        let inside = device.name.as_deref().filter(|name| !name.is_empty());
        for (text, template) in [(Some(name.as_str()), false), (inside, true)] {
            let Some(text) = text else { continue };
            let bare = if template { text.replacen("%d", "0", 1) } else { text.to_string() };
            let bad = |c: char| matches!(c, '/' | ':' | '%' | '\0') || c.is_whitespace();
            if bare.is_empty() || text.len() > 15 || matches!(&*bare, "." | "..") || bare.contains(bad) {
                let field = format!("linux.netDevices.{name}");
                return Err(Error::invalid(field, format!("{text:?} is no name of a network device")));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn named(name: &str, inside: &str) -> BTreeMap<String, NetDevice> {
        [(name.to_string(), NetDevice { name: Some(inside.into()) })].into()
    }

    #[test]
    fn names() {
        for (host, inside) in [("eth0", ""), ("eth0", "eth%d"), ("a.1", "x-y_z")] {
            assert!(check(&named(host, inside)).is_ok(), "{host} {inside}");
        }
        for (host, inside) in [
            ("", ""),
            ("a/b", ""),
            ("eth%d", ""),
            ("x", "a b"),
            ("x", ".."),
            ("x", "0123456789abcdef"),
            ("x", "%d%d"),
            ("x", "%s"),
        ] {
            assert!(check(&named(host, inside)).is_err(), "{host} {inside}");
        }
    }

    #[test]
    fn plans() {
        let link = |index, name: &str, flags| Link { index, flags, name: name.into() };
        let host = [link(1, "lo", LOOPBACK | UP), link(2, "eth0", UP), link(3, "eth1", 0)];
        let inside = [link(1, "lo", LOOPBACK), link(2, "eth1", 0)];
        let address =
            |index, scope, flags| Address { index, family: 2, prefix: 24, scope, flags, parts: vec![] };
        let addresses = [
            address(2, 0, PERMANENT),
            address(2, 253, PERMANENT),
            address(2, 0, 0),
            address(3, 0, PERMANENT),
        ];
        let plan = |name: &str, to: &str| plan(&named(name, to), &host, &addresses, &inside);
        let moves = plan("eth0", "").unwrap();
        assert_eq!((moves[0].name.as_str(), &moves[0].addresses[..]), ("eth0", &addresses[..1]));
        assert_eq!(plan("eth1", "new").unwrap()[0].name, "new");
        assert!(plan("eth1", "").unwrap_err().to_string().contains("already"));
        assert!(plan("eth1", "eth%d").is_ok());
        assert!(plan("lo", "").is_err() && plan("eth7", "").is_err());
    }

    proptest! {
        #[test]
        fn any_message_is_read_to_its_end(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (link(&body), address(&body));
        }
    }
}
