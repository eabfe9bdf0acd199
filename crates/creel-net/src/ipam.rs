//! Which addresses of a subnet are whose.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::error::{Error, Result};
use crate::pools::overlap;

/// The addresses of one subnet of a network. Those that are in use are told to it: nothing is remembered elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    net: IpNet,
    range: IpNet,
    gateway: IpAddr,
    kept: BTreeSet<u128>,
    used: BTreeSet<u128>,
    /// Where the next search begins: an address that was let go of is not given away again at once.
    next: u128,
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

impl Subnet {
    /// A subnet with its gateway (the first address, unless one is given); containers get addresses of `range`, which lies
    /// within it, and never one of `kept`, which others on the wire have.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what does not lie within the subnet.
    pub fn new(
        net: IpNet,
        range: Option<IpNet>,
        gateway: Option<IpAddr>,
        kept: impl IntoIterator<Item = IpAddr>,
    ) -> Result<Subnet> {
        let net = net.trunc();
        let range = range.map_or(net, |range| range.trunc());
        if !net.contains(&range) {
            return Err(Error::Invalid(format!(
                "no matching subnet for range {range}: it is not within {net}"
            )));
        }
        let first = number(net.network());
        let mut subnet = Subnet {
            net,
            range,
            gateway: net.network(),
            kept: BTreeSet::new(),
            used: BTreeSet::new(),
            next: number(range.network()),
        };
        for ip in kept {
            if !net.contains(&ip) {
                return Err(Error::Invalid(format!(
                    "no matching subnet for aux-address {ip}: it is not in {net}"
                )));
            }
            subnet.kept.insert(number(ip));
        }
        subnet.gateway = match gateway {
            Some(gateway) if !net.contains(&gateway) => {
                return Err(Error::Invalid(format!(
                    "no matching subnet for gateway {gateway}: it is not in {net}"
                )));
            }
            Some(gateway) => gateway,
            // A net of one or two addresses has no name and no broadcast address to spare (RFC 3021).
            None => {
                let start = if subnet.is_small() { first } else { first + 1 };
                let mut free = (start..=number(net.broadcast())).filter(|n| !subnet.kept.contains(n));
                free.next().map(|n| subnet.ip(n)).ok_or(Error::Exhausted(net))?
            }
        };
        Ok(subnet)
    }

    fn is_small(&self) -> bool {
        self.net.max_prefix_len() - self.net.prefix_len() <= 1
    }

    fn ip(&self, number: u128) -> IpAddr {
        match self.net {
            // It came from 32 bits.
            IpNet::V4(_) => Ipv4Addr::from(number as u32).into(),
            IpNet::V6(_) => Ipv6Addr::from(number).into(),
        }
    }

    /// The subnet.
    pub fn net(&self) -> IpNet {
        self.net
    }

    /// The gateway's address.
    pub fn gateway(&self) -> IpAddr {
        self.gateway
    }

    /// Whether it shares an address with another range.
    pub fn overlaps(&self, other: &IpNet) -> bool {
        overlap(&self.net, other)
    }

    /// Whether an address is never a container's: the net's own, its broadcast address, the gateway's, a kept one.
    fn is_reserved(&self, number_: u128) -> bool {
        let edge = !self.is_small()
            && (number_ == number(self.net.network())
                || self.net.addr().is_ipv4() && number_ == number(self.net.broadcast()));
        edge || number_ == number(self.gateway) || self.kept.contains(&number_)
    }

    /// Takes a free address.
    ///
    /// # Errors
    /// [`Error::Exhausted`].
    pub fn take(&mut self) -> Result<IpAddr> {
        let (first, last) = (number(self.range.network()), number(self.range.broadcast()));
        let start = self.next.clamp(first, last);
        let free = |n: &u128| !self.used.contains(n) && !self.is_reserved(*n);
        // Of n addresses that are not free at least one further is, if any.
        let found = (start..=last).find(free).or_else(|| (first..start).find(free));
        let found = found.ok_or(Error::Exhausted(self.range))?;
        self.used.insert(found);
        self.next = if found == last { first } else { found + 1 };
        Ok(self.ip(found))
    }

    /// Takes this address.
    ///
    /// # Errors
    /// [`Error::Invalid`] for one that is not the subnet's to give, [`Error::AddressInUse`].
    pub fn take_this(&mut self, ip: IpAddr) -> Result<()> {
        if !self.net.contains(&ip) {
            return Err(Error::Invalid(format!(
                "the address {ip} is not in the network's subnet {}",
                self.net
            )));
        }
        if self.is_reserved(number(ip)) || !self.used.insert(number(ip)) {
            return Err(Error::AddressInUse(ip));
        }
        Ok(())
    }

