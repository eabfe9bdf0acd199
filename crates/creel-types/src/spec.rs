//! The OCI runtime configuration, `config.json` (runtime-spec 1.3, Linux).
//!
//! Plain data: every field has the name and meaning that the specification gives it, so a field's doc comment
//! names only what the name does not tell. Absent and empty are told apart where the specification does.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::strict::{ObjectOnly, not_empty, or_default};
pub use crate::strict::{ReadError, from_json};

macro_rules! documents {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* pub $field:ident : $ty:ty,)* })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", remote = "Self")]
        pub struct $name { $($(#[$fmeta])* pub $field : $ty,)* }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $name::serialize(self, serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                $name::deserialize(ObjectOnly(deserializer))
            }
        }
    )*};
}

documents! {
    /// The whole configuration (`config.md`).
    pub struct Spec {
        /// Version of the runtime specification that the document follows.
        pub oci_version: String,
        /// The root file system; required for Linux containers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub root: Option<Root>,
        /// What to mount over it, in this order.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub mounts: Vec<Mount>,
        /// The program; required before `start`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub process: Option<Process>,
        /// UTS host name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub hostname: Option<String>,
        /// UTS NIS domain name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub domainname: Option<String>,
        /// Programs run at points of the life cycle.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub hooks: Option<Hooks>,
        /// Free annotations.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
        pub annotations: BTreeMap<String, String>,
        /// The Linux part.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub linux: Option<Linux>,
    }

    /// The root file system.
    pub struct Root {
        /// Path of the directory, relative to the bundle or absolute.
        pub path: String,
        /// Whether the root is mounted read-only.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "std::ops::Not::not")]
        pub readonly: bool,
    }

    /// One mount.
    pub struct Mount {
        /// Absolute path inside the container.
        pub destination: String,
        /// File system type; absent or `none` with `bind` among the options for a bind mount.
        #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
        pub kind: Option<String>,
        /// Device name or source path; relative paths are relative to the bundle.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub source: Option<String>,
        /// Options as of fstab, and those the specification adds.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub options: Vec<String>,
        /// User id mappings of an idmapped mount.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub uid_mappings: Vec<IdMapping>,
        /// Group id mappings of an idmapped mount.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub gid_mappings: Vec<IdMapping>,
    }

    /// A process: the container's own or an exec.
    pub struct Process {
        /// Whether it gets a pseudo-terminal.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "std::ops::Not::not")]
        pub terminal: bool,
        /// Size of that terminal in characters.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub console_size: Option<ConsoleSize>,
        /// User, groups and umask.
        #[serde(default)]
        pub user: User,
        /// Program and arguments, as for execvp(3).
        #[serde(default, deserialize_with = "or_default")]
        pub args: Vec<String>,
        /// Environment as `NAME=value`.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub env: Vec<String>,
        /// Working directory, absolute.
        pub cwd: String,
        /// Capability sets.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub capabilities: Option<Capabilities>,
        /// Resource limits.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub rlimits: Vec<Rlimit>,
        /// Sets the no_new_privs attribute (prctl(2)).
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "std::ops::Not::not")]
        pub no_new_privileges: bool,
        /// AppArmor profile.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub apparmor_profile: Option<String>,
        /// Adjustment of the OOM killer's score, -1000 to 1000.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub oom_score_adj: Option<i32>,
        /// SELinux label.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub selinux_label: Option<String>,
        /// Scheduler policy and attributes (sched_setattr(2)).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub scheduler: Option<Scheduler>,
        /// I/O priority (ioprio_set(2)).
        #[serde(default, rename = "ioPriority", skip_serializing_if = "Option::is_none")]
        pub io_priority: Option<IoPriority>,
        /// CPU affinity of an exec.
        #[serde(default, rename = "execCPUAffinity", skip_serializing_if = "Option::is_none")]
        pub exec_cpu_affinity: Option<ExecCpuAffinity>,
    }

    /// Size of a terminal in characters. Without a terminal it is to be ignored, so any number is read.
    pub struct ConsoleSize {
        /// Rows.
        pub height: u64,
        /// Columns.
        pub width: u64,
    }

    /// The identity of a process inside the container's user namespace.
    pub struct User {
        /// User id.
        #[serde(default)]
        pub uid: u32,
        /// Group id.
        #[serde(default)]
        pub gid: u32,
        /// File mode creation mask.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub umask: Option<u32>,
        /// Supplementary groups.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub additional_gids: Vec<u32>,
    }

    /// The five capability sets, by names like `CAP_NET_ADMIN`.
    pub struct Capabilities {
        /// What can ever be gained.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub bounding: Vec<String>,
        /// What is checked.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub effective: Vec<String>,
        /// What survives execve with file capabilities.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub inheritable: Vec<String>,
        /// What can be made effective.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub permitted: Vec<String>,
        /// What survives execve of unprivileged programs.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub ambient: Vec<String>,
    }

    /// A resource limit (setrlimit(2)).
    pub struct Rlimit {
        /// Name like `RLIMIT_NOFILE`.
        #[serde(rename = "type")]
        pub kind: String,
        /// Soft limit; `u64::MAX` is infinity.
        pub soft: u64,
        /// Hard limit; `u64::MAX` is infinity.
        pub hard: u64,
    }

    /// Scheduler attributes.
    pub struct Scheduler {
        /// Policy like `SCHED_OTHER`.
        pub policy: String,
        /// Nice value.
        #[serde(default)]
        pub nice: i32,
        /// Static priority.
        #[serde(default)]
        pub priority: i32,
        /// Flags like `SCHED_FLAG_RESET_ON_FORK`.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub flags: Vec<String>,
        /// Runtime of `SCHED_DEADLINE`, nanoseconds.
        #[serde(default)]
        pub runtime: u64,
        /// Deadline of `SCHED_DEADLINE`, nanoseconds.
        #[serde(default)]
        pub deadline: u64,
        /// Period of `SCHED_DEADLINE`, nanoseconds.
        #[serde(default)]
        pub period: u64,
    }

    /// I/O priority.
    pub struct IoPriority {
        /// Class like `IOPRIO_CLASS_BE`.
        pub class: String,
        /// Level within the class.
        #[serde(default)]
        pub priority: i32,
    }

    /// CPU lists for an exec.
    pub struct ExecCpuAffinity {
        /// Before the move into the cgroup.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub initial: Option<String>,
        /// After it.
        #[serde(default, rename = "final", skip_serializing_if = "Option::is_none")]
        pub last: Option<String>,
    }

    /// Hooks of all six kinds.
    pub struct Hooks {
        /// Deprecated; after create, before the pivot, in the runtime's namespaces.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub prestart: Vec<Hook>,
        /// In the runtime's namespaces, after the namespaces are made.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub create_runtime: Vec<Hook>,
        /// In the container's namespaces, before the pivot.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub create_container: Vec<Hook>,
        /// In the container, before the program.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub start_container: Vec<Hook>,
        /// After the program was started.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub poststart: Vec<Hook>,
        /// After the container was deleted.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub poststop: Vec<Hook>,
    }

    /// One hook.
    pub struct Hook {
        /// Absolute path of the program.
        pub path: String,
        /// Its arguments, `argv[0]` included.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub args: Vec<String>,
        /// Its environment.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub env: Vec<String>,
        /// Seconds until it is given up.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub timeout: Option<u32>,
    }

    /// The Linux part (`config-linux.md`).
    pub struct Linux {
        /// User id mappings of the user namespace.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub uid_mappings: Vec<IdMapping>,
        /// Group id mappings of the user namespace.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub gid_mappings: Vec<IdMapping>,
        /// Kernel parameters by dotted name.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
        pub sysctl: BTreeMap<String, String>,
        /// Resource limits.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub resources: Option<Resources>,
        /// Path in the cgroup hierarchies; with the systemd driver `slice:prefix:name`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub cgroups_path: Option<String>,
        /// Namespaces to make or join.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub namespaces: Vec<Namespace>,
        /// Device nodes to make besides the default ones.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub devices: Vec<Device>,
        /// Network devices to move into the container, by host name.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
        pub net_devices: BTreeMap<String, NetDevice>,
        /// System call filter.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub seccomp: Option<Seccomp>,
        /// Propagation of the root mount.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub rootfs_propagation: Option<String>,
        /// Paths that are hidden.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub masked_paths: Vec<String>,
        /// Paths that are made read-only.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub readonly_paths: Vec<String>,
        /// SELinux label of the mounts.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub mount_label: Option<String>,
        /// Intel resource director technology (resctrl).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub intel_rdt: Option<IntelRdt>,
        /// Execution domain (personality(2)).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub personality: Option<Personality>,
        /// Offsets of the time namespace's clocks.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
        pub time_offsets: BTreeMap<String, TimeOffset>,
        /// NUMA memory policy (set_mempolicy(2)).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub memory_policy: Option<MemoryPolicy>,
    }

    /// A class of service and a monitoring group of the resctrl file system.
    pub struct IntelRdt {
        /// Directory of the class of service; the container's id if absent, `/` for the default class.
        #[serde(default, rename = "closID", skip_serializing_if = "Option::is_none")]
        pub clos_id: Option<String>,
        /// Lines for the `schemata` file, written last.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub schemata: Vec<String>,
        /// Schema of the L3 cache, beginning with `L3:`.
        #[serde(default, rename = "l3CacheSchema", skip_serializing_if = "Option::is_none")]
        pub l3_cache_schema: Option<String>,
        /// Schema of the memory bandwidth, beginning with `MB:`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub mem_bw_schema: Option<String>,
        /// Whether the container gets a monitoring group of its own.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "std::ops::Not::not")]
        pub enable_monitoring: bool,
    }

    /// From which NUMA nodes memory is taken.
    pub struct MemoryPolicy {
        /// Mode like `MPOL_INTERLEAVE`; whoever applies it refuses an empty one.
        #[serde(default)]
        pub mode: String,
        /// Nodes, like `0-3,7`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub nodes: Option<String>,
        /// Flags like `MPOL_F_STATIC_NODES`.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub flags: Vec<String>,
    }

    /// A range of ids.
    pub struct IdMapping {
        /// First id in the container.
        #[serde(rename = "containerID")]
        pub container_id: u32,
        /// First id on the host.
        #[serde(rename = "hostID")]
        pub host_id: u32,
        /// Number of ids.
        pub size: u32,
    }

    /// One namespace.
    pub struct Namespace {
        /// Which.
        #[serde(rename = "type")]
        pub kind: NamespaceKind,
        /// The namespace to join; a new one if absent. An empty text is read as absent, since that is how programs that
        /// know no absent text write it.
        #[serde(default, deserialize_with = "not_empty", skip_serializing_if = "Option::is_none")]
        pub path: Option<String>,
    }

    /// One device node.
    pub struct Device {
        /// `c`, `u`, `b` or `p`.
        #[serde(rename = "type")]
        pub kind: String,
        /// Absolute path inside the container.
        pub path: String,
        /// Major number; required unless it is a fifo.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub major: Option<i64>,
        /// Minor number; likewise.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub minor: Option<i64>,
        /// File mode.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub file_mode: Option<u32>,
        /// Owner.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub uid: Option<u32>,
        /// Group.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub gid: Option<u32>,
    }

    /// A network device that is moved into the container.
    pub struct NetDevice {
        /// Its name there; the same as on the host if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub name: Option<String>,
    }

    /// Execution domain.
    pub struct Personality {
        /// `LINUX` or `LINUX32`.
        pub domain: String,
        /// Flags; none are defined yet.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub flags: Vec<String>,
    }

    /// Offset of one clock.
    pub struct TimeOffset {
        /// Seconds.
        #[serde(default)]
        pub secs: i64,
        /// Nanoseconds.
        #[serde(default)]
        pub nanosecs: u32,
    }

    /// Resource limits (`config-linux.md`, "Control groups").
    pub struct Resources {
        /// Device access rules, later ones override earlier ones.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub devices: Vec<DeviceRule>,
        /// Memory.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub memory: Option<Memory>,
        /// Processor time and placement.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub cpu: Option<Cpu>,
        /// Number of tasks.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub pids: Option<Pids>,
        /// Block I/O.
        #[serde(default, rename = "blockIO", skip_serializing_if = "Option::is_none")]
        pub block_io: Option<BlockIo>,
        /// Huge pages.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub hugepage_limits: Vec<HugepageLimit>,
        /// Network classes and priorities (v1).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub network: Option<NetworkResources>,
        /// RDMA limits by device.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
        pub rdma: BTreeMap<String, Rdma>,
        /// Raw cgroup v2 files and their contents.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
        pub unified: BTreeMap<String, String>,
    }

    /// One device access rule.
    pub struct DeviceRule {
        /// Allow or deny.
        pub allow: bool,
        /// `a`, `b` or `c`; all if absent.
        #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
        pub kind: Option<String>,
        /// Major number; all if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub major: Option<i64>,
        /// Minor number; all if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub minor: Option<i64>,
        /// Any of `r`, `w`, `m`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub access: Option<String>,
    }

    /// Memory limits in bytes; -1 lifts a limit.
    pub struct Memory {
        /// Hard limit of memory.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub limit: Option<i64>,
        /// Soft limit of memory.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub reservation: Option<i64>,
        /// Limit of memory and swap together.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub swap: Option<i64>,
        /// Deprecated limit of kernel memory.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub kernel: Option<i64>,
        /// Deprecated limit of TCP buffers.
        #[serde(default, rename = "kernelTCP", skip_serializing_if = "Option::is_none")]
        pub kernel_tcp: Option<i64>,
        /// Swappiness, 0 to 100 (v1).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub swappiness: Option<u64>,
        /// Turns the OOM killer off (v1).
        #[serde(default, rename = "disableOOMKiller", skip_serializing_if = "Option::is_none")]
        pub disable_oom_killer: Option<bool>,
        /// Hierarchical accounting (v1).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub use_hierarchy: Option<bool>,
        /// Whether a limit below the present usage is refused.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub check_before_update: Option<bool>,
    }

    /// Processor limits.
    pub struct Cpu {
        /// Relative weight, 2 to 262144.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub shares: Option<u64>,
        /// Microseconds of processor time in a period; negative lifts the limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub quota: Option<i64>,
        /// Microseconds that may be saved up.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub burst: Option<u64>,
        /// The period in microseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub period: Option<u64>,
        /// Real-time microseconds in a period (v1).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub realtime_runtime: Option<i64>,
        /// Real-time period in microseconds (v1).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub realtime_period: Option<u64>,
        /// CPU list.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub cpus: Option<String>,
        /// Memory node list.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub mems: Option<String>,
        /// 1 makes the group idle.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub idle: Option<i64>,
    }

    /// Limit of tasks.
    pub struct Pids {
        /// The limit; 0 or negative for none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub limit: Option<i64>,
    }

    /// Block I/O weights and limits.
    pub struct BlockIo {
        /// Weight, 10 to 1000.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub weight: Option<u16>,
        /// Weight of leaf tasks (v1).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub leaf_weight: Option<u16>,
        /// Weights by device.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub weight_device: Vec<WeightDevice>,
        /// Bytes a second read.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub throttle_read_bps_device: Vec<ThrottleDevice>,
        /// Bytes a second written.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub throttle_write_bps_device: Vec<ThrottleDevice>,
        /// Operations a second read.
        #[serde(default, rename = "throttleReadIOPSDevice", deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub throttle_read_iops_device: Vec<ThrottleDevice>,
        /// Operations a second written.
        #[serde(default, rename = "throttleWriteIOPSDevice", deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub throttle_write_iops_device: Vec<ThrottleDevice>,
    }

    /// A device's weight.
    pub struct WeightDevice {
        /// Major number.
        pub major: i64,
        /// Minor number.
        pub minor: i64,
        /// Weight.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub weight: Option<u16>,
        /// Weight of leaf tasks (v1).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub leaf_weight: Option<u16>,
    }

    /// A device's rate limit.
    pub struct ThrottleDevice {
        /// Major number.
        pub major: i64,
        /// Minor number.
        pub minor: i64,
        /// Bytes or operations a second.
        pub rate: u64,
    }

    /// Limit of one size of huge pages.
    pub struct HugepageLimit {
        /// Size like `2MB`. (Callers of runc, which does not tell cases of letters apart, also write `pagesize`.)
        #[serde(alias = "pagesize")]
        pub page_size: String,
        /// Limit in bytes.
        pub limit: u64,
    }

    /// Network classes (v1).
    pub struct NetworkResources {
        /// Class of the net_cls controller.
        #[serde(default, rename = "classID", skip_serializing_if = "Option::is_none")]
        pub class_id: Option<u32>,
        /// Priorities of the net_prio controller.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub priorities: Vec<InterfacePriority>,
    }

    /// Priority of traffic on one interface.
    pub struct InterfacePriority {
        /// Interface name.
        pub name: String,
        /// Priority.
        pub priority: u32,
    }

    /// RDMA limits of one device.
    pub struct Rdma {
        /// Handles.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub hca_handles: Option<u32>,
        /// Objects.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub hca_objects: Option<u32>,
    }

    /// A system call filter (`config-linux.md`, "Seccomp").
    pub struct Seccomp {
        /// What happens to calls that no rule names, like `SCMP_ACT_ERRNO`.
        pub default_action: String,
        /// Error number of that action; EPERM if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub default_errno_ret: Option<u32>,
        /// Architectures like `SCMP_ARCH_X86_64`; the native one if empty.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub architectures: Vec<String>,
        /// Flags like `SECCOMP_FILTER_FLAG_LOG`; absent and empty are two things (see `SECCOMP_FILTER_FLAG_SPEC_ALLOW`).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub flags: Option<Vec<String>>,
        /// Socket that gets the listener for `SCMP_ACT_NOTIFY`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub listener_path: Option<String>,
        /// Opaque data sent along.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub listener_metadata: Option<String>,
        /// The rules.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub syscalls: Vec<SyscallRule>,
    }

    /// What happens to some system calls.
    pub struct SyscallRule {
        /// Their names; unknown ones are passed over.
        pub names: Vec<String>,
        /// The action, like `SCMP_ACT_ALLOW`.
        pub action: String,
        /// Error number of the action.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub errno_ret: Option<u32>,
        /// Conditions on arguments; all must hold.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        pub args: Vec<SyscallArg>,
    }

    /// A condition on one argument.
    pub struct SyscallArg {
        /// Which argument, 0 to 5.
        pub index: u32,
        /// Value to compare with; the mask for `SCMP_CMP_MASKED_EQ`.
        pub value: u64,
        /// Second value, for `SCMP_CMP_MASKED_EQ`.
        #[serde(default)]
        pub value_two: u64,
        /// Operator like `SCMP_CMP_EQ`.
        pub op: String,
    }
}

