//! rmi and prune.

use std::sync::Arc;

use creel_store::{GcReport, ImageRecord};
use creel_types::{ContainerId, ErrorKind, Reference};
use creel_wire::image::{ImageDelete, ImagesPrune};

use super::tell;
use crate::containers::prune::until;
use crate::core::{Core, blocking, to_the_end};
use crate::error::{Error, Result};
use crate::filters::Filters;
use crate::record::{ContainerRecord, MountKind};

fn untagged(reference: &Reference) -> ImageDelete {
    ImageDelete { untagged: Some(reference.familiar()), deleted: None }
}

fn deleted(id: impl ToString) -> ImageDelete {
    ImageDelete { untagged: None, deleted: Some(id.to_string()) }
}

/// Removes a name of an image, and with its last name the image, unless others were made from it here. With `prune`
/// also goes what it was made from, if nothing else names or needs that.
pub(crate) async fn remove(
    core: &Arc<Core>,
    name: &str,
    force: bool,
    prune: bool,
) -> Result<Vec<ImageDelete>> {
    let image = core.store.resolve_image(name)?;
    let (core, name) = (core.clone(), name.to_owned());
    to_the_end(async move {
        let user = user(&core, &image);
        let Some(reference) = named(&image, &name) else {
            refuse_by_id(&image, user, has_children(&core, &image), force)?;
            return delete(&core, &image, prune).await;
        };
        if !last_tag(&image, &reference) {
            return untag(&core, &image, &reference).await;
        }
        match user {
            Some((container, _)) if !force => Err(Error::conflict(format!(
                "conflict: unable to remove repository reference \"{name}\" (must force) - container {} is using its \
                 referenced image {}",
                container.short(),
                image.id.short()
            ))),
            // It goes on running on its layers; only the name can be taken away.
            Some((_, true)) => untag(&core, &image, &reference).await,
            // What was made from it keeps it.
            _ if has_children(&core, &image) => untag(&core, &image, &reference).await,
            _ => delete(&core, &image, prune).await,
        }
    })
    .await
}

/// A container that was made from the image, one that runs before others, and whether it runs.
fn user(core: &Core, image: &ImageRecord) -> Option<(ContainerId, bool)> {
    let id = image.id.to_string();
    let uses = |record: &ContainerRecord| {
        let mut mounts = record.mounts.iter().filter(|mount| mount.kind == MountKind::Image);
        record.image == image.id || mounts.any(|mount| mount.of.as_ref().is_some_and(|of| of.name == id))
    };
    let containers = core.containers.all().into_iter().filter(|container| uses(&container.record()));
    containers
        .map(|container| (container.id.clone(), container.running().is_some()))
        .max_by_key(|(_, runs)| *runs)
}

/// Whether other images were made from it here.
fn has_children(core: &Core, image: &ImageRecord) -> bool {
    core.store.view().images().any(|other| other.parent == Some(image.id))
}

/// An id is refused when something else would be surprised.
fn refuse_by_id(
    image: &ImageRecord,
    user: Option<(ContainerId, bool)>,
    has_children: bool,
    force: bool,
) -> Result<()> {
    let why = match user {
        _ if has_children => "(cannot be forced) - image has dependent child images".to_owned(),
        Some((container, true)) => {
            format!("(cannot be forced) - image is being used by running container {}", container.short())
        }
        _ if force => return Ok(()),
        Some((container, false)) => {
            format!("(must be forced) - image is being used by stopped container {}", container.short())
        }
        None if image.references.len() > 1 || repositories(image) > 1 => {
            "(must be forced) - image is referenced in multiple repositories".to_owned()
        }
        None => return Ok(()),
    };
    Err(Error::conflict(format!("conflict: unable to delete {} {why}", image.id.short())))
}

/// The reference of the image that `name` is, unless it is an id.
fn named(image: &ImageRecord, name: &str) -> Option<Reference> {
    let digits = name.strip_prefix("sha256:").unwrap_or(name);
    let wanted = name.parse::<Reference>().ok()?.with_default_tag();
    let is = |reference: &&Reference| {
        **reference == wanted
            || wanted.digest().is_some()
                && reference.digest() == wanted.digest()
                && reference.repository() == wanted.repository()
                && reference.registry() == wanted.registry()
    };
    let found = image.references.iter().chain(&image.repo_digests).find(is).cloned();
    found.filter(|_| !(digits.len() == 64 && image.id.hex() == digits))
}

/// Whether with this tag the image's last one goes. `repository@digest` alone keeps nothing that has a tag beside it.
fn last_tag(image: &ImageRecord, reference: &Reference) -> bool {
    image.references.iter().all(|other| other == reference)
        && image.repo_digests.iter().all(|digest| {
            digest == reference
                || digest.repository() == reference.repository() && digest.registry() == reference.registry()
        })
}

