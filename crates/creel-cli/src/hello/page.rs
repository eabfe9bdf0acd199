//! The page that `hello` prints.

use std::fmt::Write as _;

use super::facts::{Facts, KNOWN_CAPABILITIES};
use crate::units;

/// Columns between the frame's sides.
const WIDTH: usize = 76;

struct Page {
    text: String,
    colour: bool,
}

impl Page {
    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn rule(&mut self, left: char, right: char, title: &str) {
        let title = if title.is_empty() { String::new() } else { format!(" {title} ") };
        let dashes = "─".repeat((WIDTH + 1).saturating_sub(title.chars().count()));
        let (open, close) =
            (self.paint("36", &format!("{left}─")), self.paint("36", &format!("{dashes}{right}")));
        let title = self.paint("1;36", &title);
        let _ = writeln!(self.text, "{open}{title}{close}");
    }

    /// One framed line; `painted` is `plain` with colours in it.
    fn line(&mut self, plain: &str, painted: &str) {
        let pad = " ".repeat(WIDTH.saturating_sub(plain.chars().count()));
        let side = self.paint("36", "│");
        let _ = writeln!(self.text, "{side} {painted}{pad} {side}");
    }

    fn words(&mut self, text: &str) {
        for line in wrap(text, WIDTH) {
            self.line(&line, &line);
        }
    }

    /// A fact: its name, what holds, and in dim letters what it means.
    fn fact(&mut self, name: &str, value: &str, meaning: &str) {
        const INDENT: usize = 14;
        for (n, piece) in wrap(value, WIDTH - INDENT).into_iter().enumerate() {
            let label = if n == 0 { name } else { "" };
            let plain = format!("{label:<INDENT$}{piece}");
            let painted =
                format!("{}{}", self.paint("1", &format!("{label:<INDENT$}")), self.paint("32", &piece));
            self.line(&plain, &painted);
        }
        if !meaning.is_empty() {
            for piece in wrap(meaning, WIDTH - INDENT) {
                let plain = format!("{:INDENT$}{piece}", "");
                let painted = format!("{:INDENT$}{}", "", self.paint("2", &piece));
                self.line(&plain, &painted);
            }
        }
    }
}

/// Breaks a text into lines of at most `width` characters, at spaces where possible.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        while let Some(line) = lines.last_mut() {
            let used = line.chars().count();
            let gap = usize::from(used > 0);
            if used + gap + word.len() <= width {
                if gap == 1 {
                    line.push(' ');
                }
                line.extend(word.iter());
                break;
            }
            if used > 0 {
                lines.push(String::new());
                continue;
            }
            line.extend(word.drain(..width));
            lines.push(String::new());
        }
    }
    lines
}

fn unknown() -> String {
    "not to be seen from here".to_owned()
}

fn limits(facts: &Facts) -> String {
    let show = |value: &Option<Option<u64>>, print: &dyn Fn(u64) -> String| match value {
        None => "unknown".to_owned(),
        Some(None) => "no limit".to_owned(),
        Some(Some(n)) => print(*n),
    };
    let memory = show(&facts.memory, &|n| units::bytes_size(n as f64));
    let cpus = show(&facts.cpus, &|n| format!("{} processors", n as f64 / 1000.0));
    let pids = show(&facts.pids, &|n| format!("{n} tasks"));
    format!("memory {memory} · cpu {cpus} · pids {pids}")
}

