//! Images: what a config digest, its layers and the references to it are; finding one by what a person typed.

use std::collections::HashSet;
use std::sync::Arc;

use creel_types::image::{Descriptor, ImageConfig};
use creel_types::{Digest, Reference};
use jiff::Timestamp;
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use crate::db::sql;
use crate::error::{Error, Result};
use crate::failpoint;
use crate::layers::LayerId;
use crate::store::Store;
use crate::view::View;

/// The largest image configuration that is read, in bytes (registries cap manifests at 4 MiB).
pub(crate) const CONFIG_LIMIT: u64 = 4 << 20;

/// One layer of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRef {
    /// The digest of the uncompressed tar, as in the image's configuration.
    pub diff_id: Digest,
    /// The unpacked layer in this store.
    pub layer: LayerId,
    /// The archive as it was pulled, loaded or made, if it is kept.
    pub blob: Option<Descriptor>,
}

/// An image. Its id is the digest of its configuration, as with Docker's overlay2 graph driver.
#[derive(Debug, Clone)]
pub struct ImageRecord {
    /// The digest of the configuration blob.
    pub id: Digest,
    /// The manifest it came with, kept as a blob, if it came with one.
    pub manifest: Option<Descriptor>,
    /// The layers, the lowest first.
    pub layers: Vec<LayerRef>,
    /// The unpacked layers' sizes together, in bytes.
    pub size: u64,
    /// When the image was made, as its configuration says.
    pub created: Option<Timestamp>,
    /// The image that this one was committed or built from, if it was made here.
    pub parent: Option<Digest>,
    /// When a tag was last pointed to it here.
    pub tagged: Option<Timestamp>,
    /// The parsed configuration.
    pub config: Arc<ImageConfig>,
    /// The tags, in order.
    pub references: Vec<Reference>,
    /// The `repository@digest` references it was pulled by or pushed as, in order.
    pub repo_digests: Vec<Reference>,
}

/// What [`Store::put_image`] wants to know.
#[derive(Debug, Clone)]
pub struct NewImage {
    /// The digest of the configuration, which must be stored as a blob.
    pub config: Digest,
    /// The manifest, which must be stored as a blob, if there is one.
    pub manifest: Option<Descriptor>,
    /// The layers, the lowest first; they must be applied, and their blobs, where given, stored.
    pub layers: Vec<LayerRef>,
    /// The image that this one was made from, if it was made here.
    pub parent: Option<Digest>,
    /// References to set in the same transaction (tags, or `repository@digest`).
    pub references: Vec<Reference>,
}

/// What [`Store::remove_reference`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untagged {
    /// The reference that is gone, normalized.
    pub reference: Reference,
    /// The image it pointed to.
    pub image: Digest,
    /// How many tags and digests still point to that image.
    pub remaining: usize,
}

/// A row of the table `images`.
#[derive(Serialize, Deserialize)]
pub(crate) struct ImageRow {
    pub(crate) manifest: Option<Descriptor>,
    pub(crate) layers: Vec<LayerRef>,
    pub(crate) parent: Option<Digest>,
    #[serde(default)]
    pub(crate) tagged: Option<Timestamp>,
}

impl ImageRow {
    /// The row of a record.
    fn of(image: &ImageRecord) -> Self {
        Self {
            manifest: image.manifest.clone(),
            layers: image.layers.clone(),
            parent: image.parent,
            tagged: image.tagged,
        }
    }

    /// The record of this row: checks that its configuration is readable and fits its layers. Layers that were put
    /// aside may be missing; then the image is not whole until it is pulled again.
    pub(crate) fn into_record(self, id: Digest, config: &[u8], view: &View) -> Result<ImageRecord> {
        let invalid = |why: String| Error::Invalid { what: format!("image {id}"), why };
        let config: ImageConfig =
            serde_json::from_slice(config).map_err(|why| invalid(format!("its configuration: {why}")))?;
        let named = config.rootfs.diff_ids.iter();
        if !named.eq(self.layers.iter().map(|layer| &layer.diff_id)) {
            return Err(invalid(format!(
                "its configuration names {} layers, which are not the {} given",
                config.rootfs.diff_ids.len(),
                self.layers.len()
            )));
        }
        let mut size = 0;
        let mut counted = HashSet::new();
        for layer in &self.layers {
            let Some(record) = view.layer(&layer.layer) else { continue };
            if record.diff_id != layer.diff_id {
                return Err(invalid(format!(
                    "layer {} is not that of diffID {}",
                    layer.layer, layer.diff_id
                )));
            }
            // a layer that comes twice is on the disk once
            size += if counted.insert(layer.layer) { record.bytes } else { 0 };
        }
        Ok(ImageRecord {
            id,
            manifest: self.manifest,
            layers: self.layers,
            size,
            created: config.created,
            parent: self.parent,
            tagged: self.tagged,
            config: Arc::new(config),
            references: Vec::new(),
            repo_digests: Vec::new(),
        })
    }
}

