//! The compiler against an interpreter of classic BPF and a naive evaluator of the rules.

mod libseccomp;

use creel_sys::seccomp::Instruction;
use creel_types::spec::{Seccomp, SyscallArg, SyscallRule};
use proptest::prelude::*;

use super::arch::{Arch, X32_BIT};
use super::assemble;
use super::compile::{action, answer, program};
use super::docker::read;
use super::{Error, compile, default_profile};

const EPERM: u32 = answer::ERRNO | 1;
const ENOSYS: u32 = answer::ERRNO | 38;

/// `struct seccomp_data`, without the instruction pointer that no program here reads.
#[derive(Debug, Clone, Copy, Default)]
struct Call {
    number: u32,
    arch: u32,
    args: [u64; 6],
}

/// The kernel's machine, as far as the compiler uses it; fails where the kernel's checker would refuse.
fn run(program: &[Instruction], call: Call) -> u32 {
    let mut accumulator = 0u32;
    let mut at = 0usize;
    loop {
        let i = program.get(at).expect("falls off the end");
        at += 1;
        let mut jump = |yes: bool| at += usize::from(if yes { i.jt } else { i.jf });
        match i.code {
            assemble::LOAD => {
                accumulator = match i.k {
                    0 => call.number,
                    4 => call.arch,
                    k @ 16..=60 if k % 4 == 0 => {
                        let word = call.args[(k as usize - 16) / 8];
                        if k % 8 == 0 { word as u32 } else { (word >> 32) as u32 }
                    }
                    k => panic!("load of {k}"),
                }
            }
            assemble::AND => accumulator &= i.k,
            assemble::JUMP => at += i.k as usize,
            assemble::JUMP_EQUAL => jump(accumulator == i.k),
            assemble::JUMP_GREATER => jump(accumulator > i.k),
            assemble::JUMP_GREATER_EQUAL => jump(accumulator >= i.k),
            assemble::RETURN => return i.k,
            code => panic!("operation {code:#x}"),
        }
    }
}

/// What the documentation of `compile` says, word by word and without any cleverness.
fn oracle(filter: &Seccomp, arches: &[Arch], call: Call) -> u32 {
    let x32 = call.arch == Arch::X32.audit() && call.number & X32_BIT != 0;
    let bare_minus_one = x32 && call.number == u32::MAX && !arches.contains(&Arch::X32);
    let wanted = |arch: &&Arch| {
        arch.audit() == call.arch
            && ((**arch == Arch::X32) == (x32 && !bare_minus_one) || call.arch != Arch::X32.audit())
    };
    // Numbers above bit 30 that are not x32's (bit 31 set, bit 30 not) are looked up in x32's table too.
    let high = call.arch == Arch::X32.audit() && call.number >= X32_BIT && !x32;
    let arch = if high { arches.iter().find(|a| **a == Arch::X32) } else { arches.iter().find(wanted) };
    let Some(arch) = arch else { return answer::KILL_PROCESS };
    let default = action(&filter.default_action, filter.default_errno_ret).unwrap();
    let calls = arch.calls();
    let narrow = |value: u64| if arch.is_narrow() { value & 0xffff_ffff } else { value };
    let holds = |arg: &SyscallArg| {
        let (have, value, two) =
            (narrow(call.args[arg.index as usize]), narrow(arg.value), narrow(arg.value_two));
        match arg.op.as_str() {
            "SCMP_CMP_EQ" => have == value,
            "SCMP_CMP_NE" => have != value,
            "SCMP_CMP_LT" => have < value,
            "SCMP_CMP_LE" => have <= value,
            "SCMP_CMP_GT" => have > value,
            "SCMP_CMP_GE" => have >= value,
            "SCMP_CMP_MASKED_EQ" => have & value == two & value,
            other => panic!("{other}"),
        }
    };
    let answer_of = |rule: &SyscallRule| action(&rule.action, rule.errno_ret).unwrap();
    // How the call meets the names of a rule: directly, or through a multiplexer whose first argument is its business.
    let met = |rule: &SyscallRule| -> Vec<bool> {
        let by = |name: &String| {
            let direct = calls.get(name.as_str()) == Some(&call.number);
            let first = call.args[0] as u32;
            let muxed = *arch == Arch::X86
                && match (call.number, mux(name)) {
                    (102, Some((102, number))) => first == number,
                    (117, Some((117, number))) => first & 0xffff == number,
                    _ => false,
                };
            [direct.then_some(false), muxed.then_some(true)]
        };
        rule.names.iter().flat_map(by).flatten().collect()
    };
    let applies = |rule: &SyscallRule, muxed: bool| {
        let mut indexes: Vec<u32> = rule.args.iter().map(|arg| arg.index).collect();
        indexes.sort_unstable();
        indexes.dedup();
        let one = |arg: &SyscallArg| muxed && arg.index == 0 || holds(arg);
        if indexes.len() < rule.args.len() { rule.args.iter().any(one) } else { rule.args.iter().all(one) }
    };
    let rules = || filter.syscalls.iter().filter(|rule| answer_of(rule) != default);
    let always = |rule: &&SyscallRule| rule.args.is_empty() && met(rule).contains(&false);
    if let Some(rule) = rules().find(always) {
        return answer_of(rule);
    }
    if let Some(rule) = rules().find(|rule| met(rule).into_iter().any(|muxed| applies(rule, muxed))) {
        return answer_of(rule);
    }
    let named = filter.syscalls.iter().flat_map(|rule| &rule.names);
    let through = |name: &String| (*arch == Arch::X86).then(|| mux(name)).flatten().map(|(number, _)| number);
    let newest =
        named.flat_map(|name| calls.get(name.as_str()).copied().into_iter().chain(through(name))).max();
    let refuses =
        !["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"].contains(&filter.default_action.as_str());
    if refuses && newest.is_some_and(|newest| call.number > newest) { ENOSYS } else { default }
}