    /// Lets go of an address.
    pub fn release(&mut self, ip: IpAddr) {
        if self.net.contains(&ip) {
            self.used.remove(&number(ip));
        }
    }

    /// How many addresses are taken.
    pub fn used(&self) -> usize {
        self.used.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_after_the_other() {
        let mut subnet = Subnet::new(net("172.17.0.0/16"), None, None, []).unwrap();
        assert_eq!(subnet.gateway(), ip("172.17.0.1"));
        assert_eq!(subnet.take().unwrap(), ip("172.17.0.2"));
        assert_eq!(subnet.take().unwrap(), ip("172.17.0.3"));
        subnet.release(ip("172.17.0.2"));
        assert_eq!(subnet.take().unwrap(), ip("172.17.0.4"), "not the one that was just let go of");
        assert!(matches!(subnet.take_this(ip("172.17.0.4")), Err(Error::AddressInUse(_))));
        assert!(matches!(subnet.take_this(ip("172.17.0.1")), Err(Error::AddressInUse(_))));
        assert!(matches!(subnet.take_this(ip("172.17.255.255")), Err(Error::AddressInUse(_))));
        assert!(matches!(subnet.take_this(ip("10.0.0.1")), Err(Error::Invalid(_))));
        subnet.take_this(ip("172.17.0.2")).unwrap();
        assert_eq!(subnet.used(), 3);
    }

    #[test]
    fn small_and_full() {
        let mut subnet = Subnet::new(net("10.0.0.0/30"), None, None, []).unwrap();
        assert_eq!(subnet.take().unwrap(), ip("10.0.0.2"));
        assert_eq!(
            subnet.take().unwrap_err().to_string(),
            "no available IP addresses in 10.0.0.0/30: remove containers from the network, or make one with a larger subnet"
        );
        let mut two = Subnet::new(net("10.0.0.0/31"), None, None, []).unwrap();
        assert_eq!((two.gateway(), two.take().unwrap()), (ip("10.0.0.0"), ip("10.0.0.1")));
        assert!(two.take().is_err());
        let range = Some(net("10.0.0.8/30"));
        let mut some =
            Subnet::new(net("10.0.0.0/24"), range, Some(ip("10.0.0.9")), [ip("10.0.0.10")]).unwrap();
        assert_eq!((some.take().unwrap(), some.take().unwrap()), (ip("10.0.0.8"), ip("10.0.0.11")));
        assert!(some.take().is_err());
        assert!(Subnet::new(net("10.0.0.0/24"), Some(net("10.0.0.0/23")), None, []).is_err());
        assert!(Subnet::new(net("10.0.0.0/24"), None, Some(ip("10.0.1.1")), []).is_err());
        assert!(Subnet::new(net("10.0.0.0/24"), None, None, [ip("10.0.1.1")]).is_err());
        let aux = Subnet::new(net("10.0.0.0/24"), None, None, [ip("10.0.0.1")]).unwrap();
        assert_eq!(aux.gateway(), ip("10.0.0.2"));
    }

    #[test]
    fn wide() {
        let mut subnet = Subnet::new(net("fd00::/64"), None, None, []).unwrap();
        assert_eq!((subnet.gateway(), subnet.take().unwrap()), (ip("fd00::1"), ip("fd00::2")));
        let all = Subnet::new(net("::/0"), None, None, []).unwrap();
        assert_eq!(all.gateway(), ip("::1"));
        subnet.take_this(ip("fd00::ffff:ffff:ffff:ffff")).unwrap();
    }

    proptest! {
        #[test]
        fn never_twice(steps in proptest::collection::vec((0u8..3, 0u32..16), 0..80)) {
            let mut subnet = Subnet::new(net("10.0.0.0/28"), None, None, [ip("10.0.0.7")]).unwrap();
            let mut mine = BTreeSet::new();
            for (what, n) in steps {
                let address = IpAddr::from(Ipv4Addr::from(0x0a00_0000 + n));
                match what {
                    0 => match subnet.take() {
                        Ok(ip) => prop_assert!(mine.insert(ip) && ip != subnet.gateway()),
                        Err(_) => prop_assert_eq!(mine.len(), 12),
                    },
                    1 => if subnet.take_this(address).is_ok() {
                        prop_assert!(mine.insert(address));
                    },
                    _ => {
                        subnet.release(address);
                        mine.remove(&address);
                    }
                }
                prop_assert_eq!(subnet.used(), mine.len());
            }
        }
    }
}
