//! Containers: what is asked for, what is listed, what is inspected.

use std::collections::BTreeMap;

use creel_types::image::Empty;
use serde_json::Value;

use crate::documents;
use crate::host::HostConfig;

documents! {
    /// What to run: the part of a container's configuration that does not depend on the host.
    pub struct Config {
        /// Host name inside the container; the short id if empty.
        pub hostname: String,
        /// NIS domain name.
        pub domainname: String,
        /// `user`, `uid`, `user:group`, …
        pub user: String,
        /// Whether `docker run` attaches to standard input.
        pub attach_stdin: bool,
        /// Whether `docker run` attaches to standard output.
        pub attach_stdout: bool,
        /// Whether `docker run` attaches to standard error.
        pub attach_stderr: bool,
        /// Ports the program listens on, as keys `8080/tcp`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub exposed_ports: Option<BTreeMap<String, Empty>>,
        /// Whether the program gets a pseudo-terminal.
        pub tty: bool,
        /// Whether standard input is kept open.
        pub open_stdin: bool,
        /// Whether standard input closes when the first attached client goes.
        pub stdin_once: bool,
        /// Environment as `NAME=value`; a bare `NAME` removes the image's value.
        pub env: Option<Vec<String>>,
        /// Arguments; replaces the image's.
        pub cmd: Option<Vec<String>>,
        /// Health check, as it came.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub healthcheck: Option<Value>,
        /// Whether `cmd` is already escaped (Windows only).
        #[serde(skip_serializing_if = "Option::is_none")]
        pub args_escaped: Option<bool>,
        /// The image by reference or id, as the user wrote it.
        pub image: String,
        /// Paths that are volumes, as keys.
        pub volumes: Option<BTreeMap<String, Empty>>,
        /// Working directory.
        pub working_dir: String,
        /// The program; replaces the image's. `[""]` removes it.
        pub entrypoint: Option<Vec<String>>,
        /// Whether there is no network; deprecated.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub network_disabled: Option<bool>,
        /// MAC address; deprecated.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub mac_address: Option<String>,
        /// Triggers of `ONBUILD`.
        pub on_build: Option<Vec<String>>,
        /// Labels.
        pub labels: Option<BTreeMap<String, String>>,
        /// Signal that stops the program.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub stop_signal: Option<String>,
        /// Seconds between the stop signal and SIGKILL.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub stop_timeout: Option<i64>,
        /// Shell for shell-form instructions.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub shell: Option<Vec<String>>,
    }

    /// Answer to a create.
    pub struct CreateResponse {
        /// The container's id.
        pub id: String,
        /// What the user should know.
        pub warnings: Vec<String>,
    }

    /// One row of the list of containers.
    pub struct ContainerSummary {
        /// Id.
        pub id: String,
        /// Names, each with a leading slash.
        pub names: Vec<String>,
        /// Image as it was given.
        pub image: String,
        /// Id of the image.
        #[serde(rename = "ImageID")]
        pub image_id: String,
        /// Program and arguments in one line.
        pub command: String,
        /// Unix seconds.
        pub created: i64,
        /// Published ports.
        pub ports: Vec<Port>,
        /// Bytes in the writable layer, when asked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub size_rw: Option<i64>,
        /// Bytes in all layers, when asked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub size_root_fs: Option<i64>,
        /// Labels.
        pub labels: BTreeMap<String, String>,
        /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`.
        pub state: String,
        /// The state as people read it: `Up 5 minutes`.
        pub status: String,
        /// The network mode.
        pub host_config: SummaryHostConfig,
        /// Networks.
        pub network_settings: SummaryNetworks,
        /// Mounts.
        pub mounts: Vec<MountPoint>,
    }

    /// The part of the host configuration that lists show.
    pub struct SummaryHostConfig {
        /// Network mode.
        pub network_mode: String,
    }

    /// The networks that lists show.
    pub struct SummaryNetworks {
        /// Endpoints by network name.
        pub networks: BTreeMap<String, EndpointSettings>,
    }

    /// A published port.
    pub struct Port {
        /// Address on the host.
        #[serde(rename = "IP", skip_serializing_if = "Option::is_none")]
        pub ip: Option<String>,
        /// Port in the container.
        pub private_port: u16,
        /// Port on the host.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub public_port: Option<u16>,
        /// `tcp`, `udp` or `sctp`.
        #[serde(rename = "Type")]
        pub kind: String,
    }

    /// A mount as a container has it.
    pub struct MountPoint {
        /// `bind`, `volume` or `tmpfs`.
        #[serde(rename = "Type")]
        pub kind: String,
        /// Volume name.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub name: String,
        /// Path on the host.
        pub source: String,
        /// Path in the container.
        pub destination: String,
        /// Volume driver.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub driver: String,
        /// Options as they were given.
        pub mode: String,
        /// Whether it can be written.
        #[serde(rename = "RW")]
        pub rw: bool,
        /// Propagation.
        pub propagation: String,
    }

    /// A container's place in one network.
    pub struct EndpointSettings {
        /// Wished addresses, as they came.
        #[serde(rename = "IPAMConfig")]
        pub ipam_config: Option<Value>,
        /// Links.
        pub links: Option<Vec<String>>,
        /// Aliases.
        pub aliases: Option<Vec<String>>,
        /// MAC address.
        pub mac_address: String,
        /// Driver options.
        pub driver_opts: Option<BTreeMap<String, String>>,
        /// The higher, the rather is this network's gateway the default one.
        pub gw_priority: i64,
        /// Network id.
        #[serde(rename = "NetworkID")]
        pub network_id: String,
        /// Endpoint id.
        #[serde(rename = "EndpointID")]
        pub endpoint_id: String,
        /// Gateway.
        pub gateway: String,
        /// IPv4 address.
        #[serde(rename = "IPAddress")]
        pub ip_address: String,
        /// Bits of the IPv4 prefix.
        #[serde(rename = "IPPrefixLen")]
        pub ip_prefix_len: i64,
        /// IPv6 gateway.
        #[serde(rename = "IPv6Gateway")]
        pub ipv6_gateway: String,
        /// IPv6 address.
        #[serde(rename = "GlobalIPv6Address")]
        pub global_ipv6_address: String,
        /// Bits of the IPv6 prefix.
        #[serde(rename = "GlobalIPv6PrefixLen")]
        pub global_ipv6_prefix_len: i64,
        /// Names by which it is found in the network.
        #[serde(rename = "DNSNames")]
        pub dns_names: Option<Vec<String>>,
    }

    /// Everything about one container.
    pub struct ContainerInspect {
        /// Id.
        pub id: String,
        /// RFC 3339 with nanoseconds.
        pub created: String,
        /// The program.
        pub path: String,
        /// Its arguments.
        pub args: Vec<String>,
        /// State.
        pub state: ContainerState,
        /// Id of the image.
        pub image: String,
        /// Path of `/etc/resolv.conf` on the host.
        pub resolv_conf_path: String,
        /// Path of `/etc/hostname` on the host.
        pub hostname_path: String,
        /// Path of `/etc/hosts` on the host.
        pub hosts_path: String,
        /// Path of the log on the host.
        pub log_path: String,
        /// Name with a leading slash.
        pub name: String,
        /// How often it was restarted by policy.
        pub restart_count: i64,
        /// Storage driver.
        pub driver: String,
        /// Operating system.
        pub platform: String,
        /// SELinux label of mounts.
        pub mount_label: String,
        /// SELinux label of the process.
        pub process_label: String,
        /// AppArmor profile.
        pub app_armor_profile: String,
        /// Ids of running execs.
        #[serde(rename = "ExecIDs")]
        pub exec_ids: Option<Vec<String>>,
        /// Host configuration.
        pub host_config: HostConfig,
        /// Where the layers are.
        pub graph_driver: GraphDriver,
        /// Bytes in the writable layer, when asked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub size_rw: Option<i64>,
        /// Bytes in all layers, when asked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub size_root_fs: Option<i64>,
        /// Mounts.
        pub mounts: Vec<MountPoint>,
        /// Configuration.
        pub config: Config,
        /// Networks.
        pub network_settings: NetworkSettings,
    }

    /// State of a container.
    pub struct ContainerState {
        /// One word, as in lists.
        pub status: String,
        /// Whether its process runs (also when paused).
        pub running: bool,
        /// Whether it is frozen.
        pub paused: bool,
        /// Whether a restart policy waits to start it.
        pub restarting: bool,
        /// Whether the kernel killed a process of it for lack of memory.
        #[serde(rename = "OOMKilled")]
        pub oom_killed: bool,
        /// Whether its removal failed half-way.
        pub dead: bool,
        /// Process id on the host; 0 if it does not run.
        pub pid: i64,
        /// Exit status.
        pub exit_code: i64,
        /// Why it did not start.
        pub error: String,
        /// RFC 3339; year 1 if never.
        pub started_at: String,
        /// RFC 3339; year 1 if never.
        pub finished_at: String,
    }

    /// Where a container's layers are on the host.
    pub struct GraphDriver {
        /// Directories.
        pub data: Option<BTreeMap<String, String>>,
        /// `overlay2`, the name clients know.
        pub name: String,
    }

    /// Networks of a container. What is said outside of `networks` is of the default network.
    pub struct NetworkSettings {
        /// The default network's bridge.
        pub bridge: String,
        /// Id of the sandbox.
        #[serde(rename = "SandboxID")]
        pub sandbox_id: String,
        /// Path of the network namespace.
        pub sandbox_key: String,
        /// Published ports.
        pub ports: BTreeMap<String, Value>,
        /// Retired by Docker, always false.
        pub hairpin_mode: bool,
        /// Retired by Docker, always empty.
        #[serde(rename = "LinkLocalIPv6Address")]
        pub link_local_ipv6_address: String,
        /// Retired by Docker, always 0.
        #[serde(rename = "LinkLocalIPv6PrefixLen")]
        pub link_local_ipv6_prefix_len: i64,
        /// Retired by Docker, always absent.
        #[serde(rename = "SecondaryIPAddresses")]
        pub secondary_ip_addresses: Option<Vec<Value>>,
        /// Retired by Docker, always absent.
        #[serde(rename = "SecondaryIPv6Addresses")]
        pub secondary_ipv6_addresses: Option<Vec<Value>>,
        /// Endpoint id.
        #[serde(rename = "EndpointID")]
        pub endpoint_id: String,
        /// Gateway.
        pub gateway: String,
        /// IPv6 address.
        #[serde(rename = "GlobalIPv6Address")]
        pub global_ipv6_address: String,
        /// Bits of the IPv6 prefix.
        #[serde(rename = "GlobalIPv6PrefixLen")]
        pub global_ipv6_prefix_len: i64,
        /// IPv4 address.
        #[serde(rename = "IPAddress")]
        pub ip_address: String,
        /// Bits of the IPv4 prefix.
        #[serde(rename = "IPPrefixLen")]
        pub ip_prefix_len: i64,
        /// IPv6 gateway.
        #[serde(rename = "IPv6Gateway")]
        pub ipv6_gateway: String,
        /// MAC address.
        pub mac_address: String,
        /// Endpoints by network name.
        pub networks: BTreeMap<String, EndpointSettings>,
    }

    /// Answer of `top`.
    pub struct Top {
        /// Columns.
        pub titles: Vec<String>,
        /// Rows.
        pub processes: Vec<Vec<String>>,
    }

    /// Answer of `wait`.
    pub struct WaitResponse {
        /// Exit status.
        pub status_code: i64,
        /// Why waiting failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub error: Option<WaitError>,
    }

    /// Why waiting failed.
    pub struct WaitError {
        /// In words.
        pub message: String,
    }

    /// One change of a container's files.
    pub struct Change {
        /// 0 changed, 1 added, 2 deleted.
        pub kind: u8,
        /// Absolute path in the container.
        pub path: String,
    }

    /// Answer of prune.
    pub struct ContainersPrune {
        /// Ids.
        pub containers_deleted: Option<Vec<String>>,
        /// Bytes.
        pub space_reclaimed: u64,
    }
}

/// Body of a create: the configuration with the host's part in it.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CreateRequest {
    /// What to run.
    #[serde(flatten)]
    pub config: Config,
    /// On what terms.
    #[serde(deserialize_with = "crate::nullable")]
    pub host_config: HostConfig,
    /// Networks to join.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networking_config: Option<NetworkingConfig>,
}

documents! {
    /// Networks to join at create.
    pub struct NetworkingConfig {
        /// Endpoints by network name.
        pub endpoints_config: Option<BTreeMap<String, EndpointSettings>>,
    }
}

/// What `HEAD` and `GET /containers/{id}/archive` say in `X-Docker-Container-Path-Stat` (base64 of JSON).
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PathStat {
    /// Base name.
    pub name: String,
    /// Bytes.
    pub size: i64,
    /// Go's `fs.FileMode` bits: permissions, `1<<31` directory, `1<<27` symbolic link, …
    pub mode: u32,
    /// RFC 3339 with nanoseconds.
    pub mtime: String,
    /// Target of a symbolic link.
    pub link_target: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_create_of_dockers_own_client_is_read() {
        let text = r#"{"Hostname":"","Domainname":"","User":"","AttachStdin":false,"AttachStdout":true,"AttachStderr":true,
            "Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":null,"Cmd":["true"],"Image":"busybox","Volumes":{},
            "WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":{},
            "HostConfig":{"Binds":null,"ContainerIDFile":"","LogConfig":{"Type":"","Config":{}},"NetworkMode":"none",
            "PortBindings":{},"RestartPolicy":{"Name":"no","MaximumRetryCount":0},"AutoRemove":true,"ConsoleSize":[0,0],
            "CapAdd":null,"Dns":null,"MemorySwappiness":-1,"NanoCpus":0,"BlkioWeight":0,"MaskedPaths":null},
            "NetworkingConfig":{"EndpointsConfig":{}}}"#;
        let request: CreateRequest = serde_json::from_str(text).unwrap();
        assert_eq!(request.config.cmd, Some(vec!["true".to_owned()]));
        assert!(request.host_config.auto_remove);
        assert_eq!(request.host_config.unknown, BTreeMap::new());
    }
}