/// The multiplexer of a call on 32-bit x86: its number, and its first argument.
fn mux(name: &str) -> Option<(u32, u32)> {
    Some(match name {
        "socket" => (102, 1),
        "accept" => (102, 5),
        "sendmsg" => (102, 16),
        "shmat" => (117, 21),
        _ => return None,
    })
}

const NAMES: [&str; 29] = [
    "accept",
    "sendmsg",
    "shmat",
    "socketcall",
    "ipc",
    "read",
    "write",
    "open",
    "close",
    "socket",
    "clone",
    "clone3",
    "personality",
    "mmap",
    "mmap2",
    "chown32",
    "futex",
    "futex_time64",
    "ioctl",
    "execve",
    "pidfd_open",
    "openat2",
    "mseal",
    "removexattrat",
    "set_tls",
    "arch_prctl",
    "process_vm_readv",
    "no_such_call",
    "getpid",
];
const OPS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_GT",
    "SCMP_CMP_GE",
    "SCMP_CMP_MASKED_EQ",
];
const ARCHES: [Arch; 5] = [Arch::X86_64, Arch::X86, Arch::X32, Arch::Aarch64, Arch::Arm];

fn any_action() -> impl Strategy<Value = (String, Option<u32>)> {
    prop_oneof![
        proptest::sample::select(vec![
            "SCMP_ACT_KILL",
            "SCMP_ACT_KILL_PROCESS",
            "SCMP_ACT_TRAP",
            "SCMP_ACT_ALLOW",
            "SCMP_ACT_LOG",
        ])
        .prop_map(|word| (word.to_owned(), None)),
        (proptest::sample::select(vec!["SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"]), proptest::option::of(0u32..6))
            .prop_map(|(word, errno)| (word.to_owned(), errno)),
    ]
}

fn any_value() -> impl Strategy<Value = u64> {
    prop_oneof![
        proptest::sample::select(vec![
            0,
            1,
            2,
            0x7e02_0000,
            0xffff_ffff,
            0x1_0000_0000,
            0x1_0000_0001,
            0x2_0000_0000,
            u64::MAX,
            1 << 63,
        ]),
        0u64..4,
        any::<u64>(),
    ]
}

