//! System call filters whose calls somebody else answers.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command};

use creel_sys::clone::{Clone, Cloned, clone};
use creel_sys::process;
use creel_sys::seccomp::{Answer, receive, respond};
use creel_types::spec::*;
use rustix::event::{PollFd, PollFlags, poll};

use crate::support::*;
use crate::text;

/// What [`agent`] answers to mkdir.
const NUMBER: i32 = libc::EXDEV;

/// Another process: takes connections at a socket, prints what comes, refuses mkdir and lets all else go on.
pub(crate) fn agent(arguments: &[String]) {
    let listener = UnixListener::bind(&arguments[0]).unwrap();
    println!("ready");
    for connection in listener.incoming() {
        let mut connection = connection.unwrap();
        let mut buf = vec![0; 64 * 1024];
        let (n, fds) = creel_sys::fdpass::recv(&connection, &mut buf).unwrap();
        let mut rest = Vec::new();
        // To its end: one state for each connection.
        connection.read_to_end(&mut rest).unwrap();
        let all = [&buf[..n], &rest].concat();
        let mut told: serde_json::Value = serde_json::from_slice(&all).unwrap();
        // Its length is enough, and the pipe holds little.
        if let Some(long) = told["state"]["annotations"].get_mut("long") {
            *long = long.as_str().unwrap().len().into();
        }
        println!("{} {told}", fds.len());
        std::io::stdout().flush().unwrap();
        answer(&fds[0]);
    }
}

/// Refuses mkdir and lets all else go on, until nobody is under the filter any more.
fn answer(fd: &OwnedFd) {
    loop {
        let mut polled = [PollFd::new(fd, PollFlags::IN)];
        poll(&mut polled, None).unwrap();
        if polled[0].revents().contains(PollFlags::HUP) {
            break;
        }
        let Ok(call) = receive(fd) else { continue };
        let mkdir = [libc::SYS_mkdirat, 83].contains(&i64::from(call.number));
        let answer = if mkdir { Answer::Error(NUMBER) } else { Answer::Continue };
        let _ = respond(fd, call.id, answer);
    }
}

