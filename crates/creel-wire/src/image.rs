//! Images.

use std::collections::BTreeMap;

use creel_types::image::{Empty, ExecConfig};
use serde::{Deserialize, Serialize};

use crate::documents;

documents! {
    /// One row of the list of images.
    pub struct ImageSummary {
        /// `sha256:…` of the configuration.
        pub id: String,
        /// Id of the parent image; empty for pulled ones.
        pub parent_id: String,
        /// `name:tag`.
        pub repo_tags: Vec<String>,
        /// `name@sha256:…`.
        pub repo_digests: Vec<String>,
        /// Unix seconds.
        pub created: i64,
        /// Bytes of all layers on disk.
        pub size: i64,
        /// Bytes shared with other images; -1 if not computed.
        pub shared_size: i64,
        /// Labels.
        pub labels: Option<BTreeMap<String, String>>,
        /// Number of containers; -1 if not computed.
        pub containers: i64,
    }

    /// Everything about one image.
    pub struct ImageInspect {
        /// `sha256:…` of the configuration.
        pub id: String,
        /// `name:tag`.
        pub repo_tags: Vec<String>,
        /// `name@sha256:…`.
        pub repo_digests: Vec<String>,
        /// Id of the parent image.
        pub parent: String,
        /// Comment.
        pub comment: String,
        /// RFC 3339 with nanoseconds.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub created: String,
        /// Version of the engine that made it.
        pub docker_version: String,
        /// Author.
        pub author: String,
        /// Architecture.
        pub architecture: String,
        /// Variant of the architecture.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub variant: String,
        /// Operating system.
        pub os: String,
        /// Bytes of all layers on disk.
        pub size: i64,
        /// Where the layers are.
        pub graph_driver: crate::container::GraphDriver,
        /// The layers.
        #[serde(rename = "RootFS")]
        pub root_fs: ImageRootFs,
        /// Times that only this engine knows.
        pub metadata: ImageMetadata,
        /// What it runs.
        pub config: Option<ImageConfig>,
    }

    /// What an image runs, as `inspect` shows it: what an image leaves open is shown as empty.
    pub struct ImageConfig {
        /// Arguments that a user may replace.
        pub cmd: Option<Vec<String>>,
        /// The program and its fixed arguments.
        pub entrypoint: Option<Vec<String>>,
        /// Environment as `NAME=value`.
        pub env: Option<Vec<String>>,
        /// Ports the program listens on, as keys `8080/tcp`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub exposed_ports: Option<BTreeMap<String, Empty>>,
        /// Health check, as it came.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub healthcheck: Option<serde_json::Value>,
        /// Labels.
        pub labels: Option<BTreeMap<String, String>>,
        /// Triggers of `ONBUILD`.
        pub on_build: Option<Vec<String>>,
        /// Shell for shell-form instructions.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub shell: Option<Vec<String>>,
        /// Signal that stops the program.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub stop_signal: Option<String>,
        /// `user`, `uid`, `user:group`, …
        pub user: String,
        /// Paths that are volumes, as keys.
        pub volumes: Option<BTreeMap<String, Empty>>,
        /// Working directory.
        pub working_dir: String,
    }

    /// The layers of an image.
    pub struct ImageRootFs {
        /// Always `layers`.
        #[serde(rename = "Type")]
        pub kind: String,
        /// The diffIDs, the lowest first.
        pub layers: Vec<String>,
    }

    /// Times that only this engine knows.
    pub struct ImageMetadata {
        /// When it was tagged last, RFC 3339.
        pub last_tag_time: String,
    }

    /// One step of an image's making, the newest first.
    pub struct HistoryItem {
        /// Id of the image at that step, or `<missing>`.
        pub id: String,
        /// Unix seconds.
        pub created: i64,
        /// What was done.
        pub created_by: String,
        /// Tags.
        pub tags: Option<Vec<String>>,
        /// Bytes of the layer.
        pub size: i64,
        /// Comment.
        pub comment: String,
    }

    /// What a removal did: one of the two fields is set.
    pub struct ImageDelete {
        /// A reference that went.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub untagged: Option<String>,
        /// Content that went.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub deleted: Option<String>,
    }

    /// Answer of prune.
    pub struct ImagesPrune {
        /// What went.
        pub images_deleted: Option<Vec<ImageDelete>>,
        /// Bytes.
        pub space_reclaimed: u64,
    }
}

impl From<ExecConfig> for ImageConfig {
    fn from(config: ExecConfig) -> Self {
        Self {
            cmd: config.cmd,
            entrypoint: config.entrypoint,
            env: config.env,
            exposed_ports: config.exposed_ports,
            healthcheck: config.healthcheck,
            labels: config.labels,
            on_build: config.on_build,
            shell: config.shell,
            stop_signal: config.stop_signal,
            user: config.user,
            volumes: config.volumes,
            working_dir: config.working_dir,
        }
    }
}

/// One message of a pull, push, load or import: a line of JSON.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProgressMessage {
    /// Plain output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// What happens now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// To which layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// How far it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress_detail: Option<ProgressDetail>,
    /// How far it is, as text (old clients).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// Why it failed; the last message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The same with a code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_detail: Option<ErrorDetail>,
    /// Data for programs: what was pushed, what was built.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aux: Option<serde_json::Value>,
}

/// How far a transfer is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ProgressDetail {
    /// Bytes done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<i64>,
    /// Bytes in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<i64>,
}

/// Why a transfer failed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorDetail {
    /// HTTP-like code, if one applies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
    /// In words.
    pub message: String,
}
