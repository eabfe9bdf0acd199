//! Options of mounts: nothing is both set and cleared, the last word about a thing counts, and what the runtime itself
//! understands is not handed to a file system.
#![no_main]

use creel_runtime::mounts::options::parse;
use libfuzzer_sys::fuzz_target;

/// `MOUNT_ATTR__ATIME`: a field of its own, which is cleared to be set.
const ATIME: u64 = 0x70;
const OURS: [&str; 15] = [
    "ro", "rw", "bind", "rbind", "remount", "idmap", "ridmap", "tmpcopyup", "rro", "private", "rshared", "defaults",
    "src-nofollow", "dest-nofollow", "copy-symlink",
];

fuzz_target!(|text: &str| {
    let words: Vec<String> = text.split(',').map(str::to_string).collect();
    let Ok(options) = parse("mounts[0].options", &words) else { return };
    for attributes in [options.attributes, options.tree_attributes] {
        assert_eq!(attributes.set & attributes.clear & !ATIME, 0);
        assert!(attributes.set & ATIME == 0 || attributes.clear & ATIME == ATIME);
    }
    for (name, value) in &options.data {
        assert!(!OURS.contains(&name.as_str()) || value.is_some(), "{name}");
        assert!(!name.contains('\0') && !value.as_deref().unwrap_or("").contains('\0'));
    }
    // Said twice, it means the same.
    let twice: Vec<String> = words.iter().chain(&words).cloned().collect();
    let again = parse("mounts[0].options", &twice).expect("what was read once");
    assert_eq!(
        (again.attributes, again.tree_attributes, again.propagation),
        (options.attributes, options.tree_attributes, options.propagation)
    );
    assert_eq!((again.bind, again.recursive, again.remount), (options.bind, options.recursive, options.remount));
});
