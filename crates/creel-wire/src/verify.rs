//! What only creel answers: the verification of images, and how exactly the disk is used. Docker has none of it.

use crate::documents;

documents! {
    /// What a verification found: the last message of `POST /creel/images/verify`, in its field `aux`.
    pub struct Verified {
        /// Whether all that was looked at is as it should be.
        pub whole: bool,
        /// Blobs that were read.
        pub blobs: u64,
        /// Layers that were held against their archives.
        pub layers: u64,
        /// Bytes that were read of both.
        pub bytes: u64,
        /// What is damaged.
        pub damaged: Vec<DamagedContent>,
        /// Images that lack something now.
        pub incomplete: Vec<IncompleteImage>,
        /// Layers (as digests) of which no whole archive is kept to hold them against.
        pub unproven: Vec<String>,
        /// What could not be checked, and why.
        pub unchecked: Vec<String>,
    }

    /// Something that is not what it should be.
    pub struct DamagedContent {
        /// `blob` or `layer`.
        pub kind: String,
        /// `sha256:…`.
        pub digest: String,
        /// What is wrong with it; of a layer the first differences.
        pub what: Vec<String>,
        /// How many differences there are.
        pub count: u64,
        /// Names (or ids) of the images that need it.
        pub images: Vec<String>,
        /// Ids of the containers above it.
        pub containers: Vec<String>,
        /// `left`, `quarantined` (not used any more), `replaced` (that, and unpacked anew from its archive) or `stuck`.
        pub fate: String,
        /// Where it lies now; empty if it lies nowhere else.
        pub path: String,
        /// Why it is stuck.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub reason: String,
    }

    /// An image that lacks something.
    pub struct IncompleteImage {
        /// Its name or id.
        pub image: String,
        /// What is missing: `blob sha256:…` or `layer sha256:…`.
        pub lacks: Vec<String>,
    }

    /// What takes room on the disk besides what Docker's answer of `/system/df` names.
    pub struct CreelUsage {
        /// Bytes of the unpacked layers that go if all images go that no container uses.
        pub layers_reclaimable: u64,
        /// Archives, configurations and manifests as they came over the wire.
        pub blobs: Usage,
        /// What interrupted downloads left, to go on from.
        pub partials: Usage,
        /// Damaged content that was put aside; nothing deletes it but a person.
        pub quarantine: Usage,
    }

    /// A number of things and what they take.
    pub struct Usage {
        /// How many.
        pub count: u64,
        /// How many of them are in use.
        pub active: u64,
        /// Their bytes.
        pub size: u64,
        /// Bytes that a prune would free.
        pub reclaimable: u64,
    }
}
