//! Device rules: the eBPF program of v2 decides for each device and access as the rules do, jumps forward only and comes
//! to its end; the v1 list, kept as the kernel keeps it, never allows more than the rules, and says the same of a single
//! access. A list that is there is turned into the wanted one.
#![no_main]

use std::collections::BTreeMap;

use creel_cgroup::{device_lines, device_program};
use creel_fuzz::json;
use creel_types::spec::DeviceRule;
use libfuzzer_sys::fuzz_target;

/// Kind, major and minor number.
type Device = (char, u32, u32);

const ACCESSES: [(u8, char); 3] = [(1, 'm'), (2, 'r'), (4, 'w')];

fn bits(text: &str) -> u8 {
    ACCESSES.iter().filter(|(_, c)| text.contains(*c)).map(|(bit, _)| bit).sum()
}

/// What the specification says of one access: the last rule about it decides.
fn by_rules(rules: &[DeviceRule], device: Device, bit: u8) -> bool {
    let about = |rule: &&DeviceRule| {
        let number = |wanted: Option<i64>, number: u32| match wanted {
            None | Some(-1) => true,
            Some(wanted) => wanted == i64::from(number),
        };
        let access = match rule.access.as_deref() {
            None | Some("") => 7,
            Some(text) if text.contains('a') && !rule.allow => 7,
            Some(text) => bits(text),
        };
        let kind = match rule.kind.as_deref() {
            None | Some("" | "a") => true,
            Some("b") => device.0 == 'b',
            Some(_) => device.0 == 'c',
        };
        kind && number(rule.major, device.1) && number(rule.minor, device.2) && access & bit != 0
    };
    rules.iter().rev().find(about).is_some_and(|rule| rule.allow)
}

/// The kernel's machine, for the operations of such a program.
fn by_program(program: &[creel_sys::bpf::Instruction], device: Device, access: u8) -> bool {
    let kind = if device.0 == 'b' { 1 } else { 2 };
    let context = [u32::from(access) << 16 | kind, device.1, device.2];
    let mut registers = [0u64; 11];
    let mut at = 0;
    loop {
        let one = program[at];
        let (to, from) = (usize::from(one.registers & 15), usize::from(one.registers >> 4));
        at += 1;
        let mut jump = |yes: bool| at += if yes { usize::try_from(one.offset).expect("forward") } else { 0 };
        match one.code {
            0x61 => registers[to] = u64::from(context[one.offset as usize / 4]),
            0x54 => registers[to] = u64::from(registers[to] as u32 & one.immediate as u32),
            0x74 => registers[to] = u64::from(registers[to] as u32 >> one.immediate),
            0xb7 => registers[to] = i64::from(one.immediate) as u64,
            0xbf => registers[to] = registers[from],
            0x15 => jump(registers[to] == i64::from(one.immediate) as u64),
            0x55 => jump(registers[to] != i64::from(one.immediate) as u64),
            0x95 => return registers[0] != 0,
            other => panic!("operation {other:#x}"),
        }
    }
}

/// The kernel's list (security/device_cgroup.c): a default, and exceptions with their bits.
#[derive(Default)]
struct Kernel {
    allow: bool,
    exceptions: BTreeMap<(char, Option<u32>, Option<u32>), u8>,
}

impl Kernel {
    fn write(&mut self, file: &str, line: &str) {
        let allow = file == "devices.allow";
        if line.starts_with('a') {
            *self = Kernel { allow, ..Kernel::default() };
            return;
        }
        let mut words = line.split(' ');
        let kind = words.next().and_then(|word| word.chars().next()).expect("a kind");
        let (major, minor) = words.next().and_then(|word| word.split_once(':')).expect("numbers");
        let number = |text: &str| (text != "*").then(|| text.parse().expect("a number"));
        let key = (kind, number(major), number(minor));
        let access = bits(words.next().expect("an access"));
        assert!(access != 0 && words.next().is_none(), "{line}");
        if allow == self.allow {
            // Only an exception of exactly these numbers is taken back.
            if let Some(there) = self.exceptions.get_mut(&key) {
                *there &= !access;
            }
            self.exceptions.retain(|_, there| *there != 0);
        } else {
            *self.exceptions.entry(key).or_default() |= access;
        }
    }