fn write_row(connection: &Connection, id: &Digest, row: &ImageRow) -> Result<()> {
    let json = serde_json::to_string(row)
        .map_err(|why| Error::Invalid { what: format!("image {id}"), why: why.to_string() })?;
    sql(connection, "write an image", |c| {
        c.prepare_cached("INSERT OR REPLACE INTO images (id, json) VALUES (?1, ?2)")?
            .execute(params![id.to_string(), json])
    })
    .map(drop)
}

/// The form in which a reference is stored: a digest displaces the tag beside it (Docker looks `a:b@sha256:…`
/// up by the digest alone), and without both the tag is `latest`.
pub(crate) fn normalize(reference: &Reference) -> Reference {
    match reference.digest() {
        Some(digest) => reference.at_digest(*digest),
        None => reference.clone().with_default_tag(),
    }
}

fn set_reference(
    connection: &Connection,
    view: &mut View,
    reference: Reference,
    image: Digest,
) -> Result<Option<Digest>> {
    let record = view.image(&image).ok_or_else(|| Error::NoSuchImage(image.to_string()))?;
    if view.reference(&reference) == Some(image) {
        return Ok(None);
    }
    sql(connection, "write a reference", |c| {
        c.prepare_cached("INSERT OR REPLACE INTO refs (reference, image) VALUES (?1, ?2)")?
            .execute(params![reference.to_string(), image.to_string()])
    })?;
    if reference.digest().is_none() {
        let mut record = (*record).clone();
        record.tagged = Some(Timestamp::now());
        write_row(connection, &record.id, &ImageRow::of(&record))?;
        view.insert_image(record);
    }
    Ok(view.set_reference(reference, image))
}

/// What a text that names an image may mean, in the order of trial: Docker's precedence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Exactly this image.
    Id(Digest),
    /// A reference first; if it is unknown, ids that begin with these digits.
    Named(Option<Reference>, Option<String>),
}

/// Reads a text that names an image. 64 digits, with or without `sha256:`, are an id and nothing else; what is
/// a reference is looked up as one; what could be the beginning of an id is tried as that at last.
pub(crate) fn parse_wanted(text: &str) -> Result<Wanted> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    if let Ok(id) = Digest::from_hex(digits) {
        return Ok(Wanted::Id(id));
    }
    let is_prefix = !digits.is_empty()
        && digits.len() < 64
        && digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'));
    let prefix = is_prefix.then(|| digits.to_owned());
    match text.parse::<Reference>() {
        Ok(reference) => Ok(Wanted::Named(Some(normalize(&reference)), prefix)),
        Err(_) if prefix.is_some() => Ok(Wanted::Named(None, prefix)),
        Err(why) => Err(Error::BadReference(why)),
    }
}

impl View {
    /// Finds an image as [`Store::resolve_image`] does.
    pub fn resolve_image(&self, text: &str) -> Result<Arc<ImageRecord>> {
        let none = || Error::NoSuchImage(text.to_owned());
        match parse_wanted(text)? {
            Wanted::Id(id) => self.image(&id).ok_or_else(none),
            Wanted::Named(reference, prefix) => {
                if let Some(image) = reference.and_then(|r| self.reference(&r)).and_then(|id| self.image(&id))
                {
                    return Ok(image);
                }
                // as Docker words it: the reference with the tag that was looked for
                let none = || match text.parse::<Reference>() {
                    Ok(reference) => Error::NoSuchImage(reference.with_default_tag().familiar()),
                    Err(_) => none(),
                };
                let prefix = prefix.ok_or_else(none)?;
                let found: Vec<_> = self.images_by_prefix(&prefix).take(5).collect();
                match found[..] {
                    [] => Err(none()),
                    [one] => Ok(one.clone()),
                    _ => {
                        let candidates = found.iter().map(|image| image.id).collect();
                        Err(Error::Ambiguous { prefix: prefix.clone(), candidates })
                    }
                }
            }
        }
    }
}

