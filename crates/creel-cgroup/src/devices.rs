//! Device rules: what they mean, and how a v1 device list says it (`cgroup-v1/devices.rst`).
//!
//! A list of rules that is not empty starts from "nothing is allowed" (as runc's does); an empty one leaves the
//! kernel's default, where all is allowed.

use std::collections::BTreeMap;
use std::fmt;

use creel_types::spec::DeviceRule;

use crate::error::{Error, Result};

/// Bits of access, with the numbers of `enum bpf_cgroup_dev_access`-style flags (`BPF_DEVCG_ACC_*`).
pub(crate) const MKNOD: u8 = 1;
pub(crate) const READ: u8 = 2;
pub(crate) const WRITE: u8 = 4;
pub(crate) const ALL: u8 = MKNOD | READ | WRITE;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Block,
    Char,
}

/// A set of devices: all of a kind, of a major number, of a minor number, or one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Which {
    pub(crate) kind: Kind,
    pub(crate) major: Option<u32>,
    pub(crate) minor: Option<u32>,
}

impl Which {
    fn covers(self, other: Which) -> bool {
        let wide = |mine: Option<u32>, other: Option<u32>| mine.is_none() || mine == other;
        self.kind == other.kind && wide(self.major, other.major) && wide(self.minor, other.minor)
    }

    fn meets(self, other: Which) -> bool {
        let meet = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        self.kind == other.kind && meet(self.major, other.major) && meet(self.minor, other.minor)
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
        let kind = if self.kind == Kind::Block { 'b' } else { 'c' };
        write!(f, "{kind} {}:{}", number(self.major), number(self.minor))
    }
}

/// A rule, checked. `kind: None` is both kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) allow: bool,
    pub(crate) kind: Option<Kind>,
    pub(crate) major: Option<u32>,
    pub(crate) minor: Option<u32>,
    pub(crate) access: u8,
}

impl Rule {
    pub(crate) fn parse(rule: &DeviceRule) -> Result<Rule> {
        let wrong = |what: &str, value: &dyn fmt::Debug| {
            Error::Invalid(format!(
                "device rule with {what} {value:?}; see config-linux.md, \"Allowed Device list\""
            ))
        };
        let kind = match rule.kind.as_deref() {
            None | Some("" | "a") => None,
            Some("b") => Some(Kind::Block),
            Some("c" | "u") => Some(Kind::Char),
            Some(other) => return Err(wrong("type", &other)),
        };
        let number = |what: &str, value: Option<i64>| match value {
            None | Some(-1) => Ok(None),
            // The kernel's own width of device numbers: 12 bits and 20 bits.
            Some(n) => {
                u32::try_from(n).ok().filter(|n| *n < 1 << 20).map(Some).ok_or_else(|| wrong(what, &n))
            }
        };
        let access = match rule.access.as_deref() {
            None | Some("") => ALL,
            Some(text) => access(text, rule.allow).ok_or_else(|| wrong("access", &text))?,
        };
        let (major, minor) = (number("major number", rule.major)?, number("minor number", rule.minor)?);
        Ok(Rule { allow: rule.allow, kind, major, minor, access })
    }

    /// Whether it is about every device and every access.
    pub(crate) fn is_total(self) -> bool {
        self.kind.is_none() && self.major.is_none() && self.minor.is_none() && self.access == ALL
    }
}

/// Reads `rwm`. An `a` is about all of them where something is denied, and gives nothing: other runtimes pass over it, and
/// there are configurations with it.
fn access(text: &str, allow: bool) -> Option<u8> {
    text.chars().try_fold(0, |bits, c| match c {
        'a' if allow => Some(bits),
        'a' => Some(ALL),
        'm' => Some(bits | MKNOD),
        'r' => Some(bits | READ),
        'w' => Some(bits | WRITE),
        _ => None,
    })
}

fn access_text(bits: u8) -> String {
    [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')]
        .iter()
        .filter(|(bit, _)| bits & bit != 0)
        .map(|(_, c)| c)
        .collect()
}

/// The state of a v1 device list: a default and its exceptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct List {
    default_allow: bool,
    exceptions: BTreeMap<Which, Exception>,
    /// The place of the next new exception.
    next: usize,
}

/// Bits of access, and the place among the others: the kernel shows exceptions in the order in which they were made,
/// and who reads them expects that of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Exception {
    order: usize,
    bits: u8,
}

