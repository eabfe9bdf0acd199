//! `features`: what this runtime can do, in the specification's JSON (`features.md`, `features-linux.md`).
//!
//! Nothing is claimed that the runtime library does not take: every word below is put to the parser that reads it from
//! a Spec, and left out when it is refused.

use creel_runtime::{caps, mounts, seccomp};
use creel_types::spec::{NamespaceKind, Seccomp, SyscallArg, SyscallRule};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::help::SPEC_VERSION;
use crate::out;

const HOOKS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Options that the specification lists ("Linux mount options"), and those that runc and crun know besides.
const MOUNT_OPTIONS: &[&str] = &[
    "async",
    "atime",
    "bind",
    "copy-symlink",
    "defaults",
    "dest-nofollow",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "src-nofollow",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
];

const NAMESPACES: [NamespaceKind; 8] = [
    NamespaceKind::Cgroup,
    NamespaceKind::Ipc,
    NamespaceKind::Mount,
    NamespaceKind::Network,
    NamespaceKind::Pid,
    NamespaceKind::Time,
    NamespaceKind::User,
    NamespaceKind::Uts,
];

const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

const ARCHS: [&str; 23] = [
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
];

/// All flags that the specification names.
const FLAGS: [&str; 4] = [
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

const MEMORY_MODES: [&str; 7] = [
    "MPOL_DEFAULT",
    "MPOL_PREFERRED",
    "MPOL_BIND",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];

const MEMORY_FLAGS: [&str; 3] = ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"];

/// Annotations of a Spec that change what is done with it; one that ends with a dot stands for all that begin so.
const UNSAFE_ANNOTATIONS: [&str; 3] = ["org.systemd.property.", "org.criu.config", "run.oci."];

/// `features`.
pub(crate) fn features() -> Result<()> {
    let text = pretty(&document()).ok_or_else(|| Error::Invalid("the features cannot be printed".into()))?;
    out::print(&format!("{text}\n"))
}

fn pretty(value: &Value) -> Option<String> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    serde::Serialize::serialize(value, &mut serializer).ok()?;
    String::from_utf8(bytes).ok()
}

/// Whether a word is a mount option by itself, and not left for the file system to understand.
fn knows_option(word: &str) -> bool {
    mounts::options::parse("mounts", &[word.to_owned()]).is_ok_and(|options| options.data.is_empty())
}

fn knows_filter(change: impl FnOnce(&mut Seccomp, &mut SyscallRule)) -> bool {
    let mut filter = Seccomp { default_action: "SCMP_ACT_ALLOW".into(), ..Seccomp::default() };
    let mut rule = SyscallRule {
        names: vec!["getpid".into()],
        action: "SCMP_ACT_ERRNO".into(),
        ..SyscallRule::default()
    };
    change(&mut filter, &mut rule);
    filter.syscalls.push(rule);
    seccomp::compile(&filter).is_ok()
}

fn knows_action(word: &str) -> bool {
    // A filter that notifies for everything could not even be left; rules are what counts.
    knows_filter(|_, rule| rule.action = word.into())
}

fn knows_operator(word: &str) -> bool {
    knows_filter(|_, rule| rule.args = vec![SyscallArg { op: word.into(), ..SyscallArg::default() }])
}

fn knows_arch(word: &str) -> bool {
    knows_filter(|filter, _| filter.architectures = vec![word.into()])
}

fn knows_flag(word: &str) -> bool {
    creel_runtime::knows_seccomp_flag(word)
}

fn words<'a>(list: &[&'a str], known: impl Fn(&str) -> bool) -> Vec<&'a str> {
    list.iter().copied().filter(|word| known(word)).collect()
}

/// Whether the runtime takes a Spec whose `linux` is this.
fn accepts(linux: Value) -> bool {
    let spec = json!({
        "ociVersion": SPEC_VERSION,
        "root": { "path": "rootfs" },
        "process": { "cwd": "/", "args": ["true"] },
        "linux": linux,
    });
    serde_json::from_value(spec).is_ok_and(|spec| creel_runtime::validate(&spec).is_ok())
}

fn memory_policy() -> Option<Value> {
    let mode = |mode: &str| {
        let with = |nodes: &str| accepts(json!({ "memoryPolicy": { "mode": mode, "nodes": nodes } }));
        with("") || with("0")
    };
    let flag = |flag: &str| {
        accepts(json!({ "memoryPolicy": { "mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": [flag] } }))
            || accepts(json!({ "memoryPolicy": { "mode": "MPOL_BIND", "nodes": "0", "flags": [flag] } }))
    };
    let modes = words(&MEMORY_MODES, mode);
    (!modes.is_empty()).then(|| json!({ "modes": modes, "flags": words(&MEMORY_FLAGS, flag) }))
}

