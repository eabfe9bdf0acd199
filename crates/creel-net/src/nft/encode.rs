//! Tables as netlink requests (`linux/netfilter/nf_tables.h`).

use creel_sys::netlink::{CREATE, Request};

use super::expr::{Address, Ct, Field, Key, Statement, Verdict};
use super::{Chain, Data, Element, Set, Table, Target, Value};
use crate::links::octets;

// linux/netfilter/nfnetlink.h
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
/// linux/netfilter.h
const INET: u8 = 1;
const V4: u32 = 2;
const V6: u32 = 10;

const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const NEW_ELEMENT: u16 = 12;
const DELETE_ELEMENT: u16 = 14;

const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LENGTH: u16 = 5;
const SET_DATA_TYPE: u16 = 6;
const SET_DATA_LENGTH: u16 = 7;
const SET_ID: u16 = 10;
const SET_USERDATA: u16 = 13;
const IS_INTERVAL: u32 = 4;
const IS_MAP: u32 = 8;
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const ELEMENT_FLAGS: u16 = 3;
const INTERVAL_END: u32 = 1;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
/// `NFT_DATA_VERDICT`
const VERDICT_TYPE: u32 = 0xffff_ff00;
/// The register in which a rule leaves its verdict.
const VERDICT: u32 = 0;
/// `NFT_REG32_00`: the first register of 32 bits.
const FIRST: u32 = 8;

/// `NFTNL_UDATA_SET_KEYBYTEORDER` of libnftnl: what nft(8) reads before it prints a set.
const KEY_ORDER: u8 = 0;

/// How many bytes of elements go into one request: an attribute holds 64 KiB.
const ELEMENTS: usize = 48 * 1024;

fn request(kind: u16, flags: u16) -> Request {
    Request::new(SUBSYSTEM << 8 | kind, flags, &[INET, 0, 0, 0])
}

/// What stands around a batch.
pub(super) fn around() -> (Request, Request) {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    (Request::new(BATCH_BEGIN, 0, &[0, 0, high, low]), Request::new(BATCH_END, 0, &[0, 0, high, low]))
}

fn named(kind: u16, flags: u16, table: &str) -> Request {
    let mut request = request(kind, flags);
    request.text(TABLE_NAME, table).big(TABLE_FLAGS, 0);
    request
}

/// Removes a table, there or not: one that is made in the same step is there.
pub(super) fn remove(table: &str) -> Vec<Request> {
    vec![named(NEW_TABLE, CREATE, table), named(DELETE_TABLE, 0, table)]
}

/// A table in the place of what has its name.
pub(super) fn replace(table: &Table) -> Vec<Request> {
    let mut all = remove(&table.name);
    all.push(named(NEW_TABLE, CREATE, &table.name));
    // Maps may lead to chains, and rules look into maps: chains, maps, what is in them, rules.
    all.extend(table.chains.iter().map(|chain| new_chain(&table.name, chain)));
    for (number, set) in table.sets.iter().enumerate() {
        all.push(new_set(&table.name, set, number as u32 + 1));
        all.extend(elements(&table.name, set, &set.elements, true));
    }
    for chain in &table.chains {
        all.extend(chain.rules.iter().map(|rule| new_rule(&table.name, &chain.name, rule)));
    }
    all
}

fn new_chain(table: &str, chain: &Chain) -> Request {
    let mut request = request(NEW_CHAIN, CREATE);
    request.text(CHAIN_TABLE, table).text(CHAIN_NAME, &chain.name);
    if let Some(hook) = chain.hook {
        let (number, priority, kind) = hook.parts();
        request.nest(CHAIN_HOOK, |hook| {
            hook.big(HOOK_NUMBER, number).big(HOOK_PRIORITY, priority.cast_unsigned())
        });
        // NF_ACCEPT
        request.big(CHAIN_POLICY, 1).text(CHAIN_TYPE, kind);
    }
    request
}

/// Parts of a key lie in registers of 32 bits each.
fn padded(key: Key) -> usize {
    key.bytes().next_multiple_of(4)
}

