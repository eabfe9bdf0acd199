//! Interfaces, their addresses and routes (rtnetlink(7)).

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use creel_sys::netlink::{CREATE, DUMP, EXCLUSIVE, Family, Refused, Request, Socket, attribute, word};
use ipnet::IpNet;
use rustix::io::Errno;

use crate::Namespace;
use crate::error::{Error, Result};

// linux/rtnetlink.h
const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const SET_LINK: u16 = 19;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;
// linux/if_link.h
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;
const PORT_HAIRPIN: u16 = 4;
const PORT_ISOLATED: u16 = 33;
// linux/if_addr.h
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
/// Nobody else can have it: no second is spent on asking.
const NO_DAD: u32 = 0x02;
// linux/rtnetlink.h
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_TABLE: u16 = 15;
const TABLE_MAIN: u8 = 254;
const PROTOCOL_BOOT: u8 = 3;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
const UNICAST: u8 = 1;
// linux/if.h
const UP: u32 = 1;

/// An interface as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it is up (`IFF_UP`).
    pub is_up: bool,
    /// The number of the bridge that it is a port of.
    pub master: Option<u32>,
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// Its hardware address, if it has one.
    pub mac: Option<[u8; 6]>,
    /// Its kind, like `bridge` or `veth`; `None` for hardware.
    pub kind: Option<String>,
}

/// A bridge that is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Bridge<'a> {
    /// Its name, of 15 bytes at most.
    pub name: &'a str,
    /// The largest packet, in bytes; the kernel's choice (1500) if not given.
    pub mtu: Option<u32>,
    /// Its hardware address. Without one of its own a bridge takes that of a port, and changes it when the port goes.
    pub mac: [u8; 6],
}

/// A pair of interfaces that is wanted: one stays, the other goes into a namespace.
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    /// The name of the one that stays; never used again, for it may outlive its container by a moment.
    pub name: &'a str,
    /// The bridge that it becomes a port of.
    pub bridge: u32,
    /// Whether it reaches no other port that is isolated, too.
    pub is_isolated: bool,
    /// Whether what comes from it may go back to it. Where bridged packets meet the packet filter (br_netfilter), a container
    /// reaches a port of its own that this host publishes in no other way; it hears its own broadcasts then, too.
    pub is_hairpin: bool,
    /// Where the other one goes.
    pub namespace: &'a Namespace,
    /// What it is called there.
    pub inside: &'a str,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// The largest packet of both, in bytes.
    pub mtu: Option<u32>,
}

/// A route that is wanted, or there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub to: IpNet,
    /// By way of whom.
    pub gateway: Option<IpAddr>,
    /// Through which interface.
    pub link: Option<u32>,
    /// The smaller, the better.
    pub metric: Option<u32>,
}

/// The interfaces of one network namespace.
#[derive(Debug)]
pub struct Links {
    socket: Socket,
}

fn link_header(index: u32, flags: u32, mask: u32) -> [u8; 16] {
    let mut fixed = [0; 16];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
    fixed[12..].copy_from_slice(&mask.to_ne_bytes());
    fixed
}

fn family(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { libc_family::INET } else { libc_family::INET6 }
}

/// `sys/socket.h`; the same on every architecture.
mod libc_family {
    pub(super) const INET: u8 = 2;
    pub(super) const INET6: u8 = 10;
}

/// The bytes of an address as they go over the wire.
pub(crate) fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn from_octets(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}

fn link(body: &[u8]) -> Option<Link> {
    let (index, flags) = (word(body, 4)?, word(body, 8)?);
    let list = body.get(16..)?;
    let text = |value: &[u8]| {
        let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    };
    Some(Link {
        index,
        name: text(attribute(list, IFLA_IFNAME)?),
        is_up: flags & UP != 0,
        master: attribute(list, IFLA_MASTER).and_then(|value| word(value, 0)),
        mtu: attribute(list, IFLA_MTU).and_then(|value| word(value, 0)).unwrap_or_default(),
        mac: attribute(list, IFLA_ADDRESS).and_then(|value| value.try_into().ok()),
        kind: attribute(list, IFLA_LINKINFO).and_then(|info| attribute(info, INFO_KIND)).map(text),
    })
}

