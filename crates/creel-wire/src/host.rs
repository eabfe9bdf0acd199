//! `HostConfig`: on what terms a container runs on this host.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::documents;

/// The names that a [`Ulimit`] can have (setrlimit(2), without `RLIMIT_` and in small letters).
pub const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

documents! {
    /// The part of a container's configuration that depends on the host. Sizes are bytes.
    pub struct HostConfig {
        /// Binds as `source:destination[:options]`.
        pub binds: Option<Vec<String>>,
        /// File on the client that gets the id.
        #[serde(rename = "ContainerIDFile")]
        pub container_id_file: String,
        /// Log driver.
        pub log_config: LogConfig,
        /// `none`, `host`, `bridge`, `default`, `container:ID` or a network's name.
        pub network_mode: String,
        /// Published ports.
        pub port_bindings: BTreeMap<String, Value>,
        /// Restart policy.
        pub restart_policy: RestartPolicy,
        /// Whether it is removed when it ends.
        pub auto_remove: bool,
        /// Volume driver.
        pub volume_driver: String,
        /// Containers whose mounts are taken over.
        pub volumes_from: Option<Vec<String>>,
        /// Rows and columns of the first terminal.
        pub console_size: [u16; 2],
        /// Free annotations for the OCI runtime.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub annotations: Option<BTreeMap<String, String>>,
        /// Capabilities added.
        pub cap_add: Option<Vec<String>>,
        /// Capabilities dropped.
        pub cap_drop: Option<Vec<String>>,
        /// `private` or `host`.
        pub cgroupns_mode: String,
        /// DNS servers.
        pub dns: Option<Vec<String>>,
        /// DNS options.
        pub dns_options: Option<Vec<String>>,
        /// DNS search domains.
        pub dns_search: Option<Vec<String>>,
        /// Additional lines of /etc/hosts as `name:address`.
        pub extra_hosts: Option<Vec<String>>,
        /// Supplementary groups.
        pub group_add: Option<Vec<String>>,
        /// `private`, `host`, `shareable`, `none` or `container:ID`.
        pub ipc_mode: String,
        /// Cgroup to share.
        pub cgroup: String,
        /// Links.
        pub links: Option<Vec<String>>,
        /// Adjustment of the OOM killer's score.
        pub oom_score_adj: i32,
        /// `host` or `container:ID`; empty for a new one.
        pub pid_mode: String,
        /// All privileges.
        pub privileged: bool,
        /// Whether all exposed ports are published.
        pub publish_all_ports: bool,
        /// Whether the root is read-only.
        pub readonly_rootfs: bool,
        /// Security options as `name=value`.
        pub security_opt: Option<Vec<String>>,
        /// Options of the storage driver.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub storage_opt: Option<BTreeMap<String, String>>,
        /// tmpfs mounts: path to options.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub tmpfs: Option<BTreeMap<String, String>>,
        /// `host` or empty.
        #[serde(rename = "UTSMode")]
        pub uts_mode: String,
        /// `host` or empty.
        pub userns_mode: String,
        /// Size of /dev/shm.
        pub shm_size: i64,
        /// Kernel parameters.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub sysctls: Option<BTreeMap<String, String>>,
        /// Name of the OCI runtime.
        pub runtime: String,
        /// Isolation technology (Windows only).
        pub isolation: String,
        /// Relative weight of processor time.
        pub cpu_shares: i64,
        /// Memory limit.
        pub memory: i64,
        /// Billionths of a processor.
        pub nano_cpus: i64,
        /// Cgroup under which the container's group is made.
        pub cgroup_parent: String,
        /// Block I/O weight.
        pub blkio_weight: u16,
        /// Block I/O weights by device.
        pub blkio_weight_device: Option<Vec<Value>>,
        /// Read rates by device, bytes a second.
        pub blkio_device_read_bps: Option<Vec<ThrottleDevice>>,
        /// Write rates by device, bytes a second.
        pub blkio_device_write_bps: Option<Vec<ThrottleDevice>>,
        /// Read rates by device, operations a second.
        #[serde(rename = "BlkioDeviceReadIOps")]
        pub blkio_device_read_iops: Option<Vec<ThrottleDevice>>,
        /// Write rates by device, operations a second.
        #[serde(rename = "BlkioDeviceWriteIOps")]
        pub blkio_device_write_iops: Option<Vec<ThrottleDevice>>,
        /// CPU period in microseconds.
        pub cpu_period: i64,
        /// CPU quota in microseconds.
        pub cpu_quota: i64,
        /// Real-time period in microseconds.
        pub cpu_realtime_period: i64,
        /// Real-time runtime in microseconds.
        pub cpu_realtime_runtime: i64,
        /// CPU list.
        pub cpuset_cpus: String,
        /// Memory node list.
        pub cpuset_mems: String,
        /// Devices.
        pub devices: Option<Vec<DeviceMapping>>,
        /// Device access rules in cgroup v1's form.
        pub device_cgroup_rules: Option<Vec<String>>,
        /// Requests to device drivers.
        pub device_requests: Option<Vec<Value>>,
        /// Soft memory limit.
        pub memory_reservation: i64,
        /// Memory and swap together; -1 for no limit.
        pub memory_swap: i64,
        /// Swappiness; absent or -1 for the default.
        pub memory_swappiness: Option<i64>,
        /// Whether the OOM killer is off.
        pub oom_kill_disable: Option<bool>,
        /// Limit of tasks; absent, 0 or -1 for none.
        pub pids_limit: Option<i64>,
        /// Resource limits.
        pub ulimits: Option<Vec<Ulimit>>,
        /// Processors (Windows only).
        pub cpu_count: i64,
        /// Percent of processors (Windows only).
        pub cpu_percent: i64,
        /// I/O operations (Windows only).
        #[serde(rename = "IOMaximumIOps")]
        pub io_maximum_iops: u64,
        /// I/O bytes (Windows only).
        #[serde(rename = "IOMaximumBandwidth")]
        pub io_maximum_bandwidth: u64,
        /// Limit of kernel memory; retired.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub kernel_memory: Option<i64>,
        /// Limit of TCP buffers; retired.
        #[serde(rename = "KernelMemoryTCP", skip_serializing_if = "Option::is_none")]
        pub kernel_memory_tcp: Option<i64>,
        /// Mounts in their long form.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub mounts: Option<Vec<Mount>>,
        /// Hidden paths; absent for the default ones.
        pub masked_paths: Option<Vec<String>>,
        /// Read-only paths; absent for the default ones.
        pub readonly_paths: Option<Vec<String>>,
        /// Whether a small init is process 1.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub init: Option<bool>,
        /// Fields that creel does not know, so that it can refuse them by name instead of ignoring them.
        #[serde(flatten)]
        pub unknown: BTreeMap<String, Value>,
    }

    /// Log driver and its options.
    pub struct LogConfig {
        /// Driver; `json-file` if empty.
        #[serde(rename = "Type")]
        pub kind: String,
        /// Options.
        pub config: BTreeMap<String, String>,
    }

    /// When a container is started again.
    pub struct RestartPolicy {
        /// `no`, `always`, `unless-stopped` or `on-failure`.
        pub name: String,
        /// Limit for `on-failure`.
        pub maximum_retry_count: i64,
    }

    /// A device given to a container.
    pub struct DeviceMapping {
        /// Path on the host.
        pub path_on_host: String,
        /// Path in the container.
        pub path_in_container: String,
        /// Any of `r`, `w`, `m`.
        pub cgroup_permissions: String,
    }

    /// A device's rate limit.
    pub struct ThrottleDevice {
        /// Path on the host.
        pub path: String,
        /// Bytes or operations a second.
        pub rate: u64,
    }

    /// A resource limit.
    pub struct Ulimit {
        /// Name like `nofile`.
        pub name: String,
        /// Hard limit; -1 for infinity.
        pub hard: i64,
        /// Soft limit; -1 for infinity.
        pub soft: i64,
    }

    /// A mount in its long form (`--mount`).
    pub struct Mount {
        /// `bind`, `volume`, `tmpfs`, `image`, `npipe` or `cluster`.
        #[serde(rename = "Type")]
        pub kind: String,
        /// Path on the host or volume name.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub source: String,
        /// Path in the container.
        pub target: String,
        /// Whether it is read-only.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        pub read_only: bool,
        /// Consistency wish (macOS only, ignored by Docker on Linux too).
        #[serde(skip_serializing_if = "String::is_empty")]
        pub consistency: String,
        /// Options of binds.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub bind_options: Option<BindOptions>,
        /// Options of volumes, as they came.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub volume_options: Option<Value>,
        /// Options of images, as they came.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub image_options: Option<Value>,
        /// Options of tmpfs.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub tmpfs_options: Option<TmpfsOptions>,
    }

    /// Options of a bind mount.
    pub struct BindOptions {
        /// Propagation; `rprivate` if empty.
        pub propagation: String,
        /// Whether mounts below the source stay out.
        pub non_recursive: bool,
        /// Whether a missing source is made.
        pub create_mountpoint: bool,
        /// Whether mounts below stay writable with `read_only`.
        pub read_only_non_recursive: bool,
        /// Whether to fail when mounts below cannot be made read-only.
        pub read_only_force_recursive: bool,
    }

    /// Options of a tmpfs mount.
    pub struct TmpfsOptions {
        /// Size in bytes; 0 for no limit.
        pub size_bytes: i64,
        /// File mode of the root, like 0o1777.
        pub mode: u32,
        /// Further mount options.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub options: Option<Vec<Vec<String>>>,
    }
}
