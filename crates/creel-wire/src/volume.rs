//! Volumes: `/volumes`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::documents;

documents! {
    /// Request of `POST /volumes/create`.
    pub struct VolumeCreate {
        /// Name; one is made up if it is empty.
        pub name: String,
        /// Driver; `local` if it is empty.
        pub driver: String,
        /// Options of the driver.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub driver_opts: BTreeMap<String, String>,
        /// Labels.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub labels: Option<BTreeMap<String, String>>,
        /// Wishes for a volume of a cluster, as they came.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub cluster_volume_spec: Option<Value>,
    }

    /// One volume.
    pub struct Volume {
        /// When it was made, RFC 3339.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub created_at: String,
        /// Driver.
        pub driver: String,
        /// Labels.
        pub labels: Option<BTreeMap<String, String>>,
        /// Where it is on the host.
        pub mountpoint: String,
        /// Name.
        pub name: String,
        /// Options of the driver.
        pub options: Option<BTreeMap<String, String>>,
        /// `local` or `global`.
        pub scope: String,
        /// What the driver tells of it.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub status: Option<Value>,
        /// How much room it takes and how many containers use it, where that was asked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub usage_data: Option<VolumeUsage>,
    }

    /// What a volume takes.
    pub struct VolumeUsage {
        /// Containers that use it; -1 if that is not known.
        pub ref_count: i64,
        /// Bytes; -1 if that is not known.
        pub size: i64,
    }

    /// Answer of `GET /volumes`.
    pub struct VolumeList {
        /// The volumes.
        pub volumes: Vec<Volume>,
        /// What went wrong with drivers.
        pub warnings: Option<Vec<String>>,
    }

    /// Answer of `POST /volumes/prune`.
    pub struct VolumesPrune {
        /// Names of those that went.
        pub volumes_deleted: Option<Vec<String>>,
        /// Bytes.
        pub space_reclaimed: u64,
    }
}