/// The document.
fn document() -> Value {
    let flags = words(&FLAGS, knows_flag);
    let enabled = |enabled: bool| json!({ "enabled": enabled });
    let net = json!({ "namespaces": [{ "type": "network" }], "netDevices": { "eth0": { "name": "eth1" } } });
    let mut document = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_VERSION,
        "hooks": HOOKS,
        "mountOptions": words(MOUNT_OPTIONS, knows_option),
        "linux": {
            "namespaces": NAMESPACES,
            "capabilities": caps::ALL.as_slice(),
            "cgroup": {
                "v1": true,
                "v2": true,
                "systemd": crate::groups::SYSTEMD,
                "systemdUser": crate::groups::SYSTEMD,
                "rdma": true,
            },
            "seccomp": {
                "enabled": true,
                "actions": words(&ACTIONS, knows_action),
                "operators": words(&OPERATORS, knows_operator),
                "archs": words(&ARCHS, knows_arch),
                "knownFlags": flags,
                "supportedFlags": flags,
            },
            "apparmor": enabled(true),
            "selinux": enabled(true),
            "intelRdt": {
                "enabled": accepts(json!({ "intelRdt": { "closID": "x" } })),
                "schemata": accepts(json!({ "intelRdt": { "schemata": ["L3:0=f"] } })),
                "monitoring": accepts(json!({ "intelRdt": { "enableMonitoring": true } })),
            },
            "mountExtensions": { "idmap": enabled(knows_option("idmap")) },
            "netDevices": enabled(accepts(net)),
        },
        "annotations": {
            "org.opencontainers.runc.checkpoint.enabled": "true",
            "io.github.creel.version": env!("CARGO_PKG_VERSION"),
        },
        "potentiallyUnsafeConfigAnnotations": UNSAFE_ANNOTATIONS,
    });
    if let (Some(linux), Some(policy)) = (document["linux"].as_object_mut(), memory_policy()) {
        linux.insert("memoryPolicy".into(), policy);
    }
    document
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use creel_types::spec::Spec;

    fn list(value: &Value) -> Vec<&str> {
        value.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect()
    }

    /// Whether the runtime, given a Spec with this in it, takes it.
    fn taken(change: impl FnOnce(&mut Value)) -> bool {
        let mut spec = serde_json::to_value(crate::spec::example()).unwrap();
        change(&mut spec);
        serde_json::from_value::<Spec>(spec).is_ok_and(|spec| creel_runtime::validate(&spec).is_ok())
    }

    #[test]
    fn everything_that_is_claimed_is_taken() {
        let document = document();
        for option in list(&document["mountOptions"]) {
            assert!(knows_option(option), "{option}");
        }
        for kind in list(&document["linux"]["namespaces"]) {
            let map = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]);
            let taken = match kind {
                "user" => accepts(json!({
                    "namespaces": [{ "type": "mount" }, { "type": "user" }],
                    "uidMappings": map,
                    "gidMappings": map,
                })),
                "mount" => accepts(json!({ "namespaces": [{ "type": "mount" }] })),
                other => accepts(json!({ "namespaces": [{ "type": "mount" }, { "type": other }] })),
            };
            assert!(taken, "{kind}");
        }
        for cap in list(&document["linux"]["capabilities"]) {
            assert!(
                taken(
                    |spec| spec["process"]["capabilities"] = json!({ "bounding": [cap], "permitted": [cap] })
                ),
                "{cap}"
            );
        }
        for hook in list(&document["hooks"]) {
            assert!(taken(|spec| spec["hooks"] = json!({ hook: [{ "path": "/bin/true" }] })), "{hook}");
        }
        let seccomp = &document["linux"]["seccomp"];
        assert_eq!(list(&seccomp["operators"]), OPERATORS);
        for arch in
            ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
        {
            assert!(list(&seccomp["archs"]).contains(&arch), "{arch}");
        }
    }

    /// A word that the parsers do not know is not claimed, whatever the lists above say.
    #[test]
    fn what_is_not_known_is_not_claimed() {
        assert!(!knows_option("size=1") && !knows_option("nonsense"));
        assert!(!knows_action("SCMP_ACT_NONSENSE") && !knows_operator("SCMP_CMP_NONSENSE"));
        assert!(!knows_arch("SCMP_ARCH_NONSENSE") && !knows_flag("SECCOMP_FILTER_FLAG_NONSENSE"));
        assert!(!accepts(json!({ "namespaces": {} })));
        for wrong in [
            json!({ "mode": "MPOL_NONSENSE" }),
            json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NONSENSE"] }),
        ] {
            assert!(!accepts(json!({ "memoryPolicy": wrong })), "{wrong}");
        }
        assert!(!accepts(json!({ "intelRdt": { "schemata": ["a\nb"] } })));
    }

    /// All that runc 1.3 tells of itself is there.
    #[test]
    fn nothing_of_runc_s_is_missing() {
        let missing: Vec<&str> = words(MOUNT_OPTIONS, |word| !knows_option(word));
        assert!(missing.is_empty(), "{missing:?}");
        let missing: Vec<&str> = words(&ACTIONS, |word| !knows_action(word));
        assert!(missing.is_empty(), "{missing:?}");
        assert!(words(&ARCHS, |word| !knows_arch(word)).is_empty());
    }
}
