//! Image indexes and manifest lists: printing and reading are inverse.
#![no_main]

use creel_fuzz::json;
use creel_types::image::Index;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    json::<Index>(data);
});
