//! Mount tables, as both of their readers see them: every hierarchy has a line, every controller is one that the
//! kernel named.
#![no_main]

use creel_cgroup::{Hierarchies, Layout};
use creel_runtime::mounts::cgroup_hierarchies;
use libfuzzer_sys::fuzz_target;

// mountinfo, cgroup and cgroup.controllers with a NUL between them.
fuzz_target!(|text: &str| {
    let mut texts = text.splitn(3, '\0');
    let mut next = || texts.next().unwrap_or("");
    let (mounts, own, offered) = (next(), next(), next());
    assert!(cgroup_hierarchies(mounts).len() <= mounts.lines().count());
    let Ok(found) = Hierarchies::from_texts(mounts, own, offered) else { return };
    assert!((1..=mounts.lines().count()).contains(&found.mount_points().count()));
    match found.layout() {
        Layout::V1 => assert!(!found.v1().is_empty() && found.unified().is_none()),
        Layout::Hybrid => assert!(!found.v1().is_empty() && found.unified().is_some()),
        Layout::V2 => assert!(found.v1().is_empty() && found.unified().is_some()),
    }
    for v1 in found.v1() {
        for controller in &v1.controllers {
            assert!(own.contains(controller.as_str()));
            assert!(found.v1_with(controller).is_some());
        }
    }
    for controller in found.unified().into_iter().flat_map(|unified| &unified.controllers) {
        assert!(offered.split_whitespace().any(|word| word == controller));
    }
    let printed = serde_json::to_string(&found).expect("what was read can be printed");
    assert_eq!(serde_json::from_str::<Hierarchies>(&printed).expect("what was printed can be read"), found);
});