fn any_filter() -> impl Strategy<Value = Seccomp> {
    let arg = (0u32..3, any_value(), any_value(), proptest::sample::select(OPS.to_vec()))
        .prop_map(|(index, value, value_two, op)| SyscallArg { index, value, value_two, op: op.to_owned() });
    let rule = (
        proptest::collection::vec(proptest::sample::select(NAMES.to_vec()), 1..5),
        any_action(),
        proptest::collection::vec(arg, 0..4),
    )
        .prop_map(|(names, (action, errno_ret), args)| SyscallRule {
            names: names.into_iter().map(str::to_owned).collect(),
            action,
            errno_ret,
            args,
        });
    (any_action(), proptest::collection::vec(rule, 0..14)).prop_map(
        |((default_action, default_errno_ret), syscalls)| Seccomp {
            default_action,
            default_errno_ret,
            syscalls,
            ..Seccomp::default()
        },
    )
}

fn any_call() -> impl Strategy<Value = Call> {
    let number = prop_oneof![
        4 => (proptest::sample::select(ARCHES.to_vec()), proptest::sample::select(NAMES.to_vec()), -1i64..2).prop_map(
            |(arch, name, near)| (i64::from(arch.calls().get(name).copied().unwrap_or(0)) + near) as u32
        ),
        1 => 0u32..1000,
        1 => proptest::sample::select(vec![u32::MAX, X32_BIT, X32_BIT - 1, 0x8000_0000, 0xf_0005, 0xf_0006]),
        1 => any::<u32>(),
    ];
    let audit = prop_oneof![
        9 => proptest::sample::select(ARCHES.to_vec()).prop_map(Arch::audit),
        1 => any::<u32>(),
    ];
    (number, audit, proptest::array::uniform6(any_value())).prop_map(|(number, arch, args)| Call {
        number,
        arch,
        args,
    })
}