/// The whole page. With `colour`, ANSI escapes mark names and values.
pub fn render(facts: &Facts, colour: bool) -> String {
    let mut page = Page { text: String::new(), colour };
    page.rule('╭', '╮', "creel");
    page.words("Hello from inside a container!");
    page.words(
        "A container is no machine: it is a process like any other, to which the kernel shows its own view of \
         the system and gives limits. This is the view that this process has.",
    );
    page.rule('├', '┤', "what this process is");
    let first = if facts.pid == 1 {
        "It is the first of its pid namespace: when it ends, all others in here are killed. The host sees it \
         under another number."
    } else {
        "Not the first one in its pid namespace: something started it in here, or it shares the host's."
    };
    page.fact("process", &format!("PID {}", facts.pid), first);
    let user = match &facts.user_name {
        Some(name) => format!("{name} (uid {}, gid {})", facts.user.0, facts.user.1),
        None => format!("uid {}, gid {}", facts.user.0, facts.user.1),
    };
    page.fact("user", &user, "");
    page.fact("hostname", facts.hostname.as_deref().unwrap_or("unknown"), "");
    page.fact("kernel", facts.kernel.as_deref().unwrap_or("unknown"), "The host's own: containers share it.");
    page.rule('├', '┤', "what it sees");
    let namespaces = if facts.namespaces.is_empty() {
        unknown()
    } else {
        facts.namespaces.iter().map(|(kind, inode)| format!("{kind}:{inode}")).collect::<Vec<_>>().join(" ")
    };
    page.fact(
        "namespaces",
        &namespaces,
        "Compare with ls -l /proc/self/ns on the host: a different number is a view of its own.",
    );
    let root = facts.root.as_ref().map_or_else(unknown, |root| {
        let layers = match root.layers {
            Some(1) => ", 1 image layer below".to_owned(),
            Some(n) => format!(", {n} image layers below"),
            None => String::new(),
        };
        let mode = if root.writable { "read-write" } else { "read-only" };
        let others = facts.mounts.map(|n| format!("; {n} other mounts")).unwrap_or_default();
        format!("{}, {mode}{layers}{others}", root.kind)
    });
    let meaning = match &facts.root {
        Some(root) if root.kind == "overlay" && root.writable => {
            "Writes go to a layer of this container's own; the image below stays as it is."
        }
        _ => "",
    };
    page.fact("root", &root, meaning);
    page.rule('├', '┤', "what it may use");
    let group = match (&facts.cgroup, facts.cgroup_version) {
        (Some(path), Some(version)) => format!("{path} (v{version})"),
        (Some(path), None) => path.clone(),
        (None, _) => unknown(),
    };
    page.fact("cgroup", &group, "");
    page.fact(
        "limits",
        &limits(facts),
        "The kernel counts and enforces them for all processes in here together.",
    );
    page.rule('├', '┤', "what it may do");
    let names = facts.capability_names();
    let capabilities = match facts.capabilities {
        None => unknown(),
        Some(_) if names.is_empty() => format!("none of {KNOWN_CAPABILITIES}"),
        Some(_) if names.len() >= KNOWN_CAPABILITIES => format!("all {}", names.len()),
        Some(_) => {
            let list = names.iter().map(|name| name.to_lowercase()).collect::<Vec<_>>().join(" ");
            format!("{} of {KNOWN_CAPABILITIES}: {list}", names.len())
        }
    };
    page.fact("capabilities", &capabilities, "Root's power in pieces; only these were left to it.");
    let seccomp = match facts.seccomp {
        Some(0) => "off: every system call is open to it",
        Some(1) => "strict: read, write and exit only",
        Some(2) => "filter: dangerous system calls are answered with an error",
        _ => "unknown",
    };
    page.fact("seccomp", seccomp, "");
    let privileges = match facts.no_new_privileges {
        Some(true) => "on: no program can give it more privileges",
        Some(false) => "off: set-uid programs still work",
        None => "unknown",
    };
    page.fact("no_new_privs", privileges, "");
    page.rule('├', '┤', "try next");
    for (command, why) in [
        ("creel run --rm --memory 64m --cpus 0.5 --pids-limit 20 hello", "limits"),
        ("creel run --rm --read-only --cap-drop ALL --user 1000 hello", "power"),
        ("creel run --rm --timings hello", "where time goes"),
    ] {
        let plain = format!("{command:<61}{why}");
        let painted = format!("{}{}", page.paint("33", &format!("{command:<61}")), page.paint("2", why));
        page.line(&plain, &painted);
    }
    page.rule('╰', '╯', "");
    page.text
}

#[cfg(test)]
mod tests {
    use super::super::facts::Root;
    use super::*;
    use expect_test::expect;
    use proptest::prelude::*;