fn length(parts: &[Key]) -> u32 {
    match parts {
        [one] => one.bytes() as u32,
        several => several.iter().map(|key| padded(*key)).sum::<usize>() as u32,
    }
}

/// nft(8)'s number of a concatenation: six bits each.
fn datatype(parts: &[Key]) -> u32 {
    parts.iter().fold(0, |all, key| all << 6 | key.datatype())
}

fn new_set(table: &str, set: &Set, id: u32) -> Request {
    let mut request = request(NEW_SET, CREATE);
    let map = if set.data == Data::Nothing { 0 } else { IS_MAP };
    let interval = if set.is_interval { IS_INTERVAL } else { 0 };
    request.text(SET_TABLE, table).text(SET_NAME, &set.name).big(SET_FLAGS, map | interval);
    request.big(SET_KEY_TYPE, datatype(&set.key)).big(SET_KEY_LENGTH, length(&set.key));
    match &set.data {
        Data::Nothing => {}
        Data::Verdict => {
            request.big(SET_DATA_TYPE, VERDICT_TYPE).big(SET_DATA_LENGTH, 0);
        }
        Data::Value(parts) => {
            request.big(SET_DATA_TYPE, datatype(parts)).big(SET_DATA_LENGTH, length(parts));
        }
    }
    // For whoever lists it: names are in the machine's byte order (1), all else is not (2).
    let order = if set.key == [Key::Name] { 1u32 } else { 2 };
    let mut note = vec![KEY_ORDER, 4];
    note.extend(order.to_ne_bytes());
    request.big(SET_ID, id).attribute(SET_USERDATA, &note);
    request
}

fn value_bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::Address(ip) => octets(*ip),
        Value::Protocol(number) => vec![*number],
        Value::Port(port) => port.to_be_bytes().to_vec(),
        Value::Name(name) => name_bytes(name).to_vec(),
    }
}

/// A name as the kernel compares it: filled up with zeroes.
fn name_bytes(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    let length = name.len().min(15);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    bytes
}

fn joined(values: &[Value]) -> Vec<u8> {
    match values {
        [one] => value_bytes(one),
        several => several.iter().fold(Vec::new(), |mut all, value| {
            all.extend(value_bytes(value));
            all.resize(all.len().next_multiple_of(4), 0);
            all
        }),
    }
}

/// The address after this one; none after the last.
fn next(value: &Value) -> Option<Vec<u8>> {
    let mut bytes = value_bytes(value);
    for byte in bytes.iter_mut().rev() {
        let (sum, overflow) = byte.overflowing_add(1);
        *byte = sum;
        if !overflow {
            return Some(bytes);
        }
    }
    None
}

/// Requests that add elements, or take them out.
pub(super) fn elements(table: &str, set: &Set, list: &[Element], add: bool) -> Vec<Request> {
    let size = 64 + length(&set.key) as usize * 2;
    let (kind, flags) = if add { (NEW_ELEMENT, CREATE) } else { (DELETE_ELEMENT, 0) };
    let write = |part: &[Element]| {
        let mut request = request(kind, flags);
        request.text(LIST_TABLE, table).text(LIST_SET, &set.name);
        request.nest(LIST_ELEMENTS, |all| {
            for element in part {
                write_element(all, element, add);
            }
            all
        });
        request
    };
    list.chunks((ELEMENTS / size).max(1)).map(write).collect()
}

fn write_element(all: &mut Request, element: &Element, add: bool) {
    all.nest(LIST_ELEMENT, |one| {
        one.nest(ELEMENT_KEY, |key| key.attribute(DATA_VALUE, &joined(&element.key)));
        match &element.data {
            _ if !add => one,
            Target::Nothing => one,
            Target::Verdict(verdict) => one.nest(ELEMENT_DATA, |data| write_verdict(data, verdict)),
            Target::Value(values) => {
                one.nest(ELEMENT_DATA, |data| data.attribute(DATA_VALUE, &joined(values)))
            }
        }
    });
    if let Some(end) = element.end.as_ref().and_then(next) {
        all.nest(LIST_ELEMENT, |one| {
            one.nest(ELEMENT_KEY, |key| key.attribute(DATA_VALUE, &end)).big(ELEMENT_FLAGS, INTERVAL_END)
        });
    }
}

