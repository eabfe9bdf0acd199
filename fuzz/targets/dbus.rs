//! Messages of D-Bus's, as a bus sends them: what is read means the same when it is sent on.
#![no_main]

use creel_cgroup::systemd::read_message;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((values, sent)) = read_message(data) else { return };
    let Some((again, _)) = read_message(&sent) else {
        // A dictionary's entry becomes a pair, and what is empty tells no type: those may differ.
        assert!(data.contains(&b'{') || data.contains(&b'h'), "{values:?}");
        return;
    };
    // Text, because a number may be "not a number".
    assert_eq!(format!("{again:?}"), format!("{values:?}"));
});
