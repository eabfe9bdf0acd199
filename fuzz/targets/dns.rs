//! Questions to a container's resolver: whatever comes is read or refused; an answer repeats number and question, and fits.
#![no_main]

use creel_net::dns::{Code, Data, Found, Query, Record, Reply, Zone};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let query = match Query::read(data) {
        Ok(query) => query,
        Err(error) => {
            if let Some(answer) = Reply::to_malformed(error) {
                assert_eq!(answer[..2], data[..2]);
            }
            return;
        }
    };
    let mut zone = Zone::new("net");
    zone.add(&["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()], ["web", "a.b"]);
    let mut records = match zone.look_up(&query.name, query.kind, data.len()) {
        Found::Records(records) => records,
        Found::Unknown => Vec::new(),
    };
    records.extend((0..data.len() as u8 % 80).map(|n| Record { ttl: 1, data: Data::A([10, 0, 0, n].into()) }));
    let reply = Reply { query: &query, code: Code::NoError, authoritative: true, records: &records };
    let (udp, tcp) = (reply.for_udp(), reply.for_tcp());
    assert!(udp.len() <= 1400 && udp.len() <= tcp.len());
    for answer in [&udp, &tcp] {
        assert_eq!(answer[..2], data[..2]);
        // Labels that hold zero bytes end where their lengths say.
        let mut end = 12;
        while data[end] != 0 {
            end += 1 + usize::from(data[end]);
        }
        assert_eq!(answer[12..end + 5], data[12..end + 5]);
        assert!(u16::from_be_bytes([answer[6], answer[7]]) as usize <= records.len());
    }
    assert_eq!(u16::from_be_bytes([tcp[6], tcp[7]]) as usize, records.len());
});