    fn allows(&self, device: Device, access: u8) -> bool {
        let about = |((kind, major, minor), _): &(&(char, Option<u32>, Option<u32>), &u8)| {
            *kind == device.0 && major.is_none_or(|n| n == device.1) && minor.is_none_or(|n| n == device.2)
        };
        let mut about = self.exceptions.iter().filter(about);
        match self.allow {
            true => !about.any(|(_, there)| there & access != 0),
            false => about.any(|(_, there)| access & !there == 0),
        }
    }

    fn shown(&self) -> String {
        if self.allow {
            return "a *:* rwm\n".into();
        }
        let number = |n: &Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
        let line = |((kind, major, minor), there): (&(char, Option<u32>, Option<u32>), &u8)| {
            let access: String =
                ACCESSES.iter().filter(|(bit, _)| there & bit != 0).map(|(_, c)| c).collect();
            format!("{kind} {}:{} {access}\n", number(major), number(minor))
        };
        self.exceptions.iter().map(line).collect()
    }
}

// JSON, or five bytes for each rule of few numbers, where rules meet; before a 255 is what the group had.
fn read(data: &[u8]) -> Option<Vec<DeviceRule>> {
    if data.first() == Some(&b'[') {
        return json(data);
    }
    let rule = |bytes: &[u8; 5]| {
        let number = |byte: u8| [None, Some(-1), Some(0), Some(1), Some(2)][usize::from(byte) % 5];
        let kinds = [None, Some("a"), Some("b"), Some("c")];
        let accesses =
            [None, Some("r"), Some("w"), Some("m"), Some("rw"), Some("rwm"), Some("wm"), Some("a")];
        DeviceRule {
            allow: bytes[0] & 1 == 1,
            kind: kinds[usize::from(bytes[1]) % 4].map(str::to_owned),
            major: number(bytes[2]),
            minor: number(bytes[3]),
            access: accesses[usize::from(bytes[4]) % 8].map(str::to_owned),
        }
    };
    Some(data.as_chunks().0.iter().take(24).map(rule).collect())
}

fuzz_target!(|data: &[u8]| {
    let (before, wanted) = match data.iter().position(|byte| *byte == 255) {
        Some(at) => (read(&data[..at]), &data[at + 1..]),
        None => (None, data),
    };
    // Whatever a list says, it is read or refused.
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = device_lines(&[], Some(text));
    }
    let Some(rules) = read(wanted) else { return };
    let program = device_program(&rules);
    let mut devices: Vec<Device> = Vec::new();
    for kind in ['b', 'c'] {
        let known = |n: Option<i64>| n.and_then(|n| u32::try_from(n).ok()).unwrap_or(1);
        devices.extend(rules.iter().map(|rule| (kind, known(rule.major), known(rule.minor))));
        devices.extend([(kind, 0, 1), (kind, 1, 0), (kind, 2, 2), (kind, 3, 3)]);
    }
    if let Ok(program) = &program {
        for device in &devices {
            for access in 1..8 {
                let asked = ACCESSES.iter().filter(|(bit, _)| access & bit != 0);
                let meant = asked.map(|(bit, _)| *bit).all(|bit| by_rules(&rules, *device, bit));
                assert_eq!(by_program(program, *device, access), meant, "{device:?} {access} {rules:?}");
            }
        }
    }
    let mut kernel = Kernel { allow: true, ..Kernel::default() };
    let lines = before.as_ref().and_then(|before| device_lines(before, None).ok());
    for (file, line) in lines.iter().flatten() {
        kernel.write(file, line);
    }
    let current = lines.is_some().then(|| kernel.shown());
    let Ok(lines) = device_lines(&rules, current.as_deref()) else { return };
    assert!(program.is_ok(), "v1 takes what v2 does not: {rules:?}");
    for (file, line) in &lines {
        kernel.write(file, line);
    }
    for device in devices {
        for access in 1..8u8 {
            let asked = ACCESSES.iter().filter(|(bit, _)| access & bit != 0);
            let meant = asked.map(|(bit, _)| *bit).all(|bit| by_rules(&rules, device, bit));
            let got = kernel.allows(device, access);
            assert!(!got || meant, "{device:?} {access} {rules:?} {lines:?}");
            assert!(got == meant || access.count_ones() > 1, "{device:?} {access} {rules:?} {lines:?}");
        }
    }
});