fn address(body: &[u8]) -> Option<(u32, IpNet)> {
    let prefix = *body.get(1)?;
    let list = body.get(8..)?;
    // On a link between two, the own address is the local one.
    let own = attribute(list, IFA_LOCAL).or_else(|| attribute(list, IFA_ADDRESS))?;
    Some((word(body, 4)?, IpNet::new(from_octets(own)?, prefix).ok()?))
}

fn route(body: &[u8]) -> Option<Route> {
    let &[family, prefix, _, _, table, _, _, kind, ..] = body else { return None };
    let list = body.get(12..)?;
    let number = |wanted| attribute(list, wanted).and_then(|value| word(value, 0));
    let table = number(RTA_TABLE).unwrap_or(u32::from(table));
    if kind != UNICAST || table != u32::from(TABLE_MAIN) {
        return None;
    }
    let any: IpAddr = match family {
        libc_family::INET => std::net::Ipv4Addr::UNSPECIFIED.into(),
        libc_family::INET6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let to = attribute(list, RTA_DST).map_or(Some(any), from_octets)?;
    Some(Route {
        to: IpNet::new(to, prefix).ok()?,
        gateway: attribute(list, RTA_GATEWAY).and_then(from_octets),
        link: number(RTA_OIF),
        metric: number(RTA_PRIORITY),
    })
}

impl Links {
    /// Those of the calling thread's namespace.
    ///
    /// # Errors
    /// [`Error::Step`].
    pub fn open() -> Result<Links> {
        let socket = Socket::open(Family::Route).map_err(|e| Error::step("speak rtnetlink", e))?;
        Ok(Links { socket })
    }

    fn ask(&mut self, step: impl std::fmt::Display, request: Request) -> Result<()> {
        self.socket.ask(request).map(drop).map_err(|refused| Error::step(step, refused))
    }

    fn dump(&mut self, step: &str, kind: u16, wanted: u16, fixed: &[u8]) -> Result<Vec<Vec<u8>>> {
        let answers = self.socket.ask(Request::new(kind, DUMP, fixed));
        let answers = answers.map_err(|refused| Error::step(step, refused))?;
        Ok(answers.into_iter().filter(|answer| answer.kind == wanted).map(|answer| answer.body).collect())
    }

    /// All interfaces.
    ///
    /// # Errors
    /// [`Error::Step`].
    pub fn all(&mut self) -> Result<Vec<Link>> {
        let bodies = self.dump("list network interfaces", GET_LINK, NEW_LINK, &[0; 16])?;
        Ok(bodies.iter().filter_map(|body| link(body)).collect())
    }

    /// The interface of a name; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Step`].
    pub fn find(&mut self, name: &str) -> Result<Option<Link>> {
        let mut request = Request::new(GET_LINK, 0, &[0; 16]);
        request.text(IFLA_IFNAME, name);
        match self.socket.ask(request) {
            Ok(answers) => Ok(answers.iter().find_map(|answer| link(&answer.body))),
            Err(Refused { errno: Errno::NODEV, .. }) => Ok(None),
            Err(refused) => Err(Error::step(format_args!("look for the network interface {name}"), refused)),
        }
    }

    /// [`Links::find`] of one that must be there.
    ///
    /// # Errors
    /// [`Error::NoLink`], [`Error::Step`].
    pub fn get(&mut self, name: &str) -> Result<Link> {
        self.find(name)?.ok_or_else(|| Error::NoLink(name.to_owned()))
    }

    /// Makes a bridge, and brings it up. One of the same name is an error.
    ///
    /// # Errors
    /// [`Error::Step`].
    pub fn add_bridge(&mut self, bridge: &Bridge<'_>) -> Result<Link> {
        let mut request = Request::new(NEW_LINK, CREATE | EXCLUSIVE, &link_header(0, UP, UP));
        request.text(IFLA_IFNAME, bridge.name).attribute(IFLA_ADDRESS, &bridge.mac);
        if let Some(mtu) = bridge.mtu {
            request.number(IFLA_MTU, mtu);
        }
        request.nest(IFLA_LINKINFO, |info| info.text(INFO_KIND, "bridge"));
        self.ask(format_args!("make the bridge {}", bridge.name), request)?;
        self.get(bridge.name)
    }

    /// Makes a pair; the one that stays is up and a port of its bridge, the other one is down in its namespace.
    ///
    /// # Errors
    /// [`Error::Step`]; nothing of the pair is left then.
    pub fn add_pair(&mut self, pair: &Pair<'_>) -> Result<()> {
        let mut request = Request::new(NEW_LINK, CREATE | EXCLUSIVE, &link_header(0, UP, UP));
        request.text(IFLA_IFNAME, pair.name).number(IFLA_MASTER, pair.bridge);
        if let Some(mtu) = pair.mtu {
            request.number(IFLA_MTU, mtu);
        }
        request.nest(IFLA_LINKINFO, |info| {
            info.text(INFO_KIND, "veth").nest(INFO_DATA, |data| {
                data.nest(VETH_PEER, |peer| {
                    peer.raw(&link_header(0, 0, 0));
                    peer.text(IFLA_IFNAME, pair.inside)
                        .attribute(IFLA_ADDRESS, &pair.mac)
                        .number(IFLA_NET_NS_FD, pair.namespace.as_fd().as_raw_fd() as u32);
                    match pair.mtu {
                        Some(mtu) => peer.number(IFLA_MTU, mtu),
                        None => peer,
                    }
                })
            })
        });
        self.ask(format_args!("make the pair of interfaces {} and {}", pair.name, pair.inside), request)?;
        if !(pair.is_isolated || pair.is_hairpin) {
            return Ok(());
        }
        self.set_port(pair).inspect_err(|_| {
            let _ = self.remove(pair.name);
        })
    }

    /// How a bridge treats one of its ports.
    fn set_port(&mut self, pair: &Pair<'_>) -> Result<()> {
        let port = self.get(pair.name)?;
        let mut fixed = link_header(port.index, 0, 0);
        // AF_BRIDGE
        fixed[0] = 7;
        let mut request = Request::new(SET_LINK, 0, &fixed);
        request.nest(IFLA_PROTINFO, |info| {
            info.attribute(PORT_HAIRPIN, &[pair.is_hairpin.into()])
                .attribute(PORT_ISOLATED, &[pair.is_isolated.into()])
        });
        self.ask(format_args!("set up the bridge's port {}", pair.name), request)
    }

    /// Removes an interface; a veth takes its other half along. One that is gone is no error.
    ///
    /// # Errors
    /// [`Error::Step`].
    pub fn remove(&mut self, name: &str) -> Result<()> {
        let mut request = Request::new(DELETE_LINK, 0, &link_header(0, 0, 0));
        request.text(IFLA_IFNAME, name);
        match self.socket.ask(request) {
            Ok(_) => Ok(()),
            Err(refused) if refused.errno == Errno::NODEV => Ok(()),
            Err(refused) => Err(Error::step(format_args!("remove the network interface {name}"), refused)),
        }
    }

    /// Brings an interface up.
    ///
    /// # Errors
    /// [`Error::Step`].
    pub fn set_up(&mut self, index: u32) -> Result<()> {
        let request = Request::new(NEW_LINK, 0, &link_header(index, UP, UP));
        self.ask(format_args!("bring up the network interface {index}"), request)
    }

    /// Gives an interface an address; one that it has already is no error.
    ///
    /// # Errors
    /// [`Error::Step`].
    pub fn add_address(&mut self, index: u32, own: IpNet) -> Result<()> {
        let mut request = address_request(NEW_ADDRESS, CREATE | EXCLUSIVE, index, own);
        if let IpNet::V4(net) = own
            && net.prefix_len() < 31
        {
            request.attribute(IFA_BROADCAST, &net.broadcast().octets());
        }
        if matches!(own, IpNet::V6(_)) {
            request.number(IFA_FLAGS, NO_DAD);
        }
        match self.socket.ask(request) {
            Ok(_) => Ok(()),
            Err(refused) if refused.errno == Errno::EXIST => Ok(()),
            Err(refused) => Err(Error::step(format_args!("give an interface the address {own}"), refused)),
        }
    }

    /// Takes an address away; one that is gone is no error.
    ///
    /// # Errors
    /// [`Error::Step`].
    pub fn remove_address(&mut self, index: u32, own: IpNet) -> Result<()> {
        match self.socket.ask(address_request(DELETE_ADDRESS, 0, index, own)) {
            Ok(_) => Ok(()),
            Err(refused) if matches!(refused.errno, Errno::ADDRNOTAVAIL | Errno::NODEV) => Ok(()),
            Err(refused) => Err(Error::step(format_args!("take the address {own} away"), refused)),
        }
    }

    /// The addresses of all interfaces, with their prefix lengths.
    ///
    /// # Errors
    /// [`Error::Step`].
    pub fn addresses(&mut self) -> Result<Vec<(u32, IpNet)>> {
        let bodies = self.dump("list addresses", GET_ADDRESS, NEW_ADDRESS, &[0; 8])?;
        Ok(bodies.iter().filter_map(|body| address(body)).collect())
    }

    /// Adds a route.
    ///
    /// # Errors
    /// [`Error::Step`].
    pub fn add_route(&mut self, route: &Route) -> Result<()> {
        let scope =
            if route.gateway.is_some() || route.to.addr().is_ipv6() { SCOPE_UNIVERSE } else { SCOPE_LINK };
        let fixed = [
            family(route.to.addr()),
            route.to.prefix_len(),
            0,
            0,
            TABLE_MAIN,
            PROTOCOL_BOOT,
            scope,
            UNICAST,
            0,
            0,
            0,
            0,
        ];
        let mut request = Request::new(NEW_ROUTE, CREATE | EXCLUSIVE, &fixed);
        if route.to.prefix_len() > 0 {
            request.attribute(RTA_DST, &octets(route.to.network()));
        }
        if let Some(gateway) = route.gateway {
            request.attribute(RTA_GATEWAY, &octets(gateway));
        }
        for (kind, number) in [(RTA_OIF, route.link), (RTA_PRIORITY, route.metric)] {
            if let Some(number) = number {
                request.number(kind, number);
            }
        }
        self.ask(format_args!("add a route to {}", route.to), request)
    }

    /// The routes of the main table, of both families.
    ///
    /// # Errors
    /// [`Error::Step`].
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        let mut found = Vec::new();
        for family in [libc_family::INET, libc_family::INET6] {
            let mut fixed = [0; 12];
            fixed[0] = family;
            let bodies = self.dump("list routes", GET_ROUTE, NEW_ROUTE, &fixed)?;
            found.extend(bodies.iter().filter_map(|body| route(body)));
        }
        Ok(found)
    }
}

fn address_request(kind: u16, flags: u16, index: u32, own: IpNet) -> Request {
    let mut fixed = [family(own.addr()), own.prefix_len(), 0, SCOPE_UNIVERSE, 0, 0, 0, 0];
    fixed[4..].copy_from_slice(&index.to_ne_bytes());
    let mut request = Request::new(kind, flags, &fixed);
    let bytes = octets(own.addr());
    request.attribute(IFA_LOCAL, &bytes).attribute(IFA_ADDRESS, &bytes);
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_answer_is_read_without_panic(body: Vec<u8>) {
            let _ = (link(&body), address(&body), route(&body));
        }

        #[test]
        fn octets_come_back(ip: IpAddr) {
            prop_assert_eq!(from_octets(&octets(ip)), Some(ip));
        }
    }
}
