//! Real containers under real shims: needs root, cgroups, overlay-free busybox roots; no network.
//!
//! This program is its own runner, and the shim as well when its first argument says so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::panic)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use creel_shim::client::{ClientError, Control};
use creel_shim::proto::{Answer, Attach, Call, Event, Opening, Status, files};
use creel_types::ErrorKind;
use support::{ALL, Rig, demux, exec_start, noise, patience, wait_for};

fn ten_megabytes_of_noise_arrive_and_are_logged_exactly() {
    let data = noise(10 << 20);
    let mut rig = Rig::new("cat /data; exit 3", |_, _| {});
    fs::write(rig.root().join("data"), &data).unwrap();
    let wire = rig.attach();
    rig.run();
    let (out, err) = wire.output();
    assert!(out == data && err.is_empty(), "{} bytes of {}", out.len(), data.len());
    assert_eq!(rig.exit().code, 3);
    assert!(rig.logged() == support::as_logged(&data));
    rig.gone();
}

fn twenty_execs_at_once() {
    let mut rig = Rig::new("sleep 1000", |_, _| {});
    rig.run();
    let wires: Vec<_> = (0..20)
        .map(|n| {
            rig.open(&exec_start(&format!("e{n}"), &format!("cat; echo err{n} >&2; exit {n}"), true)).unwrap()
        })
        .collect();
    assert_eq!(rig.state().execs.len(), 20);
    for (n, mut wire) in wires.into_iter().enumerate() {
        wire.say(&format!("in{n}"));
        wire.half_close();
        let want = (format!("in{n}").into_bytes(), format!("err{n}\n").into_bytes());
        assert_eq!(wire.output(), want);
    }
    let mut codes: Vec<_> = (0..20).map(|_| rig.exec_exit().1).collect();
    codes.sort_unstable();
    assert_eq!(codes, (0..20).collect::<Vec<_>>());
    for n in 0..20 {
        // One after the other: no descriptor may be left over.
        let wire = rig.open(&exec_start(&format!("s{n}"), "echo x", false)).unwrap();
        assert_eq!(wire.output().0, b"x\n");
        assert_eq!(rig.exec_exit(), (format!("s{n}"), 0));
    }
    let fds = fs::read_dir(format!("/proc/{}/fd", rig.shim_pid())).unwrap().count();
    assert!(fds < 25, "{fds} descriptors are open");
    let missing = exec_start("m", "true", false);
    let Opening::Exec(mut start) = missing else { unreachable!() };
    start.process.args = vec!["nope".to_owned()];
    match rig.open(&Opening::Exec(start)) {
        Err(ClientError::Refused(failure)) => {
            assert_eq!(failure.kind, ErrorKind::ProgramNotFound, "{failure}")
        }
        other => panic!("{:?}", other.map(|w| w.pid)),
    }
    let wire = rig.open(&exec_start("last", "echo up; sleep 1000", false)).unwrap();
    rig.call(Call::Signal { signal: 9, all: false });
    assert_eq!(rig.exec_exit(), ("last".to_owned(), 137));
    assert_eq!(rig.exit().code, 137);
    wire.output();
    rig.gone();
}

fn the_daemons_death_changes_nothing() {
    let mut rig =
        Rig::new("read x; i=0; while [ $i -lt 5000 ]; do echo $i; i=$((i+1)); done; exit 6", |c, _| {
            c.open_stdin = true;
        });
    rig.run();
    let (first, second) = (rig.attach(), rig.attach());
    drop(second);
    rig.lose_control();
    drop(first);
    std::thread::sleep(Duration::from_millis(200));
    rig.control = Control::connect(&rig.dir()).unwrap();
    match rig.call(Call::Subscribe) {
        Answer::State(snapshot) => assert_eq!(snapshot.status, Status::Running),
        other => panic!("{other:?}"),
    }
    let mut again = rig.attach();
    again.say("go\n");
    rig.lose_control();
    let want: String = (0..5000).map(|n| format!("{n}\n")).collect();
    assert!(again.output().0 == want.as_bytes());
    let record = rig.recorded();
    assert_eq!((record.code, record.signal, record.oom_killed), (6, None, false));
    assert!(rig.logged() == want);
    rig.gone();
}

