//! The driver against a systemd of our own that speaks the wire protocol over a socket.

use std::path::Path;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;

use expect_test::expect;

use super::bus::{OBJECT, SYSTEMD};
use super::wire::{HEADER, Kind, Message};
use super::*;
use crate::hierarchy::tests::{V2_CONTROLLERS, V2_MOUNTS, V2_SELF};

/// What the other end does with a call: messages that it sends, of which those without a serial answer it.
type Behaviour = Box<dyn FnMut(&Message) -> Vec<Message> + Send>;

fn message(kind: Kind, member: &str, body: Vec<Value>) -> Message {
    Message {
        kind,
        silent: false,
        serial: 0,
        reply_to: None,
        path: if kind == Kind::Signal { OBJECT.into() } else { String::new() },
        interface: if kind == Kind::Signal { MANAGER.into() } else { String::new() },
        member: member.into(),
        destination: ":1.5".into(),
        body,
    }
}

fn reply(body: Vec<Value>) -> Message {
    message(Kind::Reply, "", body)
}

fn refusal(name: &str, why: &str) -> Message {
    message(Kind::Error, name, vec![Value::text(why)])
}

fn job_removed(job: &str, result: &str) -> Message {
    let job = Value::ObjectPath(job.into());
    message(
        Kind::Signal,
        "JobRemoved",
        vec![Value::Uint32(1), job, Value::text("x.scope"), Value::text(result)],
    )
}

fn job_path(job: &str) -> Message {
    reply(vec![Value::ObjectPath(job.into())])
}

/// Serves one connection in a thread of its own; tells each call.
fn serve(mut behaviour: Behaviour) -> (Bus, mpsc::Receiver<Message>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (told, calls) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(theirs.try_clone().unwrap());
        let mut writer = theirs;
        let mut line = String::new();
        let mut next = |line: &mut String| {
            line.clear();
            reader.read_line(line).unwrap();
        };
        next(&mut line);
        assert_eq!(line, "\0AUTH EXTERNAL\r\n");
        writer.write_all(b"DATA\r\n").unwrap();
        next(&mut line);
        assert_eq!(line, "DATA\r\n");
        writer.write_all(b"OK 0123456789abcdef0123456789abcdef\r\n").unwrap();
        next(&mut line);
        assert_eq!(line, "BEGIN\r\n");
        let mut serial = 0;
        loop {
            let mut bytes = vec![0; HEADER];
            if reader.read_exact(&mut bytes).is_err() {
                return;
            }
            bytes.resize(Message::length(&bytes).unwrap(), 0);
            reader.read_exact(&mut bytes[HEADER..]).unwrap();
            let call = Message::decode(&bytes).unwrap().unwrap();
            let answers = match (call.destination.as_str(), call.silent) {
                ("org.freedesktop.DBus", false) => vec![reply(vec![Value::text(":1.5")])],
                (_, true) => Vec::new(),
                _ => behaviour(&call),
            };
            for mut answer in answers {
                serial += 1;
                answer.serial = serial;
                answer.reply_to = (answer.kind != Kind::Signal).then_some(call.serial);
                if writer.write_all(&answer.encode()).is_err() {
                    return;
                }
            }
            if call.destination == SYSTEMD && !call.silent {
                let _ = told.send(call);
            }
        }
    });
    (Bus::over(ours, false).unwrap(), calls)
}

fn members(calls: &mpsc::Receiver<Message>) -> Vec<String> {
    let mut all = Vec::new();
    while let Ok(call) = calls.recv_timeout(std::time::Duration::from_millis(50)) {
        all.push(call.member);
    }
    all
}

/// A v2 hierarchy in a directory.
fn hierarchies(root: &Path) -> Hierarchies {
    let mounts = V2_MOUNTS.replace("/sys/fs/cgroup", &root.display().to_string());
    fs::write(root.join("cgroup.subtree_control"), "cpuset cpu io memory hugetlb pids rdma misc").unwrap();
    Hierarchies::from_texts(&mounts, V2_SELF, V2_CONTROLLERS).unwrap()
}

