//! Saving: an OCI image-layout with docker's `manifest.json` and `repositories` beside it, as Docker writes since 25.
//!
//! The same images give the same bytes: members are in a fixed order and of 1970.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::Arc;

use creel_layer::tar::{Entry, Kind, Writer};
use creel_store::{ImageRecord, Lease, Store};
use creel_types::image::{Descriptor, Index, Manifest, media_type};
use creel_types::{Digest, Reference};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::images::manifest;

/// An entry of `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// One image with the tags under which it is saved.
struct Chosen {
    image: Arc<ImageRecord>,
    tags: Vec<Reference>,
    manifest: Descriptor,
    manifest_bytes: Vec<u8>,
}

/// Images that are about to be saved: nothing of them is deleted while this value is there.
pub struct Saving {
    store: Arc<Store>,
    _lease: Lease,
    images: Vec<Chosen>,
}

impl std::fmt::Debug for Saving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Saving").field("images", &self.images.len()).finish_non_exhaustive()
    }
}

impl Saving {
    /// The images that `names` name: a reference without a tag means all tags of its repository, an id no tag.
    ///
    /// # Errors
    /// For one that is not there, or of which something is missing.
    pub fn begin(store: &Arc<Store>, names: &[String]) -> Result<Saving> {
        // Taken first: what is chosen stays.
        let lease = store.lease();
        Ok(Saving { store: store.clone(), _lease: lease, images: choose(store, names)? })
    }

    /// Writes them to `out`; layers that images share are written once. Blocks.
    ///
    /// # Errors
    /// When `out` takes no more, or the store cannot be read.
    pub fn write(&self, out: impl Write) -> Result<()> {
        let mut writer = Writer::new(io::BufWriter::with_capacity(256 << 10, out));
        write_all(&self.store, &self.images, &mut writer)?;
        let finished = writer.finish().and_then(|(mut out, _)| out.flush());
        finished.map_err(|error| Error::io("writing the archive", &error))
    }
}

/// [`Saving::begin`] and [`Saving::write`] in one.
///
/// # Errors
/// Theirs.
pub fn save(store: &Arc<Store>, names: &[String], out: impl Write) -> Result<()> {
    Saving::begin(store, names)?.write(out)
}

/// Notes in the open leases everything that an image is made of. One that somebody removes just now is not there.
fn hold(store: &Arc<Store>, image: &ImageRecord) -> Result<()> {
    let layers = image.layers.iter().filter_map(|layer| Some(layer.blob.as_ref()?.digest));
    let blobs = image.manifest.iter().map(|manifest| manifest.digest).chain([image.id]).chain(layers);
    // All of them, whatever the first ones say.
    let missing = blobs.filter(|digest| !store.has_blob(digest)).count();
    if missing > 0 && store.view().image(&image.id).is_none() {
        let gone = creel_store::Error::NoSuchImage(image.id.to_string());
        return Err(Error::store(format!("saving {}", image.id))(gone));
    }
    Ok(())
}

