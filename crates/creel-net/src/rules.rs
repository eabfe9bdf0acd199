//! What the packet filter has to say of networks and published ports.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use crate::nft::{
    Address, Chain, Ct, Data, Element, Field, Hook, Key, Rule, Set, Statement, Table, Target, Value, Verdict,
};

/// A network, as the packet filter sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its bridge's name.
    pub bridge: String,
    /// Its subnets.
    pub subnets: Vec<IpNet>,
    /// Whether nothing leads out of it.
    pub is_internal: bool,
    /// Whether its containers may reach each other by way of this host, too.
    pub icc: bool,
    /// Whether what leaves takes this host's address.
    pub masquerade: bool,
    /// Who reaches its containers from outside.
    pub gateway: Gateway,
}

/// Who reaches the containers of a network from outside (Docker's gateway modes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gateway {
    /// Published ports only, at this host's addresses.
    Nat,
    /// Everybody who has a route, at the containers' addresses, and published ports at this host's.
    NatUnprotected,
}

/// A transport protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// This host's address; the unspecified one stands for all of its family.
    pub at: SocketAddr,
    /// The transport protocol.
    pub transport: Transport,
    /// The container's address and port, of the same family.
    pub to: SocketAddr,
}

impl Transport {
    /// IANA's number.
    pub fn number(self) -> u8 {
        match self {
            Transport::Tcp => 6,
            Transport::Udp => 17,
            Transport::Sctp => 132,
        }
    }
}

// Ports at one address of this host, and at all of them.
const AT_V4: &str = "ports-at-ip";
const AT_V6: &str = "ports-at-ip6";
const ANY_V4: &str = "ports-ip";
const ANY_V6: &str = "ports-ip6";
const BRIDGES: &str = "bridges";
const FROM: &str = "from";
const TO: &str = "to";
const MASQUERADE_V4: &str = "masquerade-ip";
const MASQUERADE_V6: &str = "masquerade-ip6";

fn set(name: &str, key: &[Key], data: Data, elements: Vec<Element>) -> Set {
    Set { name: name.into(), key: key.to_vec(), data, is_interval: false, elements }
}

fn name(bridge: &str) -> Vec<Value> {
    vec![Value::Name(bridge.to_owned())]
}

impl Published {
    /// The map that it belongs into, empty, and its element.
    pub fn element(&self) -> (Set, Element) {
        let (is_v4, all) = (self.at.is_ipv4(), self.at.ip().is_unspecified());
        let (map, address) = match (is_v4, all) {
            (true, true) => (ANY_V4, Key::V4),
            (true, false) => (AT_V4, Key::V4),
            (false, true) => (ANY_V6, Key::V6),
            (false, false) => (AT_V6, Key::V6),
        };
        let mut key = vec![Value::Protocol(self.transport.number()), Value::Port(self.at.port())];
        let mut parts = vec![Key::Protocol, Key::Port];
        if !all {
            key.insert(0, Value::Address(self.at.ip()));
            parts.insert(0, address);
        }
        let data = Target::Value(vec![Value::Address(self.to.ip()), Value::Port(self.to.port())]);
        let element = Element { key, end: None, data };
        (set(map, &parts, Data::Value(vec![address, Key::Port]), Vec::new()), element)
    }
}

fn ports(published: &[Published]) -> Vec<Set> {
    let value = |address| Data::Value(vec![address, Key::Port]);
    let mut maps = vec![
        set(AT_V4, &[Key::V4, Key::Protocol, Key::Port], value(Key::V4), Vec::new()),
        set(ANY_V4, &[Key::Protocol, Key::Port], value(Key::V4), Vec::new()),
        set(AT_V6, &[Key::V6, Key::Protocol, Key::Port], value(Key::V6), Vec::new()),
        set(ANY_V6, &[Key::Protocol, Key::Port], value(Key::V6), Vec::new()),
    ];
    for (own, element) in published.iter().map(Published::element) {
        if let Some(map) = maps.iter_mut().find(|map| map.name == own.name) {
            map.elements.push(element);
        }
    }
    maps
}

fn verdict(verdict: Verdict) -> Statement {
    Statement::Verdict(verdict)
}

/// Sends what is meant for a published port to its container.
fn translate(prerouting: bool) -> Vec<Rule> {
    use Field::{DestinationV4, DestinationV6, Port, Protocol};
    let rule = |last: Statement, v4: bool| {
        let mut rule = vec![Statement::ToThisHost(true)];
        // A neighbour on the wire cannot reach what is published to this host alone, whatever address it writes down.
        if prerouting && v4 {
            rule.push(Statement::NotToLoopback);
        }
        rule.push(last);
        rule
    };
    vec![
        rule(Statement::Translate(Address::V4, vec![DestinationV4, Protocol, Port], AT_V4.into()), true),
        rule(Statement::Translate(Address::V4, vec![Protocol, Port], ANY_V4.into()), true),
        rule(Statement::Translate(Address::V6, vec![DestinationV6, Protocol, Port], AT_V6.into()), false),
        rule(Statement::Translate(Address::V6, vec![Protocol, Port], ANY_V6.into()), false),
    ]
}

