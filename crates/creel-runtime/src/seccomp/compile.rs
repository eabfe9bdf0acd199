//! From rules to a program.

use std::borrow::Cow;

use creel_sys::seccomp::Instruction;
use creel_types::spec::{Seccomp, SyscallArg, SyscallRule};

use super::arch::{Arch, X32_BIT};
use super::assemble::{AND, Assembler, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_EQUAL, LOAD, Label, MAX};
use super::calls::Call;
use super::error::Error;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
/// The kernel's `MAX_ERRNO`.
const MAX_ERRNO: u32 = 4095;

// Offsets in struct seccomp_data.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// What the kernel shall do, as the program's answer (`SECCOMP_RET_*` of `linux/seccomp.h`).
pub(super) mod answer {
    pub(in super::super) const KILL_THREAD: u32 = 0;
    pub(in super::super) const KILL_PROCESS: u32 = 0x8000_0000;
    pub(in super::super) const TRAP: u32 = 0x0003_0000;
    pub(in super::super) const ERRNO: u32 = 0x0005_0000;
    pub(in super::super) const NOTIFY: u32 = 0x7fc0_0000;
    pub(in super::super) const TRACE: u32 = 0x7ff0_0000;
    pub(in super::super) const LOG: u32 = 0x7ffc_0000;
    pub(in super::super) const ALLOW: u32 = 0x7fff_0000;
}

/// Compiles a filter into a classic BPF program for seccomp(2).
///
/// - The native architecture is always covered; a call by an architecture that is not covered kills the process.
/// - Names that no covered architecture has are passed over, as the specification wants.
/// - Rules whose answer is the default's are passed over (libseccomp).
/// - A rule with several conditions on one argument is as many rules, one for each condition (runc, crun: libseccomp takes
///   one condition for each argument); otherwise all conditions of a rule must hold.
/// - On 32-bit x86 a rule about a socket or System V IPC call holds for the multiplexer as well, socketcall(2) or ipc(2),
///   whose first argument then says which call is meant (libseccomp).
/// - For one call, the first rule without conditions wins over all others; else the first rule whose conditions all
///   hold; else the default.
/// - Calls newer than all that the profile names are answered with ENOSYS and not with the default, if the default
///   refuses: programs then fall back to an older call, as they do on an older kernel (runc's way).
///
/// # Errors
/// [`Error::Word`] for an unknown action, operator or architecture; [`Error::Invalid`]; [`Error::TooLong`];
/// [`Error::Machine`].
pub fn compile(filter: &Seccomp) -> Result<Vec<Instruction>, Error> {
    program(filter, &covered(filter, Arch::native()?)?)
}

/// The first name in a filter that no architecture known here has a call for.
pub fn unknown(filter: &Seccomp) -> Option<&str> {
    let known = |name: &str| Call::named(name).is_some();
    filter.syscalls.iter().flat_map(|rule| &rule.names).map(String::as_str).find(|name| !known(name))
}

/// The architectures that a filter covers on a machine: its native one, and those named that have a table here.
pub(super) fn covered(filter: &Seccomp, native: Arch) -> Result<Vec<Arch>, Error> {
    let mut arches = vec![native];
    for word in &filter.architectures {
        if let Some(arch) = Arch::parse(word)?
            && !arches.contains(&arch)
        {
            arches.push(arch);
        }
    }
    Ok(arches)
}

