//! Limits, from their JSON to the plan for two hosts: nothing but the group's own files is written.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use creel_cgroup::{Cgroup, Hierarchies, Step};
use creel_fuzz::{hosts, is_plain, json};
use creel_types::spec::Resources;
use libfuzzer_sys::fuzz_target;

static HOSTS: LazyLock<[Hierarchies; 2]> = LazyLock::new(hosts);
const GROUP: &str = "/creel/one";

fuzz_target!(|data: &[u8]| {
    let Some(resources) = json::<Resources>(data) else { return };
    for host in HOSTS.iter() {
        let Ok(plan) = Cgroup::plan(host, GROUP, &resources) else { continue };
        let own = |path: &Path| {
            is_plain(path)
                && host.mount_points().any(|mount| path.starts_with(mount.join(GROUP.trim_matches('/'))))
        };
        let direct = |path: &Path| own(path) && path.parent().is_some_and(own);
        for step in &plan.steps {
            let fine = match step {
                Step::Mkdir { dir, .. } | Step::Enable { dir, .. } => is_plain(dir),
                Step::Inherit { file } => is_plain(file),
                Step::Joinable { dir, .. } => own(dir),
                Step::Period { file, .. } => direct(file),
                Step::Write(write) => direct(&write.file),
                Step::WriteTogether(writes) | Step::WriteFirst(writes) => {
                    writes.iter().all(|write| direct(&write.file))
                }
                Step::DeviceList { dir, .. } | Step::DeviceProgram { dir, .. } => own(dir),
            };
            assert!(fine, "{step}");
        }
        let _ = plan.to_string();
    }
});
