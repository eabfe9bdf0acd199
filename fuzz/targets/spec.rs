//! Runtime specifications, from their JSON to the plan: what is planned was validated, ends in one execve behind the
//! gate, mounts nothing at a path that leads elsewhere, and maps no id that is none. Errors name a field.
#![no_main]

use std::path::Path;

use creel_fuzz::{is_plain, json};
use creel_runtime::mounts::MountStep;
use creel_runtime::{Facts, Rootfs, Step, Wishes, plan, validate};
use creel_types::spec::{Spec, from_json};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(spec) = json::<Spec>(data) else {
        let error = from_json::<Spec>(data).expect_err("serde_json refused it");
        assert!(!error.path.is_empty() && !error.reason.is_empty());
        return;
    };
    assert_eq!(from_json::<Spec>(data).as_ref(), Ok(&spec));
    let verdict = validate(&spec);
    let rootfs = Rootfs::Directory("/root".into());
    let plan = plan("id", &spec, Path::new("/bundle"), &rootfs, Wishes::default(), &Facts::default());
    let Ok(plan) = plan else { return };
    assert!(verdict.is_ok(), "planned and not valid: {verdict:?}");

    let at = |wanted: fn(&Step) -> bool| plan.steps.iter().position(wanted).expect("a step of every plan");
    let root = at(|step| matches!(step, Step::Root { .. } | Step::HostRoot { .. }));
    let change = at(|step| matches!(step, Step::PivotRoot | Step::MoveRoot | Step::Chroot));
    assert!(root < change && change < at(|step| *step == Step::Gate));
    // Without a mount namespace of its own it stays in the host's tree.
    let alone = plan.steps.iter().position(|step| *step == Step::PrivateTree);
    assert!(alone.is_none_or(|at| at < root), "the root is mounted in the host's tree");
    assert_eq!(alone.is_some(), matches!(plan.steps[root], Step::Root { .. }));
    assert_eq!(plan.steps.iter().filter(|step| **step == Step::Execute).count(), 1);
    assert_eq!(plan.steps.last(), Some(&Step::Execute));
    for step in &plan.steps {
        assert!(!step.group().is_empty() && !step.title().is_empty());
        match step {
            Step::Mount { mount } => {
                assert!(is_plain(Path::new(mount.destination())), "{mount:?}");
                if let MountStep::Bind { id_map: Some(map), .. } = mount {
                    for id in map.uids.iter().chain(&map.gids) {
                        assert!(id.size > 0 && id.container_id.checked_add(id.size).is_some(), "{id:?}");
                        assert!(id.host_id.checked_add(id.size).is_some(), "{id:?}");
                    }
                    assert!(map.joined.is_some() || !map.uids.is_empty() && !map.gids.is_empty());
                }
            }
            Step::Process { process } => {
                let ids = [process.uid, process.gid];
                assert!(ids.iter().chain(&process.groups).all(|id| *id != u32::MAX), "{process:?}");
                assert!(process.env.iter().all(|entry| entry.contains('=') && !entry.contains('\0')));
                assert!(process.umask <= 0o777 && !process.args.is_empty());
            }
            Step::Device { device } => assert!(device.path.starts_with('/'), "{device:?}"),
            Step::Sysctl { path, .. } => assert!(is_plain(&Path::new("/proc/sys").join(path)), "{path}"),
            _ => {}
        }
    }
});