impl Store {
    /// Makes an image out of what is stored: its configuration blob, its applied layers, its manifest. Sets the
    /// given references in the same transaction. An image that is there already keeps its references and gets
    /// the new manifest and layers. Fails if anything it names is not stored.
    pub fn put_image(&self, new: NewImage) -> Result<Arc<ImageRecord>> {
        let config = self.read_blob(&new.config, CONFIG_LIMIT)?;
        let _content = self.content_in_use();
        failpoint("image-before-row");
        self.db.write(move |connection, view| {
            for blob in new.manifest.iter().chain(new.layers.iter().filter_map(|l| l.blob.as_ref())) {
                if view.blob_size(&blob.digest).is_none() {
                    return Err(Error::NoSuchBlob(blob.digest));
                }
            }
            if view.blob_size(&new.config).is_none() {
                return Err(Error::NoSuchBlob(new.config));
            }
            let row =
                ImageRow { manifest: new.manifest, layers: new.layers, parent: new.parent, tagged: None };
            if let Some(missing) = row.layers.iter().find(|layer| view.layer(&layer.layer).is_none()) {
                return Err(Error::NoSuchLayer(missing.layer.digest()));
            }
            let mut image = row.into_record(new.config, &config, view)?;
            if let Some(old) = view.image(&new.config) {
                image.references.clone_from(&old.references);
                image.repo_digests.clone_from(&old.repo_digests);
                image.parent = image.parent.or(old.parent);
                image.tagged = old.tagged;
            }
            write_row(connection, &image.id, &ImageRow::of(&image))?;
            view.insert_image(image);
            for reference in &new.references {
                set_reference(connection, view, normalize(reference), new.config)?;
            }
            view.image(&new.config).ok_or_else(|| Error::NoSuchImage(new.config.to_string()))
        })
    }

    /// Points a reference (a tag, `latest` if none is given, or `repository@digest`) to an image. Returns the
    /// image that it pointed to before, if that was another one.
    pub fn tag(&self, reference: &Reference, image: &Digest) -> Result<Option<Digest>> {
        let (reference, image) = (normalize(reference), *image);
        self.db.write(move |connection, view| set_reference(connection, view, reference, image))
    }

    /// Takes a reference away and nothing else: the image stays, even if nothing points to it any more.
    pub fn remove_reference(&self, reference: &Reference) -> Result<Untagged> {
        let reference = normalize(reference);
        self.db.write(move |connection, view| {
            let Some(image) = view.reference(&reference) else {
                return Err(Error::NoSuchImage(reference.familiar()));
            };
            sql(connection, "delete a reference", |c| {
                c.prepare_cached("DELETE FROM refs WHERE reference = ?1")?.execute([reference.to_string()])
            })?;
            view.remove_reference(&reference);
            let remaining = view.references().filter(|(_, to)| **to == image).count();
            Ok(Untagged { reference, image, remaining })
        })
    }

    /// The other name of [`Store::remove_reference`].
    pub fn untag(&self, reference: &Reference) -> Result<Untagged> {
        self.remove_reference(reference)
    }

    /// What a reference points to, if it is known.
    pub fn reference(&self, reference: &Reference) -> Option<Digest> {
        self.view().reference(&normalize(reference))
    }

    /// Finds an image by what a person typed, with Docker's precedence: 64 hexadecimal digits (with `sha256:` or
    /// without) are an id; otherwise a reference, `latest` being the default tag; otherwise the beginning of an
    /// id, one digit at least. Errors: [`Error::NoSuchImage`], [`Error::Ambiguous`], [`Error::BadReference`].
    pub fn resolve_image(&self, text: &str) -> Result<Arc<ImageRecord>> {
        self.view().resolve_image(text)
    }

    /// The image with this full id.
    pub fn image(&self, id: &Digest) -> Option<Arc<ImageRecord>> {
        self.view().image(id)
    }

    /// All images by ascending id, from memory.
    pub fn list_images(&self) -> Vec<Arc<ImageRecord>> {
        self.view().images().cloned().collect()
    }
}
