//! Pulling: from a reference to an image in the store.
//!
//! The order of things: one HEAD tells whether the tag has moved; the index leads to the platform's manifest, the
//! manifest to the configuration, and that to the diffIDs. Then all layers are fetched side by side, each
//! unpacked by itself while it comes in; one that takes something from the layers below is kept as a blob and
//! unpacked when they are. What two pulls want is fetched by one of them. The image is named last of all. If there is
//! a policy on signatures, the manifest is held against it before any layer is asked for (`trust`).

use std::sync::Arc;

use creel_store::{Lease, NewImage, Store};
use creel_types::image::{Descriptor, media_type};
use creel_types::{Digest, Platform, Reference};

use crate::client::{Client, RegistryOptions};
use crate::document::{Document, check_manifest, choose, parse_config};
use crate::error::{Error, Result};
use crate::fetch::Fetched;
use crate::layers::{Fetching, LayerJob};
use crate::progress::{Progress, ProgressEvent};
use crate::trust;

/// How deep indexes may be nested in each other.
const DEEPEST: usize = 4;

/// How to pull.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// The registry's side of it.
    pub registry: RegistryOptions,
    /// The platform that is wanted. Without one it is the host's, and an image that is for one platform alone is
    /// taken whatever it is for, as Docker does.
    pub platform: Option<Platform>,
    /// How many layers are downloaded at a time; Docker's default is 3.
    pub downloads: usize,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self { registry: RegistryOptions::default(), platform: None, downloads: 3 }
    }
}

/// What a pull came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The image's id: the digest of its configuration.
    pub image: Digest,
    /// The digest that the reference named in the registry: of the index, if there is one.
    pub manifest_digest: Digest,
    /// Whether the image was here already.
    pub up_to_date: bool,
}

/// Pulls an image. The tag `latest` is meant where neither tag nor digest is given.
///
/// # Errors
/// [`Error::UnknownImage`], [`Error::Denied`], [`Error::Platform`], [`Error::Corrupt`] and all the others; what was
/// fetched before stays in the store as blobs and layers until its next collection, never as an image.
pub async fn pull(
    store: &Arc<Store>,
    reference: &Reference,
    options: &PullOptions,
    progress: &Arc<dyn Progress>,
) -> Result<Pulled> {
    let reference = reference.clone().with_default_tag();
    let name = reference.familiar();
    let what = match reference.digest() {
        Some(digest) => digest.to_string(),
        None => reference.tag().unwrap_or(creel_types::reference::DEFAULT_TAG).to_owned(),
    };
    // With a policy even what is here is held against it: it may have come before there was one.
    let trusting = match &options.registry.config.policy {
        Some(file) => file.read()?.is_none(),
        None => true,
    };
    if let Some(digest) = reference.digest()
        && trusting
        && let Some(image) = known(store, &reference, digest, options)
    {
        // A digest names its content: nobody has to be asked whether it changed.
        tell_pulling(progress, &what, &reference);
        return Ok(up_to_date(progress, &name, image, *digest));
    }
    let mut told = false;
    for mirror in options.registry.config.mirrors_of(reference.registry()) {
        let client = Client::of_mirror(mirror, reference.repository(), &options.registry);
        let pulled = match client {
            Ok(client) => pull_over(client, store, &reference, &what, options, progress, &mut told).await,
            Err(error) => Err(error),
        };
        match pulled {
            Err(error) if another_may_do(&error) => {
                tracing::warn!(mirror = %mirror.url, %error, "a mirror did not give {name}");
            }
            done => return done,
        }
    }
    let (registry, repository) = (reference.registry(), reference.repository());
    if let Some(client) = Client::connect_as_before(registry, repository, "pull", &options.registry).await? {
        match pull_over(client, store, &reference, &what, options, progress, &mut told).await {
            Err(error) => {
                let client =
                    Client::connect_after(error, registry, repository, "pull", &options.registry).await?;
                return pull_over(client, store, &reference, &what, options, progress, &mut told).await;
            }
            done => return done,
        }
    }
    let client = Client::connect(registry, repository, "pull", &options.registry).await?;
    pull_over(client, store, &reference, &what, options, progress, &mut told).await
}

