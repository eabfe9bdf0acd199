//! Platforms: printing and parsing are inverse, and every platform accepts itself.
#![no_main]

use creel_types::Platform;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(platform) = text.parse::<Platform>() else { return };
    assert_eq!(platform.to_string().parse(), Ok(platform.clone()));
    assert!(platform.accepts(&platform));
});