fn choose(store: &Arc<Store>, names: &[String]) -> Result<Vec<Chosen>> {
    let mut chosen: Vec<Chosen> = Vec::new();
    let mut add = |image: Arc<ImageRecord>, tag: Option<Reference>| -> Result<()> {
        let at = match chosen.iter().position(|one| one.image.id == image.id) {
            Some(at) => at,
            None => {
                hold(store, &image)?;
                let (manifest, manifest_bytes) = manifest(store, &image)?;
                chosen.push(Chosen { image, tags: Vec::new(), manifest, manifest_bytes });
                chosen.len() - 1
            }
        };
        let tags = &mut chosen[at].tags;
        tags.extend(tag.filter(|tag| !tags.contains(tag)));
        Ok(())
    };
    for name in names {
        let saving = || format!("saving {name}");
        let parsed = name.parse::<Reference>().ok();
        let whole = parsed.as_ref().filter(|r| r.tag().is_none() && r.digest().is_none());
        let view = store.view();
        let of_repository: Vec<(Reference, Digest)> = view
            .references()
            .filter(|(known, _)| {
                whole.is_some_and(|whole| {
                    known.digest().is_none()
                        && known.registry() == whole.registry()
                        && known.repository() == whole.repository()
                })
            })
            .map(|(known, id)| (known.clone(), *id))
            .collect();
        if !of_repository.is_empty() {
            for (tag, id) in of_repository {
                let image = view.image(&id).ok_or(creel_store::Error::NoSuchImage(id.to_string()));
                add(image.map_err(Error::store(saving()))?, Some(tag))?;
            }
            continue;
        }
        let image = store.resolve_image(name).map_err(Error::store(saving()))?;
        let tag = parsed.filter(|r| r.digest().is_none() && store.reference(r) == Some(image.id));
        add(image, tag.map(Reference::with_default_tag))?;
    }
    Ok(chosen)
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn write_all<W: Write>(store: &Arc<Store>, images: &[Chosen], writer: &mut Writer<W>) -> Result<()> {
    let mut documents: BTreeMap<Digest, &[u8]> = BTreeMap::new();
    let mut blobs: BTreeSet<Digest> = BTreeSet::new();
    let mut index = Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.to_owned()),
        manifests: Vec::new(),
        annotations: BTreeMap::new(),
    };
    let mut docker = Vec::new();
    let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for one in images {
        let parsed: Manifest = serde_json::from_slice(&one.manifest_bytes)
            .map_err(|error| Error::document("manifest", one.manifest.digest, error))?;
        documents.insert(one.manifest.digest, &one.manifest_bytes);
        blobs.insert(parsed.config.digest);
        blobs.extend(parsed.layers.iter().map(|layer| layer.digest));
        let platform = Some(one.image.config.platform()).filter(|platform| !platform.os.is_empty());
        let entry = Descriptor { platform, annotations: BTreeMap::new(), ..one.manifest.clone() };
        for tag in &one.tags {
            let mut entry = entry.clone();
            let short = tag.tag().unwrap_or_default().to_owned();
            entry.annotations.insert("io.containerd.image.name".to_owned(), tag.to_string());
            entry.annotations.insert("org.opencontainers.image.ref.name".to_owned(), short.clone());
            index.manifests.push(entry);
            if let Some(top) = parsed.layers.last() {
                repositories.entry(tag.familiar_name()).or_default().insert(short, top.digest.hex());
            }
        }
        if one.tags.is_empty() {
            index.manifests.push(entry);
        }
        docker.push(DockerImage {
            config: blob_name(&parsed.config.digest),
            repo_tags: Some(one.tags.iter().map(Reference::familiar).collect::<Vec<_>>())
                .filter(|tags| !tags.is_empty()),
            layers: parsed.layers.iter().map(|layer| blob_name(&layer.digest)).collect(),
        });
    }
    for directory in ["blobs/", "blobs/sha256/"] {
        header(writer, directory, Kind::Directory, 0)?;
    }
    for digest in blobs {
        if documents.contains_key(&digest) {
            continue;
        }
        let name = blob_name(&digest);
        let action = || format!("saving blob {digest}");
        let file = store.open_blob(&digest).map_err(Error::store(action()))?;
        let size = store
            .blob_size(&digest)
            .ok_or(creel_store::Error::NoSuchBlob(digest))
            .map_err(Error::store(action()))?;
        header(writer, &name, Kind::File, size)?;
        let copied =
            io::copy(&mut io::Read::take(file, size), writer).map_err(|error| Error::io(action(), &error))?;
        if copied != size {
            return Err(Error::Corrupt {
                what: format!("the stored blob {digest}"),
                reason: format!("it has {copied} bytes where {size} are recorded"),
            });
        }
    }
    for (digest, bytes) in documents {
        file(writer, &blob_name(&digest), bytes)?;
    }
    json(writer, "index.json", &index)?;
    json(writer, "manifest.json", &docker)?;
    file(writer, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    if !repositories.is_empty() {
        json(writer, "repositories", &repositories)?;
    }
    Ok(())
}

fn header<W: Write>(writer: &mut Writer<W>, name: &str, kind: Kind, size: u64) -> Result<()> {
    let mut entry = Entry::new(name, kind);
    entry.size = size;
    writer.entry(&entry).map_err(|error| Error::io(format!("writing `{name}` to the archive"), &error))
}

fn file<W: Write>(writer: &mut Writer<W>, name: &str, bytes: &[u8]) -> Result<()> {
    header(writer, name, Kind::File, bytes.len() as u64)?;
    writer.write_all(bytes).map_err(|error| Error::io(format!("writing `{name}` to the archive"), &error))
}

fn json<W: Write>(writer: &mut Writer<W>, name: &str, value: &impl Serialize) -> Result<()> {
    let bytes = serde_json::to_vec(value).map_err(|error| Error::document("document", name, error))?;
    file(writer, name, &bytes)
}
