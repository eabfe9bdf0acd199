//! Loading: from an archive to images in the store.
//!
//! An archive with `index.json` is an OCI image-layout; its manifests are kept, so that what is pushed later has
//! the digests it had. One with `manifest.json` is a docker-archive. `docker save` writes both into one: then the
//! layout gives the content and `manifest.json` adds its tags.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use creel_store::{ApplyOptions, LayerRef, NewImage, Store};
use creel_types::image::{Descriptor, Index};
use creel_types::{Digest, Platform, Reference};
use serde::Deserialize;

use super::outer::{Content, Outer};
use crate::document::{Document, LIMIT, check_manifest, choose_among, is_attestation, parse, parse_config};
use crate::error::{Error, Result};
use crate::images::{descriptor, detect, layer_type};
use crate::layers::{check_diff_id, known_pairs, storing};
use crate::progress::{Progress, ProgressEvent};
use crate::trust::{self, PolicyFile};

/// How deep indexes may be nested in each other.
const DEEPEST: usize = 4;

/// How to load.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The platform to take of an image that is there for several; the host's without one.
    pub platform: Option<Platform>,
    /// The policy on signatures: it may refuse archives, as the transports `oci-archive` and `docker-archive`.
    pub policy: Option<PolicyFile>,
}

/// One image that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its id.
    pub image: Digest,
    /// The tags that the archive gave it; may be none.
    pub references: Vec<Reference>,
}

/// Loads all images of an archive, which may be compressed with gzip or zstd as a whole. Blocks.
///
/// # Errors
/// [`Error::Archive`] names the member that is missing, damaged or not what it should be. An image that was not
/// loaded completely leaves nothing behind; images before it in the archive stay.
pub fn load(
    store: &Arc<Store>,
    tar: impl Read + Send,
    options: &LoadOptions,
    progress: &dyn Progress,
) -> Result<Vec<Loaded>> {
    let lease = store.lease();
    let mut stored = true;
    let result = Outer::read(store, tar).and_then(|outer| {
        stored = outer.stored;
        let loading = Loading {
            store,
            outer: &outer,
            wanted: options.platform.clone().unwrap_or_else(Platform::host),
            progress,
        };
        let transport = if outer.has("index.json") { "oci-archive" } else { "docker-archive" };
        trust::check_archive(options.policy.as_ref(), transport, "the archive")?;
        loading.run()
    });
    drop(lease);
    // The archive may have held what no image needs: other platforms, or everything, if it failed.
    if (stored || result.is_err())
        && let Err(error) = store.gc()
    {
        tracing::warn!(%error, "what an archive held besides its images could not be cleaned up");
    }
    result
}

/// An entry of a docker-archive's `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// One image to be loaded, read and not yet stored.
struct Plan {
    config_name: String,
    config: Content,
    manifest: Option<(Descriptor, Content)>,
    layers: Vec<PlannedLayer>,
    references: Vec<Reference>,
}

struct PlannedLayer {
    name: String,
    content: Content,
    diff_id: Digest,
    /// As the manifest describes it; a docker-archive does not.
    blob: Option<Descriptor>,
}

struct Loading<'a> {
    store: &'a Arc<Store>,
    outer: &'a Outer,
    wanted: Platform,
    progress: &'a dyn Progress,
}

