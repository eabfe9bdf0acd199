//! Runtime specifications, from their JSON to the plan: what is planned was validated, ends in one execve behind the
//! gate, and mounts nothing at a path that leads elsewhere.
#![no_main]

use std::path::Path;

use creel_fuzz::{is_plain, json};
use creel_runtime::{Facts, Rootfs, Step, plan, validate};
use creel_types::spec::Spec;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(spec) = json::<Spec>(data) else { return };
    let verdict = validate(&spec);
    let rootfs = Rootfs::Directory("/root".into());
    let plan = plan("id", &spec, Path::new("/bundle"), &rootfs, None, &Facts::default());
    let Ok(plan) = plan else { return };
    assert!(verdict.is_ok(), "planned and not valid: {verdict:?}");

    let at = |wanted: fn(&Step) -> bool| plan.steps.iter().position(wanted).expect("a step of every plan");
    let (pivot, gate) = (at(|step| *step == Step::PivotRoot), at(|step| *step == Step::Gate));
    assert!(at(|step| *step == Step::PrivateTree) < at(|step| matches!(step, Step::Root { .. })));
    assert!(at(|step| matches!(step, Step::Root { .. })) < pivot && pivot < gate);
    assert_eq!(plan.steps.iter().filter(|step| **step == Step::Execute).count(), 1);
    assert_eq!(plan.steps.last(), Some(&Step::Execute));
    for step in &plan.steps {
        assert!(!step.group().is_empty() && !step.title().is_empty());
        match step {
            Step::Mount { mount } => assert!(is_plain(Path::new(mount.destination())), "{mount:?}"),
            Step::Device { device } => assert!(device.path.starts_with('/'), "{device:?}"),
            Step::Sysctl { path, .. } => assert!(is_plain(&Path::new("/proc/sys").join(path)), "{path}"),
            _ => {}
        }
    }
});
