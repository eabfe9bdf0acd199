//! The engine itself: version, information, events, disk usage, errors.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::documents;

/// The body of every error answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ErrorResponse {
    /// In words.
    pub message: String,
}

documents! {
    /// Answer of `POST /auth`.
    pub struct AuthResponse {
        /// In words: `Login Succeeded`.
        pub status: String,
        /// A token to keep in the password's place; may be empty.
        pub identity_token: String,
    }

    /// Answer of `/version`.
    pub struct Version {
        /// Parts and their versions.
        pub components: Vec<Component>,
        /// What runs here.
        pub platform: VersionPlatform,
        /// Version of the engine.
        pub version: String,
        /// Newest API version.
        pub api_version: String,
        /// Oldest API version.
        #[serde(rename = "MinAPIVersion")]
        pub min_api_version: String,
        /// Commit it was built from.
        pub git_commit: String,
        /// Compiler; clients expect the field by this name.
        pub go_version: String,
        /// Operating system.
        pub os: String,
        /// Architecture.
        pub arch: String,
        /// Kernel.
        pub kernel_version: String,
        /// When it was built, RFC 3339.
        pub build_time: String,
    }

    /// One part of the engine.
    pub struct Component {
        /// Name.
        pub name: String,
        /// Version.
        pub version: String,
        /// Whatever else.
        pub details: BTreeMap<String, String>,
    }

    /// What runs here.
    pub struct VersionPlatform {
        /// Product name.
        pub name: String,
    }

    /// Answer of `/info`, as far as creel can tell it.
    pub struct Info {
        /// Id of this installation.
        #[serde(rename = "ID")]
        pub id: String,
        /// Containers in all.
        pub containers: i64,
        /// Of them running.
        pub containers_running: i64,
        /// Of them paused.
        pub containers_paused: i64,
        /// Of them stopped.
        pub containers_stopped: i64,
        /// Images.
        pub images: i64,
        /// Storage driver, by the name that clients know.
        pub driver: String,
        /// Its state as pairs.
        pub driver_status: Vec<[String; 2]>,
        /// Whether memory can be limited.
        pub memory_limit: bool,
        /// Whether swap can be limited.
        pub swap_limit: bool,
        /// Whether CPU quotas work.
        #[serde(rename = "CpuCfsPeriod")]
        pub cpu_cfs_period: bool,
        /// Whether CPU quotas work.
        #[serde(rename = "CpuCfsQuota")]
        pub cpu_cfs_quota: bool,
        /// Whether CPU shares work.
        #[serde(rename = "CPUShares")]
        pub cpu_shares: bool,
        /// Whether CPU sets work.
        #[serde(rename = "CPUSet")]
        pub cpu_set: bool,
        /// Whether tasks can be limited.
        pub pids_limit: bool,
        /// Whether IPv4 is forwarded.
        #[serde(rename = "IPv4Forwarding")]
        pub ipv4_forwarding: bool,
        /// Whether the daemon debugs.
        pub debug: bool,
        /// Time on the host, RFC 3339.
        pub system_time: String,
        /// Log driver.
        pub logging_driver: String,
        /// `cgroupfs` or `systemd`.
        pub cgroup_driver: String,
        /// `1` or `2`.
        pub cgroup_version: String,
        /// Kernel.
        pub kernel_version: String,
        /// Operating system with its version.
        pub operating_system: String,
        /// `linux`.
        #[serde(rename = "OSType")]
        pub os_type: String,
        /// Processor architecture as uname says it.
        pub architecture: String,
        /// Where the default registry is.
        pub index_server_address: String,
        /// Processors.
        #[serde(rename = "NCPU")]
        pub ncpu: i64,
        /// Bytes of memory.
        pub mem_total: i64,
        /// Where everything is kept.
        pub docker_root_dir: String,
        /// Host name.
        pub name: String,
        /// Version of the engine.
        pub server_version: String,
        /// OCI runtimes by name.
        pub runtimes: BTreeMap<String, Value>,
        /// The one used when none is named.
        pub default_runtime: String,
        /// Whether containers outlive the daemon; always true.
        pub live_restore_enabled: bool,
        /// Program for `--init`.
        pub init_binary: String,
        /// Security features as `name=…`.
        pub security_options: Vec<String>,
        /// Registries: which are insecure, which are mirrored.
        pub registry_config: Value,
        /// Drivers by kind.
        pub plugins: BTreeMap<String, Option<Vec<String>>>,
        /// What the user should know.
        pub warnings: Vec<String>,
    }

    /// What an event is about.
    pub struct Actor {
        /// Id.
        #[serde(rename = "ID")]
        pub id: String,
        /// Labels and particulars.
        pub attributes: BTreeMap<String, String>,
    }

    /// Answer of `/system/df`.
    pub struct DiskUsage {
        /// Bytes of all layers.
        pub layers_size: i64,
        /// Images.
        pub images: Vec<crate::image::ImageSummary>,
        /// Containers.
        pub containers: Vec<crate::container::ContainerSummary>,
        /// Volumes.
        pub volumes: Vec<crate::volume::Volume>,
        /// Build cache.
        pub build_cache: Vec<Value>,
        /// What only creel knows of; absent in other daemons' answers.
        pub creel: Option<crate::verify::CreelUsage>,
    }
}

/// One event (`GET /events`), a line of JSON.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// `container`, `image`, `volume`, `network`, `daemon`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// What happened.
    #[serde(rename = "Action")]
    pub action: String,
    /// To what.
    #[serde(rename = "Actor")]
    pub actor: Actor,
    /// `local`.
    pub scope: String,
    /// Unix seconds.
    pub time: i64,
    /// Unix nanoseconds.
    #[serde(rename = "timeNano")]
    pub time_nano: i64,
    /// The action, for old clients.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// The actor's id, for old clients.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The image, for old clients.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub from: String,
}
