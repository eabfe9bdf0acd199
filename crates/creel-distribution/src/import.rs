//! Importing: a root file system's tar becomes an image of one layer.

use std::io::Read;
use std::sync::Arc;

use creel_store::{ApplyOptions, LayerRef, NewImage, Store};
use creel_types::image::{ExecConfig, History, ImageConfig, RootFs};
use creel_types::{Digest, Platform, Reference};

use crate::change;
use crate::error::{Error, Result};
use crate::images::{descriptor, detect, layer_type};
use crate::layers::{plain_digest, storing};
use crate::trust::{self, PolicyFile};

/// How to import.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// The tag that the image gets; `latest` if the reference has none. A digest is refused.
    pub reference: Option<Reference>,
    /// Dockerfile instructions for the configuration, see [`change::apply`].
    pub changes: Vec<String>,
    /// The comment; `Imported from -` without one.
    pub message: Option<String>,
    /// The platform that the root file system is for; the host's without one.
    pub platform: Option<Platform>,
    /// The policy on signatures: it may refuse archives, as the transport `tarball`.
    pub policy: Option<PolicyFile>,
}

/// Makes an image of a root file system's tar, which may be compressed with gzip or zstd. Blocks. Returns its id.
///
/// # Errors
/// [`Error::Change`] before anything is read; [`Error::Corrupt`] or [`Error::Store`] if the tar is damaged.
pub fn import(store: &Arc<Store>, tar: impl Read, options: &ImportOptions) -> Result<Digest> {
    if let Some(reference) = options.reference.as_ref().filter(|r| r.digest().is_some()) {
        return Err(Error::Reference(format!(
            "cannot import as {}: a digest follows from the content, give a tag",
            reference.familiar()
        )));
    }
    trust::check_archive(options.policy.as_ref(), "tarball", "the archive")?;
    let mut exec = ExecConfig::default();
    change::apply(&mut exec, &options.changes).map_err(Error::Change)?;
    let lease = store.lease();
    let result = import_leased(store, tar, options, exec);
    drop(lease);
    if result.is_err()
        && let Err(error) = store.gc()
    {
        tracing::warn!(%error, "what a failed import stored could not be cleaned up");
    }
    result
}

fn import_leased(
    store: &Arc<Store>,
    tar: impl Read,
    options: &ImportOptions,
    exec: ExecConfig,
) -> Result<Digest> {
    let what = "the imported archive";
    let storing_it = || Error::store(format!("storing {what}"));
    let blob = store.copy_blob(tar, None, None).map_err(storing_it())?;
    let size = store.blob_size(&blob).unwrap_or(0);
    if size == 0 {
        return Err(Error::Archive("it is empty".to_owned()));
    }
    let media = layer_type(detect(store, &blob)?);
    let diff_id = plain_digest(store, &blob, what)?;
    let layer = match store.find_layer(&diff_id, &[]) {
        Some(layer) => layer,
        None => {
            let apply = ApplyOptions { media_type: Some(media.to_owned()), ..ApplyOptions::default() };
            store.apply_blob(&blob, &diff_id, &[], &apply).map_err(|error| storing(what, error))?
        }
    };
    let platform = options.platform.clone().unwrap_or_else(Platform::host);
    let now = jiff::Timestamp::now();
    let comment = options.message.clone().filter(|text| !text.is_empty());
    let comment = Some(comment.unwrap_or_else(|| "Imported from -".to_owned()));
    let config = ImageConfig {
        created: Some(now),
        architecture: platform.architecture,
        variant: platform.variant,
        os: platform.os,
        os_version: platform.os_version,
        config: Some(exec),
        rootfs: RootFs { diff_ids: vec![diff_id], ..RootFs::default() },
        history: vec![History { created: Some(now), comment: comment.clone(), ..History::default() }],
        comment,
        ..ImageConfig::default()
    };
    let bytes = serde_json::to_vec(&config).map_err(|error| Error::document("configuration", what, error))?;
    let config = store.put_blob(&bytes).map_err(storing_it())?;
    let image = store
        .put_image(NewImage {
            config,
            manifest: None,
            layers: vec![LayerRef { diff_id, layer, blob: Some(descriptor(media, blob, size)) }],
            parent: None,
            references: options.reference.iter().cloned().map(Reference::with_default_tag).collect(),
        })
        .map_err(storing_it())?;
    Ok(image.id)
}