    fn facts() -> Facts {
        Facts {
            pid: 1,
            hostname: Some("0123456789ab".to_owned()),
            kernel: Some("6.18.0".to_owned()),
            namespaces: ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"]
                .iter()
                .zip(4_026_532_000..)
                .map(|(kind, inode)| ((*kind).to_owned(), inode))
                .collect(),
            root: Some(Root { kind: "overlay".to_owned(), writable: true, layers: Some(1) }),
            mounts: Some(21),
            cgroup: Some("/".to_owned()),
            cgroup_version: Some(1),
            memory: Some(Some(64 << 20)),
            cpus: Some(Some(500)),
            pids: Some(None),
            capabilities: Some(0xa804_25fb),
            seccomp: Some(2),
            no_new_privileges: Some(false),
            user: (0, 0),
            user_name: Some("root".to_owned()),
        }
    }

    #[test]
    fn the_page() {
        expect![[r#"
            ╭─ creel ──────────────────────────────────────────────────────────────────────╮
            │ Hello from inside a container!                                               │
            │ A container is no machine: it is a process like any other, to which the      │
            │ kernel shows its own view of the system and gives limits. This is the view   │
            │ that this process has.                                                       │
            ├─ what this process is ───────────────────────────────────────────────────────┤
            │ process       PID 1                                                          │
            │               It is the first of its pid namespace: when it ends, all others │
            │               in here are killed. The host sees it under another number.     │
            │ user          root (uid 0, gid 0)                                            │
            │ hostname      0123456789ab                                                   │
            │ kernel        6.18.0                                                         │
            │               The host's own: containers share it.                           │
            ├─ what it sees ───────────────────────────────────────────────────────────────┤
            │ namespaces    cgroup:4026532000 ipc:4026532001 mnt:4026532002 net:4026532003 │
            │               pid:4026532004 user:4026532005 uts:4026532006                  │
            │               Compare with ls -l /proc/self/ns on the host: a different      │
            │               number is a view of its own.                                   │
            │ root          overlay, read-write, 1 image layer below; 21 other mounts      │
            │               Writes go to a layer of this container's own; the image below  │
            │               stays as it is.                                                │
            ├─ what it may use ────────────────────────────────────────────────────────────┤
            │ cgroup        / (v1)                                                         │
            │ limits        memory 64MiB · cpu 0.5 processors · pids no limit              │
            │               The kernel counts and enforces them for all processes in here  │
            │               together.                                                      │
            ├─ what it may do ─────────────────────────────────────────────────────────────┤
            │ capabilities  14 of 41: chown dac_override fowner fsetid kill setgid setuid  │
            │               setpcap net_bind_service net_raw sys_chroot mknod audit_write  │
            │               setfcap                                                        │
            │               Root's power in pieces; only these were left to it.            │
            │ seccomp       filter: dangerous system calls are answered with an error      │
            │ no_new_privs  off: set-uid programs still work                               │
            ├─ try next ───────────────────────────────────────────────────────────────────┤
            │ creel run --rm --memory 64m --cpus 0.5 --pids-limit 20 hello limits          │
            │ creel run --rm --read-only --cap-drop ALL --user 1000 hello  power           │
            │ creel run --rm --timings hello                               where time goes │
            ╰──────────────────────────────────────────────────────────────────────────────╯
        "#]]
        .assert_eq(&render(&facts(), false));
    }

    #[test]
    fn knowing_nothing_is_fine_and_the_frame_is_straight() {
        for (facts, colour) in [(Facts::default(), false), (facts(), false)] {
            let page = render(&facts, colour);
            for line in page.lines() {
                assert_eq!(line.chars().count(), WIDTH + 4, "{line}");
            }
        }
        let coloured = render(&facts(), true);
        assert!(coloured.contains("\x1b["));
    }

    proptest! {
        #[test]
        fn wrapped_lines_fit_and_lose_nothing(text in "[a-z ]{0,80}", width in 1usize..20) {
            let lines = wrap(&text, width);
            prop_assert!(lines.iter().all(|line| line.chars().count() <= width));
            let squeeze = |t: &str| t.chars().filter(|c| *c != ' ').collect::<String>();
            prop_assert_eq!(squeeze(&lines.concat()), squeeze(&text));
        }
    }
}