impl List {
    fn new(default_allow: bool) -> List {
        List { default_allow, exceptions: BTreeMap::new(), next: 0 }
    }

    /// What the rules add up to.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a rule that takes a part out of an earlier, wider one ("all but one"), which the
    /// kernel's v1 list cannot say, and for rules that are wrong in themselves.
    pub(crate) fn from_rules(rules: &[DeviceRule]) -> Result<List> {
        let mut list = List::new(false);
        for rule in rules {
            let rule = Rule::parse(rule)?;
            if rule.is_total() {
                list = List::new(rule.allow);
                continue;
            }
            if rule.access == 0 {
                // The kernel would take it, and show a line that says nothing.
                continue;
            }
            let both = [Kind::Block, Kind::Char];
            for kind in both.into_iter().filter(|kind| rule.kind.is_none_or(|only| only == *kind)) {
                let which = Which { kind, major: rule.major, minor: rule.minor };
                list.rule(rule.allow, which, rule.access)?;
            }
        }
        Ok(list)
    }

    fn rule(&mut self, allow: bool, which: Which, access: u8) -> Result<()> {
        if allow != self.default_allow {
            self.add(which, access);
            return Ok(());
        }
        for (exception, Exception { bits, .. }) in &mut self.exceptions {
            if which.covers(*exception) {
                *bits &= !access;
            } else if which.meets(*exception) && *bits & access != 0 {
                let (verb, other) = if allow { ("allow", "denies") } else { ("deny", "allows") };
                return Err(Error::Invalid(format!(
                    "device rule \"{verb} {which} {}\" takes a part out of one that {other} {exception}; cgroup v1 \
                     cannot say \"all but one\": list the devices one by one",
                    access_text(access)
                )));
            }
        }
        self.exceptions.retain(|_, exception| exception.bits != 0);
        Ok(())
    }

    fn add(&mut self, which: Which, access: u8) {
        self.exceptions.entry(which).or_insert(Exception { order: self.next, bits: 0 }).bits |= access;
        self.next += 1;
    }

    /// What `devices.list` tells. Of a list that allows by default the kernel does not show the exceptions.
    pub(crate) fn parse(text: &str) -> Result<List> {
        let mut list = List::new(false);
        for line in text.lines() {
            let wrong = || Error::parse("a line of devices.list", line);
            let mut fields = line.split_ascii_whitespace();
            let kind = match fields.next().ok_or_else(wrong)? {
                "a" => return Ok(List::new(true)),
                "b" => Kind::Block,
                "c" => Kind::Char,
                _ => return Err(wrong()),
            };
            let (major, minor) =
                fields.next().and_then(|numbers| numbers.split_once(':')).ok_or_else(wrong)?;
            let number = |text: &str| match text {
                "*" => Ok(None),
                _ => text.parse().map(Some).map_err(|_| wrong()),
            };
            let which = Which { kind, major: number(major)?, minor: number(minor)? };
            // Without a word about access it is of somebody who asked for none.
            let bits = fields.next().map_or(Some(0), |text| access(text, true)).ok_or_else(wrong)?;
            if bits != 0 {
                list.add(which, bits);
            }
        }
        Ok(list)
    }

    /// What it allows, if it is a list of what is allowed and not of what is denied.
    pub(crate) fn allowed(&self) -> Option<Vec<(Which, String)>> {
        let list = || self.completed().into_iter().map(|(which, bits)| (which, access_text(bits))).collect();
        (!self.default_allow).then(list)
    }

    /// Whether everything is allowed.
    pub(crate) fn is_open(&self) -> bool {
        self.default_allow && self.exceptions.is_empty()
    }