fn write_verdict<'a>(data: &'a mut Request, verdict: &Verdict) -> &'a mut Request {
    let (code, chain) = match verdict {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Jump(chain) => (-3i32, Some(chain)),
        Verdict::Goto(chain) => (-4, Some(chain)),
        Verdict::Return => (-5, None),
    };
    data.nest(DATA_VERDICT, |verdict| {
        verdict.big(VERDICT_CODE, code.cast_unsigned());
        match chain {
            Some(chain) => verdict.text(VERDICT_CHAIN, chain),
            None => verdict,
        }
    })
}

fn new_rule(table: &str, chain: &str, rule: &[Statement]) -> Request {
    // NLM_F_APPEND: after those that are there.
    let mut request = request(NEW_RULE, CREATE | creel_sys::netlink::APPEND);
    request.text(RULE_TABLE, table).text(RULE_CHAIN, chain);
    request.nest(RULE_EXPRESSIONS, |list| {
        for statement in rule {
            write(list, statement);
        }
        list
    });
    request
}

fn expression(list: &mut Request, name: &str, data: impl FnOnce(&mut Request) -> &mut Request) {
    list.nest(LIST_ELEMENT, |one| one.text(EXPRESSION_NAME, name).nest(EXPRESSION_DATA, data));
}

// enum nft_meta_keys
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;

fn meta(list: &mut Request, key: u32, register: u32) {
    // NFTA_META_DREG, NFTA_META_KEY
    expression(list, "meta", |data| data.big(1, register).big(2, key));
}

fn compare(list: &mut Request, register: u32, equal: bool, value: &[u8]) {
    // NFTA_CMP_SREG, NFTA_CMP_OP, NFTA_CMP_DATA; NFT_CMP_EQ is 0 and NFT_CMP_NEQ 1.
    expression(list, "cmp", |data| {
        data.big(1, register)
            .big(2, u32::from(!equal))
            .nest(3, |compared| compared.attribute(DATA_VALUE, value))
    });
}

/// NFTA_PAYLOAD_DREG, _BASE (1: network header, 2: transport header), _OFFSET, _LEN.
fn payload(list: &mut Request, register: u32, base: u32, offset: u32, length: u32) {
    expression(list, "payload", |data| data.big(1, register).big(2, base).big(3, offset).big(4, length));
}

/// NFTA_BITWISE_SREG, _DREG, _LEN, _MASK, _XOR.
fn masked(list: &mut Request, register: u32, mask: &[u8]) {
    expression(list, "bitwise", |data| {
        data.big(1, register).big(2, register).big(3, mask.len() as u32);
        data.nest(4, |value| value.attribute(DATA_VALUE, mask));
        data.nest(5, |value| value.attribute(DATA_VALUE, &vec![0; mask.len()]))
    });
}

/// Goes on for packets of one family: nothing else says where an address lies.
fn of_family(list: &mut Request, family: u32) {
    meta(list, META_NFPROTO, FIRST);
    compare(list, FIRST, true, &[family as u8]);
}

fn loopback(list: &mut Request, offset: u32, equal: bool) {
    of_family(list, V4);
    payload(list, FIRST, 1, offset, 4);
    masked(list, FIRST, &[0xff, 0, 0, 0]);
    compare(list, FIRST, equal, &[127, 0, 0, 0]);
}

const SOURCE_V4: u32 = 12;
const DESTINATION_V4: u32 = 16;
const SOURCE_V6: u32 = 8;
const DESTINATION_V6: u32 = 24;

