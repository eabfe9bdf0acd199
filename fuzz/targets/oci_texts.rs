//! Small texts of `creel oci`: signals, sizes, durations, ids, `/proc/PID/stat`, ps(1)'s table.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| assert!(creel_oci::texts_hold(data)));