    /// The kernel asks for one exception that covers all of a request, so each also gets what wider ones give. Reading
    /// and writing are what is asked for together (open(2)); making a node always is a request of its own (mknod(2)).
    fn completed(&self) -> Vec<(Which, u8)> {
        let complete = |(which, exception): (&Which, &Exception)| {
            let wider = self.exceptions.iter().filter(|(other, _)| other.covers(*which));
            let open = if exception.bits & (READ | WRITE) == 0 { 0 } else { READ | WRITE };
            (exception.order, (*which, wider.fold(exception.bits, |sum, (_, more)| sum | more.bits & open)))
        };
        let mut all: Vec<_> = self.exceptions.iter().map(complete).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, exception)| exception).collect()
    }

    /// The writes that turn a list (`None`: that of a new group) into this one: file name and value. A list in use
    /// is never emptied on the way, lest the container lose a device for a moment.
    pub(crate) fn writes(&self, current: Option<&List>) -> Vec<(&'static str, String)> {
        let line = |which: &Which, bits: u8| format!("{which} {}", access_text(bits));
        let target = self.completed();
        let (own, other) = if self.default_allow {
            ("devices.allow", "devices.deny")
        } else {
            ("devices.deny", "devices.allow")
        };
        match current {
            Some(current) if !self.default_allow && !current.default_allow => {
                let mut writes = Vec::new();
                for (which, bits) in &target {
                    let there = current.exceptions.get(which).map_or(0, |exception| exception.bits);
                    let add = bits & !there;
                    if add != 0 {
                        writes.push((other, line(which, add)));
                    }
                }
                let wanted: BTreeMap<Which, u8> = target.iter().copied().collect();
                for (which, Exception { bits, .. }) in &current.exceptions {
                    let drop = bits & !wanted.get(which).copied().unwrap_or(0);
                    if drop != 0 {
                        writes.push((own, line(which, drop)));
                    }
                }
                writes
            }
            _ => {
                let mut writes = vec![(own, "a".to_owned())];
                writes.extend(target.iter().map(|(which, bits)| (other, line(which, *bits))));
                writes
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn allows(&self, kind: Kind, major: u32, minor: u32, access: u8) -> bool {
        let device = Which { kind, major: Some(major), minor: Some(minor) };
        let mut matching = self.completed().into_iter().filter(|(which, _)| which.covers(device));
        // The kernel's match_exception and match_exception_partial.
        if self.default_allow {
            !matching.any(|(_, bits)| bits & access != 0)
        } else {
            matching.any(|(_, bits)| access & !bits == 0)
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use expect_test::expect;
    use proptest::prelude::*;

    pub(crate) fn rule(text: &str) -> DeviceRule {
        let mut words = text.split(' ');
        let allow = words.next() == Some("allow");
        let kind = words.next().filter(|kind| *kind != "-").map(str::to_owned);
        let (major, minor) = words.next().unwrap_or("*:*").split_once(':').unwrap();
        let number = |text: &str| (text != "*").then(|| text.parse().unwrap());
        let access = words.next().map(str::to_owned);
        DeviceRule { allow, kind, major: number(major), minor: number(minor), access }
    }

    /// What the specification says, bit by bit: the last rule that is about it decides.
    pub(crate) fn oracle(rules: &[DeviceRule], kind: Kind, major: u32, minor: u32, access: u8) -> bool {
        let rules: Vec<Rule> = rules.iter().map(|rule| Rule::parse(rule).unwrap()).collect();
        [MKNOD, READ, WRITE].into_iter().filter(|bit| access & bit != 0).all(|bit| {
            let about = |rule: &&Rule| {
                rule.kind.is_none_or(|k| k == kind)
                    && rule.major.is_none_or(|m| m == major)
                    && rule.minor.is_none_or(|m| m == minor)
                    && rule.access & bit != 0
            };
            rules.iter().rev().find(about).is_some_and(|rule| rule.allow)
        })
    }

    /// Found by the fuzzer: `a` of something allowed is no access, and a list with such a line could not be read again.
    #[test]
    fn an_exception_without_access_is_none() {
        let list = List::from_rules(&[rule("allow b 2:2 a"), rule("allow c 1:3 r")]).unwrap();
        assert_eq!(
            list.writes(None),
            [("devices.deny", "a".to_owned()), ("devices.allow", "c 1:3 r".to_owned())]
        );
        let there = List::parse("b 2:2 \nc 1:3 r\n").unwrap();
        assert_eq!(list.writes(Some(&there)), []);
    }

    pub(crate) fn any_rule() -> impl Strategy<Value = DeviceRule> {
        let small = || proptest::option::of(0i64..3);
        (
            any::<bool>(),
            proptest::option::of(proptest::sample::select(vec!["a", "b", "c"])),
            small(),
            small(),
            proptest::option::of(proptest::sample::select(vec!["r", "w", "m", "rw", "rwm", "mr"])),
        )
            .prop_map(|(allow, kind, major, minor, access)| DeviceRule {
                allow,
                kind: kind.map(str::to_owned),
                major,
                minor,
                access: access.map(str::to_owned),
            })
    }

    pub(crate) fn any_device() -> impl Strategy<Value = (Kind, u32, u32, u8)> {
        (proptest::sample::select(vec![Kind::Block, Kind::Char]), 0u32..4, 0u32..4, 1u8..8)
    }

    #[test]
    fn writes_of_a_new_list() {
        let rules = ["deny a *:* rwm", "allow c *:* m", "allow b *:* m", "allow c 1:3 rw", "allow c 5:2 rwm"];
        let list = List::from_rules(&rules.map(rule)).unwrap();
        let text = |writes: Vec<(&str, String)>| -> String {
            writes.iter().map(|(file, value)| format!("{file} {value}\n")).collect()
        };
        expect![[r#"
            devices.deny a
            devices.allow c *:* m
            devices.allow b *:* m
            devices.allow c 1:3 rw
            devices.allow c 5:2 rwm
        "#]]
        .assert_eq(&text(list.writes(None)));
        let current = List::parse("c *:* m\nc 5:2 rwm\nc 10:200 rwm\n").unwrap();
        expect![[r#"
            devices.allow b *:* m
            devices.allow c 1:3 rw
            devices.deny c 10:200 rwm
        "#]]
        .assert_eq(&text(list.writes(Some(&current))));
        let open = List::from_rules(&["allow a *:* rwm", "deny c 1:3 r"].map(rule)).unwrap();
        expect![[r#"
            devices.allow a
            devices.deny c 1:3 r
        "#]]
        .assert_eq(&text(open.writes(None)));
    }

    #[test]
    fn what_is_asked_for_together_is_granted_together() {
        let rules = ["allow c *:* m", "allow c 1:* w", "allow c 1:3 r", "allow c 1:5 m"];
        let list = List::from_rules(&rules.map(rule)).unwrap();
        let lines: Vec<String> = list.writes(None).into_iter().map(|(_, line)| line).collect();
        assert_eq!(lines, ["a", "c *:* m", "c 1:* w", "c 1:3 rw", "c 1:5 m"]);
        assert!(list.allows(Kind::Char, 1, 3, READ | WRITE));
    }

    #[test]
    fn all_of_an_access() {
        let access = |text: &str| Rule::parse(&rule(text)).unwrap().access;
        assert_eq!((access("deny c 1:11 rwa"), access("allow c 1:11 ra")), (ALL, READ));
    }

    #[test]
    fn refusals() {
        for rules in [["allow c *:* rwm", "deny c 1:3 rwm"], ["allow c 1:* rwm", "deny c *:3 r"]] {
            let error = List::from_rules(&rules.map(rule)).unwrap_err().to_string();
            assert!(error.contains("all but one"), "{error}");
        }
        for (kind, major, access) in [("x", 1, "r"), ("c", -2, "r"), ("c", 1 << 20, "r"), ("c", 1, "x")] {
            let rule = DeviceRule {
                allow: true,
                kind: Some(kind.into()),
                major: Some(major),
                minor: None,
                access: Some(access.into()),
            };
            assert!(matches!(Rule::parse(&rule), Err(Error::Invalid(_))), "{rule:?}");
        }
    }

    proptest! {
        #[test]
        fn a_list_never_allows_more_than_its_rules(
            rules in proptest::collection::vec(any_rule(), 1..8), device in any_device(),
        ) {
            let (kind, major, minor, access) = device;
            if let Ok(list) = List::from_rules(&rules) {
                let want = oracle(&rules, kind, major, minor, access);
                let got = list.allows(kind, major, minor, access);
                // Two exceptions that meet without one covering the other are not added up by the kernel: then the
                // list is the stricter of the two.
                prop_assert!(!got || want, "{list:?}");
                if access.count_ones() == 1 {
                    prop_assert_eq!(got, want, "{:?}", list);
                }
            }
        }

        #[test]
        fn lists_parse(text in "(?s).{0,120}") {
            let _ = List::parse(&text);
        }

        #[test]
        fn written_lists_are_read_back(rules in proptest::collection::vec(any_rule(), 1..8)) {
            if let Ok(list) = List::from_rules(&rules) && !list.default_allow {
                let writes = list.writes(None);
                let text: String = writes.iter().skip(1).map(|(_, value)| format!("{value}\n")).collect();
                let again = List::parse(&text).unwrap();
                prop_assert_eq!(list.writes(Some(&again)), []);
                prop_assert_eq!(again.completed(), list.completed());
            }
        }
    }
}
