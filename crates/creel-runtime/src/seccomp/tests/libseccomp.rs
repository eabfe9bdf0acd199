//! The compiler against libseccomp itself, through its Python binding (Debian: python3-seccomp), where that is installed.
//!
//! Compared are the answers to random calls, as both programs give them. Left out is what differs on purpose: calls newer
//! than all that a profile names, architectures that it does not cover, and overlapping rules of one call that answer
//! differently, which libseccomp leaves undefined.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use creel_sys::seccomp::Instruction;
use creel_types::spec::{Seccomp, SyscallArg, SyscallRule};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::json;

use super::{ARCHES, Arch, Call, NAMES, OPS, action, any_call, any_value, mux, program, run};
use crate::seccomp::arch::X32_BIT;

/// Reads a profile in a line, writes its program in a line: 16 hexadecimal digits for an instruction.
const ORACLE: &str = r#"
import json, os, sys, seccomp
WORDS = {"SCMP_ACT_KILL": lambda n: seccomp.KILL, "SCMP_ACT_KILL_PROCESS": lambda n: seccomp.KILL_PROCESS,
         "SCMP_ACT_TRAP": lambda n: seccomp.TRAP, "SCMP_ACT_ALLOW": lambda n: seccomp.ALLOW,
         "SCMP_ACT_LOG": lambda n: seccomp.LOG, "SCMP_ACT_NOTIFY": lambda n: seccomp.NOTIFY,
         "SCMP_ACT_ERRNO": seccomp.ERRNO, "SCMP_ACT_TRACE": seccomp.TRACE}
print("ready", flush=True)
for line in sys.stdin:
    wanted = json.loads(line)
    f = seccomp.SyscallFilter(WORDS[wanted["default"][0]](wanted["default"][1]))
    for arch in wanted["arches"]:
        if not f.exist_arch(getattr(seccomp.Arch, arch)):
            f.add_arch(getattr(seccomp.Arch, arch))
    for name, (word, number), args in wanted["rules"]:
        args = [seccomp.Arg(i, getattr(seccomp, op), *([a, b] if op == "MASKED_EQ" else [a])) for i, op, a, b in args]
        try:
            f.add_rule(WORDS[word](number), name, *args)
        except RuntimeError as e:
            if "exist" not in str(e).lower() and "17" not in str(e):
                raise
    r, w = os.pipe()
    out = os.fdopen(w, "wb", buffering=0)
    # A program has at most 32 KiB, and the pipe holds 64.
    f.export_bpf(out)
    out.close()
    data = b""
    while chunk := os.read(r, 1 << 16):
        data += chunk
    os.close(r)
    print(data.hex(), flush=True)
"#;

struct Oracle {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Oracle {
    fn start() -> Option<Oracle> {
        let mut child = Command::new("/usr/bin/python3")
            .args(["-c", ORACLE])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let (questions, answers) = (child.stdin.take()?, BufReader::new(child.stdout.take()?));
        let mut oracle = Oracle { child, questions, answers };
        (oracle.line() == "ready").then_some(oracle)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_string()
    }

