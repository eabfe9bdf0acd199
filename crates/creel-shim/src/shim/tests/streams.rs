use super::*;

#[test]
fn ten_megabytes_of_noise_arrive_and_are_logged_exactly() {
    let data = noise(10 << 20);
    let mut rig = Rig::new(&["sh", "-c", "cat \"$0\"", "x"], |_| {});
    fs::write(rig.path().join("data"), &data).unwrap();
    let path = rig.path().join("data");
    fs::write(rig.path().join("program"), serde_json::to_vec(&["cat", path.to_str().unwrap()]).unwrap())
        .unwrap();
    let wire = rig.attach();
    rig.run();
    let (out, err) = wire.output();
    assert!(out == data, "{} bytes of {}", out.len(), data.len());
    assert!(err.is_empty());
    assert_eq!(rig.exit().code, 0);
    assert!(rig.logged() == as_logged(&data));
    rig.gone();
}

#[test]
fn a_slow_reader_gets_everything_and_holds_the_program_back() {
    let mut rig =
        Rig::sh("i=0; while [ $i -lt 60000 ]; do echo $i; i=$((i+1)); done; echo done > $DONE", |_| {});
    let done = rig.path().join("done");
    let script =
        format!("i=0; while [ $i -lt 60000 ]; do echo $i; i=$((i+1)); done; echo > {}", done.display());
    fs::write(rig.path().join("program"), serde_json::to_vec(&["sh", "-c", &script]).unwrap()).unwrap();
    let slow = rig.attach();
    let quick = rig.attach();
    rig.run();
    // The pipe, both sockets and the buffers hold less than what is to come.
    std::thread::sleep(Duration::from_millis(1500));
    assert!(!done.exists());
    let reader = std::thread::spawn(move || quick.output().0);
    let mut bytes = slow.rest.clone();
    let mut buffer = [0; 997];
    let mut stream = slow.stream;
    loop {
        let n = stream.read(&mut buffer).unwrap();
        if n == 0 {
            break;
        }
        bytes.extend_from_slice(&buffer[..n]);
        std::thread::sleep(Duration::from_micros(300));
    }
    let want: String = (0..60000).map(|n| format!("{n}\n")).collect();
    assert!(String::from_utf8(demux(&bytes).0).unwrap() == want);
    assert!(String::from_utf8(reader.join().unwrap()).unwrap() == want);
    assert!(rig.logged() == want);
    rig.gone();
}

#[test]
fn a_reader_that_never_reads_does_not_hold_up_the_end() {
    let mut rig = Rig::sh("head -c 3000000 /dev/zero; echo end", |_| {});
    let _stuck = rig.attach();
    rig.create();
    rig.start();
    // It waits in write(2) when its log grows no more: the attacher holds it back. Killed, its pipe is still read to
    // the end.
    let log = rig.path().join("log");
    let (mut size, mut since) = (0, Instant::now());
    wait_for("the program to be held back", || {
        let now = fs::metadata(&log).map_or(0, |log| log.len());
        if now == 0 || now != size {
            (size, since) = (now, Instant::now());
        }
        (since.elapsed() > patience(1) / 4).then_some(())
    });
    let begun = Instant::now();
    rig.control.call(Call::Signal { signal: 9, all: false }).unwrap();
    let record = rig.exit();
    assert!(begun.elapsed() < patience(5));
    assert!(record.code == 137 || record.code == 0, "{record:?}");
    let troubles = rig.path().join(files::LOG);
    let dir = tempfile::tempdir().unwrap();
    wait_for("the shim to give up", || (rig.shim.try_wait().unwrap()).map(|_| ()));
    fs::copy(troubles, dir.path().join("log")).unwrap();
    assert!(fs::read_to_string(dir.path().join("log")).unwrap().contains("were not read"));
}

#[test]
fn both_streams_are_told_apart_and_ordered_by_line() {
    let mut rig = Rig::sh("echo out; echo err >&2; printf last", |_| {});
    let wire = rig.attach();
    let only_err = rig.open(&Opening::Attach(Attach { stderr: true, ..Default::default() })).unwrap();
    rig.run();
    assert_eq!(wire.output(), (b"out\nlast".to_vec(), b"err\n".to_vec()));
    assert_eq!(only_err.output(), (Vec::new(), b"err\n".to_vec()));
    assert_eq!(rig.exit().code, 0);
    rig.gone();
}

