//! What rules are made of.

use std::fmt;

/// Where a chain gets its packets, and in which order among others (`linux/netfilter.h`, `netfilter_ipv4.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// What has arrived, before it is routed: where destinations are changed.
    NatPrerouting,
    /// What programs of this host send: where destinations are changed.
    NatOutput,
    /// What leaves: where sources are changed.
    NatPostrouting,
    /// What goes through.
    Forward,
}

/// Part of a set's key, or of what an element leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// An IPv4 address.
    V4,
    /// An IPv6 address.
    V6,
    /// A transport protocol's number.
    Protocol,
    /// A port.
    Port,
    /// The name of an interface.
    Name,
}

/// What a rule looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The IPv4 source address; matches IPv4 only.
    SourceV4,
    /// The IPv4 destination address; matches IPv4 only.
    DestinationV4,
    /// The IPv6 source address; matches IPv6 only.
    SourceV6,
    /// The IPv6 destination address; matches IPv6 only.
    DestinationV6,
    /// The transport protocol's number.
    Protocol,
    /// The destination port of TCP, UDP and SCTP.
    Port,
    /// The name of the interface on which the packet came.
    InputName,
    /// The name of the interface through which it leaves.
    OutputName,
}

/// What connection tracking knows of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ct {
    /// It belongs to a connection that was let through.
    Established,
    /// The connection's destination was changed.
    Translated,
}

/// Which family an address is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Accept,
    /// It does not.
    Drop,
    /// The rules of another chain decide, and then those that follow.
    Jump(String),
    /// The rules of another chain decide.
    Goto(String),
    /// The rules after the one that jumped here decide.
    Return,
}

/// One part of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// Goes on if the interface on which the packet came is (or is not) this.
    Input(bool, String),
    /// Goes on if the interface through which it leaves is (or is not) this.
    Output(bool, String),
    /// Goes on if the destination is (or is not) an address of this host.
    ToThisHost(bool),
    /// Goes on if the IPv4 destination is not in 127.0.0.0/8.
    NotToLoopback,
    /// Goes on if the IPv4 source is in 127.0.0.0/8.
    FromLoopback,
    /// Goes on if connection tracking knows this.
    Tracked(Ct),
    /// Goes on if these are (or are not) in a set.
    In(bool, Vec<Field>, String),
    /// A map says what becomes of the packet; goes on if it does not say.
    Map(Vec<Field>, String),
    /// A map says where the packet is sent instead; goes on if it does not say.
    Translate(Address, Vec<Field>, String),
    /// The source becomes this host's.
    Masquerade,
    /// What becomes of it.
    Verdict(Verdict),
}

impl Hook {
    /// Number, priority and type, as the kernel has them.
    pub(super) fn parts(self) -> (u32, i32, &'static str) {
        match self {
            Hook::NatPrerouting => (0, -100, "nat"),
            Hook::Forward => (2, 0, "filter"),
            Hook::NatOutput => (3, -100, "nat"),
            Hook::NatPostrouting => (4, 100, "nat"),
        }
    }
}

impl Key {
    /// How many bytes it takes, without padding.
    pub(super) fn bytes(self) -> usize {
        match self {
            Key::V4 => 4,
            Key::V6 | Key::Name => 16,
            Key::Protocol => 1,
            Key::Port => 2,
        }
    }

    /// nft(8)'s number of the type, which the kernel keeps for whoever lists the set.
    pub(super) fn datatype(self) -> u32 {
        match self {
            Key::V4 => 7,
            Key::V6 => 8,
            Key::Protocol => 12,
            Key::Port => 13,
            Key::Name => 41,
        }
    }
}

impl Field {
    /// What it is in a set.
    pub fn key(self) -> Key {
        match self {
            Field::SourceV4 | Field::DestinationV4 => Key::V4,
            Field::SourceV6 | Field::DestinationV6 => Key::V6,
            Field::Protocol => Key::Protocol,
            Field::Port => Key::Port,
            Field::InputName | Field::OutputName => Key::Name,
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hook::NatPrerouting => "type nat hook prerouting priority dstnat; policy accept;",
            Hook::NatOutput => "type nat hook output priority -100; policy accept;",
            Hook::NatPostrouting => "type nat hook postrouting priority srcnat; policy accept;",
            Hook::Forward => "type filter hook forward priority filter; policy accept;",
        })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Key::V4 => "ipv4_addr",
            Key::V6 => "ipv6_addr",
            Key::Protocol => "inet_proto",
            Key::Port => "inet_service",
            Key::Name => "ifname",
        })
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Field::SourceV4 => "ip saddr",
            Field::DestinationV4 => "ip daddr",
            Field::SourceV6 => "ip6 saddr",
            Field::DestinationV6 => "ip6 daddr",
            Field::Protocol => "meta l4proto",
            Field::Port => "th dport",
            Field::InputName => "iifname",
            Field::OutputName => "oifname",
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Accept => f.write_str("accept"),
            Verdict::Drop => f.write_str("drop"),
            Verdict::Jump(chain) => write!(f, "jump {chain}"),
            Verdict::Goto(chain) => write!(f, "goto {chain}"),
            Verdict::Return => f.write_str("return"),
        }
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = |is: &bool| if *is { "" } else { "!= " };
        let fields = |fields: &[Field]| super::join(fields);
        match self {
            Statement::Input(is, name) => write!(f, "iifname {}\"{name}\"", not(is)),
            Statement::Output(is, name) => write!(f, "oifname {}\"{name}\"", not(is)),
            Statement::ToThisHost(is) => write!(f, "fib daddr type {}local", not(is)),
            Statement::NotToLoopback => f.write_str("ip daddr != 127.0.0.0/8"),
            Statement::FromLoopback => f.write_str("ip saddr 127.0.0.0/8"),
            Statement::Tracked(Ct::Established) => f.write_str("ct state established,related"),
            Statement::Tracked(Ct::Translated) => f.write_str("ct status dnat"),
            Statement::In(is, list, set) => write!(f, "{} {}@{set}", fields(list), not(is)),
            Statement::Map(list, map) => write!(f, "{} vmap @{map}", fields(list)),
            Statement::Translate(Address::V4, list, map) => {
                write!(f, "dnat ip to {} map @{map}", fields(list))
            }
            Statement::Translate(Address::V6, list, map) => {
                write!(f, "dnat ip6 to {} map @{map}", fields(list))
            }
            Statement::Masquerade => f.write_str("masquerade"),
            Statement::Verdict(verdict) => write!(f, "{verdict}"),
        }
    }
}