/// What the kernel would put into a new group.
fn make(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    for file in ["cgroup.procs", "cgroup.subtree_control", "pids.max", "memory.max", "cpu.max", "cpu.weight"]
    {
        fs::write(dir.join(file), if file == "cgroup.subtree_control" { V2_CONTROLLERS } else { "" })
            .unwrap();
    }
}

/// A systemd that makes the groups of units and does all jobs.
fn willing(root: PathBuf) -> Behaviour {
    Box::new(move |call| match call.member.as_str() {
        "Get" => {
            let value = match call.body[1].as_text() {
                Some("Version") => "252.39-1",
                Some("ControlGroup") => "/user.slice/user-7.slice/user@7.service",
                other => panic!("{other:?}"),
            };
            vec![reply(vec![Value::variant(Value::text(value))])]
        }
        "StartTransientUnit" => {
            make(&root);
            // Other jobs end too, and the one in question before its answer.
            vec![job_removed("/job/8", "failed"), job_removed("/job/9", "done"), job_path("/job/9")]
        }
        "StopUnit" => vec![job_path("/job/10"), job_removed("/job/10", "done")],
        "ResetFailedUnit" => vec![refusal("org.freedesktop.systemd1.NoSuchUnit", "Unit not loaded.")],
        "SetUnitProperties" => vec![reply(Vec::new())],
        other => panic!("{other}"),
    })
}