fn a_terminal_echoes_and_resizes() {
    let mut rig = Rig::new("echo ready; read a; stty size; read b; stty size; read c; exit 4", |c, s| {
        (c.terminal, c.open_stdin) = (true, true);
        s.process.as_mut().unwrap().terminal = true;
    });
    let mut wire = rig.attach();
    rig.create();
    rig.call(Call::Resize { exec_id: None, width: 80, height: 24 });
    rig.start();
    wire.until("ready");
    wire.say("hello\n");
    assert!(wire.until("24 80").contains("hello\r\n"));
    rig.call(Call::Resize { exec_id: None, width: 132, height: 50 });
    wire.say("x\n");
    wire.until("50 132");
    // The terminal of an exec, and an interrupt typed into it.
    let Opening::Exec(mut start) =
        exec_start("t", "tty; trap 'exit 9' INT; echo up; while :; do sleep 0.1; done", true)
    else {
        unreachable!()
    };
    start.process.terminal = true;
    let mut exec = rig.open(&Opening::Exec(start)).unwrap();
    exec.until("up");
    exec.say("\x03");
    assert_eq!(rig.exec_exit(), ("t".to_owned(), 9));
    wire.say("y\n");
    let rest = String::from_utf8(wire.raw()).unwrap();
    assert!(rest.ends_with("y\r\n"), "{rest:?}");
    assert_eq!(rig.exit().code, 4);
    rig.gone();
}

fn stdin_ends_and_users_may_open_their_streams_again() {
    let mut rig = Rig::new("cat > /tmp/in; wc -c < /tmp/in; echo again > /dev/stdout; id -u", |c, s| {
        (c.open_stdin, c.stdin_once) = (true, true);
        s.process.as_mut().unwrap().user.uid = 1000;
    });
    rig.run();
    let mut wire = rig.attach();
    wire.say(&"z".repeat(300_000));
    wire.half_close();
    assert_eq!(
        String::from_utf8(wire.output().0).unwrap().split_whitespace().collect::<Vec<_>>(),
        ["300000", "again", "1000"]
    );
    rig.exit();
    rig.gone();
}

fn a_slow_reader_holds_the_program_back_and_loses_nothing() {
    let mut rig =
        Rig::new("i=0; while [ $i -lt 60000 ]; do echo $i; i=$((i+1)); done; touch /tmp/done", |_, _| {});
    let mut wire = rig.attach();
    rig.run();
    std::thread::sleep(Duration::from_millis(1000));
    assert!(!rig.root().join("tmp/done").exists());
    let mut bytes = std::mem::take(&mut wire.rest);
    let mut buffer = [0; 3001];
    while let Ok(n @ 1..) = wire.stream.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..n]);
        std::thread::sleep(Duration::from_micros(200));
    }
    let want: String = (0..60000).map(|n| format!("{n}\n")).collect();
    assert!(demux(&bytes).0 == want.as_bytes());
    assert!(rig.logged() == want);
    rig.exit();
    rig.gone();
}

fn programs_that_cannot_run_are_on_record() {
    for (program, code, kind) in
        [("nope", 127, ErrorKind::ProgramNotFound), ("/etc/passwd", 126, ErrorKind::ProgramNotExecutable)]
    {
        let mut rig = Rig::new("", |_, s| s.process.as_mut().unwrap().args = vec![program.to_owned()]);
        let failure = match rig.control.call(Call::Create).and_then(|_| rig.control.call(Call::Start)) {
            Err(ClientError::Refused(failure)) => failure,
            other => panic!("{other:?}"),
        };
        assert_eq!(failure.kind, kind, "{failure}");
        let record = rig.exit();
        assert_eq!(record.code, code);
        assert_eq!(record.error.as_deref(), Some(failure.message.as_str()));
        rig.gone();
    }
}

fn the_oom_killer_is_on_record() {
    let mut rig = Rig::new("tail /dev/zero", |_, s| {
        let memory = creel_types::spec::Memory { limit: Some(16 << 20), ..Default::default() };
        let resources = creel_types::spec::Resources { memory: Some(memory), ..Default::default() };
        s.linux.as_mut().unwrap().resources = Some(resources);
        s.process.as_mut().unwrap().args = ["tail", "/dev/zero"].map(str::to_owned).to_vec();
    });
    rig.run();
    assert_eq!(rig.control.next_event().unwrap(), Event::Oom);
    let record = rig.exit();
    assert_eq!((record.code, record.signal, record.oom_killed), (137, Some(9), true));
    rig.gone();
}

fn a_killed_shim_takes_its_container_along() {
    let mut rig = Rig::new("sleep 1000", |_, _| {});
    let pid = rig.run();
    rig.kill_shim();
    wait_for("the container's end", || (!fs::exists(format!("/proc/{pid}")).unwrap()).then_some(()));
    assert!(!rig.dir().join(files::EXIT).exists());
    rig.remove_cgroup();
}

