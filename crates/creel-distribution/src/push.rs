//! Pushing: from an image in the store to a tag in a registry. What came compressed goes out as it came.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use creel_store::{ImageRecord, Store};
use creel_types::image::{Descriptor, Manifest};
use creel_types::{Digest, Reference};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::client::{Client, RegistryOptions};
use crate::error::{Error, Result};
use crate::images::{manifest, publishable};
use crate::progress::{Meter, Progress, ProgressEvent, PushAux};
use crate::upload::{Upload, Uploaded, watched};

/// How to push.
#[derive(Debug, Clone)]
pub struct PushOptions {
    /// The registry's side of it.
    pub registry: RegistryOptions,
    /// How many layers are uploaded at a time; Docker's default is 5.
    pub uploads: usize,
}

impl Default for PushOptions {
    fn default() -> Self {
        Self { registry: RegistryOptions::default(), uploads: 5 }
    }
}

/// What a push came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The digest of the manifest that the tag names now.
    pub digest: Digest,
    /// The manifest's size in bytes.
    pub size: u64,
}

/// Pushes the image that `reference` names here to the repository that it names there. The tag is `latest` if
/// none is given; a digest cannot be pushed to.
pub async fn push(
    store: &Arc<Store>,
    reference: &Reference,
    options: &PushOptions,
    progress: &Arc<dyn Progress>,
) -> Result<Pushed> {
    let reference = reference.clone().with_default_tag();
    let Some(tag) = reference.tag().map(str::to_owned).filter(|_| reference.digest().is_none()) else {
        return Err(Error::Reference(format!(
            "cannot push {}: a tag names where to push to, a digest follows from the content",
            reference.familiar()
        )));
    };
    let _lease = store.lease();
    let image = store
        .reference(&reference)
        .and_then(|id| store.image(&id))
        .ok_or_else(|| creel_store::Error::NoSuchImage(reference.familiar()))
        .map_err(Error::store(format!("pushing {}", reference.familiar())))?;
    let repository = format!("{}/{}", reference.registry(), reference.repository());
    progress.event(ProgressEvent::line(format!("The push refers to repository [{repository}]")));
    for layer in unique(&image) {
        progress.event(ProgressEvent::of(layer.0.short(), "Preparing"));
    }
    let preparing = store.clone();
    let (image, descriptor, bytes) = blocking("preparing the image", move || {
        let image = publishable(&preparing, image)?;
        let (descriptor, bytes) = manifest(&preparing, &image)?;
        Ok((image, descriptor, bytes))
    })
    .await?;
    let parsed: Manifest = serde_json::from_slice(&bytes)
        .map_err(|error| Error::document("manifest", descriptor.digest, error))?;
    let sources: Vec<String> = image
        .repo_digests
        .iter()
        .filter(|known| known.registry() == reference.registry())
        .map(|known| known.repository().to_owned())
        .filter(|known| known != reference.repository())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .take(4)
        .collect();
    let (registry, repository) = (reference.registry(), reference.repository());
    let content =
        Content { image: &image, config: &parsed.config, manifest: &descriptor, bytes: &bytes, tag: &tag };
    let over = |client| push_over(client, store, &content, sources.clone(), options, progress);
    let before = Client::connect_as_before(registry, repository, "pull,push", &options.registry).await?;
    match before {
        None => {
            over(Client::connect(registry, repository, "pull,push", &options.registry).await?).await?;
        }
        Some(client) => {
            if let Err(error) = over(client).await {
                let client =
                    Client::connect_after(error, registry, repository, "pull,push", &options.registry)
                        .await?;
                over(client).await?;
            }
        }
    }
    let (store, named, id) = (store.clone(), reference.at_digest(descriptor.digest), image.id);
    blocking("noting the push", move || {
        store.tag(&named, &id).map_err(Error::store("noting the push")).map(drop)
    })
    .await?;
    let pushed = Pushed { digest: descriptor.digest, size: descriptor.size };
    progress.event(ProgressEvent::line(format!("{tag}: digest: {} size: {}", pushed.digest, pushed.size)));
    progress.event(ProgressEvent {
        aux: Some(PushAux { tag, digest: pushed.digest, size: pushed.size }),
        ..ProgressEvent::default()
    });
    Ok(pushed)
}

