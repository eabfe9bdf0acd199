//! Architectures: their audit numbers and their tables of system calls.

use super::calls::Call;
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

    /// The calls that old programs make through another one, which that is, and what its first argument then is
    /// (socketcall(2), ipc(2), which carries a version in the upper half).
    pub(super) fn multiplexed(self) -> impl Iterator<Item = (Call, Call, Condition)> {
        let through = |multiplexer: &'static str, names: &'static str, compare: Compare| {
            (0u64..).zip(names.split_ascii_whitespace()).filter_map(move |(value, name)| {
                Some((Call::named(name)?, Call::named(multiplexer)?, Condition { index: 0, compare, value }))
            })
        };
        let all = || {
            through("socketcall", numbers::SOCKETCALL, Compare::Equal).chain(through(
                "ipc",
                numbers::IPC,
                Compare::Masked { mask: 0xffff },
            ))
        };
        (self == Arch::X86).then(all).into_iter().flatten()
    }

    /// Names and numbers, as `seccomp_data.nr` shows them.
    #[cfg(test)]
    pub(super) fn calls(self) -> std::collections::BTreeMap<&'static str, u32> {
        Call::all().filter_map(|(call, name)| Some((name, call.number(self)?))).collect()
    }
}