/// [`compile`] for the given architectures.
pub(super) fn program(filter: &Seccomp, arches: &[Arch]) -> Result<Vec<Instruction>, Error> {
    let default = action(&filter.default_action, filter.default_errno_ret)?;
    if default == answer::NOTIFY {
        return Err(Error::Invalid(
            "SCMP_ACT_NOTIFY cannot be the default action: nobody could answer".into(),
        ));
    }
    let rules = filter.syscalls.iter().map(Rule::read).collect::<Result<Vec<_>, _>>()?;
    let profile = Profile::new(&rules);

    let mut out = Assembler::default();
    let mut next = out.answer(answer::KILL_PROCESS);
    let has = |arch: Arch| arches.contains(&arch);
    for arch in arches.iter().rev() {
        let table = match arch {
            // Reached through x86_64's, whose audit number is the same.
            Arch::X32 if has(Arch::X86_64) => continue,
            arch => tree(&mut out, *arch, &profile, default)?,
        };
        let mut body = table;
        if matches!(arch, Arch::X86_64 | Arch::X32) {
            let killed = out.answer(answer::KILL_PROCESS);
            let (native, x32) = match (arch, has(Arch::X32)) {
                (Arch::X32, _) => (killed, table),
                (_, true) => (table, tree(&mut out, Arch::X32, &profile, default)?),
                _ => {
                    // A tracer that skips a call sets its number to -1.
                    let killed = out.answer(answer::KILL_PROCESS);
                    (table, out.branch(JUMP_EQUAL, u32::MAX, table, killed))
                }
            };
            body = out.branch(JUMP_GREATER_EQUAL, X32_BIT, x32, native);
        }
        let body = out.then(LOAD, NUMBER, body);
        next = out.branch(JUMP_EQUAL, arch.audit(), body, next);
    }
    let entry = out.then(LOAD, ARCH, next);
    out.finish(entry).ok_or(Error::TooLong)
}

/// The answer of an action with its error number.
pub(super) fn action(word: &str, errno: Option<u32>) -> Result<u32, Error> {
    let (base, takes_errno) = match word {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => (answer::KILL_THREAD, false),
        "SCMP_ACT_KILL_PROCESS" => (answer::KILL_PROCESS, false),
        "SCMP_ACT_TRAP" => (answer::TRAP, false),
        "SCMP_ACT_ERRNO" => (answer::ERRNO, true),
        "SCMP_ACT_TRACE" => (answer::TRACE, true),
        "SCMP_ACT_ALLOW" => (answer::ALLOW, false),
        "SCMP_ACT_LOG" => (answer::LOG, false),
        "SCMP_ACT_NOTIFY" => (answer::NOTIFY, false),
        _ => return Err(Error::Word { what: "action", word: word.to_owned() }),
    };
    match (takes_errno, errno) {
        (false, None) => Ok(base),
        (false, Some(_)) => Err(Error::Invalid(format!("{word} takes no errnoRet"))),
        (true, errno) => {
            let errno = errno.unwrap_or(EPERM);
            let most = if base == answer::ERRNO { MAX_ERRNO } else { u32::from(u16::MAX) };
            if errno > most {
                return Err(Error::Invalid(format!("errnoRet {errno} of {word} is greater than {most}")));
            }
            Ok(base | errno)
        }
    }
}

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compare {
    Equal,
    Unequal,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Masked { mask: u64 },
}

/// A condition, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) index: u32,
    pub(super) compare: Compare,
    pub(super) value: u64,
}

impl Condition {
    pub(super) fn read(arg: &SyscallArg) -> Result<Condition, Error> {
        if arg.index > 5 {
            return Err(Error::Invalid(format!("argument index {} is not 0 to 5", arg.index)));
        }
        let (compare, value) = match arg.op.as_str() {
            "SCMP_CMP_EQ" => (Compare::Equal, arg.value),
            "SCMP_CMP_NE" => (Compare::Unequal, arg.value),
            "SCMP_CMP_LT" => (Compare::Less, arg.value),
            "SCMP_CMP_LE" => (Compare::LessEqual, arg.value),
            "SCMP_CMP_GT" => (Compare::Greater, arg.value),
            "SCMP_CMP_GE" => (Compare::GreaterEqual, arg.value),
            // What lies outside the mask is not compared (libseccomp).
            "SCMP_CMP_MASKED_EQ" => (Compare::Masked { mask: arg.value }, arg.value_two & arg.value),
            other => return Err(Error::Word { what: "operator", word: other.to_owned() }),
        };
        Ok(Condition { index: arg.index, compare, value })
    }

