//! Content trust: which images may come in, by a policy file in the words of containers-policy.json(5).
//!
//! A policy says for each image what it must fulfil: nothing (`insecureAcceptAnything`), the impossible (`reject`), or a
//! signature of a known key (`sigstoreSigned`) as cosign keeps it beside the image in its registry. A signature is over
//! a digest: that of the manifest which is pulled, or of the index that leads to it. It is looked up before any layer is
//! fetched, also when the image is here already, and it is looked up where the image comes from. Tags are not protected
//! against an older image of the same repository being shown in place of a newer one: both are signed.
//!
//! What a policy asks for and creel cannot verify (GPG's `signedBy`, Fulcio's certificates, Rekor's log) is never taken
//! for fulfilled: it refuses the image with that reason.
//!
//! `policy` is the file and which part of it speaks for an image, `identity` the name in a signature, `key` the
//! mathematics, `payload` what was signed, `lookup` where signatures are found.

mod identity;
mod key;
mod lookup;
mod payload;
mod policy;

use std::path::{Path, PathBuf};

use creel_types::{Digest, Reference};

use crate::client::Client;
use crate::error::{Error, Result};
use key::PublicKey;
use lookup::Signature;
use policy::{Requirement, SigstoreSigned};

pub use policy::{Policy, PolicyError};

/// Where the policy is, if images are held against one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFile {
    /// The file, in the format of containers-policy.json(5). It is read anew for each image, so that a change holds at
    /// once.
    pub path: PathBuf,
    /// Whether it must be there; if not, and it is missing, everything is accepted.
    pub required: bool,
}

impl PolicyFile {
    /// Reads the policy; `None` if there is none and there need not be.
    ///
    /// # Errors
    /// [`Error::Policy`]: a policy that cannot be read accepts nothing.
    pub(crate) fn read(&self) -> Result<Option<Policy>> {
        let failed = |reason: String| Error::Policy { path: self.path.display().to_string(), reason };
        match std::fs::read(&self.path) {
            Ok(text) => Policy::parse(&text).map(Some).map_err(|error| failed(error.to_string())),
            Err(why) if why.kind() == std::io::ErrorKind::NotFound && !self.required => Ok(None),
            Err(why) => Err(failed(why.to_string())),
        }
    }
}

/// Holds content that comes without a registry against the policy: `transport` is `docker-archive`, `oci-archive` or
/// `tarball`. No signature comes with it, so it is accepted only where none is asked for.
pub(crate) fn check_archive(file: Option<&PolicyFile>, transport: &str, what: &str) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    let Some(policy) = file.read()? else { return Ok(()) };
    let (scope, requirements) = policy.of_transport(transport);
    let refused = |reason: &str| Error::Untrusted {
        name: what.to_owned(),
        scope: scope.to_owned(),
        path: file.path.display().to_string(),
        reason: reason.to_owned(),
    };
    for requirement in requirements {
        match requirement {
            Requirement::AcceptAnything => {}
            Requirement::Reject => return Err(refused("it rejects all of these")),
            Requirement::SigstoreSigned(_) | Requirement::Unverifiable(_) => {
                return Err(refused("it asks for a signature, which does not come with an archive"));
            }
        }
    }
    Ok(())
}

/// Holds an image of a registry against the policy. `digests` are those of the manifest and of the indexes that lead to
/// it, the outermost first: a signature of any of them covers the manifest.
pub(crate) async fn check(
    file: Option<&PolicyFile>,
    client: &Client,
    reference: &Reference,
    digests: &[Digest],
) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    let Some(policy) = file.read()? else { return Ok(()) };
    let (scope, requirements) = policy.of_image(reference);
    let refused = |reason: String| Error::Untrusted {
        name: reference.familiar(),
        scope: scope.to_owned(),
        path: file.path.display().to_string(),
        reason,
    };
    let mut found: Option<Vec<Signature>> = None;
    for requirement in requirements {
        match requirement {
            Requirement::AcceptAnything => {}
            Requirement::Reject => return Err(refused("it rejects all images of this scope".to_owned())),
            Requirement::Unverifiable(what) => {
                return Err(refused(format!("it asks for {what}, which creel cannot verify")));
            }
            Requirement::SigstoreSigned(wanted) => {
                let keys = keys(wanted).map_err(&refused)?;
                if found.is_none() {
                    found = Some(lookup::signatures(client, digests, &reference.familiar()).await?);
                }
                let signatures = found.as_deref().unwrap_or_default();
                satisfied(wanted, &keys, signatures, reference, digests).map_err(&refused)?;
            }
        }
    }
    Ok(())
}

/// The keys of a requirement. One that cannot be read fails the requirement, even if another one would do: a policy
/// with a hole in it is not the policy that was meant.
fn keys(wanted: &SigstoreSigned) -> std::result::Result<Vec<PublicKey>, String> {
    let mut keys = Vec::new();
    for path in &wanted.paths {
        let text =
            std::fs::read(path).map_err(|why| format!("its key {} cannot be read: {why}", show(path)))?;
        keys.push(PublicKey::from_pem(&text).map_err(|why| format!("its key {}: {why}", show(path)))?);
    }
    for text in &wanted.data {
        keys.push(PublicKey::from_pem(text).map_err(|why| format!("a key in it: {why}"))?);
    }
    Ok(keys)
}

fn show(path: &Path) -> std::path::Display<'_> {
    path.display()
}

/// Looks for a signature that one of the keys has made, of one of these digests, for this image.
fn satisfied(
    wanted: &SigstoreSigned,
    keys: &[PublicKey],
    signatures: &[Signature],
    reference: &Reference,
    digests: &[Digest],
) -> std::result::Result<(), String> {
    let named = match &wanted.paths[..] {
        [one] => format!("a signature by the key {}", show(one)),
        [] => "a signature by a key that it holds".to_owned(),
        several => {
            let list: Vec<String> = several.iter().map(|path| show(path).to_string()).collect();
            format!("a signature by one of the keys {}", list.join(", "))
        }
    };
    let Some(outermost) = digests.first() else { return Err("there is no image".to_owned()) };
    if signatures.is_empty() {
        return Err(format!(
            "it asks for {named}, and the repository has no signature of {outermost} (neither as the tag {} nor among \
             its referrers)",
            lookup::signature_tag(outermost)
        ));
    }
    let mut reasons: Vec<String> = Vec::new();
    for signature in signatures {
        match judge(wanted, keys, signature, reference, digests) {
            Ok(()) => return Ok(()),
            Err(why) if reasons.contains(&why) => {}
            Err(why) => reasons.push(why),
        }
    }
    reasons.truncate(4);
    let count = signatures.len();
    Err(format!(
        "it asks for {named}; {} there: {}",
        if count == 1 { "one signature is".to_owned() } else { format!("{count} signatures are") },
        reasons.join("; ")
    ))
}

/// Why a signature does not count. First who signed: what a stranger wrote is not worth reading.
fn judge(
    wanted: &SigstoreSigned,
    keys: &[PublicKey],
    signature: &Signature,
    reference: &Reference,
    digests: &[Digest],
) -> std::result::Result<(), String> {
    if !keys.iter().any(|key| key.verifies(&signature.payload, &signature.signature)) {
        return Err("it was not made by that key, or what it signs was changed".to_owned());
    }
    let payload =
        payload::parse(&signature.payload).map_err(|why| format!("what it signs is not valid: {why}"))?;
    if !digests.contains(&payload.digest) {
        return Err(format!("it signs another image, {}", payload.digest));
    }
    wanted.identity.accepts(reference, &payload.identity)
}

#[cfg(test)]
mod tests;
