//! System call filters, from Docker's JSON to BPF: what is read is compiled, the program is one that the kernel takes,
//! and run on some calls it gives no answer but those of the profile.
#![no_main]

use creel_runtime::seccomp::{compile, from_docker_json};
use creel_sys::seccomp::Instruction;
use creel_types::spec::Seccomp;
use libfuzzer_sys::fuzz_target;

const KILL_PROCESS: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;
const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;
const NUMBERS: [u32; 10] = [0, 1, 2, 56, 59, 101, 435, 0x4000_0000, 0x4000_0208, u32::MAX];

fuzz_target!(|text: &str| {
    for capabilities in [vec![], vec!["CAP_SYS_ADMIN".to_owned()]] {
        let Ok(filter) = from_docker_json(text, &capabilities) else { continue };
        let program = compile(&filter).expect("what was accepted can be compiled");
        check(&program);
        let answers = answers(&filter);
        for arch in [X86_64, I386, AARCH64, 0] {
            for number in NUMBERS {
                for argument in [0, 1, u32::MAX] {
                    let answer = run(&program, arch, number, argument);
                    assert!(answers.contains(&(answer & 0xffff_0000)), "{answer:#x}");
                    assert!(arch != 0 || answer == KILL_PROCESS, "an architecture that nobody named");
                }
            }
        }
        // The specification's form of it is a profile without conditions.
        let printed = serde_json::to_string(&filter).expect("what was read can be printed");
        assert_eq!(from_docker_json(&printed, &capabilities).as_ref(), Ok(&filter), "{printed}");
    }
});

/// The kinds of answers that a filter's program may give.
fn answers(filter: &Seccomp) -> Vec<u32> {
    let kind = |word: &str| match word {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => 0,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_NOTIFY" => 0x7fc0_0000,
        "SCMP_ACT_TRACE" => 0x7ff0_0000,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_ALLOW" => 0x7fff_0000,
        "SCMP_ACT_ERRNO" => ERRNO,
        "SCMP_ACT_KILL_PROCESS" => KILL_PROCESS,
        other => panic!("{other} was accepted"),
    };
    let named = filter.syscalls.iter().map(|rule| kind(&rule.action)).chain([kind(&filter.default_action)]);
    // Added by the compiler: for architectures that are not covered, and for calls that are too new.
    named.chain([KILL_PROCESS, ERRNO]).collect()
}

/// What the kernel checks (seccomp_check_filter and bpf_check_classic): so no program runs out of its end.
fn check(program: &[Instruction]) {
    assert!((1..=4096).contains(&program.len()));
    for (at, instruction) in program.iter().enumerate() {
        let left = program.len() - at - 1;
        match instruction.code {
            0x20 => assert!(instruction.k <= 60 && instruction.k % 4 == 0),
            0x54 | 0x06 => {}
            0x05 => assert!((instruction.k as usize) < left),
            0x15 | 0x25 | 0x35 => {
                assert!(usize::from(instruction.jt) < left && usize::from(instruction.jf) < left);
            }
            code => panic!("instruction {code:#x}"),
        }
    }
    assert_eq!(program.last().map(|last| last.code), Some(0x06));
}

fn run(program: &[Instruction], arch: u32, number: u32, argument: u32) -> u32 {
    let (mut at, mut value) = (0, 0);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        let branch = |yes: bool| usize::from(if yes { jt } else { jf });
        at += 1;
        match code {
            0x20 => {
                value = match k {
                    0 => number,
                    4 => arch,
                    16.. => argument,
                    _ => 0,
                }
            }
            0x54 => value &= k,
            0x05 => at += k as usize,
            0x15 => at += branch(value == k),
            0x25 => at += branch(value > k),
            0x35 => at += branch(value >= k),
            _ => return k,
        }
    }
}