/// Loads fields one after the other, beginning at the first register.
fn load(list: &mut Request, fields: &[Field]) {
    let mut register = FIRST;
    for field in fields {
        match field {
            Field::SourceV4 | Field::DestinationV4 => of_family(list, V4),
            Field::SourceV6 | Field::DestinationV6 => of_family(list, V6),
            _ => {}
        }
    }
    for field in fields {
        match field {
            Field::SourceV4 => payload(list, register, 1, SOURCE_V4, 4),
            Field::DestinationV4 => payload(list, register, 1, DESTINATION_V4, 4),
            Field::SourceV6 => payload(list, register, 1, SOURCE_V6, 16),
            Field::DestinationV6 => payload(list, register, 1, DESTINATION_V6, 16),
            Field::Protocol => meta(list, META_L4PROTO, register),
            Field::Port => payload(list, register, 2, 2, 2),
            Field::InputName => meta(list, META_IIFNAME, register),
            Field::OutputName => meta(list, META_OIFNAME, register),
        }
        register += padded(field.key()) as u32 / 4;
    }
}

/// NFTA_LOOKUP_SET, _SREG, _DREG, _FLAGS (1: goes on if it is not there).
fn look_up(list: &mut Request, set: &str, into: Option<u32>, is: bool) {
    expression(list, "lookup", |data| {
        data.text(1, set).big(2, FIRST);
        if let Some(register) = into {
            data.big(3, register);
        }
        if is { data } else { data.big(5, 1) }
    });
}

/// NFTA_CT_DREG, NFTA_CT_KEY: state is 0, status 2.
fn tracked(list: &mut Request, key: u32, bits: u32) {
    expression(list, "ct", |data| data.big(1, FIRST).big(2, key));
    masked(list, FIRST, &bits.to_ne_bytes());
    compare(list, FIRST, false, &[0; 4]);
}

fn write(list: &mut Request, statement: &Statement) {
    match statement {
        Statement::Input(is, name) => {
            meta(list, META_IIFNAME, FIRST);
            compare(list, FIRST, *is, &name_bytes(name));
        }
        Statement::Output(is, name) => {
            meta(list, META_OIFNAME, FIRST);
            compare(list, FIRST, *is, &name_bytes(name));
        }
        Statement::ToThisHost(is) => {
            // NFTA_FIB_DREG, _RESULT (3: the address's type), _FLAGS (2: of the destination); RTN_LOCAL is 2.
            expression(list, "fib", |data| data.big(1, FIRST).big(2, 3).big(3, 2));
            compare(list, FIRST, *is, &2u32.to_ne_bytes());
        }
        Statement::NotToLoopback => loopback(list, DESTINATION_V4, false),
        Statement::FromLoopback => loopback(list, SOURCE_V4, true),
        // NF_CT_STATE_BIT of established and related; IPS_DST_NAT.
        Statement::Tracked(Ct::Established) => tracked(list, 0, 2 | 4),
        Statement::Tracked(Ct::Translated) => tracked(list, 2, 1 << 5),
        Statement::In(is, fields, set) => {
            load(list, fields);
            look_up(list, set, None, *is);
        }
        Statement::Map(fields, map) => {
            load(list, fields);
            look_up(list, map, Some(VERDICT), true);
        }
        Statement::Translate(address, fields, map) => {
            load(list, fields);
            look_up(list, map, Some(FIRST), true);
            let (family, port) = match address {
                Address::V4 => (V4, FIRST + 1),
                Address::V6 => (V6, FIRST + 4),
            };
            // NFTA_NAT_TYPE (1: destination), _FAMILY, _REG_ADDR_MIN, _REG_PROTO_MIN.
            expression(list, "nat", |data| data.big(1, 1).big(2, family).big(3, FIRST).big(5, port));
        }
        Statement::Masquerade => expression(list, "masq", |data| data),
        Statement::Verdict(verdict) => expression(list, "immediate", |data| {
            // NFTA_IMMEDIATE_DREG, NFTA_IMMEDIATE_DATA.
            data.big(1, VERDICT).nest(2, |data| write_verdict(data, verdict))
        }),
    }
}
