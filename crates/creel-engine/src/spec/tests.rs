use creel_types::ContainerId;
use creel_wire::container::Config;
use creel_wire::host::HostConfig;
use expect_test::{Expect, expect};

use super::*;
use crate::containers::tests::record;
use crate::containers::{host, mounts as parse};

fn built(config: &str, host_config: &str) -> Spec {
    let config: Config = serde_json::from_str(config).unwrap();
    let mut host_config: HostConfig = serde_json::from_str(host_config).unwrap();
    host::complete(&mut host_config);
    let mut record = record(ContainerId::from_random([0xab; 32]).as_str(), "x");
    record.mounts = parse::all(&config, &host_config).unwrap();
    record.config = config;
    record.config.hostname = "abababababab".into();
    record.host_config = host_config;
    let facts = Facts {
        identity: Identity { uid: 0, gid: 0, groups: vec![0, 10], home: Some("/root".into()) },
        dir: "/var/lib/creel/containers/ab".into(),
        cgroup_path: "/creel/ab".into(),
        all_capabilities: vec!["CAP_CHOWN".into(), "CAP_SYS_ADMIN".into()],
        ..Facts::default()
    };
    build(&record, &facts).unwrap()
}

/// The Spec without the filter, which has its own tests.
fn check(config: &str, host_config: &str, expected: Expect) {
    let mut spec = built(config, host_config);
    spec.linux.as_mut().unwrap().seccomp = None;
    expected.assert_eq(&serde_json::to_string_pretty(&spec).unwrap());
}

/// Only what differs from the plainest container's Spec, line by line.
fn differs(config: &str, host_config: &str, expected: Expect) {
    let text = |mut spec: Spec| {
        spec.linux.as_mut().unwrap().seccomp = None;
        serde_json::to_string_pretty(&spec).unwrap()
    };
    let plain = text(built(r#"{"Cmd":["true"]}"#, "{}"));
    let plain: std::collections::HashSet<&str> = plain.lines().map(str::trim).collect();
    let this = text(built(config, host_config));
    let new: Vec<&str> = this.lines().map(str::trim).filter(|line| !plain.contains(line)).collect();
    expected.assert_eq(&new.join("\n"));
}

#[test]
fn the_plainest_container() {
    check(r#"{"Cmd":["true"]}"#, "{}", expect![[r#""#]]);
}

#[test]
fn resources_and_limits() {
    differs(
        r#"{"Cmd":["true"]}"#,
        r#"{"Memory":67108864,"NanoCpus":500000000,"CpuShares":512,"CpusetCpus":"0-1","PidsLimit":50,"OomScoreAdj":100,
            "Ulimits":[{"Name":"nofile","Soft":100,"Hard":-1}],"ShmSize":1048576,"DeviceCgroupRules":["c 42:* rm"]}"#,
        expect![[r#""#]],
    );
}

#[test]
fn privileges() {
    differs(r#"{"Cmd":["true"]}"#, r#"{"Privileged":true}"#, expect![[r#""#]]);
    differs(
        r#"{"Cmd":["true"]}"#,
        r#"{"CapAdd":["net_admin"],"CapDrop":["CAP_MKNOD"],"SecurityOpt":["no-new-privileges"]}"#,
        expect![[r#""#]],
    );
}

#[test]
fn namespaces_of_the_host() {
    let spec = built(
        r#"{"Cmd":["true"]}"#,
        r#"{"NetworkMode":"host","PidMode":"host","IpcMode":"host","UTSMode":"host","CgroupnsMode":"host"}"#,
    );
    let kinds: Vec<_> = spec.linux.unwrap().namespaces.into_iter().map(|n| n.kind).collect();
    assert_eq!(kinds, [NamespaceKind::Mount]);
    assert_eq!(spec.hostname, None);
}

#[test]
fn mounts_and_read_only_root() {
    differs(
        r#"{"Cmd":["true"],"Tty":true,"WorkingDir":"/w"}"#,
        r#"{"ReadonlyRootfs":true,"Binds":["/a:/b:ro","/h:/etc/hosts"],"Tmpfs":{"/run":""},"IpcMode":"none","ConsoleSize":[24,80],
            "Mounts":[{"Type":"bind","Source":"/s","Target":"/dev/shm","BindOptions":{"Propagation":"rshared"}}]}"#,
        expect![[r#""#]],
    );
}

#[test]
fn seccomp_follows_privilege_and_wish() {
    let filter = |host: &str| built(r#"{"Cmd":["true"]}"#, host).linux.unwrap().seccomp.is_some();
    assert!(filter("{}"));
    assert!(!filter(r#"{"Privileged":true}"#));
    assert!(!filter(r#"{"SecurityOpt":["seccomp=unconfined"]}"#));
}
