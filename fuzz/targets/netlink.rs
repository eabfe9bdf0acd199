//! Packets of rtnetlink(7): whatever they say of their own lengths, they are read or refused, and an address is sent on
//! in attributes that can be read to the end.
#![no_main]

use creel_runtime::read_packet;
use libfuzzer_sys::fuzz_target;

/// A packet with messages whose lengths and sequence number are right, of what the fuzzer gives for their bodies.
fn made_right(data: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    for part in data.split(|byte| *byte == 0xfe) {
        let kind = [2u16, 3, 16, 20][usize::from(part.first().copied().unwrap_or(0)) % 4];
        let body = part.get(1..).unwrap_or_default();
        packet.extend_from_slice(&((16 + body.len()) as u32).to_ne_bytes());
        packet.extend_from_slice(&kind.to_ne_bytes());
        packet.extend_from_slice(&0u16.to_ne_bytes());
        packet.extend_from_slice(&1u32.to_ne_bytes());
        packet.extend_from_slice(&0u32.to_ne_bytes());
        packet.extend_from_slice(body);
        packet.resize(packet.len().next_multiple_of(4), 0);
    }
    packet
}

fuzz_target!(|data: &[u8]| {
    for packet in [data.to_vec(), made_right(data)] {
        let Some((_, names, addresses)) = read_packet(&packet) else { continue };
        assert!(names.iter().all(|name| !name.contains('\0')));
        for body in addresses {
            let mut rest = &body[8..];
            while !rest.is_empty() {
                let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
                assert!(length >= 4 && length <= rest.len(), "{body:?}");
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
});