/// The kernel parameters that belong to an IPC namespace, besides those that begin with `fs.mqueue.`
/// (ipc_namespaces(7), Linux's `ipc/ipc_sysctl.c`).
pub const IPC_SYSCTLS: [&str; 9] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
    "kernel.msg_next_id",
];

impl IdMapping {
    /// The id outside that `id` inside is mapped to; `None` when no mapping has it.
    pub fn host_id(maps: &[IdMapping], id: u32) -> Option<u32> {
        let map = maps.iter().find(|map| id.checked_sub(map.container_id).is_some_and(|at| at < map.size))?;
        map.host_id.checked_add(id - map.container_id)
    }
}

impl ConsoleSize {
    /// Rows and columns as a terminal takes them; `None` when one is more than it can have.
    pub fn characters(&self) -> Option<(u16, u16)> {
        Some((self.height.try_into().ok()?, self.width.try_into().ok()?))
    }
}

/// The kinds of namespaces, with the specification's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceKind {
    /// Process ids.
    #[default]
    Pid,
    /// Network devices, addresses, ports.
    Network,
    /// Mounts.
    Mount,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host and domain name.
    Uts,
    /// User and group ids.
    User,
    /// The view of control groups.
    Cgroup,
    /// Boot and monotonic clocks.
    Time,
}

impl NamespaceKind {
    /// The name of the entry in `/proc/PID/ns`.
    pub fn proc_name(self) -> &'static str {
        match self {
            NamespaceKind::Pid => "pid",
            NamespaceKind::Network => "net",
            NamespaceKind::Mount => "mnt",
            NamespaceKind::Ipc => "ipc",
            NamespaceKind::Uts => "uts",
            NamespaceKind::User => "user",
            NamespaceKind::Cgroup => "cgroup",
            NamespaceKind::Time => "time",
        }
    }
}
