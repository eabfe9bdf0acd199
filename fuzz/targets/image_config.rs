//! Image configurations: printing and reading are inverse.
#![no_main]

use creel_fuzz::json;
use creel_types::image::ImageConfig;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(config) = json::<ImageConfig>(data) else { return };
    let platform = config.platform();
    assert!(platform.accepts(&platform));
});
