//! Resource usage (`GET /containers/{id}/stats`); Docker spells these fields in snake case.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

macro_rules! snake_documents {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* pub $field:ident : $ty:ty,)* })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name { $($(#[$fmeta])* #[serde(deserialize_with = "crate::nullable")] pub $field : $ty,)* }
    )*};
}

snake_documents! {
    /// One reading.
    pub struct Stats {
        /// Name with a leading slash.
        pub name: String,
        /// Container id.
        pub id: String,
        /// When, RFC 3339.
        pub read: String,
        /// When the reading before it was taken; year 1 if there was none.
        pub preread: String,
        /// Tasks.
        pub pids_stats: PidsStats,
        /// Block I/O.
        pub blkio_stats: BlkioStats,
        /// Processors (Windows only).
        pub num_procs: u32,
        /// Processor time.
        pub cpu_stats: CpuStats,
        /// Processor time at the reading before.
        pub precpu_stats: CpuStats,
        /// Memory.
        pub memory_stats: MemoryStats,
        /// Network traffic by interface.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub networks: BTreeMap<String, NetworkStats>,
    }

    /// Tasks.
    pub struct PidsStats {
        /// Now.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub current: Option<u64>,
        /// Limit.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub limit: Option<u64>,
    }

    /// Block I/O.
    pub struct BlkioStats {
        /// Bytes by device and operation.
        pub io_service_bytes_recursive: Option<Vec<BlkioEntry>>,
        /// Operations by device and kind.
        pub io_serviced_recursive: Option<Vec<BlkioEntry>>,
    }

    /// One counter of block I/O.
    pub struct BlkioEntry {
        /// Major number of the device.
        pub major: u64,
        /// Minor number of the device.
        pub minor: u64,
        /// `read`, `write`, …
        pub op: String,
        /// Bytes or operations.
        pub value: u64,
    }

    /// Processor time.
    pub struct CpuStats {
        /// The container's.
        pub cpu_usage: CpuUsage,
        /// The whole host's, nanoseconds.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub system_cpu_usage: Option<u64>,
        /// Processors on line.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub online_cpus: Option<u32>,
        /// Throttling by quota.
        pub throttling_data: ThrottlingData,
    }

    /// Processor time in nanoseconds.
    pub struct CpuUsage {
        /// In all.
        pub total_usage: u64,
        /// By processor (v1).
        #[serde(skip_serializing_if = "Option::is_none")]
        pub percpu_usage: Option<Vec<u64>>,
        /// In the kernel.
        pub usage_in_kernelmode: u64,
        /// In programs.
        pub usage_in_usermode: u64,
    }

    /// Throttling by quota.
    pub struct ThrottlingData {
        /// Periods in which the group ran.
        pub periods: u64,
        /// Periods in which it was held back.
        pub throttled_periods: u64,
        /// Nanoseconds it was held back.
        pub throttled_time: u64,
    }

    /// Memory in bytes.
    pub struct MemoryStats {
        /// Now.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub usage: Option<u64>,
        /// Highest so far (v1).
        #[serde(skip_serializing_if = "Option::is_none")]
        pub max_usage: Option<u64>,
        /// The kernel's own counters.
        pub stats: BTreeMap<String, u64>,
        /// How often the limit was hit (v1).
        #[serde(skip_serializing_if = "Option::is_none")]
        pub failcnt: Option<u64>,
        /// Limit; the host's memory if there is none.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub limit: Option<u64>,
    }

    /// Traffic of one interface.
    pub struct NetworkStats {
        /// Bytes received.
        pub rx_bytes: u64,
        /// Packets received.
        pub rx_packets: u64,
        /// Errors on receipt.
        pub rx_errors: u64,
        /// Packets dropped on receipt.
        pub rx_dropped: u64,
        /// Bytes sent.
        pub tx_bytes: u64,
        /// Packets sent.
        pub tx_packets: u64,
        /// Errors on sending.
        pub tx_errors: u64,
        /// Packets dropped on sending.
        pub tx_dropped: u64,
    }
}