/// The rules for what goes into a network.
fn into_network(segment: &Segment) -> Vec<Rule> {
    let own = Statement::Input(true, segment.bridge.clone());
    let mut rules = vec![vec![Statement::Tracked(Ct::Established), verdict(Verdict::Accept)]];
    if !segment.is_internal {
        rules.push(vec![Statement::Tracked(Ct::Translated), verdict(Verdict::Accept)]);
    }
    rules.push(vec![own, verdict(if segment.icc { Verdict::Accept } else { Verdict::Drop })]);
    rules.push(vec![verdict(match segment.gateway {
        Gateway::NatUnprotected if !segment.is_internal => Verdict::Accept,
        _ => Verdict::Drop,
    })]);
    rules
}

/// The rules for what leaves a network that hides behind this host's address.
fn out_of_network(segment: &Segment) -> Vec<Rule> {
    vec![
        vec![Statement::Output(false, segment.bridge.clone()), Statement::Masquerade],
        // Who reaches its own network by way of a published port must get the answer from there, too.
        vec![Statement::Tracked(Ct::Translated), Statement::Masquerade],
    ]
}

/// The table that holds all this. Chains of networks are named after their bridges.
pub fn table(table: &str, segments: &[Segment], published: &[Published]) -> Table {
    let chain = |name: String, rules| Chain { name, hook: None, rules };
    let mut sets = ports(published);
    let mut chains = Vec::new();
    let mut bridges = set(BRIDGES, &[Key::Name], Data::Nothing, Vec::new());
    let mut from = set(FROM, &[Key::Name], Data::Verdict, Vec::new());
    let mut to = set(TO, &[Key::Name], Data::Verdict, Vec::new());
    let masquerade = |name, key| Set { is_interval: true, ..set(name, &[key], Data::Verdict, Vec::new()) };
    let mut masquerade = [masquerade(MASQUERADE_V4, Key::V4), masquerade(MASQUERADE_V6, Key::V6)];
    for segment in segments {
        let bridge = &segment.bridge;
        bridges.elements.push(Element { key: name(bridge), end: None, data: Target::Nothing });
        let lead = |chain: &str| Target::Verdict(Verdict::Goto(chain.to_owned()));
        let into = format!("to-{bridge}");
        to.elements.push(Element { key: name(bridge), end: None, data: lead(&into) });
        chains.push(chain(into, into_network(segment)));
        if segment.is_internal {
            let out = format!("from-{bridge}");
            let data = Target::Verdict(Verdict::Jump(out.clone()));
            from.elements.push(Element { key: name(bridge), end: None, data });
            let leaves = Statement::Output(false, bridge.clone());
            chains.push(chain(out, vec![vec![leaves, verdict(Verdict::Drop)]]));
        }
        if segment.masquerade && !segment.is_internal {
            let out = format!("masquerade-{bridge}");
            for subnet in &segment.subnets {
                let own = &mut masquerade[usize::from(subnet.addr().is_ipv6())];
                own.elements.push(Element {
                    key: vec![Value::Address(subnet.network())],
                    end: Some(Value::Address(last(subnet))),
                    data: lead(&out),
                });
            }
            chains.push(chain(out, out_of_network(segment)));
        }
    }
    sets.extend([bridges, from, to]);
    sets.extend(masquerade);
    let hooked = |name: &str, hook, rules| Chain { name: name.into(), hook: Some(hook), rules };
    chains.push(hooked("prerouting", Hook::NatPrerouting, translate(true)));
    chains.push(hooked("output", Hook::NatOutput, translate(false)));
    chains.push(hooked(
        "forward",
        Hook::Forward,
        vec![
            vec![Statement::Map(vec![Field::InputName], FROM.into())],
            vec![Statement::Map(vec![Field::OutputName], TO.into())],
        ],
    ));
    chains.push(hooked(
        "postrouting",
        Hook::NatPostrouting,
        vec![
            // From a program of this host that used 127.0.0.1.
            vec![
                Statement::FromLoopback,
                Statement::In(true, vec![Field::OutputName], BRIDGES.into()),
                Statement::Masquerade,
            ],
            vec![Statement::Map(vec![Field::SourceV4], MASQUERADE_V4.into())],
            vec![Statement::Map(vec![Field::SourceV6], MASQUERADE_V6.into())],
        ],
    ));
    Table { name: table.into(), sets, chains }
}

