use creel_types::ErrorKind;

use super::*;
use crate::proto::Status;

#[test]
fn a_short_life_leaves_records_and_codes() {
    let mut rig = Rig::sh("exit 7", |_| {});
    assert_eq!(rig.state().status, Status::Idle);
    let pid = rig.create();
    assert_eq!((rig.state().status, rig.state().pid), (Status::Created, Some(pid)));
    assert_eq!(rig.refused(Call::Create).kind, ErrorKind::Conflict);
    assert_eq!(rig.start(), pid);
    let record = rig.exit();
    assert_eq!((record.code, record.signal, record.oom_killed, &record.error), (7, None, false, &None));
    let state: crate::proto::StateRecord =
        serde_json::from_slice(&fs::read(rig.path().join(files::STATE)).unwrap()).unwrap();
    assert_eq!(state.pid, pid);
    assert_eq!(rig.gone(), record);
}

#[test]
fn signals_end_it_with_128_and_more() {
    let mut rig = Rig::sh("sleep 1000", |_| {});
    rig.run();
    assert_eq!(rig.refused(Call::Signal { signal: 99, all: false }).kind, ErrorKind::InvalidArgument);
    fs::write(rig.path().join("oom"), "").unwrap();
    rig.control.call(Call::Signal { signal: 15, all: true }).unwrap();
    let record = rig.exit();
    assert_eq!((record.code, record.signal, record.oom_killed), (143, Some(15), true));
    rig.gone();
}

#[test]
fn a_program_that_cannot_start_is_on_record() {
    let mut rig = Rig::sh("true", |_| {});
    fs::write(rig.path().join("no-program"), "").unwrap();
    rig.create();
    assert_eq!(rig.refused(Call::Start).kind, ErrorKind::ProgramNotFound);
    let record = rig.exit();
    assert_eq!((record.code, record.error.as_deref()), (127, Some("no such program")));
    assert_eq!(rig.gone(), record);
}

#[test]
fn twenty_execs_at_once_with_their_own_streams_and_codes() {
    let mut rig = Rig::sh("sleep 1000", |_| {});
    rig.run();
    let wires: Vec<_> = (0..20)
        .map(|n| {
            let script = format!("cat; echo err{n} >&2; head -c 100000 /dev/zero; exit {n}");
            rig.exec(&format!("e{n}"), &script, true).unwrap()
        })
        .collect();
    assert_eq!(rig.state().execs.len(), 20);
    for (n, mut wire) in wires.into_iter().enumerate() {
        assert!(wire.pid.is_some());
        wire.say(&format!("in{n}"));
        wire.half_close();
        let (out, err) = wire.output();
        let mut want = format!("in{n}").into_bytes();
        want.extend(vec![0; 100_000]);
        assert!(out == want, "{n}");
        assert_eq!(err, format!("err{n}\n").into_bytes());
    }
    let mut codes: Vec<_> = (0..20)
        .map(|_| match rig.control.next_event().unwrap() {
            Event::ExecExit(end) => (end.exec_id, end.code),
            other => panic!("{other:?}"),
        })
        .collect();
    codes.sort_by_key(|(_, code)| *code);
    assert_eq!(codes, (0..20).map(|n| (format!("e{n}"), n)).collect::<Vec<_>>());
    let state = rig.state();
    assert_eq!((state.execs.len(), state.ended_execs.len()), (0, 20));
    // Detached, with nobody to read.
    match rig.control.call(Call::Exec(exec_start("d", "echo lost; exit 9", false))).unwrap() {
        Answer::Executed { pid } => assert!(pid > 0),
        other => panic!("{other:?}"),
    }
    assert!(matches!(rig.control.next_event().unwrap(), Event::ExecExit(end) if end.code == 9));
    // An exec that is still there dies with the container, and is told of before it.
    let wire = rig.exec("last", "sleep 1000", false).unwrap();
    fs::write(rig.path().join("frozen"), "").unwrap();
    assert!(
        matches!(rig.exec("no", "true", false), Err(ClientError::Refused(f)) if f.kind == ErrorKind::Conflict)
    );
    rig.control.call(Call::Signal { signal: 9, all: true }).unwrap();
    assert!(matches!(rig.control.next_event().unwrap(), Event::ExecExit(end) if end.code == 137));
    assert_eq!(rig.exit().code, 137);
    wire.output();
    rig.gone();
}

#[test]
fn a_background_child_that_keeps_the_pipe_does_not_keep_the_exec() {
    let mut rig = Rig::sh("sleep 1000", |_| {});
    rig.run();
    let begun = Instant::now();
    let wire = rig.exec("e", "echo hi; sleep 1000 & exit 4", false).unwrap();
    assert_eq!(wire.output().0, b"hi\n");
    assert!(matches!(rig.control.next_event().unwrap(), Event::ExecExit(end) if end.code == 4));
    assert!(begun.elapsed() < patience(10));
    rig.control.call(Call::Signal { signal: 9, all: true }).unwrap();
    assert_eq!(rig.exit().code, 137);
    rig.gone();
}