fn a_shim_told_to_go_passes_it_on() {
    let mut rig = Rig::new("trap 'exit 33' TERM; echo ready; while :; do sleep 0.05; done", |_, _| {});
    let mut wire = rig.attach();
    rig.run();
    wire.until("ready");
    creel_sys::signal::kill(rig.shim_pid(), libc::SIGTERM).unwrap();
    assert_eq!(rig.exit().code, 33);
    rig.gone();
}

fn a_paused_container_refuses_execs_and_can_be_killed() {
    let mut rig = Rig::new("sleep 1000", |_, _| {});
    rig.run();
    let cgroup = rig.cgroup();
    cgroup.freeze().unwrap();
    match rig.open(&exec_start("e", "true", false)) {
        Err(ClientError::Refused(failure)) => assert_eq!(failure.kind, ErrorKind::Conflict),
        other => panic!("{:?}", other.map(|w| w.pid)),
    }
    rig.call(Call::Signal { signal: 9, all: true });
    assert_eq!(rig.exit().code, 137);
    rig.gone();
}

fn background_children_and_orphans_are_seen_to() {
    let mut rig = Rig::new("while :; do sleep 1; done", |_, _| {});
    rig.run();
    let begun = Instant::now();
    let wire = rig.open(&exec_start("e", "echo hi; sleep 300 & exit 4", false)).unwrap();
    assert_eq!(wire.output().0, b"hi\n");
    assert_eq!(rig.exec_exit(), ("e".to_owned(), 4));
    assert!(begun.elapsed() < patience(8));
    let attach = Attach { exec_id: Some("e".to_owned()), ..ALL };
    assert!(rig.open(&Opening::Attach(attach)).is_err());
    rig.call(Call::Signal { signal: 9, all: false });
    assert_eq!(rig.exit().code, 137);
    rig.gone();
}

fn a_container_that_nobody_starts_goes_away() {
    let mut rig = Rig::new("true", |_, _| {});
    let pid = rig.create();
    rig.lose_control();
    let begun = Instant::now();
    let record = rig.recorded();
    assert!(begun.elapsed() > Duration::from_secs(8));
    assert_eq!(record.code, 137);
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap());
    rig.gone();
}

fn a_full_disk_stops_nobody_and_the_log_resumes() {
    let disk = tempfile::Builder::new().prefix("creel-shim-disk-").tempdir_in("/var/tmp").unwrap();
    rustix::mount::mount(
        "tmpfs",
        disk.path(),
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        Some(c"size=300k"),
    )
    .unwrap();
    let filler = disk.path().join("filler");
    fs::write(&filler, vec![0; 150 << 10]).unwrap();
    let script =
        "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; echo mid >&2; read x; echo late";
    let mut rig = Rig::new(script, |c, _| {
        c.open_stdin = true;
        c.log_path = Some(disk.path().join("log"));
    });
    let mut wire = rig.attach();
    rig.run();
    wire.until("mid");
    assert!(rig.troubles().contains("cannot write"), "{}", rig.troubles());
    fs::remove_file(filler).unwrap();
    wire.say("go\n");
    assert!(wire.output().0.ends_with(b"late\n"));
    assert_eq!(rig.exit().code, 0);
    let logged: Vec<String> = fs::read_to_string(disk.path().join("log"))
        .unwrap()
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["log"].as_str().unwrap().to_owned()
        })
        .collect();
    // No gap up to the first lost line, nothing torn, and the end is there.
    let whole = logged.iter().enumerate().take_while(|(n, line)| **line == format!("line {n}\n")).count();
    assert!(whole > 1000 && whole < 20000, "{whole}");
    // The short line on stderr may have found a place among those that waited.
    let waited = usize::from(logged[whole..].contains(&"mid\n".to_owned()));
    assert_eq!(logged[whole + waited..], ["late\n"]);
    let lost = format!("{} lines were lost", 20000 - whole + 1 - waited);
    assert!(rig.troubles().contains(&lost), "{lost}: {}", rig.troubles());
    rig.gone();
    rustix::mount::unmount(disk.path(), rustix::mount::UnmountFlags::empty()).unwrap();
}

