//! Image manifests: printing and reading are inverse.
#![no_main]

use creel_fuzz::json;
use creel_types::image::Manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    json::<Manifest>(data);
});
