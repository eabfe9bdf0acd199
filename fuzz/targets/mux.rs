//! Docker's multiplexed frames: however the bytes are cut the streams are the same, no longer than what came, and the
//! shim's decoder and the clients' agree.
#![no_main]

use creel_shim::framing::mux::{Decoder, HEADER};
use creel_wire::stream::Demultiplexer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((piece, bytes)) = data.split_first() else { return };
    let (whole, at_once) = decode([bytes]);
    let (cut, in_pieces) = decode(bytes.chunks(usize::from(*piece).max(1)));
    assert_eq!(whole, cut);
    assert_eq!(at_once.as_ref().ok(), in_pieces.as_ref().ok());
    assert!(whole.iter().map(Vec::len).sum::<usize>() <= bytes.len().saturating_sub(HEADER));
    if at_once.is_ok() {
        let mut client: [Vec<u8>; 3] = Default::default();
        Demultiplexer::default()
            .feed(bytes, |stream, data| client[usize::from(stream)].extend_from_slice(data));
        assert_eq!(client, whole);
    }
});

/// The three streams, and whether the bytes end with a frame; an error for a wrong header.
fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> ([Vec<u8>; 3], Result<bool, ()>) {
    let (mut decoder, mut streams) = (Decoder::default(), <[Vec<u8>; 3]>::default());
    for piece in pieces {
        let sink = |stream: u8, data: &[u8]| streams[usize::from(stream)].extend_from_slice(data);
        if decoder.push(piece, sink).is_err() {
            return (streams, Err(()));
        }
    }
    (streams, Ok(decoder.is_whole()))
}
