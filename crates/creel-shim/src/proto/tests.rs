use creel_types::ErrorKind;
use expect_test::{Expect, expect};
use serde::{Serialize, de::DeserializeOwned};

use super::*;

fn check<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T, expect: Expect) {
    let text = serde_json::to_string(value).unwrap();
    assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), value);
    expect.assert_eq(&text);
}

fn record() -> ExitRecord {
    ExitRecord {
        code: 137,
        signal: Some(9),
        oom_killed: true,
        finished_at: "2026-01-02T03:04:05.000000006Z".parse().unwrap(),
        error: None,
    }
}

#[test]
fn requests_on_the_wire() {
    check(&Request { seq: 1, call: Call::Start }, expect![[r#"{"seq":1,"call":"start"}"#]]);
    check(
        &Request { seq: 2, call: Call::Signal { signal: 15, all: true } },
        expect![[r#"{"seq":2,"call":"signal","signal":15,"all":true}"#]],
    );
    check(
        &Request { seq: 3, call: Call::Resize { exec_id: None, width: 80, height: 24 } },
        expect![[r#"{"seq":3,"call":"resize","exec_id":null,"width":80,"height":24}"#]],
    );
    let process = creel_types::spec::Process { args: vec!["true".into()], ..Default::default() };
    let start = ExecStart { exec_id: "e".into(), process, open_stdin: false, attach: Attach::default() };
    let text = serde_json::to_string(&Request { seq: 4, call: Call::Exec(start.clone()) }).unwrap();
    assert_eq!(serde_json::from_str::<Request>(&text).unwrap().call, Call::Exec(start));
}

#[test]
fn replies_and_events_on_the_wire() {
    check(
        &Message::Reply(Reply { seq: 7, outcome: Outcome::Ok(Answer::Done) }),
        expect![[r#"{"reply":{"seq":7,"ok":"done"}}"#]],
    );
    check(
        &Message::Reply(Reply {
            seq: 8,
            outcome: Outcome::Error(Failure { kind: ErrorKind::ProgramNotFound, message: "no".into() }),
        }),
        expect![[r#"{"reply":{"seq":8,"error":{"kind":"program_not_found","message":"no"}}}"#]],
    );
    check(
        &Message::Event(Event::Exit { record: record() }),
        expect![[
            r#"{"event":{"type":"exit","record":{"code":137,"signal":9,"oom_killed":true,"finished_at":"2026-01-02T03:04:05.000000006Z","error":null}}}"#
        ]],
    );
    check(
        &Message::Event(Event::ExecExit(ExecEnd { exec_id: "e".into(), code: 3 })),
        expect![[r#"{"event":{"type":"exec_exit","exec_id":"e","code":3}}"#]],
    );
    check(&Message::Event(Event::Oom), expect![[r#"{"event":{"type":"oom"}}"#]]);
    check(&StreamReply::Ok { pid: Some(4) }, expect![[r#"{"ok":{"pid":4}}"#]]);
}

#[test]
fn what_a_newer_side_says_is_understood_as_unknown() {
    let request: Request = serde_json::from_str(r#"{"seq":9,"call":"dance","with":"me"}"#).unwrap();
    assert_eq!(request, Request { seq: 9, call: Call::Unknown });
    let event: Message = serde_json::from_str(r#"{"event":{"type":"sunrise","at":5}}"#).unwrap();
    assert_eq!(event, Message::Event(Event::Unknown));
    let failure: Failure = serde_json::from_str(r#"{"kind":"new_kind","message":"m","hint":"h"}"#).unwrap();
    assert_eq!(failure.kind, ErrorKind::Internal);
}

#[test]
fn an_opening_is_told_from_a_request() {
    let opening: Opening =
        serde_json::from_str(r#"{"attach":{"exec_id":null,"stdin":true,"stdout":true,"stderr":true}}"#)
            .unwrap();
    assert_eq!(opening, Opening::Attach(Attach { exec_id: None, stdin: true, stdout: true, stderr: true }));
    assert!(serde_json::from_str::<Opening>(r#"{"seq":1,"call":"state"}"#).is_err());
}