#[test]
fn stdin_ends_with_the_first_attacher_if_it_is_once() {
    let mut rig = Rig::sh("cat; echo over", |c| (c.open_stdin, c.stdin_once) = (true, true));
    let mut wire = rig.attach();
    wire.say("early\n");
    rig.run();
    wire.say("late\n");
    wire.half_close();
    assert_eq!(wire.output().0, b"early\nlate\nover\n");
    rig.gone();
}

#[test]
fn stdin_stays_open_for_the_next_attacher_and_closes_on_demand() {
    let mut rig = Rig::sh("while read line; do echo \"got $line\"; done; echo over", |c| c.open_stdin = true);
    rig.run();
    let mut first = rig.attach();
    first.say("one\n");
    first.half_close();
    first.until("got one");
    drop(first);
    let mut second = rig.attach();
    second.say("two\n");
    second.until("got two");
    let third = rig.attach();
    // Gone without a half-close, as when the daemon is killed.
    drop(second);
    rig.control.call(Call::CloseStdin { exec_id: None }).unwrap();
    assert_eq!(third.output().0, b"over\n");
    assert_eq!(rig.exit().code, 0);
    assert_eq!(rig.logged(), "got one\ngot two\nover\n");
    rig.gone();
}

#[test]
fn a_vanished_client_ends_stdin_but_a_killed_daemon_does_not() {
    let once = |c: &mut ShimConfig| (c.open_stdin, c.stdin_once) = (true, true);
    let mut rig = Rig::sh("cat; echo over", once);
    rig.run();
    let mut wire = rig.attach();
    wire.say("one\n");
    wire.until("one");
    drop(wire);
    assert_eq!(rig.exit().code, 0);
    assert_eq!(rig.logged(), "one\nover\n");
    rig.gone();

    let mut rig = Rig::sh("cat; echo over", once);
    rig.run();
    let mut wire = rig.attach();
    wire.say("one\n");
    wire.until("one");
    rig.control = Control::new(UnixStream::pair().unwrap().0);
    drop(wire);
    std::thread::sleep(Duration::from_millis(600));
    rig.control = Control::connect(rig.path()).unwrap();
    rig.control.call(Call::Subscribe).unwrap();
    let mut wire = rig.attach();
    wire.say("two\n");
    wire.half_close();
    assert_eq!(wire.output().0, b"two\nover\n");
    assert_eq!(rig.exit().code, 0);
    rig.gone();
}

#[test]
fn a_big_stdin_arrives_whole() {
    let data = noise(3 << 20);
    let mut rig = Rig::sh("sleep 0.3; cat", |c| (c.open_stdin, c.stdin_once) = (true, true));
    rig.run();
    let wire = rig.attach();
    let mut sender = wire.stream.try_clone().unwrap();
    let copy = data.clone();
    let sending = std::thread::spawn(move || {
        sender.write_all(&copy).unwrap();
        sender.shutdown(std::net::Shutdown::Write).unwrap();
    });
    assert!(wire.output().0 == data);
    sending.join().unwrap();
    rig.gone();
}

#[test]
fn a_terminal_echoes_and_has_a_size() {
    let mut rig = Rig::sh("echo ready; read a; stty size; read b; stty size; exit 3", |c| {
        (c.terminal, c.open_stdin) = (true, true);
    });
    let mut wire = rig.attach();
    rig.create();
    let size = |width, height| Call::Resize { exec_id: None, width, height };
    rig.control.call(size(80, 24)).unwrap();
    rig.start();
    wire.until("ready");
    wire.say("hello\n");
    wire.until("24 80");
    rig.control.call(size(132, 50)).unwrap();
    wire.say("x\n");
    let text = wire.until("50 132");
    assert!(text.contains("hello\r\n"), "{text:?}");
    assert_eq!(rig.exit().code, 3);
    assert!(rig.logged().contains("50 132\r\n"));
    rig.gone();
}

#[test]
fn a_terminal_that_is_closed_and_opened_again_goes_on() {
    let mut rig = Rig::sh(
        "t=$(tty); echo one; trap '' HUP; exec </dev/null >/dev/null 2>&1; sleep 0.5; echo two > $t; sleep 0.3",
        |c| c.terminal = true,
    );
    let wire = rig.attach();
    rig.run();
    let text = String::from_utf8(wire.raw()).unwrap();
    assert_eq!(text, "one\r\ntwo\r\n");
    rig.gone();
}
