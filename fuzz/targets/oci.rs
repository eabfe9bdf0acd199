//! `creel oci`'s command line and a container's record: whatever is given, every argument is accounted for, flags that
//! end at the first argument leave the rest alone, and a record that is read is written the same.
#![no_main]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use creel_oci::{flags, verbs};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    assert!(creel_oci::record_round_trips(data));
    let args: Vec<OsString> =
        data.split(|byte| *byte == 0).map(|word| OsStr::from_bytes(word).to_owned()).collect();
    for verb in verbs::VERBS {
        let Ok(parsed) = flags::parse(verb.flags, &args, verb.stop) else { continue };
        let mut given = args.iter();
        assert!(parsed.arguments.iter().all(|argument| given.any(|one| one == argument)), "{parsed:?}");
        if verb.stop && !parsed.arguments.is_empty() {
            assert!(args.ends_with(&parsed.arguments), "{parsed:?}");
        }
        for flag in verb.flags.iter().filter(|flag| flag.takes == flags::Takes::Number) {
            assert_eq!(parsed.value(flag.name).is_some(), parsed.number(flag.name).is_some());
        }
    }
});
