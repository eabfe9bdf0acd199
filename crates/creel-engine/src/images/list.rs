//! The list of images.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use creel_store::ImageRecord;
use creel_types::{Digest, Reference};
use creel_wire::image::ImageSummary;

use crate::containers::prune::until;
use crate::core::Core;
use crate::error::Result;
use crate::filters::Filters;
use crate::record::MountKind;

/// Lists images, the newest first. Without `all`, those are left out that have no name and are another one's parent;
/// with `shared`, it is computed what they have in common.
pub(crate) fn list(core: &Core, filters: &Filters, all: bool, shared: bool) -> Result<Vec<ImageSummary>> {
    filters.allow(&["dangling", "label", "label!", "before", "since", "reference", "until"])?;
    let dangling = filters.switch("dangling")?;
    let created = |name: &str| -> Result<_> {
        filters.get(name).first().map(|image| Ok(core.store.resolve_image(image)?.created)).transpose()
    };
    let (before, since, until) = (created("before")?, created("since")?, until(filters)?);
    let mut images = core.store.list_images();
    let parents = parents(&images);
    let shared = shared.then(|| core.store.view().shared_sizes());
    images.retain(|image| {
        let labels =
            image.config.config.as_ref().and_then(|config| config.labels.clone()).unwrap_or_default();
        (all || !is_between(image, &parents))
            && dangling.is_none_or(|wanted| wanted == image.references.is_empty())
            && filters.labels(&labels)
            && before.is_none_or(|time| image.created < time)
            && since.is_none_or(|time| image.created > time)
            && until.is_none_or(|time| image.created.is_some_and(|created| created < time))
    });
    images.sort_by_key(|image| std::cmp::Reverse(image.created));
    let containers = containers(core);
    let patterns = filters.get("reference");
    let wanted =
        |reference: &&Reference| patterns.is_empty() || patterns.iter().any(|p| matches(p, reference));
    let mut rows = Vec::new();
    for image in images {
        let tags: Vec<String> = image.references.iter().filter(wanted).map(Reference::familiar).collect();
        let digests: Vec<String> =
            image.repo_digests.iter().filter(wanted).map(Reference::familiar).collect();
        if !patterns.is_empty() && tags.is_empty() && digests.is_empty() {
            continue;
        }
        let mut row = row(&image, tags, digests, containers.get(&image.id).copied().unwrap_or(0));
        if let Some(shared) = shared.as_ref().and_then(|shared| shared.get(&image.id)) {
            row.shared_size = i64::try_from(*shared).unwrap_or(i64::MAX);
        }
        rows.push(row);
    }
    Ok(rows)
}

/// The images that others were made from here.
pub(crate) fn parents(images: &[Arc<ImageRecord>]) -> HashSet<Digest> {
    images.iter().filter_map(|image| image.parent).collect()
}

/// Whether this is but a step towards another image: Docker neither lists nor prunes those by themselves.
pub(crate) fn is_between(image: &ImageRecord, parents: &HashSet<Digest>) -> bool {
    image.references.is_empty() && image.repo_digests.is_empty() && parents.contains(&image.id)
}

/// How many containers each image has.
pub(crate) fn containers(core: &Core) -> HashMap<Digest, i64> {
    let mut count = HashMap::new();
    for container in core.containers.all() {
        let record = container.record();
        *count.entry(record.image).or_insert(0) += 1;
        let mounted = record.mounts.iter().filter(|mount| mount.kind == MountKind::Image);
        for id in mounted.filter_map(|mount| mount.of.as_ref()?.name.parse().ok()) {
            *count.entry(id).or_insert(0) += 1;
        }
    }
    count
}

fn row(image: &Arc<ImageRecord>, tags: Vec<String>, digests: Vec<String>, containers: i64) -> ImageSummary {
    ImageSummary {
        id: image.id.to_string(),
        parent_id: image.parent.map(|id| id.to_string()).unwrap_or_default(),
        repo_tags: tags,
        repo_digests: digests,
        created: image.created.map_or(0, |time| time.as_second()),
        size: i64::try_from(image.size).unwrap_or(i64::MAX),
        shared_size: -1,
        labels: image.config.config.as_ref().and_then(|config| config.labels.clone()),
        containers,
    }
}

/// Whether a reference is meant by a pattern with `*` and `?`: against the name with and without its tag.
fn matches(pattern: &str, reference: &Reference) -> bool {
    [reference.familiar(), reference.familiar_name(), reference.to_string()]
        .iter()
        .any(|text| glob(pattern, text))
}

/// Shell patterns where `*` stops at a slash, as Go's `path.Match` has it.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    // Which positions of the text the pattern read so far can end at.
    let mut at = vec![false; text.len() + 1];
    at[0] = true;
    for p in pattern {
        let mut next = vec![false; text.len() + 1];
        for i in 0..=text.len() {
            if p == '*' {
                next[i] = at[i] || (i > 0 && next[i - 1] && text[i - 1] != '/');
            } else if i > 0 && at[i - 1] {
                next[i] = p == text[i - 1] || (p == '?' && text[i - 1] != '/');
            }
        }
        at = next;
    }
    at[text.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let reference: Reference = "localhost:5000/a/b:1".parse().unwrap();
        assert!(matches("localhost:5000/a/*", &reference));
        assert!(matches("localhost:5000/a/b:?", &reference));
        assert!(!matches("localhost:5000/*", &reference));
        assert!(matches("busy*", &"busybox:latest".parse().unwrap()));
        assert!(!matches("busy", &"busybox".parse().unwrap()));
    }
}