pub(crate) struct Agent {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Agent {
    pub(crate) fn start(socket: &std::path::Path) -> Agent {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("agent")
            .arg(socket)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut agent = Agent { child, out };
        assert_eq!(agent.line(), "ready");
        agent
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end().to_string()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The calls by which a runtime would hand over the listener are stopped, too: it must not need any of them.
pub(crate) fn notifying(socket: &std::path::Path) -> Seccomp {
    let names = "mkdir mkdirat sendmsg sendto writev pwrite64 read recvmsg close futex munmap mmap brk clock_gettime \
                 execve execveat exit_group rt_sigprocmask fcntl poll ppoll sched_yield";
    Seccomp {
        default_action: "SCMP_ACT_ALLOW".into(),
        listener_path: Some(socket.display().to_string()),
        listener_metadata: Some("some words".into()),
        flags: Some(vec!["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV".into()]),
        syscalls: vec![SyscallRule {
            names: names.split_whitespace().map(str::to_string).collect(),
            action: "SCMP_ACT_NOTIFY".into(),
            ..SyscallRule::default()
        }],
        ..Seccomp::default()
    }
}

pub(crate) fn notifications() {
    let dir = scratch();
    let socket = path(&dir, "agent.sock");
    let mut agent = Agent::start(&socket);
    let mut spec = shell("mkdir /tmp/x; echo done");
    spec.linux.as_mut().unwrap().seccomp = Some(notifying(&socket));
    spec.annotations.insert("key".into(), "value".into());
    // More than the first packet holds.
    spec.annotations.insert("long".into(), "x".repeat(300_000));
    let (stdio, reader) = pipes();
    let started = create(&spec, &overlay(dir.path()), stdio).unwrap().start().unwrap();
    let line = agent.line();
    let said = read(reader);
    assert_eq!(finish(&started.pidfd), 0, "{said}");
    assert!(said.contains("Invalid cross-device link") && said.ends_with("done\n"), "{said}");
    let (count, json) = line.split_once(' ').unwrap();
    assert_eq!(count, "1");
    let told: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(told["ociVersion"], "1.2.0");
    assert_eq!(told["fds"], serde_json::json!(["seccompFd"]));
    assert_eq!(told["pid"], started.pid);
    assert_eq!(told["metadata"], "some words");
    let state = &told["state"];
    assert_eq!((&state["id"], &state["status"]), (&"test".into(), &"creating".into()));
    assert_eq!((&state["pid"], &state["bundle"]), (&started.pid.into(), &"/var/tmp".into()));
    assert_eq!(state["annotations"]["key"], "value");
    assert_eq!(state["annotations"]["long"], 300_000);
    assert_eq!(state["ociVersion"], "1.2.0");

    // An exec has a listener of its own.
    spec.annotations.clear();
    let sleeper = Sleeper::new(|new| {
        new.linux.as_mut().unwrap().seccomp = spec.linux.clone().unwrap().seccomp;
    });
    agent.line();
    let _ = &sleeper.started.pidfd.as_fd();
    // The agent is busy with the first listener until that container ends.
    drop(sleeper);
}

pub(crate) fn notifications_of_an_exec() {
    let dir = scratch();
    let socket = path(&dir, "agent.sock");
    let mut agent = Agent::start(&socket);
    let mut sleeper = Sleeper::new(|_| {});
    sleeper.spec.linux.as_mut().unwrap().seccomp = Some(notifying(&socket));
    let said = text(sleeper.run(&["sh", "-c", "mkdir /tmp/x; echo done"], |_| {}));
    assert!(said.contains("cross-device") && said.ends_with("done\n"), "{said}");
    assert!(agent.line().contains("\"status\":\"running\""));
}

pub(crate) fn notifications_without_an_agent() {
    let dir = scratch();
    let mut spec = shell("echo never");
    spec.linux.as_mut().unwrap().seccomp = Some(notifying(&path(&dir, "nobody")));
    let (stdio, reader) = pipes();
    let error = create(&spec, &overlay(dir.path()), stdio).unwrap_err();
    assert!(error.to_string().starts_with("failed to connect with seccomp agent "), "{error}");
    assert_eq!(read(reader), "");
    // Where no call waits for him he is not missed; if he is there he is told, as callers of crun expect.
    let filter = spec.linux.as_mut().unwrap().seccomp.as_mut().unwrap();
    filter.syscalls[0].action = "SCMP_ACT_LOG".into();
    assert_eq!(text(run_on(&spec, &overlay(dir.path()))), "never\n");
    let listener = UnixListener::bind(path(&dir, "nobody")).unwrap();
    listener.set_nonblocking(true).unwrap();
    assert_eq!(text(run_on(&spec, &overlay(dir.path()))), "never\n");
    listener.accept().unwrap();
}

/// A listening socket whose queue of connections is full, and what fills it.
fn full(place: &std::path::Path) -> (OwnedFd, Vec<OwnedFd>) {
    use rustix::net::*;
    let new = || {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap()
    };
    let address = SocketAddrUnix::new(place).unwrap();
    let listener = new();
    bind(&listener, &address).unwrap();
    listen(&listener, 0).unwrap();
    let mut waiting = Vec::new();
    loop {
        let socket = new();
        match connect(&socket, &address) {
            Ok(()) => waiting.push(socket),
            Err(e) => {
                assert_eq!(e, rustix::io::Errno::AGAIN);
                return (listener, waiting);
            }
        }
    }
}

pub(crate) fn notifications_to_an_agent_who_does_not_listen() {
    let dir = scratch();
    let socket = path(&dir, "busy");
    let (listener, waiting) = full(&socket);
    let mut spec = shell("echo never");
    spec.linux.as_mut().unwrap().seccomp = Some(notifying(&socket));
    let (stdio, reader) = pipes();
    let begun = std::time::Instant::now();
    let error = create(&spec, &overlay(dir.path()), stdio).and_then(|created| created.start()).unwrap_err();
    assert!(error.to_string().contains("its queue of them is full"), "{error}");
    assert!(error.to_string().starts_with("failed to connect with seccomp agent "), "{error}");
    assert!(begun.elapsed().as_secs() < 60);
    assert_eq!(read(reader), "");
    // One who only needs time.
    let mut spec = shell("mkdir /tmp/x; echo done");
    spec.linux.as_mut().unwrap().seccomp = Some(notifying(&socket));
    let begun = std::time::Instant::now();
    let late = match clone(&Clone::default()).unwrap() {
        Cloned::Child => {
            std::thread::sleep(std::time::Duration::from_millis(300));
            drop(waiting);
            let listener = UnixListener::from(listener);
            listener.set_nonblocking(false).unwrap();
            for connection in listener.incoming() {
                let mut buf = vec![0; 64 * 1024];
                let heard = creel_sys::fdpass::recv(connection.unwrap(), &mut buf);
                if let Some(fd) = heard.ok().and_then(|(_, mut fds)| fds.pop()) {
                    answer(&fd);
                    break;
                }
            }
            process::exit_now(0)
        }
        Cloned::Parent { pidfd, .. } => pidfd,
    };
    drop((listener, waiting));
    let (stdio, reader) = pipes();
    let started = create(&spec, &overlay(dir.path()), stdio).unwrap().start().unwrap();
    let said = read(reader);
    assert_eq!(finish(&started.pidfd), 0, "{said}");
    assert!(said.ends_with("done\n") && begun.elapsed().as_millis() > 290, "{said}");
    assert_eq!(finish(&late), 0);
}
