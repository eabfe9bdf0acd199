//! Docker's `config.json` with the credentials of registries: what is read is written as it was, what is put in is found.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // The last line, if there are several, names the registry.
    let (text, registry) = text.rsplit_once('\n').unwrap_or((text, "quay.io"));
    assert!(creel_cli::credentials_hold(text, registry));
});