/// Whether another registry that has the same images may do better.
fn another_may_do(error: &Error) -> bool {
    matches!(
        error,
        Error::Network { .. }
            | Error::Status { .. }
            | Error::UnknownImage { .. }
            | Error::Denied { .. }
            | Error::Insecure { .. }
            | Error::Certificates { .. }
            | Error::Protocol { .. }
            | Error::Document { .. }
            | Error::Corrupt { .. }
            | Error::Untrusted { .. }
    )
}

/// Pulls from one place; `told` says whether the beginning was told already.
async fn pull_over(
    client: Client,
    store: &Arc<Store>,
    reference: &Reference,
    what: &str,
    options: &PullOptions,
    progress: &Arc<dyn Progress>,
    told: &mut bool,
) -> Result<Pulled> {
    let name = reference.familiar();
    let mut pulling = || {
        if !std::mem::replace(told, true) {
            tell_pulling(progress, what, reference);
        }
    };
    if reference.digest().is_none() && store.reference(reference).is_some() {
        let digest = client.manifest_digest(what, &name).await?;
        if let Some(digest) = digest
            && let Some(image) = known(store, reference, &digest, options)
        {
            let manifest = store.image(&image).and_then(|image| Some(image.manifest.as_ref()?.digest));
            let mut digests = vec![digest];
            digests.extend(manifest.filter(|manifest| *manifest != digest));
            trust::check(options.registry.config.policy.as_ref(), &client, reference, &digests).await?;
            pulling();
            return Ok(up_to_date(progress, &name, image, digest));
        }
    }
    let lease = Arc::new(store.lease());
    let top = client.manifest(what, reference.digest().copied(), None, &name).await?;
    pulling();
    let manifest_digest = top.digest;
    let mut kept = Vec::new();
    let image = fetch_image(&client, top, options, &name, &mut kept).await?;
    let mut digests: Vec<Digest> = kept.iter().map(|index| index.digest).collect();
    digests.push(image.manifest.digest);
    trust::check(options.registry.config.policy.as_ref(), &client, reference, &digests).await?;
    let fetched =
        install(store, client, image, reference, manifest_digest, kept, options, progress, lease).await?;
    progress.event(ProgressEvent::line(format!("Digest: {manifest_digest}")));
    progress.event(ProgressEvent::line(format!("Status: Downloaded newer image for {name}")));
    Ok(Pulled { image: fetched, manifest_digest, up_to_date: false })
}

fn tell_pulling(progress: &Arc<dyn Progress>, what: &str, reference: &Reference) {
    let status = format!("Pulling from {}", reference.repository());
    progress.event(ProgressEvent::of(what.to_owned(), status));
}

fn up_to_date(progress: &Arc<dyn Progress>, name: &str, image: Digest, digest: Digest) -> Pulled {
    progress.event(ProgressEvent::line(format!("Digest: {digest}")));
    progress.event(ProgressEvent::line(format!("Status: Image is up to date for {name}")));
    Pulled { image, manifest_digest: digest, up_to_date: true }
}

/// The image that this reference names here, if it is what the registry names `digest` and for the right platform.
fn known(store: &Store, reference: &Reference, digest: &Digest, options: &PullOptions) -> Option<Digest> {
    let id = store.reference(&reference.at_digest(*digest))?;
    if reference.digest().is_none() && store.reference(reference) != Some(id) {
        return None;
    }
    let image = store.image(&id)?;
    // What was put aside as damaged is fetched again, the index or manifest that the digest names included.
    if store.blob_size(digest).is_none() || !store.view().lacks(&image).is_empty() {
        return None;
    }
    let fits = options.platform.as_ref().is_none_or(|wanted| wanted.accepts(&image.config.platform()));
    fits.then_some(id)
}

/// A manifest with the configuration that it names.
struct Remote {
    manifest: Fetched,
    config: Vec<u8>,
    config_digest: Digest,
    jobs: Vec<LayerJob>,
}