#[test]
fn a_scope_from_beginning_to_end() {
    let root = tempfile::tempdir().unwrap();
    let h = hierarchies(root.path());
    let resources = serde_json::from_str(
        r#"{"pids": {"limit": 20}, "memory": {"limit": 33554432}, "cpu": {"quota": 4033, "period": 100000}}"#,
    )
    .unwrap();
    let annotations = [("org.systemd.property.TimeoutStopSec".to_owned(), "uint64 5".to_owned())].into();
    let request = Request {
        cgroups_path: Some("machine.slice:libpod:abc"),
        id: "abc",
        annotations: &annotations,
        resources: &resources,
        rootless: false,
    };
    make(&root.path().join("machine.slice"));
    let dir = root.path().join("machine.slice/libpod-abc.scope");
    let pid = i32::try_from(std::process::id()).unwrap();
    let (bus, calls) = serve(willing(dir.clone()));
    let started = create_over(bus, &h, &request, Some(pid)).unwrap();
    let group = started.group;
    assert_eq!(group.path(), "/machine.slice/libpod-abc.scope");
    assert_eq!(group.unit(), Some(&Unit { name: "libpod-abc.scope".into(), user: false }));
    let copy: Cgroup = serde_json::from_str(&serde_json::to_string(&group).unwrap()).unwrap();
    assert_eq!(copy, group);

    let sent: Vec<Message> =
        std::iter::from_fn(|| calls.recv_timeout(std::time::Duration::from_millis(50)).ok()).collect();
    let call = sent.iter().find(|call| call.member == "StartTransientUnit").unwrap();
    assert_eq!((call.destination.as_str(), call.path.as_str()), (SYSTEMD, OBJECT));
    let Value::Array(_, properties) = &call.body[2] else { panic!() };
    let text: String = properties.iter().map(|property| format!("{property}\n")).collect();
    let text = text.replace(&pid.to_string(), "PID");
    expect![[r#"
        ("Description", <"creel container abc">)
        ("Slice", <"machine.slice">)
        ("Delegate", <true>)
        ("PIDs", <[PID]>)
        ("MemoryAccounting", <true>)
        ("CPUAccounting", <true>)
        ("IOAccounting", <true>)
        ("TasksAccounting", <true>)
        ("DefaultDependencies", <false>)
        ("MemoryMax", <33554432>)
        ("CPUQuotaPeriodUSec", <100000>)
        ("CPUQuotaPerSecUSec", <50000>)
        ("TasksMax", <20>)
        ("TimeoutStopUSec", <5000000>)
    "#]]
    .assert_eq(&text);
    let signature: String = call.body.iter().map(Value::signature).collect();
    assert_eq!(signature, "ssa(sv)a(sa(sv))");

    let read = |file: &str| fs::read_to_string(dir.join(file)).unwrap();
    // This systemd moves nobody.
    assert_eq!(read("cgroup.procs"), pid.to_string());
    assert_eq!(read("pids.max"), "20");
    assert_eq!(read("memory.max"), "33554432");
    // As systemd counts, in whole percents.
    assert_eq!(read("cpu.max"), "5000 100000");

    let (mut bus, calls) = serve(willing(dir.clone()));
    let mut r = serde_json::from_str(r#"{"cpu": {"period": 50000}, "memory": {"limit": -1}}"#).unwrap();
    update_over(&mut bus, &group, "libpod-abc.scope", &mut r).unwrap();
    let call = calls.iter().find(|call| call.member == "SetUnitProperties").unwrap();
    assert_eq!(
        call.body.iter().map(|value| format!("{value}\n")).collect::<String>(),
        "\"libpod-abc.scope\"\ntrue\n[(\"MemoryMax\", <18446744073709551615>), (\"MemorySwapMax\", \
         <18446744073709551615>), (\"CPUQuotaPeriodUSec\", <50000>), \
         (\"CPUQuotaPerSecUSec\", <100000>)]\n"
    );
    // The quota that was there goes on, which is a tenth of the new period.
    assert_eq!(r.cpu.unwrap().quota, Some(5000));

    stop(&mut bus, &group).unwrap();
    assert_eq!(members(&calls), ["StopUnit", "ResetFailedUnit"]);
}

#[test]
fn an_ordinary_users_systemd() {
    let root = tempfile::tempdir().unwrap();
    let h = hierarchies(root.path());
    let request = Request {
        cgroups_path: None,
        id: "abc",
        annotations: &BTreeMap::new(),
        resources: &Resources::default(),
        rootless: true,
    };
    let above = root.path().join("user.slice/user-7.slice/user@7.service/user.slice");
    for dir in above.ancestors().take_while(|dir| *dir != root.path()) {
        make(dir);
    }
    let (bus, _calls) = serve(willing(above.join("creel-abc.scope")));
    let group = create_over(bus, &h, &request, None).unwrap().group;
    assert_eq!(group.path(), "/user.slice/user-7.slice/user@7.service/user.slice/creel-abc.scope");
    assert!(group.unit().unwrap().user);
    let v1 = crate::hierarchy::tests::v1();
    assert!(validate(&v1, &request).unwrap_err().to_string().contains("cgroup v1"));
}

#[test]
fn an_update_tells_what_it_passes_over() {
    let root = tempfile::tempdir().unwrap();
    let h = hierarchies(root.path());
    let dir = root.path().join("system.slice/creel-abc.scope");
    make(&dir);
    let unit = Unit { name: "creel-abc.scope".into(), user: false };
    let group = Cgroup::of_unit(h, "/system.slice/creel-abc.scope".into(), unit);
    let mut r: Resources = serde_json::from_str(r#"{"cpu": {"shares": 200, "idle": 1}}"#).unwrap();
    let (mut bus, calls) = serve(willing(dir));
    let notes = update_over(&mut bus, &group, "creel-abc.scope", &mut r).unwrap();
    assert!(matches!(&notes[..], [note] if note.starts_with("unable to apply both")), "{notes:?}");
    assert_eq!(members(&calls), ["Get", "SetUnitProperties"]);
    assert_eq!(r.cpu.unwrap().shares, None);
}

#[test]
fn the_living_are_left_alone_and_failures_are_undone() {
    let root = tempfile::tempdir().unwrap();
    let h = hierarchies(root.path());
    let mut resources = Resources::default();
    let dir = root.path().join("system.slice/creel-abc.scope");
    make(dir.parent().unwrap());
    make(&dir);
    fs::write(dir.join("cgroup.procs"), "77\n").unwrap();
    let none = BTreeMap::new();
    fn request<'a>(resources: &'a Resources, annotations: &'a BTreeMap<String, String>) -> Request<'a> {
        Request { cgroups_path: None, id: "abc", annotations, resources, rootless: false }
    }
    let (bus, calls) = serve(willing(dir.clone()));
    let error = create_over(bus, &h, &request(&resources, &none), Some(1)).unwrap_err();
    assert!(matches!(error, Error::Occupied { pid: 77, .. }), "{error}");
    assert_eq!(members(&calls), ["Get"]);
    fs::remove_dir_all(&dir).unwrap();
    // A file that this kernel lacks: the unit is stopped again.
    resources.cpu = serde_json::from_str(r#"{"idle": 1}"#).unwrap();
    let (bus, calls) = serve(willing(dir.clone()));
    let error = create_over(bus, &h, &request(&resources, &none), None).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    assert_eq!(members(&calls), ["Get", "StartTransientUnit", "StopUnit", "ResetFailedUnit"]);
}

fn starting(behaviour: Behaviour, may_exist: bool) -> (Result<()>, Vec<String>) {
    let (mut bus, calls) = serve(behaviour);
    let result = start(&mut bus, "x.scope", &Properties::new(), may_exist);
    (result, members(&calls))
}

#[test]
fn units_that_exist() {
    let exists = || refusal("org.freedesktop.systemd1.UnitExists", "Unit x.scope was already loaded.");
    // Failed once: forgotten, then it works.
    let mut tried = 0;
    let (result, calls) = starting(
        Box::new(move |call| match call.member.as_str() {
            "ResetFailedUnit" => vec![reply(Vec::new())],
            _ => {
                tried += 1;
                if tried == 1 { vec![exists()] } else { vec![job_path("/j"), job_removed("/j", "done")] }
            }
        }),
        false,
    );
    result.unwrap();
    assert_eq!(calls, ["StartTransientUnit", "ResetFailedUnit", "StartTransientUnit"]);
    // It runs.
    let (result, calls) = starting(Box::new(move |_| vec![exists()]), false);
    let error = result.unwrap_err().to_string();
    assert_eq!(
        error,
        "cannot start the unit x.scope: Unit x.scope was already loaded. (org.freedesktop.systemd1.UnitExists)"
    );
    assert_eq!(calls.len(), 3);
    starting(Box::new(move |_| vec![exists()]), true).0.unwrap();
}

#[test]
fn jobs_that_fail_and_answers_that_are_none() {
    let (result, calls) = starting(
        Box::new(|call| match call.member.as_str() {
            "StartTransientUnit" => vec![job_path("/j"), job_removed("/j", "timeout")],
            _ => vec![reply(Vec::new())],
        }),
        false,
    );
    assert!(result.unwrap_err().to_string().contains("\"timeout\""));
    assert_eq!(calls, ["StartTransientUnit", "ResetFailedUnit"]);
    let (result, _) = starting(Box::new(|_| vec![reply(Vec::new())]), false);
    assert!(result.unwrap_err().to_string().contains("names no job"));
    let (mut bus, _) =
        serve(Box::new(|_| vec![refusal("org.freedesktop.systemd1.NoSuchUnit", "not loaded")]));
    let group = Cgroup::of_unit(
        crate::hierarchy::tests::v2(),
        "/x".into(),
        Unit { name: "x.scope".into(), user: false },
    );
    stop(&mut bus, &group).unwrap();
}

#[test]
fn whoever_answers_is_not_believed_blindly() {
    for (said, want) in [
        (&b"REJECTED EXTERNAL\r\n"[..], "REJECTED"),
        (b"DATA\r\nREJECTED\r\n", "REJECTED"),
        (b"DATA\r\nOK 00\r\nrubbish that is no message at all", "no message"),
        (b"DATA\r\nOK 00\r\nl\x02\x00\x01\xff\xff\xff\x7f\x01\x00\x00\x00\x00\x00\x00\x00", "too long"),
        (b"DATA\r\nOK 00\r\n", "hung up"),
        (&[b'x'; 2000], "without end"),
    ] {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(said).unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        let error = match Bus::over(ours, false) {
            Err(error) => error.to_string(),
            Ok(mut bus) => bus.manager_property("Version").unwrap_err().to_string(),
        };
        assert!(error.contains(want), "{error}");
    }
}