    fn compile(&mut self, filter: &Seccomp, arches: &[Arch]) -> Vec<Instruction> {
        let words = |word: &str, errno: Option<u32>| json!([word, errno.unwrap_or(1)]);
        let default = action(&filter.default_action, filter.default_errno_ret).unwrap();
        let mut rules = Vec::new();
        for rule in
            filter.syscalls.iter().filter(|rule| action(&rule.action, rule.errno_ret).unwrap() != default)
        {
            for name in &rule.names {
                let args: Vec<_> = rule
                    .args
                    .iter()
                    .map(|arg| {
                        json!([
                            arg.index,
                            arg.op.strip_prefix("SCMP_CMP_").unwrap(),
                            arg.value,
                            arg.value_two
                        ])
                    })
                    .collect();
                rules.push(json!([name, words(&rule.action, rule.errno_ret), args]));
            }
        }
        let question = json!({
            "default": words(&filter.default_action, filter.default_errno_ret),
            "arches": arches.iter().map(|arch| arch.word().strip_prefix("SCMP_ARCH_").unwrap()).collect::<Vec<_>>(),
            "rules": rules,
        });
        writeln!(self.questions, "{question}").unwrap();
        let line = self.line();
        let bytes: Vec<u8> = (0..line.len() / 2)
            .map(|at| u8::from_str_radix(&line[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        assert!(!bytes.is_empty(), "libseccomp refused {question}");
        bytes
            .chunks(8)
            .map(|b| Instruction {
                code: u16::from_le_bytes([b[0], b[1]]),
                jt: b[2],
                jf: b[3],
                k: u32::from_le_bytes([b[4], b[5], b[6], b[7]]),
            })
            .collect()
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Without `SCMP_CMP_NE`: libseccomp 2.5 does not find 1 << 63 unequal to 0, which it is.
fn compared_operators() -> Vec<&'static str> {
    OPS.into_iter().filter(|op| *op != "SCMP_CMP_NE").collect()
}

/// Names that libseccomp 2.5 knows.
fn known() -> Vec<&'static str> {
    let newer = ["mseal", "removexattrat", "no_such_call"];
    NAMES.into_iter().filter(|name| !newer.contains(name)).collect()
}

const ORDERINGS: [&str; 4] = ["SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_GT", "SCMP_CMP_GE"];

/// Profiles in which the rules about one call agree on the answer.
fn any_filter() -> impl Strategy<Value = Seccomp> {
    let actions = ["KILL_PROCESS", "TRAP", "ALLOW", "LOG", "NOTIFY", "ERRNO", "TRACE"];
    let arg = (0u32..4, any_value(), any_value(), proptest::sample::select(compared_operators()))
        .prop_map(|(index, value, value_two, op)| SyscallArg { index, value, value_two, op: op.to_owned() });
    let args = proptest::collection::vec(arg, 0..4).prop_map(|mut args| {
        args.sort_by_key(|arg| arg.index);
        args.dedup_by_key(|arg| arg.index);
        args
    });
    let call = (proptest::sample::select(actions.to_vec()), 2u32..9, proptest::collection::vec(args, 1..4));
    let calls = proptest::collection::btree_map(proptest::sample::select(known()), call, 0..10);
    let default = proptest::sample::select(vec!["KILL_PROCESS", "TRAP", "ALLOW", "LOG", "ERRNO", "TRACE"]);
    (default, calls).prop_map(|(default, calls)| {
        let errno = |word: &str, number| ["ERRNO", "TRACE"].contains(&word).then_some(number);
        // What a multiplexer does is decided by several names, which have to agree, too.
        let mut shared: std::collections::HashMap<u32, (&str, u32)> = std::collections::HashMap::new();
        let mut syscalls = Vec::new();
        for (name, (word, number, lists)) in calls {
            let group = match name {
                "socketcall" => Some(102),
                "ipc" => Some(117),
                other => mux(other).map(|(number, _)| number),
            };
            let (word, number) = match group {
                Some(group) => *shared.entry(group).or_insert((word, number)),
                None => (word, number),
            };
            let several = lists.len() > 1;
            for mut args in lists {
                // libseccomp 2.5.4 answers wrongly about orderings with a value whose lower half is 0, and loses one of
                // several orderings of the same argument.
                let misread = |arg: &&mut SyscallArg| {
                    ORDERINGS.contains(&arg.op.as_str()) && (several || arg.value as u32 == 0)
                };
                for arg in args.iter_mut().filter(misread) {
                    arg.op = "SCMP_CMP_EQ".into();
                }
                syscalls.push(SyscallRule {
                    names: vec![name.to_owned()],
                    action: format!("SCMP_ACT_{word}"),
                    errno_ret: errno(word, number),
                    args,
                });
            }
        }
        Seccomp {
            default_action: format!("SCMP_ACT_{default}"),
            default_errno_ret: errno(default, 1),
            syscalls,
            ..Seccomp::default()
        }
    })
}

#[test]
fn answers_are_libseccomps() {
    let Some(mut oracle) = Oracle::start() else {
        println!("skipped: needs python3-seccomp");
        return;
    };
    // Without x32: libseccomp compares only half of what such a call hands to the kernel, and beside x86_64 forgets half
    // of what that one does.
    let others = ARCHES.into_iter().filter(|arch| *arch != Arch::X32).collect::<Vec<_>>();
    let arches = proptest::sample::subsequence(others, 1..4);
    let calls = proptest::collection::vec(any_call(), 60);
    let config = Config { cases: 150, max_shrink_iters: 300, failure_persistence: None, ..Config::default() };
    // The same profiles every time, unless asked otherwise: whether a change lands is no matter of chance.
    let mut runner = match std::env::var_os("CREEL_TEST_RANDOM") {
        Some(_) => TestRunner::new(config),
        None => {
            let numbers = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
            TestRunner::new_with_rng(config, numbers)
        }
    };
    let compared = std::cell::Cell::new(0);
    let oracle = std::cell::RefCell::new(&mut oracle);
    runner
        .run(&(any_filter(), arches, calls), |(filter, mut arches, calls)| {
            // libseccomp always covers the machine's own.
            let native = Arch::native().unwrap();
            if !arches.contains(&native) {
                arches.insert(0, native);
            }
            let ours = program(&filter, &arches).unwrap();
            let theirs = oracle.borrow_mut().compile(&filter, &arches);
            for call in calls {
                if !comparable(&filter, &arches, call) {
                    continue;
                }
                compared.set(compared.get() + 1);
                prop_assert_eq!(
                    run(&ours, call),
                    run(&theirs, call),
                    "{:x?}\n{:?} {:x?}",
                    call,
                    arches,
                    filter
                );
            }
            Ok(())
        })
        .unwrap();
    assert!(compared.get() > 1000, "only {} calls were compared", compared.get());
}

fn comparable(filter: &Seccomp, arches: &[Arch], call: Call) -> bool {
    let of = |arch: &&Arch| {
        arch.audit() == call.arch
            && (call.arch != Arch::X32.audit() || (**arch == Arch::X32) == (call.number & X32_BIT != 0))
    };
    let Some(arch) = arches.iter().find(of) else { return false };
    // An upper half of the ipc call's number is a version, which libseccomp does not look past.
    if *arch == Arch::X86 && call.number == 117 && call.args[0] as u32 > 0xffff {
        return false;
    }
    let numbers = arch.calls();
    let newest = filter
        .syscalls
        .iter()
        .flat_map(|rule| &rule.names)
        .filter_map(|name| numbers.get(name.as_str()))
        .max();
    newest.is_some_and(|newest| call.number <= *newest)
}
