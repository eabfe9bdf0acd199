//! Deleting: an image with what it alone kept, and the collection of everything that nothing keeps.
//!
//! Mark and sweep under the content lock: whoever moves content to its place or relies on what he found holds
//! that lock shared for a moment, the sweep holds it alone while it marks, deletes the rows and renames the
//! files into `tmp/`. The deletion itself, which can take long, runs after it.

use std::collections::HashSet;
use std::path::PathBuf;

use creel_types::Digest;

use crate::db::sql;
use crate::error::{Error, Result};
use crate::failpoint;
use crate::files::Temp;
use crate::images::ImageRecord;
use crate::layers::LayerId;
use crate::paths::Paths;
use crate::store::Store;
use crate::view::View;

/// What [`Store::delete_image`] took away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deleted {
    /// The references that pointed to the image.
    pub references: Vec<creel_types::Reference>,
    /// What was freed besides.
    pub freed: GcReport,
}

/// What a collection freed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcReport {
    /// The blobs.
    pub blobs: Vec<Digest>,
    /// The layers.
    pub layers: Vec<LayerId>,
    /// Their bytes together.
    pub bytes: u64,
    /// What could not be deleted and why; it lies in `tmp/` and is tried again by the next collection.
    pub failures: Vec<String>,
}

/// Everything that something keeps.
pub(crate) struct Marked {
    pub(crate) blobs: HashSet<Digest>,
    pub(crate) layers: HashSet<LayerId>,
}

impl Marked {
    fn of(view: &View) -> Self {
        Self::by(view, |_| true)
    }

    /// What snapshots and those images keep that are `counted`.
    pub(crate) fn by(view: &View, counted: impl Fn(&ImageRecord) -> bool) -> Self {
        let mut marked = Self { blobs: HashSet::new(), layers: HashSet::new() };
        for image in view.images().filter(|image| counted(image)) {
            marked.blobs.insert(image.id);
            marked.blobs.extend(image.manifest.iter().map(|manifest| manifest.digest));
            // the index that a platform was chosen from is what `repository@digest` names
            marked.blobs.extend(image.repo_digests.iter().filter_map(|r| r.digest()));
            for layer in &image.layers {
                marked.layers.insert(layer.layer);
                marked.blobs.extend(layer.blob.iter().map(|blob| blob.digest));
            }
        }
        for snapshot in view.snapshots() {
            marked.layers.extend(&snapshot.layers);
        }
        marked
    }
}

/// The init layers that some image or snapshot has, whether they are made or not.
pub(crate) fn inits_in_use(paths: &Paths, view: &View) -> HashSet<PathBuf> {
    let of_image =
        |image: &ImageRecord| paths.init(&image.layers.iter().map(|layer| layer.layer).collect::<Vec<_>>());
    let images = view.images().map(|image| of_image(image));
    images.chain(view.snapshots().map(|snapshot| paths.init(&snapshot.layers))).collect()
}

impl Store {
    /// Deletes an image and every reference to it, and frees at once the blobs and layers that it alone kept.
    /// Layers under a container's snapshot stay. Whether it may be deleted is the caller's question.
    pub fn delete_image(&self, id: &Digest) -> Result<Deleted> {
        let image = self.view().image(id).ok_or_else(|| Error::NoSuchImage(id.to_string()))?;
        let mut alone = View::default();
        alone.insert_image((*image).clone());
        let candidates = Marked::of(&alone);
        let target = *id;
        let references = image.references.iter().chain(&image.repo_digests).cloned().collect();
        let freed = self.sweep(
            Some(candidates),
            Box::new(move |connection, view: &mut View| {
                if view.image(&target).is_none() {
                    return Err(Error::NoSuchImage(target.to_string()));
                }
                sql(connection, "delete an image", |c| {
                    c.execute("DELETE FROM refs WHERE image = ?1", [target.to_string()])?;
                    c.execute("DELETE FROM images WHERE id = ?1", [target.to_string()])
                })?;
                view.remove_image(&target);
                Ok(())
            }),
        )?;
        Ok(Deleted { references, freed })
    }

