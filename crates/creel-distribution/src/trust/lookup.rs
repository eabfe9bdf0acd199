//! Where cosign keeps signatures: under the tag `sha256-<hex>.sig` beside the image, or as a referrer of it
//! (distribution-spec 1.1, "Listing Referrers", with its tag for registries that lack that).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use creel_types::Digest;
use creel_types::image::{Descriptor, Manifest};

use crate::client::Client;
use crate::document::Document;
use crate::error::{Error, Result};

/// What cosign calls a payload, and where the signature of one is written.
const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// What cosign calls a manifest of signatures that refers to an image.
const ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
/// The most signatures that are looked at, and the most bytes that a payload may have.
const MOST: usize = 100;
const LARGEST: u64 = 1 << 20;

/// A signature that was found; nothing of it is trusted yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signature {
    /// The bytes that it is said to sign.
    pub(crate) payload: Vec<u8>,
    /// The signature itself.
    pub(crate) signature: Vec<u8>,
}

/// The tag under which cosign keeps the signatures of a digest.
pub(crate) fn signature_tag(digest: &Digest) -> String {
    format!("sha256-{}.sig", digest.hex())
}

/// Fetches the signatures of these digests, at most [`MOST`].
pub(crate) async fn signatures(client: &Client, digests: &[Digest], name: &str) -> Result<Vec<Signature>> {
    let mut found = Vec::new();
    for digest in digests {
        let tag = signature_tag(digest);
        let what = format!("the signatures of {name}");
        match client.manifest(&tag, None, None, &what).await {
            Ok(fetched) => {
                if let Document::Manifest(manifest) = &fetched.document {
                    payloads(client, manifest, name, &mut found).await?;
                }
            }
            Err(Error::UnknownImage { .. }) => {}
            Err(error) => return Err(error),
        }
        for descriptor in client.referrers(digest, ARTIFACT, &what).await? {
            if found.len() >= MOST {
                break;
            }
            let fetched =
                client.manifest(&descriptor.digest.to_string(), None, Some(&descriptor), &what).await?;
            if let Document::Manifest(manifest) = &fetched.document {
                payloads(client, manifest, name, &mut found).await?;
            }
        }
    }
    Ok(found)
}

async fn payloads(
    client: &Client,
    manifest: &Manifest,
    name: &str,
    found: &mut Vec<Signature>,
) -> Result<()> {
    for layer in &manifest.layers {
        if found.len() >= MOST {
            return Ok(());
        }
        let Some(text) = layer.annotations.get(ANNOTATION).filter(|_| layer.media_type == PAYLOAD) else {
            continue;
        };
        // One that is damaged or too large is none; another one may do.
        let Ok(signature) = STANDARD.decode(text) else { continue };
        if layer.size > LARGEST {
            continue;
        }
        let payload = Descriptor { annotations: Default::default(), ..layer.clone() };
        let payload = client.small_blob(&payload, &format!("a signature of {name}")).await?;
        found.push(Signature { payload: payload.to_vec(), signature });
    }
    Ok(())
}
