//! All system calls of all architectures in one table, which is made when this is compiled: a filter is compiled at each
//! start, and reading the texts of [`numbers`] would be half of it.

use super::arch::{Arch, X32_BIT};
use super::numbers;

/// Room for names; those that only a multiplexer of 32-bit x86 knows are among them.
const ROOM: usize = 640;
/// Slots of the hash table; a power of two, a good deal more than names.
const SLOTS: usize = 2048;
/// For "no such call here", and for an empty slot.
const NONE: u32 = u32::MAX;
const EMPTY: u16 = u16::MAX;

/// A call that an architecture known here has, as its place in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Call(u16);

struct Table {
    len: usize,
    names: [&'static str; ROOM],
    /// Numbers as `seccomp_data.nr` shows them, a column for each [`Arch`] in its order.
    numbers: [[u32; 5]; ROOM],
    /// Places by the hash of the name, with linear probing.
    slots: [u16; SLOTS],
}

static TABLE: Table = Table::build();

/// FNV-1a.
const fn hash(name: &[u8]) -> usize {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut at = 0;
    while at < name.len() {
        hash = (hash ^ name[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    (hash ^ (hash >> 32)) as usize % SLOTS
}

const fn same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// The first word of a text, and what follows it.
const fn word(text: &'static str) -> Option<(&'static str, &'static str)> {
    let bytes = text.as_bytes();
    let mut start = 0;
    while start < bytes.len() && bytes[start].is_ascii_whitespace() {
        start += 1;
    }
    let mut end = start;
    while end < bytes.len() && !bytes[end].is_ascii_whitespace() {
        end += 1;
    }
    if start == end {
        return None;
    }
    let (before, rest) = text.split_at(end);
    Some((before.split_at(start).1, rest))
}

const fn number(word: &str) -> u32 {
    let (bytes, mut value, mut at) = (word.as_bytes(), 0, 0);
    while at < bytes.len() {
        value = value * 10 + (bytes[at] - b'0') as u32;
        at += 1;
    }
    value
}

impl Table {
    const fn build() -> Table {
        let mut table =
            Table { len: 0, names: [""; ROOM], numbers: [[NONE; 5]; ROOM], slots: [EMPTY; SLOTS] };
        table.read(numbers::X86_64, Arch::X86_64, 0);
        table.read(numbers::X86, Arch::X86, 0);
        table.read(numbers::X86_64, Arch::X32, X32_BIT);
        // Those that it has not, and those that have another number there.
        table.forget(numbers::NOT_X32, Arch::X32);
        table.read(numbers::X32_OWN, Arch::X32, X32_BIT);
        table.read(numbers::AARCH64, Arch::Aarch64, 0);
        table.read(numbers::ARM, Arch::Arm, 0);
        table.name_all(numbers::SOCKETCALL);
        table.name_all(numbers::IPC);
        table
    }

    /// The place of a name, or the slot where it would be found.
    const fn find(&self, name: &[u8]) -> Result<u16, usize> {
        let mut slot = hash(name);
        while self.slots[slot] != EMPTY {
            if same(self.names[self.slots[slot] as usize].as_bytes(), name) {
                return Ok(self.slots[slot]);
            }
            slot = (slot + 1) % SLOTS;
        }
        Err(slot)
    }

    const fn place(&mut self, name: &'static str) -> usize {
        match self.find(name.as_bytes()) {
            Ok(place) => place as usize,
            Err(slot) => {
                self.names[self.len] = name;
                self.slots[slot] = self.len as u16;
                self.len += 1;
                self.len - 1
            }
        }
    }

    const fn read(&mut self, mut text: &'static str, arch: Arch, bit: u32) {
        let mut next = 0;
        while let Some((first, rest)) = word(text) {
            text = rest;
            // No call's name begins with a digit.
            if first.as_bytes()[0].is_ascii_digit() {
                next = number(first);
            } else {
                let place = self.place(first);
                self.numbers[place][arch as usize] = next | bit;
                next += 1;
            }
        }
    }

    const fn forget(&mut self, mut text: &'static str, arch: Arch) {
        while let Some((first, rest)) = word(text) {
            text = rest;
            let place = self.place(first);
            self.numbers[place][arch as usize] = NONE;
        }
    }

    const fn name_all(&mut self, mut text: &'static str) {
        while let Some((first, rest)) = word(text) {
            text = rest;
            if !same(first.as_bytes(), b"-") {
                self.place(first);
            }
        }
    }
}

impl Call {
    /// The call of that name; `None` when no architecture has it.
    pub(super) fn named(name: &str) -> Option<Call> {
        TABLE.find(name.as_bytes()).ok().map(Call)
    }

    /// Its number there; `None` when that architecture has no such call.
    pub(super) fn number(self, arch: Arch) -> Option<u32> {
        Some(TABLE.numbers[usize::from(self.0)][arch as usize]).filter(|number| *number != NONE)
    }

    /// All of them.
    #[cfg(test)]
    pub(super) fn all() -> impl Iterator<Item = (Call, &'static str)> {
        (0..TABLE.len).map(|place| (Call(place as u16), TABLE.names[place]))
    }
}