#[test]
fn a_background_child_that_keeps_the_pipe_dies_with_the_container() {
    let mut rig = Rig::sh("echo hi; sleep 1000 & exit 5", |_| {});
    let wire = rig.attach();
    let begun = Instant::now();
    rig.run();
    assert_eq!(wire.output().0, b"hi\n");
    assert_eq!(rig.exit().code, 5);
    assert!(begun.elapsed() < patience(5));
    rig.gone();
}

#[test]
fn the_daemons_death_changes_nothing_and_its_successor_hears_all() {
    let mut rig = Rig::sh("read x; i=0; while [ $i -lt 2000 ]; do echo $i; i=$((i+1)); done; exit 6", |c| {
        c.open_stdin = true;
    });
    rig.run();
    let wire = rig.attach();
    let exec = rig.exec("e", "sleep 0.2; exit 2", false).unwrap();
    // The daemon dies: all its sockets close at once.
    let (dead, _) = UnixStream::pair().unwrap();
    rig.control = Control::new(dead);
    drop((wire, exec));
    std::thread::sleep(Duration::from_millis(1500));
    rig.control = Control::connect(rig.path()).unwrap();
    match rig.control.call(Call::Subscribe).unwrap() {
        Answer::State(snapshot) => {
            assert_eq!((snapshot.status, snapshot.version), (Status::Running, 1));
            assert_eq!(snapshot.ended_execs.iter().map(|e| e.code).collect::<Vec<_>>(), [2]);
        }
        other => panic!("{other:?}"),
    }
    let mut again = rig.attach();
    again.say("go\n");
    let want: String = (0..2000).map(|n| format!("{n}\n")).collect();
    assert!(again.output().0 == want.as_bytes());
    assert_eq!(rig.exit().code, 6);
    assert!(rig.logged() == want);
    rig.gone();
}

#[test]
fn a_late_subscriber_gets_the_exit_event() {
    let mut rig = Rig::sh("head -c 50000 /dev/zero; exit 8", |_| {});
    let stuck = rig.attach();
    let second = rig.attach();
    rig.run();
    assert_eq!(rig.exit().code, 8);
    let mut late = Control::connect(rig.path());
    // The shim is still there only if something is unsent; then the late one must hear of the end.
    if let Ok(control) = &mut late
        && let Ok(Answer::State(snapshot)) = control.call(Call::Subscribe)
    {
        assert_eq!(snapshot.status, Status::Exited);
        assert!(matches!(control.next_event().unwrap(), Event::Exit { record } if record.code == 8));
    }
    drop((stuck, second));
    rig.gone();
}

#[test]
fn a_shim_that_nobody_starts_goes_away() {
    for create in [false, true] {
        let mut rig = Rig::sh("true", |_| {});
        if create {
            rig.create();
        } else {
            rig.state();
        }
        let (dead, _) = UnixStream::pair().unwrap();
        rig.control = Control::new(dead);
        wait_for("the shim's end", || rig.shim.try_wait().unwrap());
        assert!(rig.troubles().contains("giving it up"), "{}", rig.troubles());
        assert_eq!(rig.path().join(files::EXIT).exists(), create);
    }
}

#[test]
fn what_is_no_protocol_is_refused_and_harms_nobody() {
    let mut rig = Rig::sh("sleep 1000", |_| {});
    rig.run();
    let mut stream = UnixStream::connect(rig.path().join(files::SOCKET)).unwrap();
    let mut answer = [0; 512];
    let mut ask = |line: &str| {
        stream.write_all(line.as_bytes()).unwrap();
        let n = stream.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..n]).into_owned()
    };
    assert!(ask("garbage\n").contains(r#""error":{"kind":"invalid_argument""#));
    assert!(ask("{\"seq\":5,\"call\":\"dance\"}\n").contains(r#""seq":5,"error":{"kind":"unsupported""#));
    assert!(ask("{\"seq\":6,\"call\":\"state\"}\n").contains(r#""seq":6,"ok":{"state""#));
    let missing = Attach { exec_id: Some("nope".into()), ..ALL };
    assert!(
        matches!(rig.open(&Opening::Attach(missing)), Err(ClientError::Refused(f)) if f.kind == ErrorKind::NotFound)
    );
    let mut endless = UnixStream::connect(rig.path().join(files::SOCKET)).unwrap();
    endless.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    let _ = endless.write_all(&vec![b'x'; crate::proto::MAX_MESSAGE + 1]);
    assert_eq!(rig.state().status, Status::Running);
    assert_eq!(rig.refused(Call::Shutdown { force: false }).kind, ErrorKind::Conflict);
    rig.control.call(Call::Shutdown { force: true }).unwrap();
    assert_eq!(rig.exit().code, 137);
    rig.gone();
}