/// What is pushed, and to which tag.
struct Content<'a> {
    image: &'a ImageRecord,
    config: &'a Descriptor,
    manifest: &'a Descriptor,
    bytes: &'a [u8],
    tag: &'a str,
}

/// Pushes to one place: layers side by side, then the configuration, then the manifest.
async fn push_over(
    mut client: Client,
    store: &Arc<Store>,
    content: &Content<'_>,
    sources: Vec<String>,
    options: &PushOptions,
    progress: &Arc<dyn Progress>,
) -> Result<()> {
    for source in &sources {
        client.also_pull(source);
    }
    let work = Arc::new(Pushing { store: store.clone(), client, sources, progress: progress.clone() });
    let permits = Arc::new(Semaphore::new(options.uploads.max(1)));
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    for (at, (diff_id, blob)) in unique(content.image).into_iter().enumerate() {
        if at >= options.uploads.max(1) {
            progress.event(ProgressEvent::of(diff_id.short(), "Waiting"));
        }
        let (work, permits) = (work.clone(), permits.clone());
        tasks.spawn(async move {
            let _permit = permits.acquire_owned().await;
            work.layer(&diff_id, &blob).await
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.map_err(|error| Error::Io { action: "pushing a layer".to_owned(), reason: error.to_string() })??;
    }
    work.blob(content.config, "the configuration", |_| ()).await?;
    let Content { manifest, bytes, tag, .. } = *content;
    work.client.put_manifest(tag, &manifest.media_type, bytes, &manifest.digest).await.map(drop)
}

/// The image's archives, each once, with the diffIDs that name them in messages.
fn unique(image: &ImageRecord) -> Vec<(Digest, Descriptor)> {
    let mut seen = BTreeSet::new();
    let layers = image.layers.iter().filter_map(|layer| Some((layer.diff_id, layer.blob.clone()?)));
    layers.filter(|(_, blob)| seen.insert(blob.digest)).collect()
}

/// Runs what may block, away from the async threads.
async fn blocking<T: Send + 'static>(
    action: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::Io { action: action.to_owned(), reason: error.to_string() })?
}

struct Pushing {
    store: Arc<Store>,
    client: Client,
    sources: Vec<String>,
    progress: Arc<dyn Progress>,
}

impl Pushing {
    async fn layer(&self, diff_id: &Digest, blob: &Descriptor) -> Result<()> {
        let id = diff_id.short();
        let mut meter = Meter::new(&*self.progress, &id, "Pushing", Some(blob.size));
        let what = format!("layer {}", blob.digest);
        let told = self
            .blob(blob, &what, |sent| {
                if sent > 0 {
                    meter.at(sent.min(blob.size))
                }
            })
            .await?;
        let status = match told {
            Uploaded::Existed => "Layer already exists".to_owned(),
            Uploaded::Mounted(from) => format!("Mounted from {from}"),
            Uploaded::Pushed => "Pushed".to_owned(),
        };
        self.progress.event(ProgressEvent::of(id, status));
        Ok(())
    }

    async fn blob(&self, blob: &Descriptor, what: &str, mut tell: impl FnMut(u64)) -> Result<Uploaded> {
        let (store, digest) = (self.store.clone(), blob.digest);
        let sent = Arc::new(AtomicU64::new(0));
        let upload = Upload {
            digest,
            size: blob.size,
            open: Arc::new(move || {
                store.open_blob(&digest).map_err(Error::store(format!("reading blob {digest}")))
            }),
            sent: sent.clone(),
            what: what.to_owned(),
        };
        watched(self.client.upload(&upload, &self.sources), || tell(sent.load(Ordering::Relaxed))).await
    }
}
