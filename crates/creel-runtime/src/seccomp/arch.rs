//! Architectures: their audit numbers and their tables of system calls.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::compile::{Compare, Condition};
use super::error::Error;
use super::numbers;

/// An architecture whose system calls are known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Arch {
    X86_64,
    X86,
    /// The x86_64 calls with 32-bit pointers: the same audit number, and bit 30 of the call's number set.
    X32,
    Aarch64,
    Arm,
}

/// Bit 30 of a call's number (`__X32_SYSCALL_BIT`).
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// Architectures that the specification names and that have no table here. Calls by them are not let through.
const OTHERS: [&str; 22] = [
    "MIPS",
    "MIPS64",
    "MIPS64N32",
    "MIPSEL",
    "MIPSEL64",
    "MIPSEL64N32",
    "PPC",
    "PPC64",
    "PPC64LE",
    "S390",
    "S390X",
    "PARISC",
    "PARISC64",
    "RISCV64",
    "LOONGARCH64",
    "M68K",
    "SH",
    "SHEB",
    "ALPHA",
    "SPARC",
    "SPARC64",
    "RISCV32",
];

impl Arch {
    /// The one that this program runs on.
    pub(super) fn native() -> Result<Arch, Error> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Arch::X86_64),
            "aarch64" => Ok(Arch::Aarch64),
            other => Err(Error::Machine(other)),
        }
    }

    /// From the specification's word; `None` for one that is known but has no table here.
    pub(super) fn parse(word: &str) -> Result<Option<Arch>, Error> {
        let unknown = || Error::Word { what: "architecture", word: word.to_owned() };
        match word.strip_prefix("SCMP_ARCH_").ok_or_else(unknown)? {
            "X86_64" => Ok(Some(Arch::X86_64)),
            "X86" => Ok(Some(Arch::X86)),
            "X32" => Ok(Some(Arch::X32)),
            "AARCH64" => Ok(Some(Arch::Aarch64)),
            "ARM" => Ok(Some(Arch::Arm)),
            other if OTHERS.contains(&other) => Ok(None),
            _ => Err(unknown()),
        }
    }

    /// The specification's word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Arch::X86_64 => "SCMP_ARCH_X86_64",
            Arch::X86 => "SCMP_ARCH_X86",
            Arch::X32 => "SCMP_ARCH_X32",
            Arch::Aarch64 => "SCMP_ARCH_AARCH64",
            Arch::Arm => "SCMP_ARCH_ARM",
        }
    }

    /// The word by which Docker's profiles name it among `arches` (libseccomp's).
    pub(super) fn docker_word(self) -> &'static str {
        match self {
            Arch::X86_64 => "amd64",
            Arch::X86 => "x86",
            Arch::X32 => "x32",
            Arch::Aarch64 => "arm64",
            Arch::Arm => "arm",
        }
    }

    /// `seccomp_data.arch` (`AUDIT_ARCH_*` of `linux/audit.h`).
    pub(super) fn audit(self) -> u32 {
        match self {
            Arch::X86_64 | Arch::X32 => 0xc000_003e,
            Arch::X86 => 0x4000_0003,
            Arch::Aarch64 => 0xc000_00b7,
            Arch::Arm => 0x4000_0028,
        }
    }

    /// Whether arguments have 32 bits, so that the upper halves of values to compare with do not count.
    pub(super) fn is_narrow(self) -> bool {
        matches!(self, Arch::X86 | Arch::Arm)
    }

    /// The calls that old programs make through another one, and what its first argument then is (socketcall(2), ipc(2),
    /// which carries a version in the upper half).
    pub(super) fn multiplexed(self) -> Names<(&'static str, Condition)> {
        let mut names = Names::default();
        if self == Arch::X86 {
            let numbered = |names: &'static str| (0u64..).zip(names.split_ascii_whitespace());
            names.extend(numbered(numbers::SOCKETCALL).map(|(value, name)| {
                (name, ("socketcall", Condition { index: 0, compare: Compare::Equal, value }))
            }));
            names.extend(numbered(numbers::IPC).map(|(value, name)| {
                (name, ("ipc", Condition { index: 0, compare: Compare::Masked { mask: 0xffff }, value }))
            }));
        }
        names
    }

    /// Names and numbers, as `seccomp_data.nr` shows them.
    pub(super) fn calls(self) -> Names<u32> {
        let mut calls = Names::with_capacity_and_hasher(512, Default::default());
        self.each_call(|name, number| {
            calls.insert(name, number);
        });
        calls
    }

    /// Calls `visit` with every name and number; nothing is put into a table.
    pub(super) fn each_call(self, mut visit: impl FnMut(&'static str, u32)) {
        match self {
            Arch::X86_64 => read(numbers::X86_64, 0, visit),
            Arch::X86 => read(numbers::X86, 0, visit),
            Arch::X32 => {
                // Those that it has not, and those that have another number there.
                let words =
                    [numbers::NOT_X32, numbers::X32_OWN].into_iter().flat_map(str::split_ascii_whitespace);
                let others: Names<()> = words.map(|name| (name, ())).collect();
                read(numbers::X86_64, X32_BIT, |name, number| {
                    if !others.contains_key(name) {
                        visit(name, number);
                    }
                });
                read(numbers::X32_OWN, X32_BIT, visit);
            }
            Arch::Aarch64 => read(numbers::AARCH64, 0, visit),
            Arch::Arm => read(numbers::ARM, 0, visit),
        }
    }
}

fn read(table: &'static str, bit: u32, mut visit: impl FnMut(&'static str, u32)) {
    let mut next = 0;
    for word in table.split_ascii_whitespace() {
        // No call's name begins with a digit.
        if let Some(number) = word.as_bytes()[0].is_ascii_digit().then(|| word.parse().ok()).flatten() {
            next = number;
            continue;
        }
        visit(word, next | bit);
        next += 1;
    }
}

/// Facts by the name of a call. Only names of the kernel's own tables are put in, so that nobody can choose ones that
/// collide, and a hash that is made in a few nanoseconds will do.
pub(super) type Names<T> = HashMap<&'static str, T, BuildHasherDefault<NameHasher>>;

/// FNV-1a.
#[derive(Debug, Clone, Copy)]
pub(super) struct NameHasher(u64);

impl Default for NameHasher {
    fn default() -> NameHasher {
        NameHasher(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