fn repositories(image: &ImageRecord) -> usize {
    let mut names: Vec<String> =
        image.references.iter().chain(&image.repo_digests).map(Reference::familiar_name).collect();
    names.sort();
    names.dedup();
    names.len()
}

async fn untag(
    core: &Arc<Core>,
    image: &Arc<ImageRecord>,
    reference: &Reference,
) -> Result<Vec<ImageDelete>> {
    let mut gone = vec![reference.clone()];
    // With the last tag of a repository goes what it was pulled by.
    if reference.digest().is_none() {
        let same = |other: &&Reference| {
            other.repository() == reference.repository() && other.registry() == reference.registry()
        };
        if image.references.iter().filter(same).count() == 1 {
            gone.extend(image.repo_digests.iter().filter(same).cloned());
        }
    }
    let (store, list) = (core.store.clone(), gone.clone());
    blocking(move || {
        for reference in &list {
            store.remove_reference(reference)?;
        }
        Ok(())
    })
    .await?;
    for reference in &gone {
        tell(core, "untag", &image.id.to_string(), &reference.familiar());
    }
    Ok(gone.iter().map(untagged).collect())
}

async fn delete(core: &Arc<Core>, image: &Arc<ImageRecord>, prune: bool) -> Result<Vec<ImageDelete>> {
    let mut items = Vec::new();
    delete_into(core, image, &mut items).await?;
    if prune {
        delete_parents(core, image, &mut items).await?;
    }
    Ok(items)
}

/// Deletes an image, notes what went, and returns the bytes that this freed.
async fn delete_into(core: &Arc<Core>, image: &ImageRecord, items: &mut Vec<ImageDelete>) -> Result<u64> {
    let (store, id) = (core.store.clone(), image.id);
    let done = blocking(move || Ok(store.delete_image(&id)?)).await?;
    items.extend(done.references.iter().map(untagged));
    items.push(deleted(image.id));
    items.extend(done.freed.layers.iter().map(deleted));
    warn(&done.freed);
    for reference in &done.references {
        tell(core, "untag", &image.id.to_string(), &reference.familiar());
    }
    tell(core, "delete", &image.id.to_string(), &image.id.to_string());
    Ok(done.freed.bytes)
}

/// Deletes what an image was made from, as far as nothing names it, nothing else was made from it, and no container
/// uses it.
async fn delete_parents(core: &Arc<Core>, image: &ImageRecord, items: &mut Vec<ImageDelete>) -> Result<u64> {
    let mut freed = 0;
    let mut next = image.parent;
    while let Some(parent) = next.take().and_then(|id| core.store.image(&id)) {
        let is_named = !parent.references.is_empty() || !parent.repo_digests.is_empty();
        if is_named || has_children(core, &parent) || user(core, &parent).is_some() {
            break;
        }
        freed += delete_into(core, &parent, items).await?;
        next = parent.parent;
    }
    Ok(freed)
}

fn warn(report: &GcReport) {
    for failure in &report.failures {
        tracing::warn!("{failure}");
    }
}

/// Removes images without a name, or with `dangling=false` all that no container uses.
pub(crate) async fn prune(core: &Arc<Core>, filters: Filters) -> Result<ImagesPrune> {
    filters.allow(&["dangling", "until", "label", "label!"])?;
    let dangling = filters.switch("dangling")?.unwrap_or(true);
    let until = until(&filters)?;
    let used = super::list::containers(core);
    let images = core.store.list_images();
    let parents = super::list::parents(&images);
    let mut items = Vec::new();
    let mut space = 0;
    for image in images {
        let labels =
            image.config.config.as_ref().and_then(|config| config.labels.clone()).unwrap_or_default();
        let taken = !used.contains_key(&image.id)
            && (!dangling || image.references.is_empty() && !super::list::is_between(&image, &parents))
            && until.is_none_or(|time| image.created.is_some_and(|created| created < time))
            && filters.labels(&labels);
        if taken {
            match delete_into(core, &image, &mut items).await {
                Ok(freed) => space += freed,
                // Somebody else was faster.
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            }
            space += delete_parents(core, &image, &mut items).await?;
        }
    }
    let store = core.store.clone();
    let (rest, partials) = blocking(move || Ok((store.gc()?, store.forget_partials()))).await?;
    space += rest.bytes + partials.bytes;
    warn(&rest);
    warn(&partials);
    core.events.tell("image", "prune", "", [("reclaimed".to_owned(), space.to_string())].into());
    Ok(ImagesPrune { images_deleted: Some(items), space_reclaimed: space })
}