    /// Writes the test; each half of an argument is loaded by itself, little-endian.
    fn write(self, out: &mut Assembler, narrow: bool, yes: Label, no: Label) -> Label {
        let (low, high) = (self.value as u32, (self.value >> 32) as u32);
        let at = ARGUMENTS + 8 * self.index;
        let masked = |out: &mut Assembler, mask: u32, offset: u32, next: Label| {
            let next = if mask == u32::MAX { next } else { out.then(AND, mask, next) };
            out.then(LOAD, offset, next)
        };
        let (low_test, high_test) = match self.compare {
            Compare::Masked { mask } => {
                let test = out.branch(JUMP_EQUAL, low, yes, no);
                let test = masked(out, mask as u32, at, test);
                if narrow || mask >> 32 == 0 && high == 0 {
                    return test;
                }
                let test = out.branch(JUMP_EQUAL, high, test, no);
                return masked(out, (mask >> 32) as u32, at + 4, test);
            }
            // The high halves decide unless they are equal.
            Compare::Equal => ((JUMP_EQUAL, yes, no), (JUMP_GREATER, no, no)),
            Compare::Unequal => ((JUMP_EQUAL, no, yes), (JUMP_GREATER, yes, yes)),
            Compare::Greater => ((JUMP_GREATER, yes, no), (JUMP_GREATER, yes, no)),
            Compare::GreaterEqual => ((JUMP_GREATER_EQUAL, yes, no), (JUMP_GREATER, yes, no)),
            Compare::Less => ((JUMP_GREATER_EQUAL, no, yes), (JUMP_GREATER, no, yes)),
            Compare::LessEqual => ((JUMP_GREATER, no, yes), (JUMP_GREATER, no, yes)),
        };
        let test = out.branch(low_test.0, low, low_test.1, low_test.2);
        let test = out.then(LOAD, at, test);
        if narrow {
            return test;
        }
        let (code, greater, smaller) = high_test;
        let test = out.branch(JUMP_EQUAL, high, test, smaller);
        let test = if greater == smaller { test } else { out.branch(code, high, greater, test) };
        out.then(LOAD, at + 4, test)
    }
}

/// A rule, read.
#[derive(Debug)]
pub(super) struct Rule<'a> {
    names: &'a [String],
    answer: u32,
    conditions: Vec<Condition>,
}

impl Rule<'_> {
    fn read(rule: &SyscallRule) -> Result<Rule<'_>, Error> {
        if rule.names.is_empty() {
            return Err(Error::Invalid("a rule without names of system calls".into()));
        }
        let answer = action(&rule.action, rule.errno_ret)?;
        let conditions = rule.args.iter().map(Condition::read).collect::<Result<_, _>>()?;
        Ok(Rule { names: &rule.names, answer, conditions })
    }

    /// Sets of conditions, one of which must hold as a whole; `first` is the condition of a multiplexer's first argument
    /// and takes the place of the rule's own.
    fn alternatives(&self, first: Option<Condition>) -> Vec<Cow<'_, [Condition]>> {
        let all = &self.conditions;
        let repeated = (0..all.len()).any(|at| all[..at].iter().any(|before| before.index == all[at].index));
        let sets: Vec<Cow<'_, [Condition]>> = match repeated {
            true => all.chunks(1).map(Cow::Borrowed).collect(),
            false => vec![Cow::Borrowed(all)],
        };
        let Some(first) = first else { return sets };
        let with = |set: Cow<'_, [Condition]>| {
            let others = set.iter().copied().filter(|condition| condition.index != first.index);
            Cow::Owned([first].into_iter().chain(others).collect())
        };
        sets.into_iter().map(with).collect()
    }
}

/// Calls with what happens to them, by number, and the newest call that a filter names.
type Judged<'a> = (Vec<(u32, Verdict<'a>)>, Option<u32>);

/// What happens to one call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict<'a> {
    Answer(u32),
    /// The first of these whose conditions hold answers; else the default.
    Conditional(Vec<(Cow<'a, [Condition]>, u32)>),
}

impl Verdict<'_> {
    /// Takes an answer without conditions, unless there is one already.
    fn answer(&mut self, value: u32) {
        if matches!(self, Verdict::Conditional(_)) {
            *self = Verdict::Answer(value);
        }
    }
}

/// The rules with the calls that each is about; made once for all architectures.
struct Profile<'a> {
    rules: &'a [Rule<'a>],
    /// A call, and the place of a rule that names it.
    named: Vec<(Call, usize)>,
}

