//! Where subnets are taken from when nobody names one.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A range that is cut into subnets of one size (`--default-address-pool base=10.0.0.0/8,size=24`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// The range.
    pub base: IpNet,
    /// Prefix length of each subnet.
    pub size: u8,
}

/// Pools in the order in which they are used up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pools(pub Vec<Pool>);

impl Default for Pools {
    /// Those of Docker: 172.17.0.0/16 to 172.31.0.0/16, then the /20 of 192.168.0.0/16.
    fn default() -> Pools {
        let net = |a, b, prefix| IpNet::V4(Ipv4Net::new_assert(std::net::Ipv4Addr::new(a, b, 0, 0), prefix));
        let whole = |base, size| Pool { base, size };
        let mut pools: Vec<Pool> = (17..20).map(|b| whole(net(172, b, 16), 16)).collect();
        pools.push(whole(net(172, 20, 14), 16));
        pools.push(whole(net(172, 24, 14), 16));
        pools.push(whole(net(172, 28, 14), 16));
        pools.push(whole(net(192, 168, 16), 20));
        Pools(pools)
    }
}

/// Whether two ranges have an address in common.
pub(crate) fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

impl Pool {
    /// Checks what a user gave.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn new(base: IpNet, size: u8) -> Result<Pool> {
        if size < base.prefix_len() || size > base.max_prefix_len() {
            return Err(Error::Invalid(format!(
                "invalid address pool {base}: subnets of size {size} do not fit; the size is from {} to {}",
                base.prefix_len(),
                base.max_prefix_len()
            )));
        }
        Ok(Pool { base: base.trunc(), size })
    }

    /// The first subnet that overlaps none of `taken`.
    fn first_free(&self, taken: &[IpNet]) -> Option<IpNet> {
        let mut next = IpNet::new(self.base.network(), self.size).ok()?;
        loop {
            // Whatever it collides with is passed over as a whole.
            let Some(collision) = taken.iter().find(|other| overlap(other, &next)) else { return Some(next) };
            let end =
                if collision.prefix_len() < self.size { collision.broadcast() } else { next.broadcast() };
            next = after(end, self.size).filter(|next| self.base.contains(next))?;
        }
    }
}

/// The subnet of this size that begins right after an address.
fn after(end: std::net::IpAddr, size: u8) -> Option<IpNet> {
    let start = match end {
        std::net::IpAddr::V4(end) => {
            u32::from(end).checked_add(1).map(|n| std::net::Ipv4Addr::from(n).into())?
        }
        std::net::IpAddr::V6(end) => {
            u128::from(end).checked_add(1).map(|n| std::net::Ipv6Addr::from(n).into())?
        }
    };
    IpNet::new(start, size).ok()
}

impl Pools {
    /// A subnet of the given family that overlaps none of `taken`: other networks' and the host's routes.
    ///
    /// # Errors
    /// [`Error::NoPool`].
    pub fn choose(&self, v6: bool, taken: &[IpNet]) -> Result<IpNet> {
        let mut pools = self.0.iter().filter(|pool| matches!(pool.base, IpNet::V6(_)) == v6);
        pools.find_map(|pool| pool.first_free(taken)).ok_or(Error::NoPool)
    }

    /// A subnet for a network with IPv6 that names none: from the pools, if they have such, else a /64 of this host's own
    /// unique local range (RFC 4193), of which `seed` is to be the same on each start.
    ///
    /// # Errors
    /// [`Error::NoPool`].
    pub fn choose_v6(&self, seed: [u8; 5], taken: &[IpNet]) -> Result<IpNet> {
        if self.0.iter().any(|pool| matches!(pool.base, IpNet::V6(_))) {
            return self.choose(true, taken);
        }
        let mut octets = [0; 16];
        octets[0] = 0xfd;
        octets[1..6].copy_from_slice(&seed);
        let base = Ipv6Net::new_assert(octets.into(), 48);
        Pool { base: base.into(), size: 64 }.first_free(taken).ok_or(Error::NoPool)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn as_docker_does() {
        let pools = Pools::default();
        let mut taken = Vec::new();
        for _ in 0..31 {
            let next = pools.choose(false, &taken).unwrap();
            taken.push(next);
        }
        let text: Vec<String> = taken.iter().map(ToString::to_string).collect();
        assert_eq!(&text[..3], ["172.17.0.0/16", "172.18.0.0/16", "172.19.0.0/16"]);
        assert_eq!(&text[14..17], ["172.31.0.0/16", "192.168.0.0/20", "192.168.16.0/20"]);
        assert_eq!(text[30], "192.168.240.0/20");
        assert!(matches!(pools.choose(false, &taken), Err(Error::NoPool)));
        assert!(matches!(pools.choose(true, &[]), Err(Error::NoPool)));
    }

    #[test]
    fn the_host_s_routes_are_passed_over() {
        let pools = Pools::default();
        assert_eq!(pools.choose(false, &[net("172.16.0.0/12")]).unwrap(), net("192.168.0.0/20"));
        assert_eq!(pools.choose(false, &[net("172.17.5.1/32")]).unwrap(), net("172.18.0.0/16"));
        let pools = Pools(vec![Pool::new(net("10.0.0.0/8"), 24).unwrap()]);
        assert_eq!(pools.choose(false, &[net("10.0.0.0/9")]).unwrap(), net("10.128.0.0/24"));
        assert!(Pool::new(net("10.0.0.0/8"), 7).is_err() && Pool::new(net("10.0.0.0/8"), 33).is_err());
    }

    #[test]
    fn unique_local_ranges() {
        let pools = Pools::default();
        let first = pools.choose_v6([1, 2, 3, 4, 5], &[]).unwrap();
        assert_eq!(first, net("fd01:203:405::/64"));
        assert_eq!(pools.choose_v6([1, 2, 3, 4, 5], &[first]).unwrap(), net("fd01:203:405:1::/64"));
        let own = Pools(vec![Pool::new(net("2001:db8::/56"), 64).unwrap()]);
        assert_eq!(own.choose_v6([0; 5], &[]).unwrap(), net("2001:db8::/64"));
    }

    proptest! {
        #[test]
        fn never_what_is_taken(
            taken in proptest::collection::vec((any::<std::net::Ipv4Addr>(), 8u8..=32), 0..40)
        ) {
            let taken: Vec<IpNet> =
                taken.into_iter().map(|(ip, prefix)| Ipv4Net::new(ip, prefix).unwrap().trunc().into()).collect();
            if let Ok(found) = Pools::default().choose(false, &taken) {
                prop_assert!(taken.iter().all(|other| !overlap(other, &found)));
            }
        }
    }
}
