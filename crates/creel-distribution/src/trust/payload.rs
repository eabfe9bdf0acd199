//! What was signed: a simple-signing document (containers-signature(5), cosign's `SPEC.md`).

use creel_types::{Digest, Reference};
use serde::Deserialize;

/// What cosign writes as the type.
const TYPE: &str = "cosign container image signature";

/// What a signature claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Payload {
    /// The manifest or index that it is for.
    pub(crate) digest: Digest,
    /// The image that it is for; cosign writes the repository alone.
    pub(crate) identity: Reference,
}

#[derive(Deserialize)]
struct Document {
    critical: Critical,
    /// Whatever else the signer wanted to say; nothing relies on it.
    #[serde(default, rename = "optional")]
    _optional: Option<serde_json::Map<String, serde_json::Value>>,
}

/// All of it must be understood: an unknown field could change what the others mean.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    identity: Identity,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    #[serde(rename = "docker-reference")]
    reference: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// Reads a payload whose signature was verified.
pub(crate) fn parse(bytes: &[u8]) -> Result<Payload, String> {
    let document: Document = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let critical = document.critical;
    if critical.kind != TYPE {
        return Err(format!("its type is `{}`, not `{TYPE}`", critical.kind.escape_debug()));
    }
    Ok(Payload {
        digest: critical.image.digest.parse().map_err(|error| format!("{error}"))?,
        identity: critical.identity.reference.parse().map_err(|error| format!("{error}"))?,
    })
}
