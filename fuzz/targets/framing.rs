//! The shim's lines: however the bytes are cut they make the same lines and lose nothing, and every message is read
//! back as it was printed.
#![no_main]

use creel_fuzz::json;
use creel_shim::framing::{Lines, decode, encode};
use creel_shim::proto::{Message, Opening, Request, StreamReply};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((piece, bytes)) = data.split_first() else { return };
    let mut lines = Lines::default();
    let mut joined = Vec::new();
    for part in bytes.chunks(usize::from(*piece).max(1)) {
        lines.push(part);
        while let Some(line) = lines.next_line().expect("no line is too long") {
            assert!(!line.contains(&b'\n'));
            message(&line);
            joined.extend_from_slice(&line);
            joined.push(b'\n');
        }
    }
    let rest = lines.into_rest();
    assert!(!rest.contains(&b'\n'));
    joined.extend_from_slice(&rest);
    assert_eq!(joined, bytes);
});

fn message(line: &[u8]) {
    json::<Message>(line);
    json::<Opening>(line);
    json::<StreamReply>(line);
    if let Some(request) = json::<Request>(line) {
        let line = encode(&request).expect("what was read can be printed");
        // One message, one line.
        assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
        let _ = decode::<Request>(&line);
    }
}
