//! The process of an exec (`exec --process FILE`): what is planned of it has ids that are ids, no capability that the
//! sets above it do not have, and texts that an execve can take.
#![no_main]

use std::path::Path;

use creel_fuzz::json;
use creel_runtime::{Facts, Rootfs, Step, Wishes, plan};
use creel_types::spec::{Linux, Namespace, NamespaceKind, Process, Spec};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(process) = json::<Process>(data) else { return };
    let spec = Spec {
        oci_version: "1.3.0".into(),
        linux: Some(Linux {
            namespaces: vec![Namespace { kind: NamespaceKind::Mount, path: None }],
            ..Linux::default()
        }),
        process: Some(process.clone()),
        ..Spec::default()
    };
    let rootfs = Rootfs::Directory("/root".into());
    let Ok(plan) = plan("id", &spec, Path::new("/b"), &rootfs, Wishes::default(), &Facts::default()) else {
        return;
    };
    let planned = plan.steps.iter().find_map(|step| match step {
        Step::Process { process } => Some(process),
        _ => None,
    });
    let planned = planned.expect("a process was given");
    let ids = [planned.uid, planned.gid];
    assert!(ids.iter().chain(&planned.groups).all(|id| *id != u32::MAX));
    assert_eq!((ids, &planned.groups), ([process.user.uid, process.user.gid], &process.user.additional_gids));
    let sets = planned.capabilities;
    let known = (1u64 << creel_runtime::caps::ALL.len()) - 1;
    for set in [sets.bounding, sets.permitted, sets.effective, sets.inheritable, sets.ambient] {
        assert_eq!(set & !known, 0);
    }
    assert_eq!((sets.effective & !sets.permitted, sets.inheritable & !sets.bounding), (0, 0));
    assert!(!planned.args.is_empty() && planned.cwd.starts_with('/'));
    assert!(planned.args.iter().chain(&planned.env).chain([&planned.cwd]).all(|text| !text.contains('\0')));
    let names: Vec<&str> =
        planned.env.iter().map(|entry| entry.split_once('=').expect("NAME=value").0).collect();
    assert!(names.iter().enumerate().all(|(at, name)| !name.is_empty() && !names[..at].contains(name)));
    assert!(planned.limits.iter().all(|limit| limit.soft <= limit.hard && limit.number < 16));
    assert!(planned.oom_score_adj.is_none_or(|score| (-1000..=1000).contains(&score)));
    assert!(planned.io_priority.is_none_or(|(class, level)| (1..=3).contains(&class) && level <= 7));
    assert!(planned.umask <= 0o777);
    for words in planned.affinity.iter().flat_map(|affinity| [&affinity.initial, &affinity.last]).flatten() {
        assert!(words.len() <= 128 && words.iter().any(|word| *word != 0));
    }
});
