//! Further processes in a container that runs.

use std::os::fd::AsFd;
use std::path::Path;

use creel_runtime::Stdio;
use creel_types::{Classify, ErrorKind};

use crate::support::*;
use crate::text;

pub(crate) fn exec_joins() {
    let sleeper = Sleeper::new(|_| {});
    let text = text(sleeper.run(
        &["sh", "-c", "hostname; cat /proc/1/comm; readlink /proc/self/ns/pid; pwd; grep -c overlay /proc/mounts; grep CapEff /proc/self/status; echo $EXTRA"],
        |process| {
            process.cwd = "/etc".into();
            process.env.push("EXTRA=yes".into());
        },
    ));
    let namespace = std::fs::read_link(format!("/proc/{}/ns/pid", sleeper.started.pid)).unwrap();
    let expected = format!("box\nsleep\n{}\n/etc\n1\nCapEff:\t00000000a80425fb\nyes\n", namespace.display());
    assert_eq!(text, expected);
    let own = std::fs::read_link("/proc/self/ns/pid_for_children").unwrap();
    assert_eq!(
        own,
        std::fs::read_link("/proc/self/ns/pid").unwrap(),
        "the caller is back in its own namespace"
    );
    assert_eq!(sleeper.run(&["sh", "-c", "exit 9"], |_| {}).unwrap().1, 9);
}

pub(crate) fn exec_errors() {
    let sleeper = Sleeper::new(|_| {});
    let fails = |args: &[&str], cwd: &str| {
        let error = sleeper.run(args, |process| process.cwd = cwd.into()).unwrap_err();
        (error.kind(), error.to_string())
    };
    assert_eq!(
        fails(&["nope"], "/"),
        (ErrorKind::ProgramNotFound, "exec: \"nope\": executable file not found in $PATH".into())
    );
    assert_eq!(fails(&["/etc/passwd"], "/").0, ErrorKind::ProgramNotExecutable);
    assert_eq!(
        fails(&["sh"], "/none"),
        (
            ErrorKind::ProgramNotFound,
            "chdir to cwd (\"/none\") set in config.json failed: no such file or directory".into()
        )
    );
    assert_eq!(fails(&["sh"], "relative").0, ErrorKind::InvalidArgument);
}

pub(crate) fn exec_terminal() {
    let sleeper = Sleeper::new(|_| {});
    let mut process = sleeper.spec.process.clone().unwrap();
    process.args = ["sh", "-c", "tty; test -t 0 && echo terminal"].map(str::to_string).to_vec();
    process.terminal = true;
    let mut execed = sleeper.exec(&process, Stdio::default()).unwrap();
    let text = read(execed.console.take().unwrap()).replace('\r', "");
    assert_eq!(finish(&execed.pidfd), 0);
    assert_eq!(text, "/dev/pts/0\nterminal\n");
}

pub(crate) fn exec_after_the_end() {
    let dir = scratch();
    let spec = shell("true");
    let started = create(&spec, &overlay(dir.path()), Stdio::default()).unwrap().start().unwrap();
    finish(&started.pidfd);
    let error = creel_runtime::exec(creel_runtime::ExecOptions {
        id: "test",
        bundle: Path::new("/var/tmp"),
        target_pid: started.pid,
        target_pidfd: started.pidfd.as_fd(),
        spec: &spec,
        filter: None,
        process: spec.process.as_ref().unwrap(),
        stdio: Stdio::default(),
        cgroup: None,
        doors: None,
        life: creel_runtime::Life::WithCreator,
        preserve_fds: Vec::new(),
    })
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

pub(crate) fn no_descriptors_leak() {
    // Not close-on-exec, as a careless caller's may be.
    let careless =
        rustix::fs::open("/etc/hostname", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
    // The shell's own listing holds one more.
    assert_eq!(text(run(&shell("ls /proc/self/fd"))), "0\n1\n2\n3\n");
    let sleeper = Sleeper::new(|_| {});
    assert_eq!(text(sleeper.run(&["ls", "/proc/self/fd"], |_| {})), "0\n1\n2\n3\n");
    drop(careless);
}

pub(crate) fn signals_are_reset() {
    let old = creel_sys::signal::set_mask(creel_sys::signal::SignalSet::of(&[10, 12, 15])).unwrap();
    creel_sys::signal::ignore(libc::SIGPIPE).unwrap();
    // Not through a shell, which ignores signals of its own.
    let text = text(run(&docker_like(&["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"])));
    creel_sys::signal::set_mask(old).unwrap();
    assert_eq!(text.replace('\t', " "), "SigBlk: 0000000000000000\nSigIgn: 0000000000000000\n");
}
