//! `run`, `exec` and their like against a daemon of the test's own.

// What goes wrong in here is the test's own failure.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::{Read as _, Write as _};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use expect_test::expect;
use support::{Daemon, Ran, Reply, Request, frame, ok, status};

/// A daemon with one container to be made, whose program writes these frames and exits with this code.
fn container(output: Vec<Vec<u8>>, code: i32) -> Daemon {
    let (started, wait_for_start) = mpsc::channel::<()>();
    let (ended, wait_for_end) = mpsc::channel::<()>();
    let wait_for_start = Arc::new(Mutex::new(wait_for_start));
    let wait_for_end = Arc::new(Mutex::new(Some(wait_for_end)));
    let started = Mutex::new(started);
    let ended = Arc::new(Mutex::new(ended));
    Daemon::start(move |request| match request.line().split(['?', ' ']).nth(1).unwrap_or_default() {
        "/containers/create" => {
            Reply::Full(201, "Server-Timing: create;dur=1.5\r\n", br#"{"Id":"c1","Warnings":[]}"#.to_vec())
        }
        "/containers/c1/attach" => {
            let (output, start, end) = (output.clone(), wait_for_start.clone(), ended.clone());
            Reply::Hijack(Box::new(move |mut stream| {
                start.lock().unwrap().recv().unwrap();
                for frame in output {
                    // In small pieces: headers are cut anywhere.
                    for piece in frame.chunks(5) {
                        stream.write_all(piece).unwrap();
                    }
                }
                end.lock().unwrap().send(()).unwrap();
            }))
        }
        "/containers/c1/wait" => {
            let end = wait_for_end.lock().unwrap().take().unwrap();
            Reply::Later(Box::new(move || {
                end.recv().unwrap();
                format!("{{\"StatusCode\":{code}}}")
            }))
        }
        "/containers/c1/start" => {
            started.lock().unwrap().send(()).unwrap();
            Reply::Full(204, "Server-Timing: cgroup;dur=0.5, exec;dur=2\r\n", Vec::new())
        }
        other => panic!("unexpected {other}"),
    })
}

#[test]
fn output_and_exit_code_arrive() {
    let daemon = container(vec![frame(1, "out\n"), frame(2, "err\n"), frame(1, &"x".repeat(100_000))], 7);
    let ran = daemon.run(&["run", "--rm", "-e", "A=1", "busybox", "sh", "-c", "exit 7"]);
    assert_eq!((ran.code, ran.err.as_str()), (7, "err\n"));
    assert_eq!(ran.out, format!("out\n{}", "x".repeat(100_000)));
    let lines = daemon.lines();
    assert_eq!(lines[0], "POST /containers/create");
    let mut registered = lines[1..3].to_vec();
    registered.sort();
    assert_eq!(
        registered,
        [
            "POST /containers/c1/attach?stream=1&stdout=1&stderr=1",
            "POST /containers/c1/wait?condition=removed"
        ]
    );
    assert_eq!(lines[3..], ["POST /containers/c1/start"]);
    let asked = daemon.requests()[0].json();
    assert_eq!(asked["Cmd"], serde_json::json!(["sh", "-c", "exit 7"]));
    assert_eq!(asked["HostConfig"]["AutoRemove"], true);
    assert_eq!(asked["OpenStdin"], false);
}

#[test]
fn timings_tell_the_daemons_steps() {
    let daemon = container(vec![frame(1, "hi\n")], 0);
    let ran = daemon.run(&["run", "--timings", "busybox"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "hi\n"));
    let names: Vec<&str> = ran.err.lines().map(|l| l.split("  ").find(|w| !w.is_empty()).unwrap()).collect();
    expect![[r#"
        [
            "step",
            "read the command line",
            "connect to the daemon",
            "create the container",
            "create",
            "this command and the socket",
            "attach and register the wait",
            "start it",
            "cgroup",
            "exec",
            "this command and the socket",
            "program and output",
            "exit status",
            "total",
        ]
    "#]]
    .assert_debug_eq(&names);
}

#[test]
fn input_is_sent_and_its_end_told() {
    let (heard, said) = mpsc::channel();
    let heard = Mutex::new(Some(heard));
    let daemon = Daemon::start(move |request: &Request| match request.target.split('?').next().unwrap() {
        "/containers/create" => Reply::Full(201, "", br#"{"Id":"c1"}"#.to_vec()),
        "/containers/c1/attach" => {
            let heard = heard.lock().unwrap().take().unwrap();
            Reply::Hijack(Box::new(move |mut stream| {
                let mut input = Vec::new();
                stream.read_to_end(&mut input).unwrap();
                stream.write_all(&frame(1, &format!("{} bytes\n", input.len()))).unwrap();
                heard.send(input).unwrap();
            }))
        }
        "/containers/c1/wait" => Reply::Later(Box::new(|| "{\"StatusCode\":0}".to_owned())),
        _ => Reply::Full(204, "", Vec::new()),
    });
    let input: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
    let ran = daemon.run_with(&["run", "-i", "busybox", "cat"], &input);
    assert_eq!(ran, Ran { code: 0, out: "300000 bytes\n".into(), err: String::new() });
    assert_eq!(said.recv().unwrap(), input);
    let asked = daemon.requests()[0].json();
    assert_eq!((&asked["OpenStdin"], &asked["StdinOnce"]), (&true.into(), &true.into()));
}

#[test]
fn a_missing_image_is_pulled() {
    let tries = Mutex::new(0);
    let daemon = Daemon::start(move |request| match request.target.split('?').next().unwrap() {
        "/containers/create" => {
            let mut tries = tries.lock().unwrap();
            *tries += 1;
            match *tries {
                1 => status(404, "No such image: busybox:latest"),
                _ => Reply::Full(201, "", br#"{"Id":"c1"}"#.to_vec()),
            }
        }
        "/images/create" => ok(concat!(
            "{\"status\":\"Pulling from library/busybox\",\"id\":\"latest\"}\r\n",
            "{\"status\":\"Downloading\",\"id\":\"aa\",\"progressDetail\":{\"current\":1,\"total\":2}}\r\n",
            "{\"status\":\"Pull complete\",\"id\":\"aa\",\"progressDetail\":{}}\r\n",
        )),
        _ => Reply::Full(204, "", Vec::new()),
    });
    let ran = daemon.run(&["run", "-d", "busybox"]);
    expect![[r#"
        Unable to find image 'busybox:latest' locally
        latest: Pulling from library/busybox
        aa: Pull complete
    "#]]
    .assert_eq(&ran.err);
    assert_eq!((ran.code, ran.out.as_str()), (0, "c1\n"));
    assert!(daemon.lines().contains(&"POST /images/create?fromImage=busybox&tag=latest".to_owned()));
}

#[test]
fn failures_have_dockers_words_and_codes() {
    let daemon = Daemon::start(|request| match request.target.split('?').next().unwrap() {
        "/containers/create" if request.target.contains("name=used") => {
            status(409, "Conflict. The container name \"/used\" is already in use")
        }
        "/containers/create" if request.json()["Image"] == "broken" => {
            Reply::Full(500, "", b"<html>gone wrong</html>".to_vec())
        }
        "/containers/create" if request.json()["Image"] == "nonsense" => ok("not json"),
        "/containers/create" if request.json()["Image"] == "cut" => Reply::Cut("{\"Id\":".to_owned()),
        "/containers/create" => Reply::Full(201, "", br#"{"Id":"c1"}"#.to_vec()),
        "/images/create" => {
            ok("{\"errorDetail\":{\"message\":\"no space left\"},\"error\":\"no space left\"}\n")
        }
        "/containers/c1/start" => status(400, "exec: \"nosuch\": executable file not found in $PATH"),
        other => panic!("unexpected {other}"),
    });
    let mut text = String::new();
    for line in [
        &["run", "-d", "--name", "used", "x"][..],
        &["create", "--name", "used", "x"],
        &["run", "-d", "x", "nosuch"],
        &["run", "-d", "broken"],
        &["run", "-d", "nonsense"],
        &["run", "-d", "cut"],
        &["pull", "x"],
        &["run", "-it", "x"],
        &["run", "-d", "-a", "stdout", "x"],
        &["run", "--pull", "sometimes", "x"],
        &["run", "a..b"],
    ] {
        let ran = daemon.run(line);
        text.push_str(&format!("$ creel {}\n{}{}=> {}\n", line.join(" "), ran.out, ran.err, ran.code));
    }
    expect![[r#"
        $ creel run -d --name used x
        creel: Error response from daemon: Conflict. The container name "/used" is already in use

        Run 'creel run --help' for more information
        => 125
        $ creel create --name used x
        Error response from daemon: Conflict. The container name "/used" is already in use
        => 1
        $ creel run -d x nosuch
        creel: Error response from daemon: exec: "nosuch": executable file not found in $PATH

        Run 'creel run --help' for more information
        => 127
        $ creel run -d broken
        creel: Error response from daemon: <html>gone wrong</html>

        Run 'creel run --help' for more information
        => 125
        $ creel run -d nonsense
        creel: reading the daemon's answer to POST /containers/create: expected ident at line 1 column 2

        Run 'creel run --help' for more information
        => 125
        $ creel run -d cut
        creel: reading the answer to POST /containers/create: error reading a body from connection: end of file before message length reached

        Run 'creel run --help' for more information
        => 125
        $ creel pull x
        Using default tag: latest
        no space left
        => 1
        $ creel run -it x
        the input device is not a TTY
        => 1
        $ creel run -d -a stdout x
        conflicting options: cannot specify both --attach and --detach
        => 1
        $ creel run --pull sometimes x
        creel: invalid pull option: 'sometimes': must be one of "always", "missing" or "never"

        Run 'creel run --help' for more information
        => 125
        $ creel run a..b
        creel: invalid reference format: `a..b`: the repository's name has a character or an order that is not allowed

        Run 'creel run --help' for more information
        => 125
    "#]].assert_eq(&text);
}

#[test]
fn signals_reach_the_container() {
    let (signalled, end) = mpsc::channel::<()>();
    let (signalled, end) = (Mutex::new(signalled), Arc::new(Mutex::new(end)));
    let (attached, is_attached) = mpsc::channel::<()>();
    let attached = Mutex::new(attached);
    let daemon = Daemon::start(move |request| match request.target.split('?').next().unwrap() {
        "/containers/create" => Reply::Full(201, "", br#"{"Id":"c1"}"#.to_vec()),
        "/containers/c1/attach" => {
            let end = end.clone();
            Reply::Hijack(Box::new(move |mut stream| {
                stream.write_all(&frame(1, "ready\n")).unwrap();
                end.lock().unwrap().recv().unwrap();
            }))
        }
        "/containers/c1/wait" => Reply::Later(Box::new(|| "{\"StatusCode\":143}".to_owned())),
        "/containers/c1/start" => {
            attached.lock().unwrap().send(()).unwrap();
            Reply::Full(204, "", Vec::new())
        }
        "/containers/c1/kill" => {
            signalled.lock().unwrap().send(()).unwrap();
            Reply::Full(204, "", Vec::new())
        }
        other => panic!("unexpected {other}"),
    });
    let child = daemon.spawn(&["run", "x"]);
    is_attached.recv().unwrap();
    creel_sys::signal::kill(child.id() as i32, libc::SIGTERM).unwrap();
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.out.as_str()), (143, "ready\n"));
    assert!(
        daemon.lines().contains(&"POST /containers/c1/kill?signal=SIGTERM".to_owned()),
        "{:?}",
        daemon.lines()
    );
}

#[test]
fn an_exec_has_its_own_exit_code() {
    let daemon = Daemon::start(|request| match request.target.split('?').next().unwrap() {
        "/containers/web/exec" => Reply::Full(201, "", br#"{"Id":"e1"}"#.to_vec()),
        "/exec/e1/start" => Reply::Hijack(Box::new(|mut stream| {
            stream.write_all(&frame(1, "o")).unwrap();
            stream.write_all(&frame(2, "e")).unwrap();
        })),
        "/exec/e1/json" => ok(r#"{"ID":"e1","ExitCode":9}"#),
        other => panic!("unexpected {other}"),
    });
    let ran = daemon.run(&["exec", "-e", "A=1", "-w", "/x", "web", "sh", "-c", "true"]);
    assert_eq!(ran, Ran { code: 9, out: "o".into(), err: "e".into() });
    let asked = daemon.requests()[0].json();
    assert_eq!(asked["Cmd"], serde_json::json!(["sh", "-c", "true"]));
    assert_eq!(asked["Env"], serde_json::json!(["A=1"]));
    assert_eq!(asked["WorkingDir"], "/x");
}