/// The table of a container's own namespace that leads what is meant for the resolver at `address`, port 53, to the port at
/// which it is asked: a program of the container may have port 53 for itself.
pub fn resolver_table(table: &str, address: Ipv4Addr, port: u16) -> Table {
    let key = [Key::V4, Key::Protocol, Key::Port];
    let element = |transport: Transport| Element {
        key: vec![Value::Address(address.into()), Value::Protocol(transport.number()), Value::Port(53)],
        end: None,
        data: Target::Value(vec![Value::Address(address.into()), Value::Port(port)]),
    };
    let elements = vec![element(Transport::Udp), element(Transport::Tcp)];
    let fields = vec![Field::DestinationV4, Field::Protocol, Field::Port];
    Table {
        name: table.into(),
        sets: vec![set("resolver", &key, Data::Value(vec![Key::V4, Key::Port]), elements)],
        chains: vec![Chain {
            name: "output".into(),
            hook: Some(Hook::NatOutput),
            rules: vec![vec![Statement::Translate(Address::V4, fields, "resolver".into())]],
        }],
    }
}

fn last(subnet: &IpNet) -> IpAddr {
    subnet.broadcast()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn one_network_and_one_within() {
        let segments = [
            Segment {
                bridge: "creel0".into(),
                subnets: vec!["172.17.0.0/16".parse().unwrap(), "fd00::/64".parse().unwrap()],
                is_internal: false,
                icc: true,
                masquerade: true,
                gateway: Gateway::Nat,
            },
            Segment {
                bridge: "br-in".into(),
                subnets: vec!["10.9.0.0/24".parse().unwrap()],
                is_internal: true,
                icc: false,
                masquerade: true,
                gateway: Gateway::Nat,
            },
        ];
        let port = |at: &str, transport, to: &str| Published {
            at: at.parse().unwrap(),
            transport,
            to: to.parse().unwrap(),
        };
        let published = [
            port("0.0.0.0:8080", Transport::Tcp, "172.17.0.2:80"),
            port("[::]:8080", Transport::Tcp, "[fd00::2]:80"),
            port("127.0.0.1:53", Transport::Udp, "172.17.0.3:5353"),
        ];
        expect![[r#"
            table inet creel {
            	map ports-at-ip {
            		type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
            		elements = { 127.0.0.1 . udp . 53 : 172.17.0.3 . 5353 }
            	}
            	map ports-ip {
            		type inet_proto . inet_service : ipv4_addr . inet_service
            		elements = { tcp . 8080 : 172.17.0.2 . 80 }
            	}
            	map ports-at-ip6 {
            		type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service
            	}
            	map ports-ip6 {
            		type inet_proto . inet_service : ipv6_addr . inet_service
            		elements = { tcp . 8080 : fd00::2 . 80 }
            	}
            	set bridges {
            		type ifname
            		elements = { "creel0", "br-in" }
            	}
            	map from {
            		type ifname : verdict
            		elements = { "br-in" : jump from-br-in }
            	}
            	map to {
            		type ifname : verdict
            		elements = { "creel0" : goto to-creel0, "br-in" : goto to-br-in }
            	}
            	map masquerade-ip {
            		type ipv4_addr : verdict
            		flags interval
            		elements = { 172.17.0.0-172.17.255.255 : goto masquerade-creel0 }
            	}
            	map masquerade-ip6 {
            		type ipv6_addr : verdict
            		flags interval
            		elements = { fd00::-fd00::ffff:ffff:ffff:ffff : goto masquerade-creel0 }
            	}
            	chain to-creel0 {
            		ct state established,related accept
            		ct status dnat accept
            		iifname "creel0" accept
            		drop
            	}
            	chain masquerade-creel0 {
            		oifname != "creel0" masquerade
            		ct status dnat masquerade
            	}
            	chain to-br-in {
            		ct state established,related accept
            		iifname "br-in" drop
            		drop
            	}
            	chain from-br-in {
            		oifname != "br-in" drop
            	}
            	chain prerouting {
            		type nat hook prerouting priority dstnat; policy accept;
            		fib daddr type local ip daddr != 127.0.0.0/8 dnat ip to ip daddr . meta l4proto . th dport map @ports-at-ip
            		fib daddr type local ip daddr != 127.0.0.0/8 dnat ip to meta l4proto . th dport map @ports-ip
            		fib daddr type local dnat ip6 to ip6 daddr . meta l4proto . th dport map @ports-at-ip6
            		fib daddr type local dnat ip6 to meta l4proto . th dport map @ports-ip6
            	}
            	chain output {
            		type nat hook output priority -100; policy accept;
            		fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @ports-at-ip
            		fib daddr type local dnat ip to meta l4proto . th dport map @ports-ip
            		fib daddr type local dnat ip6 to ip6 daddr . meta l4proto . th dport map @ports-at-ip6
            		fib daddr type local dnat ip6 to meta l4proto . th dport map @ports-ip6
            	}
            	chain forward {
            		type filter hook forward priority filter; policy accept;
            		iifname vmap @from
            		oifname vmap @to
            	}
            	chain postrouting {
            		type nat hook postrouting priority srcnat; policy accept;
            		ip saddr 127.0.0.0/8 oifname @bridges masquerade
            		ip saddr vmap @masquerade-ip
            		ip6 saddr vmap @masquerade-ip6
            	}
            }
        "#]].assert_eq(&table("creel", &segments, &published).to_string());
    }
}
