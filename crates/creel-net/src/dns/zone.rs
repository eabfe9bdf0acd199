//! What a network's resolver knows by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::message::{Data, Record, kind};

/// For how long an answer may be remembered, in seconds: Docker's.
const TTL: u32 = 600;

/// The names of one network: containers' names, aliases and short ids, each with the addresses of all who have it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// Its domain: `web.mynet` is asked for as often as `web`.
    domain: String,
    names: BTreeMap<String, BTreeSet<IpAddr>>,
    addresses: BTreeMap<IpAddr, String>,
}

/// What a zone says to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// This; of a name that is there and has nothing of the type that is asked for: nothing.
    Records(Vec<Record>),
    /// Nothing: somebody else may know.
    Unknown,
}

impl Zone {
    /// A zone without names, for the network of this name.
    pub fn new(network: &str) -> Zone {
        Zone { domain: network.to_ascii_lowercase(), ..Zone::default() }
    }

    /// Adds a container. The first of its names is what its addresses are called.
    pub fn add<'a>(&mut self, addresses: &[IpAddr], names: impl IntoIterator<Item = &'a str>) {
        for (number, name) in names.into_iter().enumerate() {
            let name = name.to_ascii_lowercase();
            if number == 0 {
                for address in addresses {
                    self.addresses.insert(*address, name.clone());
                }
            }
            self.names.entry(name).or_default().extend(addresses);
        }
    }

    /// Takes a container's addresses out, and with the last one of a name the name.
    pub fn remove(&mut self, addresses: &[IpAddr]) {
        for address in addresses {
            self.addresses.remove(address);
        }
        self.names.retain(|_, of| {
            of.retain(|address| !addresses.contains(address));
            !of.is_empty()
        });
    }

    /// Answers a question; `turn` says which of several addresses comes first, so that all get their share.
    pub fn look_up(&self, name: &str, wanted: u16, turn: usize) -> Found {
        if let Some(address) = reversed(name) {
            return match self.addresses.get(&address) {
                Some(name) if matches!(wanted, kind::PTR | kind::ANY) => {
                    let full =
                        if self.domain.is_empty() { name.clone() } else { format!("{name}.{}", self.domain) };
                    Found::Records(vec![Record { ttl: TTL, data: Data::Ptr(full) }])
                }
                Some(_) => Found::Records(Vec::new()),
                None => Found::Unknown,
            };
        }
        let bare = name.strip_suffix(&self.domain).and_then(|name| name.strip_suffix('.'));
        let bare = bare.filter(|_| !self.domain.is_empty());
        let Some(of) = self.names.get(name).or_else(|| self.names.get(bare?)) else { return Found::Unknown };
        let mut records: Vec<Record> = of
            .iter()
            .filter_map(|address| match address {
                IpAddr::V4(ip) if matches!(wanted, kind::A | kind::ANY) => Some(Data::A(*ip)),
                IpAddr::V6(ip) if matches!(wanted, kind::AAAA | kind::ANY) => Some(Data::Aaaa(*ip)),
                _ => None,
            })
            .map(|data| Record { ttl: TTL, data })
            .collect();
        let count = records.len().max(1);
        records.rotate_left(turn % count);
        Found::Records(records)
    }
}

/// The address that a name asks back for (RFC 1035, 3.5; RFC 3596, 2.5).
fn reversed(name: &str) -> Option<IpAddr> {
    if let Some(name) = name.strip_suffix(".in-addr.arpa") {
        let parts: Vec<u8> = name.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
        let [d, c, b, a] = parts[..] else { return None };
        return Some(IpAddr::from([a, b, c, d]));
    }
    let digits = name.strip_suffix(".ip6.arpa")?.split('.');
    let digits: Vec<u128> = digits
        .map(|digit| match digit.as_bytes() {
            [byte] => char::from(*byte).to_digit(16).map(u128::from),
            _ => None,
        })
        .collect::<Option<_>>()?;
    (digits.len() == 32).then(|| {
        let number = digits.iter().rev().fold(0, |number: u128, digit| number << 4 | digit);
        IpAddr::from(number.to_be_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn zone() -> Zone {
        let mut zone = Zone::new("MyNet");
        zone.add(&[ip("10.0.0.2"), ip("fd00::2")], ["Web", "www", "0123456789ab"]);
        zone.add(&[ip("10.0.0.3")], ["db", "www"]);
        zone
    }

    fn text(found: &Found) -> String {
        match found {
            Found::Unknown => "unknown".into(),
            Found::Records(records) => {
                let one = |record: &Record| match &record.data {
                    Data::A(ip) => ip.to_string(),
                    Data::Aaaa(ip) => ip.to_string(),
                    Data::Ptr(name) => name.clone(),
                };
                records.iter().map(one).collect::<Vec<_>>().join(" ")
            }
        }
    }

    #[test]
    fn names_aliases_and_addresses() {
        let mut zone = zone();
        let ask = |zone: &Zone, name: &str, wanted| text(&zone.look_up(name, wanted, 0));
        assert_eq!(ask(&zone, "web", kind::A), "10.0.0.2");
        assert_eq!(ask(&zone, "web.mynet", kind::AAAA), "fd00::2");
        assert_eq!(ask(&zone, "0123456789ab", kind::ANY), "10.0.0.2 fd00::2");
        assert_eq!(ask(&zone, "db", kind::AAAA), "", "there, and without such an address");
        assert_eq!(ask(&zone, "db", 15), "");
        for name in ["web.example", "other", "", "mynet", ".mynet", "x.web"] {
            assert_eq!(ask(&zone, name, kind::A), "unknown", "{name}");
        }
        assert_eq!(text(&zone.look_up("www", kind::A, 0)), "10.0.0.2 10.0.0.3");
        assert_eq!(text(&zone.look_up("www", kind::A, 1)), "10.0.0.3 10.0.0.2");
        assert_eq!(ask(&zone, "2.0.0.10.in-addr.arpa", kind::PTR), "web.mynet");
        assert_eq!(ask(&zone, "9.0.0.10.in-addr.arpa", kind::PTR), "unknown");
        let v6 = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
        assert_eq!(ask(&zone, v6, kind::PTR), "web.mynet");
        assert_eq!(ask(&zone, v6, kind::A), "");
        zone.remove(&[ip("10.0.0.2"), ip("fd00::2")]);
        assert_eq!(
            (ask(&zone, "web", kind::A), ask(&zone, "www", kind::A)),
            ("unknown".into(), "10.0.0.3".into())
        );
        zone.remove(&[ip("10.0.0.3")]);
        assert_eq!(zone, Zone::new("mynet"));
    }

    proptest! {
        #[test]
        fn addresses_are_read_backwards(address: IpAddr) {
            let name = match address {
                IpAddr::V4(ip) => {
                    let [a, b, c, d] = ip.octets();
                    format!("{d}.{c}.{b}.{a}.in-addr.arpa")
                }
                IpAddr::V6(ip) => {
                    let digits = ip.octets().map(|byte| [byte >> 4, byte & 15]).concat();
                    let digits = digits.iter().rev().map(|digit| format!("{digit:x}."));
                    format!("{}ip6.arpa", digits.collect::<String>())
                }
            };
            prop_assert_eq!(reversed(&name), Some(address));
        }

        #[test]
        fn any_name_is_looked_up(name in ".{0,80}", wanted: u16, turn: usize) {
            let _ = zone().look_up(&name, wanted, turn);
        }
    }
}