    /// Frees all blobs and layers that no image, snapshot or open [`Lease`](crate::Lease) keeps, and what
    /// earlier deletions left in `tmp/`. May run beside pulls, runs and everything else. What interrupted downloads left
    /// stays, see [`Store::forget_partials`].
    pub fn gc(&self) -> Result<GcReport> {
        let mut report = self.sweep(None, Box::new(|_, _| Ok(())))?;
        self.sweep_tmp(&mut report.failures);
        Ok(report)
    }

    /// Frees what interrupted downloads left and nobody goes on with at present.
    pub fn forget_partials(&self) -> GcReport {
        let mut report = GcReport::default();
        report.bytes = self.sweep_partials(&mut report.failures);
        report
    }

    #[allow(clippy::type_complexity)]
    fn sweep(
        &self,
        among: Option<Marked>,
        before: Box<dyn FnOnce(&rusqlite::Connection, &mut View) -> Result<()> + Send>,
    ) -> Result<GcReport> {
        let mut report = GcReport::default();
        let mut doomed: Vec<Temp> = Vec::new();
        {
            let _content = self.content_alone();
            let mut kept = Marked { blobs: HashSet::new(), layers: HashSet::new() };
            self.leases.collect(&mut kept.blobs, &mut kept.layers);
            let (blobs, layers) = self.db.write(move |connection, view| {
                before(connection, view)?;
                let marked = Marked::of(view);
                let blobs: Vec<(Digest, u64)> = view
                    .blobs()
                    .map(|(digest, size)| (*digest, size))
                    .filter(|(d, _)| !marked.blobs.contains(d) && !kept.blobs.contains(d))
                    .filter(|(d, _)| among.as_ref().is_none_or(|among| among.blobs.contains(d)))
                    .collect();
                let layers: Vec<(LayerId, u64)> = view
                    .layers()
                    .map(|layer| (layer.id, layer.stored()))
                    .filter(|(l, _)| !marked.layers.contains(l) && !kept.layers.contains(l))
                    .filter(|(l, _)| among.as_ref().is_none_or(|among| among.layers.contains(l)))
                    .collect();
                sql(connection, "delete rows of blobs and layers", |c| {
                    let mut blob = c.prepare_cached("DELETE FROM blobs WHERE digest = ?1")?;
                    for (digest, _) in &blobs {
                        blob.execute([digest.to_string()])?;
                    }
                    let mut layer = c.prepare_cached("DELETE FROM layers WHERE id = ?1")?;
                    for (id, _) in &layers {
                        layer.execute([id.to_string()])?;
                    }
                    Ok(())
                })?;
                blobs.iter().for_each(|(digest, _)| view.remove_blob(digest));
                layers.iter().for_each(|(id, _)| view.remove_layer(id));
                Ok((blobs, layers))
            })?;
            failpoint("gc-rows-gone");
            for (path, size) in blobs
                .iter()
                .map(|(digest, size)| (self.paths.blob(digest), size))
                .chain(layers.iter().map(|(id, size)| (self.paths.layer(id), size)))
            {
                report.bytes += size;
                match self.move_to_tmp(&path) {
                    Ok(temp) => doomed.extend(temp),
                    Err(why) => report.failures.push(why.to_string()),
                }
            }
            let inits = inits_in_use(&self.paths, &self.view());
            for entry in std::fs::read_dir(self.paths.inits()).into_iter().flatten().flatten() {
                if !inits.contains(&entry.path()) {
                    match self.move_to_tmp(&entry.path()) {
                        Ok(temp) => doomed.extend(temp),
                        Err(why) => report.failures.push(why.to_string()),
                    }
                }
            }
            report.blobs = blobs.into_iter().map(|(digest, _)| digest).collect();
            report.layers = layers.into_iter().map(|(id, _)| id).collect();
            report.blobs.sort();
            report.layers.sort();
        }
        failpoint("gc-renamed");
        for temp in doomed {
            if let Err(why) = temp.delete() {
                report.failures.push(why.to_string());
            }
        }
        Ok(report)
    }
}