impl<'a> Profile<'a> {
    fn new(rules: &'a [Rule<'a>]) -> Profile<'a> {
        let mut named = Vec::with_capacity(rules.iter().map(|rule| rule.names.len()).sum());
        for (index, rule) in rules.iter().enumerate() {
            named.extend(rule.names.iter().filter_map(|name| Some((Call::named(name)?, index))));
        }
        Profile { rules, named }
    }

    /// What happens to the calls of one architecture, by their numbers, and the newest that is named.
    fn verdicts(&self, arch: Arch, default: u32) -> Result<Judged<'a>, Error> {
        let mut named: Vec<(u32, usize, Option<Condition>)> = Vec::with_capacity(self.named.len());
        named.extend(self.named.iter().filter_map(|(call, rule)| Some((call.number(arch)?, *rule, None))));
        for (inner, through, first) in arch.multiplexed() {
            let about = self.named.iter().filter(|(call, _)| *call == inner);
            named.extend(about.filter_map(|(_, rule)| Some((through.number(arch)?, *rule, Some(first)))));
        }
        named.sort_by_key(|(number, rule, _)| (*number, *rule));
        let newest = named.last().map(|(number, ..)| *number);
        let mut verdicts: Vec<(u32, Verdict<'a>)> = Vec::with_capacity(named.len());
        for (number, index, first) in named {
            let rule = &self.rules[index];
            if rule.answer == default {
                continue;
            }
            if verdicts.last().is_none_or(|(last, _)| *last != number) {
                verdicts.push((number, Verdict::Conditional(Vec::new())));
            }
            let Some((_, verdict)) = verdicts.last_mut() else { continue };
            if rule.conditions.is_empty() && first.is_none() {
                verdict.answer(rule.answer);
                continue;
            }
            for conditions in rule.alternatives(first) {
                match verdict {
                    Verdict::Answer(_) => {}
                    // Each takes an instruction and more.
                    Verdict::Conditional(list) if list.len() > MAX => return Err(Error::TooLong),
                    Verdict::Conditional(list) => list.push((conditions, rule.answer)),
                }
            }
        }
        Ok((verdicts, newest))
    }
}

/// Whether the default lets calls through, so that unknown ones need no ENOSYS (a tracer answers for itself).
fn lets_through(default: u32) -> bool {
    matches!(default & 0xffff_0000, answer::ALLOW | answer::LOG | answer::TRACE)
}

/// Writes one architecture's tree; the call's number is in the accumulator.
fn tree(out: &mut Assembler, arch: Arch, profile: &Profile<'_>, default: u32) -> Result<Label, Error> {
    let (verdicts, newest) = profile.verdicts(arch, default)?;
    let unknown = if lets_through(default) { default } else { answer::ERRNO | ENOSYS };
    let mut ranges = Vec::new();
    let mut add = |start: u32, verdict| {
        if ranges.last().is_none_or(|(_, last)| *last != verdict) {
            ranges.push((start, verdict));
        }
    };
    let mut next = 0;
    for (number, verdict) in verdicts {
        if number > next {
            add(next, Verdict::Answer(default));
        }
        add(number, verdict);
        next = number + 1;
    }
    let end = newest.map_or(0, |newest| newest + 1);
    if end > next {
        add(next, Verdict::Answer(default));
    }
    add(end, Verdict::Answer(if newest.is_some() { unknown } else { default }));
    Ok(split(out, &ranges, arch.is_narrow(), default))
}

/// A binary search: the ranges begin at their first element's number and end where the next begins.
fn split(out: &mut Assembler, ranges: &[(u32, Verdict<'_>)], narrow: bool, default: u32) -> Label {
    match ranges {
        [] => out.answer(default),
        [(_, verdict)] => leaf(out, verdict, narrow, default),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let start = high[0].0;
            let high = split(out, high, narrow, default);
            let low = split(out, low, narrow, default);
            out.branch(JUMP_GREATER_EQUAL, start, high, low)
        }
    }
}

fn leaf(out: &mut Assembler, verdict: &Verdict<'_>, narrow: bool, default: u32) -> Label {
    match verdict {
        Verdict::Answer(value) => out.answer(*value),
        Verdict::Conditional(list) => {
            let mut otherwise = out.answer(default);
            for (conditions, value) in list.iter().rev() {
                if out.is_full() {
                    break;
                }
                let mut holds = out.answer(*value);
                for condition in conditions.iter().rev() {
                    holds = condition.write(out, narrow, holds, otherwise);
                }
                otherwise = holds;
            }
            otherwise
        }
    }
}
