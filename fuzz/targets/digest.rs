//! Digests: a text that is one is printed as it was, and is a plain file name after its colon.
#![no_main]

use creel_types::Digest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(digest) = text.parse::<Digest>() else { return };
    assert_eq!(digest.to_string(), text);
    assert_eq!(Digest::from_hex(&digest.hex()), Ok(digest));
    assert!(digest.hex().bytes().all(|byte| byte.is_ascii_hexdigit()));
});