fn any_arches() -> impl Strategy<Value = Vec<Arch>> {
    proptest::sample::subsequence(ARCHES.to_vec(), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn programs_do_what_the_rules_say(
        filter in any_filter(), arches in any_arches(), calls in proptest::collection::vec(any_call(), 40),
    ) {
        let code = program(&filter, &arches).unwrap();
        for call in calls {
            prop_assert_eq!(run(&code, call), oracle(&filter, &arches, call), "{:x?}\n{:x?}", call, code);
        }
    }

    #[test]
    fn reading_never_panics(text in "(?s).{0,200}") {
        let _ = read(&text, &[], Arch::X86_64, &text);
    }
}

/// A profile whose conditions fill thousands of instructions, so that most jumps go farther than 255.
#[test]
fn far_jumps() {
    let calls = Arch::X86_64.calls();
    let mut names: Vec<_> = calls.keys().map(|name| (*name).to_owned()).collect();
    names.sort();
    let rule = |(i, name): (usize, &String)| SyscallRule {
        names: vec![name.clone()],
        action: if i % 2 == 0 { "SCMP_ACT_ALLOW" } else { "SCMP_ACT_LOG" }.to_owned(),
        errno_ret: None,
        args: vec![SyscallArg {
            index: 1,
            value: i as u64 | 7 << 40,
            value_two: 0,
            op: OPS[i % 6].to_owned(),
        }],
    };
    let filter = Seccomp {
        default_action: "SCMP_ACT_ERRNO".into(),
        syscalls: names.iter().enumerate().map(rule).collect(),
        ..Seccomp::default()
    };
    let code = program(&filter, &[Arch::X86_64]).unwrap();
    assert!(code.len() > 1500, "{}", code.len());
    for number in 0..600 {
        for value in [0, 7 << 40, 7 << 40 | 5, u64::MAX] {
            let call = Call { number, arch: Arch::X86_64.audit(), args: [0, value, 0, 0, 0, 0] };
            assert_eq!(run(&code, call), oracle(&filter, &[Arch::X86_64], call), "{call:x?}");
        }
    }
    let filter = Seccomp { syscalls: [filter.syscalls.clone(), filter.syscalls].concat(), ..filter };
    assert!(matches!(program(&filter, &ARCHES), Err(Error::TooLong)));
}

/// A profile of megabytes is refused before it becomes a program of megabytes.
#[test]
fn huge_profiles_are_refused_in_time() {
    let arg = |value| SyscallArg { index: 0, value, value_two: 0, op: "SCMP_CMP_EQ".into() };
    let rule = |value| SyscallRule {
        names: vec!["read".into(), "write".into()],
        action: "SCMP_ACT_ALLOW".into(),
        errno_ret: None,
        args: vec![arg(value); 6],
    };
    let filter = Seccomp {
        default_action: "SCMP_ACT_ERRNO".into(),
        syscalls: (0..100_000).map(rule).collect(),
        ..Seccomp::default()
    };
    let begun = std::time::Instant::now();
    assert!(matches!(program(&filter, &ARCHES), Err(Error::TooLong)));
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
    // Many rules that say the same of one call are no reason to refuse.
    let same = Seccomp { syscalls: vec![SyscallRule { args: vec![], ..rule(0) }; 100_000], ..filter };
    assert!(program(&same, &ARCHES).unwrap().len() < 200);
}

fn caps(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// The kernel itself, in a thread of its own: a filter and no_new_privs are a thread's, and end with it.
#[test]
fn the_kernel_takes_the_default_profile() {
    use rustix::net::{AddressFamily, SocketType, socket};

    let number = |result: std::io::Result<()>| result.err().and_then(|e| e.raw_os_error());
    let code = compile(&default_profile(&caps(&crate::caps::DOCKER_DEFAULT))).unwrap();
    let filtered = std::thread::spawn(move || {
        creel_sys::process::set_no_new_privs().unwrap();
        creel_sys::seccomp::load(&code, 0).unwrap();
        let made = socket(AddressFamily::UNIX, SocketType::STREAM, None).map(drop);
        let vsock = socket(AddressFamily::VSOCK, SocketType::STREAM, None).map(drop);
        let unshared = creel_sys::ns::unshare(creel_sys::clone::NEWUTS);
        // glibc begins a thread with clone3, is told ENOSYS, and goes on with clone.
        let thread = std::thread::spawn(|| std::fs::read("/proc/self/comm").is_ok()).join();
        (made, vsock, number(unshared), thread.unwrap_or(false))
    });
    let (made, vsock, unshared, thread) = filtered.join().unwrap();
    assert_eq!(made, Ok(()));
    assert_eq!(vsock, Err(rustix::io::Errno::PERM));
    assert_eq!(unshared, Some(1));
    assert!(thread);
}

/// The answer of the default profile, on this architecture.
fn default_answer(capabilities: &[&str], name: &str, args: &[u64]) -> u32 {
    let code = compile(&default_profile(&caps(capabilities))).unwrap();
    let arch = Arch::native().unwrap();
    let mut call = Call { number: arch.calls()[name], arch: arch.audit(), args: [0; 6] };
    call.args[..args.len()].copy_from_slice(args);
    run(&code, call)
}

#[test]
fn the_default_profile_answers_as_docker_does() {
    let none: &[&str] = &[];
    for (capabilities, name, args, want) in [
        (none, "read", &[][..], answer::ALLOW),
        (none, "ptrace", &[], answer::ALLOW),
        (none, "clone", &[0x11], answer::ALLOW),
        (none, "clone", &[0x1000_0011], EPERM),
        (&["CAP_SYS_ADMIN"], "clone", &[0x1000_0011], answer::ALLOW),
        (none, "clone3", &[], ENOSYS),
        (&["CAP_SYS_ADMIN"], "clone3", &[], answer::ALLOW),
        (none, "socket", &[2], answer::ALLOW),
        (none, "socket", &[40], EPERM),
        (&["CAP_SYS_ADMIN"], "socket", &[40], EPERM),
        (none, "personality", &[0], answer::ALLOW),
        (none, "personality", &[0xffff_ffff], answer::ALLOW),
        (none, "personality", &[0x0004_0000], EPERM),
        (none, "io_uring_setup", &[], EPERM),
        (&["CAP_SYS_ADMIN"], "io_uring_enter", &[], EPERM),
        (none, "userfaultfd", &[], EPERM),
        (none, "unshare", &[], EPERM),
        (none, "mount", &[], EPERM),
        (&["CAP_SYS_ADMIN"], "mount", &[], answer::ALLOW),
        (none, "bpf", &[], EPERM),
        (&["CAP_BPF"], "bpf", &[], answer::ALLOW),
        (none, "perf_event_open", &[], EPERM),
        (&["CAP_PERFMON"], "perf_event_open", &[], answer::ALLOW),
        (none, "reboot", &[], EPERM),
        (&["CAP_SYS_BOOT"], "reboot", &[], answer::ALLOW),
        (&["CAP_SYS_CHROOT"], "chroot", &[], answer::ALLOW),
        (none, "chroot", &[], EPERM),
        (&["CAP_DAC_READ_SEARCH"], "open_by_handle_at", &[], answer::ALLOW),
        (&["CAP_SYS_MODULE"], "finit_module", &[], answer::ALLOW),
        (&["CAP_SYS_PACCT"], "acct", &[], answer::ALLOW),
        (&["CAP_SYS_PTRACE"], "kcmp", &[], answer::ALLOW),
        (&["CAP_SYS_TIME"], "clock_settime", &[], answer::ALLOW),
        (&["CAP_SYS_TTY_CONFIG"], "vhangup", &[], answer::ALLOW),
        (&["CAP_SYS_NICE"], "mbind", &[], answer::ALLOW),
        (&["CAP_SYSLOG"], "syslog", &[], answer::ALLOW),
        (none, "keyctl", &[], EPERM),
        (none, "removexattrat", &[], answer::ALLOW),
        (none, "open_tree_attr", &[], ENOSYS),
    ] {
        let got = default_answer(capabilities, name, args);
        assert_eq!(got, want, "{name}({args:x?}) with {capabilities:?}");
    }
}

#[test]
fn the_default_profile_is_small_and_covers_the_sub_architectures() {
    let filter = default_profile(&[]);
    let code = compile(&filter).unwrap();
    assert!(code.len() < 1000, "{} instructions", code.len());
    let native = Arch::native().unwrap();
    let arches = super::compile::covered(&filter, native).unwrap();
    for arch in &arches {
        for number in (0..700).chain([0xf_0001, 0xf_0005, 0xf_0006, 5000]) {
            let number = if *arch == Arch::X32 { number | X32_BIT } else { number };
            for args in [[0; 6], [40; 6], [0x1000_0000; 6]] {
                let call = Call { number, arch: arch.audit(), args };
                assert_eq!(run(&code, call), oracle(&filter, &arches, call), "{arch:?} {call:x?}");
            }
        }
    }
    let foreign = Call { number: 0, arch: 0x1234, args: [0; 6] };
    assert_eq!(run(&code, foreign), answer::KILL_PROCESS);
}

#[test]
fn every_name_of_the_default_profile_is_a_call_of_some_architecture() {
    let all: Vec<_> = ARCHES.iter().map(|arch| arch.calls()).collect();
    // Names that only architectures without a table here have.
    let elsewhere = ["riscv_hwprobe"];
    let every: Vec<&str> = crate::caps::ALL.to_vec();
    for name in default_profile(&caps(&every)).syscalls.iter().flat_map(|rule| &rule.names) {
        let known = all.iter().any(|calls| calls.contains_key(name.as_str()));
        assert!(known || elsewhere.contains(&name.as_str()), "{name}");
    }
}

#[test]
fn tables_agree_with_libc() {
    let native = Arch::native().unwrap().calls();
    for (name, number) in [
        ("read", libc::SYS_read),
        ("execveat", libc::SYS_execveat),
        ("clone3", libc::SYS_clone3),
        ("openat2", libc::SYS_openat2),
        ("mseal", libc::SYS_mseal),
        ("process_mrelease", libc::SYS_process_mrelease),
        ("memfd_secret", libc::SYS_memfd_secret),
        ("rseq", libc::SYS_rseq),
        ("bpf", libc::SYS_bpf),
        ("mount_setattr", libc::SYS_mount_setattr),
    ] {
        assert_eq!(i64::from(native[name]), number, "{name}");
    }
    // A sample of the other tables, from the kernel's.
    for (arch, name, number) in [
        (Arch::X86, "socketcall", 102),
        (Arch::X86, "clock_gettime64", 403),
        (Arch::X86, "socket", 359),
        (Arch::X32, "read", X32_BIT),
        (Arch::X32, "execve", X32_BIT | 520),
        (Arch::X32, "preadv2", X32_BIT | 546),
        (Arch::Aarch64, "openat", 56),
        (Arch::Aarch64, "clone", 220),
        (Arch::Aarch64, "fcntl", 25),
        (Arch::Aarch64, "memfd_secret", 447),
        (Arch::Arm, "set_tls", 0xf_0005),
        (Arch::Arm, "arm_fadvise64_64", 270),
        (Arch::Arm, "socket", 281),
        (Arch::Arm, "futex_time64", 422),
    ] {
        assert_eq!(arch.calls()[name], number, "{arch:?} {name}");
    }
    assert!(!Arch::X32.calls().contains_key("uselib"));
}

#[test]
fn docker_profiles() {
    let json = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 5,
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
            {"architecture": "SCMP_ARCH_S390X", "subArchitectures": null}
        ],
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": null, "includes": {}, "comment": "as ever"},
            {"name": "write", "action": "SCMP_ACT_ALLOW"},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN", "CAP_CHOWN"]}},
            {"names": ["umount2"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["open"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390x", "amd64"]}},
            {"names": ["close"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["amd64"]}},
            {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "6.19"}},
            {"names": ["kcmp"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38,
             "args": [{"index": 1, "value": 18446744073709551615, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"}]}
        ]
    }"#;
    let names = |capabilities: &[&str]| -> Vec<String> {
        let filter = read(json, &caps(capabilities), Arch::X86_64, "6.18.44-x").unwrap();
        filter.syscalls.iter().flat_map(|rule| rule.names.clone()).collect()
    };
    assert_eq!(names(&[]), ["read", "write", "umount2", "open", "ptrace", "kcmp"]);
    assert_eq!(names(&["CAP_SYS_ADMIN"]), ["read", "write", "open", "ptrace", "kcmp"]);
    assert_eq!(names(&["CAP_SYS_ADMIN", "CAP_CHOWN"]), ["read", "write", "mount", "open", "ptrace", "kcmp"]);
    let filter = read(json, &[], Arch::X86_64, "6.18").unwrap();
    assert_eq!(filter.architectures, ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]);
    assert_eq!(filter.default_errno_ret, Some(5));
    assert_eq!(filter.syscalls[5].args[0].value, u64::MAX);
    assert_eq!(filter.syscalls[5].args[0].value_two, 3);
}

#[test]
fn wrong_profiles_are_refused_with_a_reason() {
    let rule = |rule: &str| format!(r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{rule}]}}"#);
    for (json, want) in [
        ("[]".to_owned(), "not valid JSON"),
        ("{".to_owned(), "not valid JSON"),
        ("{}".to_owned(), "defaultAction is missing"),
        (r#"{"defaultAction": "ALLOW"}"#.to_owned(), "unknown seccomp action \"ALLOW\""),
        (r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#.to_owned(), "cannot be the default"),
        (r#"{"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}"#.to_owned(), "takes no errnoRet"),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_Z80"]}"#.to_owned(),
            "SCMP_ARCH_Z80",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"],
                "archMap": [{"architecture": "SCMP_ARCH_X86"}]}"#
                .to_owned(),
            "both given",
        ),
        (rule(r#"{"action": "SCMP_ACT_ALLOW"}"#), "without names"),
        (rule(r#"{"names": ["a"], "name": "b", "action": "SCMP_ACT_ALLOW"}"#), "both given"),
        (rule(r#"{"names": ["a"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5000}"#), "greater than 4095"),
        (
            rule(
                r#"{"names": ["a"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 6, "op": "SCMP_CMP_EQ"}]}"#,
            ),
            "index",
        ),
        (
            rule(r#"{"names": ["a"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "op": "=="}]}"#),
            "operator",
        ),
        (
            rule(r#"{"names": ["a"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "new"}}"#),
            "minKernel",
        ),
    ] {
        let error = read(&json, &[], Arch::X86_64, "6.1").unwrap_err().to_string();
        assert!(error.contains(want), "{json}: {error}");
    }
}