/// Walks from what the reference names to one image. Indexes on the way are added to `kept`.
async fn fetch_image(
    client: &Client,
    top: Fetched,
    options: &PullOptions,
    name: &str,
    kept: &mut Vec<Fetched>,
) -> Result<Remote> {
    let wanted = options.platform.clone().unwrap_or_else(Platform::host);
    let mut current = top;
    while let Document::Index(index) = &current.document {
        if kept.len() == DEEPEST {
            return Err(Error::document("index", name, format!("indexes are nested deeper than {DEEPEST}")));
        }
        let chosen = choose(index, &wanted, name)?;
        let next = client.manifest(&chosen.digest.to_string(), None, Some(chosen), name).await?;
        kept.push(std::mem::replace(&mut current, next));
    }
    let Document::Manifest(manifest) = &current.document else {
        return Err(Error::document("manifest", name, "it is not a manifest"));
    };
    check_manifest(manifest, name)?;
    let what = format!("the configuration of {name}");
    let bytes = client.small_blob(&manifest.config, &what).await?;
    let config = parse_config(&bytes, &manifest.config.digest, manifest.layers.len())?;
    let platform = config.platform();
    if let Some(explicit) = &options.platform
        && !platform.os.is_empty()
        && !explicit.accepts(&platform)
    {
        return Err(Error::Platform {
            name: name.to_owned(),
            wanted: explicit.to_string(),
            available: platform.to_string(),
        });
    }
    let config_digest = manifest.config.digest;
    let jobs = manifest
        .layers
        .iter()
        .zip(&config.rootfs.diff_ids)
        .map(|(blob, diff_id)| LayerJob { blob: bare(blob), diff_id: *diff_id })
        .collect();
    Ok(Remote { manifest: current, config: bytes.to_vec(), config_digest, jobs })
}

/// A descriptor without what only its manifest has to know.
fn bare(descriptor: &Descriptor) -> Descriptor {
    Descriptor { platform: None, annotations: Default::default(), ..descriptor.clone() }
}

#[allow(clippy::too_many_arguments)] // One step of `pull`, which has gathered all this.
async fn install(
    store: &Arc<Store>,
    client: Client,
    remote: Remote,
    reference: &Reference,
    manifest_digest: Digest,
    indexes: Vec<Fetched>,
    options: &PullOptions,
    progress: &Arc<dyn Progress>,
    lease: Arc<Lease>,
) -> Result<Digest> {
    let fetching = Fetching {
        store: store.clone(),
        client: Arc::new(client),
        progress: progress.clone(),
        downloads: options.downloads.max(1),
        lease: lease.clone(),
    };
    let layers = fetching.run(remote.jobs).await?;
    let name = reference.familiar();
    let store = store.clone();
    let tag = reference.clone();
    let task = tokio::task::spawn_blocking(move || {
        let storing = format!("storing the image {name}");
        for index in &indexes {
            store.put_blob(&index.bytes).map_err(Error::store(&storing))?;
        }
        let manifest = store.put_blob(&remote.manifest.bytes).map_err(Error::store(&storing))?;
        let config = store.put_blob(&remote.config).map_err(Error::store(&storing))?;
        let mut references = vec![tag.at_digest(manifest_digest)];
        if tag.digest().is_none() {
            references.push(tag);
        }
        let image = store
            .put_image(NewImage {
                config,
                manifest: Some(Descriptor {
                    media_type: remote.manifest.media_type.clone(),
                    digest: manifest,
                    size: remote.manifest.bytes.len() as u64,
                    platform: None,
                    annotations: Default::default(),
                }),
                layers,
                parent: None,
                references,
            })
            .map_err(Error::store(&storing))?;
        drop(lease);
        Ok(image.id)
    });
    let id = task
        .await
        .map_err(|error| Error::Io { action: "storing the image".to_owned(), reason: error.to_string() })??;
    debug_assert_eq!(id, remote.config_digest);
    Ok(id)
}

/// Whether a media type names a layer that is not compressed.
pub(crate) fn is_plain_layer(media: &str) -> bool {
    matches!(media, media_type::OCI_LAYER | media_type::DOCKER_LAYER)
}