impl Loading<'_> {
    fn run(&self) -> Result<Vec<Loaded>> {
        let mut plans = Vec::new();
        if self.outer.has("index.json") {
            self.plan_layout(&mut plans)?;
        }
        if self.outer.has("manifest.json") {
            self.plan_docker(&mut plans)?;
        }
        if plans.is_empty() {
            return Err(Error::Archive(if self.outer.has("repositories") {
                "it is in the format of Docker before 1.10; load it with an old engine and save it again"
                    .to_owned()
            } else if self.outer.has("index.json") || self.outer.has("manifest.json") {
                "it names no image".to_owned()
            } else {
                "it has neither `index.json` (OCI) nor `manifest.json` (docker save); a root file system's tar \
                 is for `import`"
                    .to_owned()
            }));
        }
        plans.into_iter().map(|plan| self.store_image(plan)).collect()
    }

    fn plan_docker(&self, plans: &mut Vec<Plan>) -> Result<()> {
        let bytes = self.outer.get("manifest.json")?.read(self.store, "manifest.json", LIMIT)?;
        let entries: Vec<DockerImage> = serde_json::from_slice(&bytes)
            .map_err(|error| Error::Archive(format!("`manifest.json` is not valid: {error}")))?;
        for entry in entries {
            let references = entry
                .repo_tags
                .unwrap_or_default()
                .iter()
                .map(|text| text.parse::<Reference>().map(Reference::with_default_tag))
                .collect::<std::result::Result<Vec<_>, _>>()
                .map_err(|error| Error::Archive(format!("a tag in `manifest.json` is wrong: {error}")))?;
            let content = self.outer.get(&entry.config)?;
            let digest = content.digest();
            if let Some(plan) = plans.iter_mut().find(|plan| plan.config.digest() == digest) {
                for reference in references {
                    if !plan.references.contains(&reference) {
                        plan.references.push(reference);
                    }
                }
                continue;
            }
            let names = entry.layers.unwrap_or_default();
            let config =
                parse_config(&content.read(self.store, &entry.config, LIMIT)?, &digest, names.len())?;
            let layers = names
                .into_iter()
                .zip(config.rootfs.diff_ids)
                .map(|(name, diff_id)| {
                    Ok(PlannedLayer { content: self.outer.get(&name)?, name, diff_id, blob: None })
                })
                .collect::<Result<_>>()?;
            plans.push(Plan {
                config_name: entry.config,
                config: content,
                manifest: None,
                layers,
                references,
            });
        }
        Ok(())
    }

    fn plan_layout(&self, plans: &mut Vec<Plan>) -> Result<()> {
        let bytes = self.outer.get("index.json")?.read(self.store, "index.json", LIMIT)?;
        let index: Index = serde_json::from_slice(&bytes)
            .map_err(|error| Error::Archive(format!("`index.json` is not valid: {error}")))?;
        let mut groups: Vec<(Option<Reference>, Vec<&Descriptor>)> = Vec::new();
        for entry in index.manifests.iter().filter(|entry| !is_attestation(entry)) {
            let name = name_of(entry)?;
            match groups.iter_mut().find(|(known, _)| *known == name) {
                Some((_, entries)) => entries.push(entry),
                None => groups.push((name, vec![entry])),
            }
        }
        let mut chosen: Vec<(Option<Reference>, &Descriptor)> = Vec::new();
        for (name, entries) in groups {
            let shown = name.as_ref().map_or("the archive".to_owned(), Reference::familiar);
            let platforms: Vec<_> = entries.iter().filter_map(|entry| entry.platform.clone()).collect();
            let distinct = platforms.iter().enumerate().all(|(at, p)| !platforms[..at].contains(p));
            if entries.len() == 1 {
                chosen.push((name, entries[0]));
            } else if name.is_some() || (platforms.len() == entries.len() && distinct) {
                // Several entries of one name are one image for several platforms.
                chosen.push((name, choose_among(&entries, &self.wanted, &shown)?));
            } else {
                chosen.extend(entries.into_iter().map(|entry| (None, entry)));
            }
        }
        let mut known: HashMap<Digest, usize> = HashMap::new();
        for (name, entry) in chosen {
            let at = match known.get(&entry.digest) {
                Some(at) => *at,
                None => {
                    plans.push(self.plan_manifest(entry)?);
                    known.insert(entry.digest, plans.len() - 1);
                    plans.len() - 1
                }
            };
            plans[at].references.extend(name);
        }
        Ok(())
    }

    /// The content that a descriptor names, its digest and size verified.
    fn blob(&self, descriptor: &Descriptor) -> Result<Content> {
        let name = format!("blobs/sha256/{}", descriptor.digest.hex());
        let content = self.outer.get(&name)?;
        let found = content.digest();
        if found != descriptor.digest {
            return Err(Error::digest(format!("`{name}` in the archive"), &descriptor.digest, &found));
        }
        if content.size() != descriptor.size {
            return Err(Error::Corrupt {
                what: format!("`{name}` in the archive"),
                reason: format!("it has {} bytes where {} were promised", content.size(), descriptor.size),
            });
        }
        Ok(content)
    }

    fn plan_manifest(&self, entry: &Descriptor) -> Result<Plan> {
        let mut entry = entry.clone();
        for _ in 0..=DEEPEST {
            let name = entry.digest.to_string();
            let content = self.blob(&entry)?;
            let bytes = content.read(self.store, &name, LIMIT)?;
            let declared = Some(entry.media_type.as_str()).filter(|media| !media.is_empty());
            let (document, media) = parse(&bytes, declared, &name)?;
            let manifest = match document {
                Document::Index(index) => {
                    // A saved index may name platforms whose content was left out.
                    let present: Vec<&Descriptor> = index
                        .manifests
                        .iter()
                        .filter(|entry| self.outer.has(&format!("blobs/sha256/{}", entry.digest.hex())))
                        .collect();
                    entry = choose_among(&present, &self.wanted, &name)?.clone();
                    continue;
                }
                Document::Manifest(manifest) => manifest,
            };
            check_manifest(&manifest, &name)?;
            let config = self.blob(&manifest.config)?;
            let parsed = parse_config(
                &config.read(self.store, "the configuration", LIMIT)?,
                &manifest.config.digest,
                manifest.layers.len(),
            )?;
            let layers = manifest
                .layers
                .iter()
                .zip(parsed.rootfs.diff_ids)
                .map(|(blob, diff_id)| {
                    Ok(PlannedLayer {
                        name: format!("blobs/sha256/{}", blob.digest.hex()),
                        content: self.blob(blob)?,
                        diff_id,
                        blob: Some(descriptor(&blob.media_type, blob.digest, blob.size)),
                    })
                })
                .collect::<Result<_>>()?;
            return Ok(Plan {
                config_name: manifest.config.digest.to_string(),
                config,
                manifest: Some((descriptor(&media, entry.digest, entry.size), content)),
                layers,
                references: Vec::new(),
            });
        }
        Err(Error::Archive(format!("indexes are nested deeper than {DEEPEST}")))
    }

    fn store_image(&self, plan: Plan) -> Result<Loaded> {
        let pairs = known_pairs(self.store);
        let diff_ids: Vec<Digest> = plan.layers.iter().map(|layer| layer.diff_id).collect();
        let mut layers: Vec<LayerRef> = Vec::with_capacity(plan.layers.len());
        for (at, planned) in plan.layers.iter().enumerate() {
            let what = format!("layer `{}` of the archive", planned.name);
            planned.content.store(self.store)?;
            let digest = planned.content.digest();
            let blob = match &planned.blob {
                Some(blob) => blob.clone(),
                None => {
                    let compression = detect(self.store, &digest)?;
                    descriptor(layer_type(compression), digest, planned.content.size())
                }
            };
            let layer = match self.store.find_layer(&planned.diff_id, &diff_ids[..at]) {
                Some(layer) => {
                    if !pairs.contains(&(digest, planned.diff_id)) {
                        check_diff_id(self.store, &digest, &planned.diff_id, &what)?;
                    }
                    layer
                }
                None => {
                    let below: Vec<_> = layers.iter().map(|layer| layer.layer).collect();
                    let options =
                        ApplyOptions { media_type: Some(blob.media_type.clone()), ..ApplyOptions::default() };
                    self.progress.event(ProgressEvent::amount(
                        planned.diff_id.short(),
                        "Loading layer",
                        0,
                        Some(blob.size),
                    ));
                    let layer = self
                        .store
                        .apply_blob(&digest, &planned.diff_id, &below, &options)
                        .map_err(|error| storing(&what, error))?;
                    self.progress.event(ProgressEvent::amount(
                        planned.diff_id.short(),
                        "Loading layer",
                        blob.size,
                        Some(blob.size),
                    ));
                    layer
                }
            };
            layers.push(LayerRef { diff_id: planned.diff_id, layer, blob: Some(blob) });
        }
        let action = format!("storing the image {}", plan.config_name);
        plan.config.store(self.store)?;
        if let Some((_, content)) = &plan.manifest {
            content.store(self.store)?;
        }
        let id = plan.config.digest();
        // An image that is here with a manifest and comes again without one keeps it, with its archives.
        let already = self.store.image(&id).filter(|old| plan.manifest.is_none() && old.manifest.is_some());
        if already.is_none() {
            let new = NewImage {
                config: id,
                manifest: plan.manifest.map(|(descriptor, _)| descriptor),
                layers,
                parent: None,
                references: Vec::new(),
            };
            self.store.put_image(new).map_err(Error::store(&action))?;
        }
        for reference in &plan.references {
            if let Some(old) = self.store.tag(reference, &id).map_err(Error::store(&action))? {
                self.progress.event(ProgressEvent::line(format!(
                    "The image {} already exists, renaming the old one with ID {old} to empty string",
                    reference.familiar()
                )));
            }
            self.progress.event(ProgressEvent::line(format!("Loaded image: {}", reference.familiar())));
        }
        if plan.references.is_empty() {
            self.progress.event(ProgressEvent::line(format!("Loaded image ID: {id}")));
        }
        Ok(Loaded { image: id, references: plan.references })
    }
}

/// The reference that an entry of `index.json` is annotated with: containerd's full name, or OCI's `ref.name`,
/// where that is more than a bare tag (image-spec `annotations.md`).
fn name_of(entry: &Descriptor) -> Result<Option<Reference>> {
    let parse = |text: &str| {
        text.parse::<Reference>()
            .map(Reference::with_default_tag)
            .map_err(|error| Error::Archive(format!("a name in `index.json` is wrong: {error}")))
    };
    if let Some(name) = entry.annotations.get("io.containerd.image.name") {
        return parse(name).map(Some);
    }
    match entry.annotations.get("org.opencontainers.image.ref.name") {
        Some(name) if name.contains([':', '/']) => parse(name).map(Some),
        _ => Ok(None),
    }
}