fn an_oom_that_the_container_survives_is_told() {
    let mut rig = Rig::new("sh -c 'tail /dev/zero'; sleep 1000", |_, s| {
        let memory = creel_types::spec::Memory { limit: Some(16 << 20), ..Default::default() };
        let resources = creel_types::spec::Resources { memory: Some(memory), ..Default::default() };
        s.linux.as_mut().unwrap().resources = Some(resources);
    });
    rig.run();
    assert_eq!(rig.control.next_event().unwrap(), Event::Oom);
    assert!(rig.state().oom_killed);
    rig.call(Call::Signal { signal: 15, all: true });
    rig.call(Call::Signal { signal: 9, all: false });
    assert!(rig.exit().oom_killed);
    rig.gone();
}

/// Not a measurement to rely on: prints what a shim costs in this build.
fn what_a_shim_costs() {
    let mut rig = Rig::new("sleep 1000", |_, _| {});
    let begun = Instant::now();
    rig.create();
    let created = begun.elapsed();
    rig.start();
    let started = begun.elapsed();
    std::thread::sleep(Duration::from_millis(50));
    let status = fs::read_to_string(format!("/proc/{}/status", rig.shim_pid())).unwrap();
    for line in
        status.lines().filter(|l| l.starts_with("VmRSS") || l.starts_with("Rss") || l.starts_with("Threads"))
    {
        println!("    {line}");
    }
    assert!(status.contains("Threads:\t1\n"));
    let killed = Instant::now();
    rig.call(Call::Signal { signal: 9, all: false });
    rig.exit();
    println!(
        "    created after {created:?}, started after {started:?}, ended {:?} after the kill",
        killed.elapsed()
    );
    rig.gone();
}

const TESTS: &[(&str, fn())] = &[
    (
        "ten_megabytes_of_noise_arrive_and_are_logged_exactly",
        ten_megabytes_of_noise_arrive_and_are_logged_exactly,
    ),
    ("twenty_execs_at_once", twenty_execs_at_once),
    ("the_daemons_death_changes_nothing", the_daemons_death_changes_nothing),
    ("a_terminal_echoes_and_resizes", a_terminal_echoes_and_resizes),
    ("stdin_ends_and_users_may_open_their_streams_again", stdin_ends_and_users_may_open_their_streams_again),
    (
        "a_slow_reader_holds_the_program_back_and_loses_nothing",
        a_slow_reader_holds_the_program_back_and_loses_nothing,
    ),
    ("programs_that_cannot_run_are_on_record", programs_that_cannot_run_are_on_record),
    ("the_oom_killer_is_on_record", the_oom_killer_is_on_record),
    ("a_killed_shim_takes_its_container_along", a_killed_shim_takes_its_container_along),
    ("a_shim_told_to_go_passes_it_on", a_shim_told_to_go_passes_it_on),
    (
        "a_paused_container_refuses_execs_and_can_be_killed",
        a_paused_container_refuses_execs_and_can_be_killed,
    ),
    ("background_children_and_orphans_are_seen_to", background_children_and_orphans_are_seen_to),
    ("a_container_that_nobody_starts_goes_away", a_container_that_nobody_starts_goes_away),
    ("a_full_disk_stops_nobody_and_the_log_resumes", a_full_disk_stops_nobody_and_the_log_resumes),
    ("an_oom_that_the_container_survives_is_told", an_oom_that_the_container_survives_is_told),
    ("what_a_shim_costs", what_a_shim_costs),
];

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.next_if(|first| first == "shim").is_some() {
        let code = creel_shim::main(args);
        return ExitCode::from(u8::try_from(code).unwrap_or(255));
    }
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return ExitCode::from(u8::from(std::env::var_os("CREEL_TEST_ROOT").is_some()));
    }
    let words: Vec<String> = args.map(|word| word.to_string_lossy().into_owned()).collect();
    let words: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    // Nothing that a test mounts is seen outside, whatever becomes of this process.
    creel_sys::ns::unshare(creel_sys::clone::NEWNS).unwrap();
    let private = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).unwrap();
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    let mut failed = Vec::new();
    for (name, test) in TESTS {
        if !words.is_empty() && !words.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        let begun = Instant::now();
        let result = std::panic::catch_unwind(test);
        println!(
            "test {name} ... {} ({:.2?})",
            if result.is_ok() { "ok" } else { "FAILED" },
            begun.elapsed()
        );
        let _ = std::io::stdout().flush();
        if result.is_err() {
            failed.push(name);
        }
    }
    support::remove_parent_cgroup();
    assert_eq!(mounts(), before, "mounts were left behind");
    println!("failed: {failed:?}");
    ExitCode::from(u8::from(!failed.is_empty()))
}
