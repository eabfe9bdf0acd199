//! Device rules as an eBPF program for cgroup v2 (`BPF_PROG_TYPE_CGROUP_DEVICE`; `cgroup-v2.rst`, "Device controller").
//!
//! The kernel asks the program on each open and mknod of a device; the answer 0 is EPERM. The program walks the rules
//! from the last to the first and keeps the bits of access that no rule has granted yet.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use creel_sys::bpf::{self, Instruction};
use creel_types::spec::DeviceRule;

use crate::devices::{ALL, Kind, Rule};
use crate::error::{Error, Result};

// Registers: 1 is the context at the start; the others are ours.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const LEFT: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

const LOAD_WORD: u8 = 0x61;
const AND32: u8 = 0x54;
const SHIFT_RIGHT32: u8 = 0x74;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const JUMP_EQUAL: u8 = 0x15;
const JUMP_UNEQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

const BPF_DEVCG_DEV_BLOCK: i32 = 1;
const BPF_DEVCG_DEV_CHAR: i32 = 2;

/// By which our own program is known.
const NAME: &str = "creel_devices";

fn op(code: u8, target: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: target | source << 4, offset, immediate }
}

/// The program of a list of rules.
pub(crate) fn build(rules: &[DeviceRule]) -> Result<Vec<Instruction>> {
    let rules = rules.iter().map(Rule::parse).collect::<Result<Vec<_>>>()?;
    // struct bpf_cgroup_dev_ctx { __u32 access_type /* access << 16 | type */, major, minor; }
    let mut program = vec![
        op(LOAD_WORD, KIND, CONTEXT, 0, 0),
        op(MOVE_REGISTER, LEFT, KIND, 0, 0),
        op(AND32, KIND, 0, 0, 0xffff),
        op(SHIFT_RIGHT32, LEFT, 0, 0, 16),
        op(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        op(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules.iter().rev() {
        program.extend(block(*rule));
        if rule.is_total() {
            // Nothing gets past it, and the verifier refuses what cannot be reached.
            return Ok(program);
        }
    }
    program.extend([op(MOVE, ANSWER, 0, 0, 0), op(EXIT, 0, 0, 0, 0)]);
    Ok(program)
}

fn block(rule: Rule) -> Vec<Instruction> {
    let bits = i32::from(rule.access);
    let mut action = Vec::new();
    if rule.access != ALL {
        if rule.allow {
            action.extend([op(AND32, LEFT, 0, 0, !bits & i32::from(ALL)), op(JUMP_UNEQUAL, LEFT, 0, 2, 0)]);
        } else {
            action.extend([
                op(MOVE_REGISTER, ANSWER, LEFT, 0, 0),
                op(AND32, ANSWER, 0, 0, bits),
                op(JUMP_EQUAL, ANSWER, 0, 2, 0),
            ]);
        }
    }
    action.extend([op(MOVE, ANSWER, 0, 0, i32::from(rule.allow)), op(EXIT, 0, 0, 0, 0)]);
    let kind = rule.kind.map(|kind| match kind {
        Kind::Block => (KIND, BPF_DEVCG_DEV_BLOCK),
        Kind::Char => (KIND, BPF_DEVCG_DEV_CHAR),
    });
    // Numbers are below 2^20 (Rule::parse).
    let number = |register: u8, n: Option<u32>| n.map(|n| (register, n as i32));
    let tests: Vec<(u8, i32)> =
        [kind, number(MAJOR, rule.major), number(MINOR, rule.minor)].into_iter().flatten().collect();
    let mut block = Vec::new();
    for (i, (register, value)) in tests.iter().enumerate() {
        let skip = tests.len() - i - 1 + action.len();
        block.push(op(JUMP_UNEQUAL, *register, 0, skip as i16, *value));
    }
    block.extend(action);
    block
}

/// Loads the rules' program and attaches it to a group, in place of the one that is there.
pub(crate) fn attach(dir: &Path, rules: &[DeviceRule]) -> Result<()> {
    let program = build(rules)?;
    let fail = |action: &'static str, log: String| {
        move |cause: io::Error| Error::Program { action, dir: dir.to_path_buf(), cause, log }
    };
    let group = File::open(dir).map_err(|cause| Error::file("open", dir, cause))?;
    let loaded = match bpf::load_device_program(&program, NAME, &mut []) {
        Ok(fd) => fd,
        Err(cause) => {
            // Once more for the verifier's words.
            let mut log = vec![0u8; 16 * 1024];
            let cause = bpf::load_device_program(&program, NAME, &mut log).err().unwrap_or(cause);
            let text = log.split(|b| *b == 0).next().unwrap_or_default();
            let text = String::from_utf8_lossy(text);
            let log = if text.is_empty() { String::new() } else { format!("\n{}", text.trim_end()) };
            return Err(fail("load", log)(cause));
        }
    };
    let mut old = None;
    // Others' programs (systemd's, for a unit with DevicePolicy=) stay: what is allowed is what all of them allow.
    for id in bpf::query_device(&group).map_err(fail("find", String::new()))? {
        let program = bpf::program_by_id(id).map_err(fail("open", String::new()))?;
        if bpf::program_name(&program).map_err(fail("name", String::new()))? == NAME {
            old = Some(program);
        }
    }
    bpf::attach_device(&group, &loaded, old.as_ref().map(AsFd::as_fd)).map_err(fail("attach", String::new()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::tests::{any_device, any_rule, oracle, rule};
    use proptest::prelude::*;

    /// What the kernel's machine does with the operations that are used here.
    fn run(program: &[Instruction], kind: Kind, major: u32, minor: u32, access: u8) -> bool {
        let kind = if kind == Kind::Block { 1 } else { 2 };
        let context = [u32::from(access) << 16 | kind, major, minor];
        let mut r = [0u64; 11];
        let mut at = 0usize;
        loop {
            let i = program[at];
            let (dst, src) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            let immediate = i64::from(i.immediate) as u64;
            at += 1;
            let mut jump = |yes: bool| {
                assert!(i.offset >= 0);
                if yes {
                    at += i.offset as usize;
                }
            };
            match i.code {
                LOAD_WORD => r[dst] = u64::from(context[i.offset as usize / 4]),
                AND32 => r[dst] = u64::from(r[dst] as u32 & i.immediate as u32),
                SHIFT_RIGHT32 => r[dst] = u64::from((r[dst] as u32) >> i.immediate),
                MOVE => r[dst] = immediate,
                MOVE_REGISTER => r[dst] = r[src],
                JUMP_EQUAL => jump(r[dst] == immediate),
                JUMP_UNEQUAL => jump(r[dst] != immediate),
                EXIT => return r[0] != 0,
                other => panic!("operation {other:#x}"),
            }
        }
    }

    #[test]
    fn nothing_is_unreachable_after_a_total_rule() {
        let program = build(&["allow c 1:3 rwm", "deny a *:* rwm"].map(rule)).unwrap();
        assert_eq!(program.len(), 8);
        assert!(!run(&program, Kind::Char, 1, 3, 2));
    }

    proptest! {
        #[test]
        fn the_program_is_the_rules(
            rules in proptest::collection::vec(any_rule(), 1..12), device in any_device(),
        ) {
            let (kind, major, minor, access) = device;
            let program = build(&rules).unwrap();
            prop_assert_eq!(run(&program, kind, major, minor, access), oracle(&rules, kind, major, minor, access));
        }
    }
}
