//! An image's passwd and group files: a number without an entry stays that number, a group that was named stands
//! alone, and no group comes twice.
#![no_main]

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::LazyLock;

use creel_runtime::resolve_user_at;
use libfuzzer_sys::fuzz_target;

struct Root {
    root: File,
    passwd: File,
    group: File,
}

// In the build directory: nothing tells a fuzzer to tidy up.
static ROOT: LazyLock<Root> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/user/{}", std::process::id()));
    fs::create_dir_all(root.join("etc")).expect("a directory for the files");
    let file = |name| File::create(root.join(name)).expect("a file");
    Root {
        passwd: file("etc/passwd"),
        group: file("etc/group"),
        root: File::open(&root).expect("the directory just made"),
    }
});

// The user, passwd and group with a NUL between them.
fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let mut next = || parts.next().unwrap_or_default();
    let Ok(user) = std::str::from_utf8(next()) else { return };
    let (passwd, group) = (next(), next());
    for (file, content) in [(&ROOT.passwd, passwd), (&ROOT.group, group)] {
        file.set_len(content.len() as u64).expect("a length");
        file.write_all_at(content, 0).expect("a write");
    }
    let Ok(found) = resolve_user_at(ROOT.root.as_fd(), user) else { return };
    assert!(!found.home.is_empty());
    let mut groups = found.additional_gids.clone();
    groups.sort_unstable();
    groups.dedup();
    assert_eq!(groups.len(), found.additional_gids.len());
    let (name, group) = user.split_once(':').unwrap_or((user, ""));
    assert!(group.is_empty() || found.additional_gids.is_empty());
    if !passwd.contains(&b':') {
        let wanted = if name.is_empty() { Ok(0) } else { name.parse() };
        assert_eq!(wanted, Ok(found.uid), "{user:?} without entries");
        assert_eq!(found.home, "/");
    }
});
