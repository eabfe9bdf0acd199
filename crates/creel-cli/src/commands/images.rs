//! `images`, `rmi`, `history`, `tag` and `image prune`.

use std::collections::BTreeMap;

use creel_client::Error;
use creel_types::Reference;
use creel_wire::image::{HistoryItem, ImageSummary};
use jiff::Timestamp;

use super::lifecycle::agreed;
use super::ps::{ago, created_at};
use crate::command::{Arity, Command, Context, Outcome, run};
use crate::failure::Failure;
use crate::flags::{Flag, ids, values};
use crate::format::{Listing, ellipsis, no_method, row};
use crate::output::{complain, print, print_line};
use crate::template::Value;
use crate::units::{human_size, human_size_with};

/// The commands on local images.
pub(super) const COMMANDS: &[Command] = &[
    Command {
        paths: &["images", "image ls", "image list"],
        usage: &["[OPTIONS] [REPOSITORY[:TAG]]"],
        about: "List images",
        long: "",
        flags: &[&[
            Flag::switch("all", "Show intermediate images too").short('a'),
            Flag::switch("digests", "Show digests"),
            Flag::list("filter", "filter", "Only those that match").short('f').check(values::filter),
            Flag::text("format", "string", "'table', 'table TEMPLATE', 'json' or a Go template"),
            Flag::switch("no-trunc", "Don't truncate output"),
            Flag::switch("quiet", "Only show image IDs").short('q'),
        ]],
        interspersed: true,
        arity: Arity::AtMost(1),
        run: run!(images),
    },
    Command {
        paths: &["rmi", "image rm", "image remove"],
        usage: &["[OPTIONS] IMAGE [IMAGE...]"],
        about: "Remove one or more images",
        long: "",
        flags: &[&[
            Flag::switch("force", "Remove it even if a stopped container uses it").short('f'),
            Flag::switch("no-prune", "Keep untagged parents"),
        ]],
        interspersed: true,
        arity: Arity::AtLeast(1),
        run: run!(rmi),
    },
    Command {
        paths: &["history", "image history"],
        usage: &["[OPTIONS] IMAGE"],
        about: "Show the history of an image",
        long: "",
        flags: &[&[
            Flag::text("format", "string", "'table', 'table TEMPLATE', 'json' or a Go template"),
            Flag::switch("human", "Print sizes and times as people read them (default true)").short('H'),
            Flag::switch("no-trunc", "Don't truncate output"),
            Flag::switch("quiet", "Only show image IDs").short('q'),
        ]],
        interspersed: true,
        arity: Arity::Exactly(1),
        run: run!(history),
    },
    Command {
        paths: &["tag", "image tag"],
        usage: &["SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]"],
        about: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
        long: "",
        flags: &[],
        interspersed: true,
        arity: Arity::Exactly(2),
        run: run!(tag),
    },
    Command {
        paths: &["image prune"],
        usage: &["[OPTIONS]"],
        about: "Remove unused images",
        long: "",
        flags: &[&[
            Flag::switch("all", "Remove all images that no container uses, not just dangling ones")
                .short('a'),
            Flag::list("filter", "filter", "Only those that match (e.g. \"until=<timestamp>\")")
                .check(values::filter),
            Flag::switch("force", "Do not ask first").short('f'),
        ]],
        interspersed: true,
        arity: Arity::None,
        run: run!(prune),
    },
];

const HEADINGS: &[(&str, &str)] = &[
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("VirtualSize", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
];

async fn images(c: Context) -> Outcome {
    let flags = &c.parsed;
    let reference = (!c.arg(0).is_empty()).then(|| format!("reference={}", c.arg(0)));
    let filters = values::filters_json(flags.all("filter").into_iter().chain(reference.as_deref()));
    let list = c.client.images(flags.on("all"), filters.as_deref()).await?;
    let trunc = !flags.on("no-trunc");
    let (quiet, digests) = (flags.on("quiet"), flags.on("digests"));
    let table = if digests {
        "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
    } else {
        "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
    };
    let format = flags.some("format");
    let wants_digest = digests || format.is_some_and(|f| f.contains("{{.Digest}}"));
    let now = Timestamp::now();
    let listing = Listing {
        format: format.or(quiet.then_some("{{.ID}}")),
        table,
        type_name: "*formatter.imageContext",
        headings: HEADINGS,
        rows: list.iter().flat_map(|image| image_rows(image, trunc, wants_digest, now)).collect(),
        method: &no_method,
    };
    print(&listing.render()?)?;
    Ok(0)
}

const NONE: &str = "<none>";

/// The rows of one image: one for each tag, or for each digest without a tag.
pub(super) fn image_rows(image: &ImageSummary, trunc: bool, digests: bool, now: Timestamp) -> Vec<Value> {
    let mut tags: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for reference in &image.repo_tags {
        if let Some((repository, tag)) = reference.rsplit_once(':').filter(|_| reference != "<none>:<none>") {
            tags.entry(repository).or_default().push(tag);
        }
    }
    let mut by_digest: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for reference in &image.repo_digests {
        if let Some((repository, digest)) =
            reference.split_once('@').filter(|(repository, _)| *repository != NONE)
        {
            by_digest.entry(repository).or_default().push(digest);
        }
    }
    let one = |repository: &str, tag: &str, digest: &str| {
        let size = |n: i64| if n < 0 { "N/A".to_owned() } else { human_size(n as f64) };
        row([
            ("ID", if trunc { ids::short(&image.id) } else { &image.id }.into()),
            ("Repository", repository.into()),
            ("Tag", tag.into()),
            ("Digest", digest.into()),
            ("CreatedSince", ago(image.created, now).into()),
            ("CreatedAt", created_at(image.created).into()),
            ("Size", human_size_with(image.size as f64, 3).into()),
            (
                "Containers",
                if image.containers < 0 { "N/A".to_owned() } else { image.containers.to_string() }.into(),
            ),
            ("VirtualSize", human_size(image.size as f64).into()),
            ("SharedSize", size(image.shared_size).into()),
            (
                "UniqueSize",
                if image.shared_size < 0 { "N/A".to_owned() } else { size(image.size - image.shared_size) }
                    .into(),
            ),
        ])
    };
    let mut rows = Vec::new();
    for (repository, tags) in &tags {
        let known = by_digest.remove(repository).unwrap_or_default();
        for tag in tags {
            if digests && !known.is_empty() {
                rows.extend(known.iter().map(|digest| one(repository, tag, digest)));
            } else {
                rows.push(one(repository, tag, NONE));
            }
        }
    }
    for (repository, known) in &by_digest {
        if digests {
            rows.extend(known.iter().map(|digest| one(repository, NONE, digest)));
        } else {
            rows.push(one(repository, NONE, NONE));
        }
    }
    if rows.is_empty() {
        rows.push(one(NONE, NONE, NONE));
    }
    rows
}

async fn rmi(c: Context) -> Outcome {
    let (force, no_prune) = (c.parsed.on("force"), c.parsed.on("no-prune"));
    let mut code = 0;
    for name in c.args() {
        match c.client.image_remove(name, force, no_prune).await {
            Ok(done) => {
                for step in done {
                    if let Some(reference) = step.untagged {
                        print_line(&format!("Untagged: {reference}"))?;
                    }
                    if let Some(id) = step.deleted {
                        print_line(&format!("Deleted: {id}"))?;
                    }
                }
            }
            Err(e @ Error::Connect(..)) => return Err(e.into()),
            Err(e) => {
                complain(&e.to_string());
                if !(force && e.is_not_found()) {
                    code = 1;
                }
            }
        }
    }
    Ok(code)
}

const HISTORY_HEADINGS: &[(&str, &str)] = &[
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];

async fn history(c: Context) -> Outcome {
    let flags = &c.parsed;
    let items = c.client.image_history(c.arg(0)).await?;
    let human = flags.get("human").is_none_or(|_| flags.on("human"));
    let trunc = !flags.on("no-trunc");
    let since = if human { "CreatedSince" } else { "CreatedAt" };
    let table = format!("{{{{.ID}}}}\t{{{{.{since}}}}}\t{{{{.CreatedBy}}}}\t{{{{.Size}}}}\t{{{{.Comment}}}}");
    let now = Timestamp::now();
    let listing = Listing {
        format: flags.some("format").or(flags.on("quiet").then_some("{{.ID}}")),
        table: &table,
        type_name: "*formatter.historyContext",
        headings: HISTORY_HEADINGS,
        rows: items.iter().map(|item| history_row(item, trunc, human, now)).collect(),
        method: &no_method,
    };
    print(&listing.render()?)?;
    Ok(0)
}

fn history_row(item: &HistoryItem, trunc: bool, human: bool, now: Timestamp) -> Value {
    let by = item.created_by.replace('\t', " ");
    // Docker's client prints years before 1970 as nothing.
    let since = if item.created <= -62_135_596_800 { "N/A".to_owned() } else { ago(item.created, now) };
    let at = Timestamp::from_second(item.created).map(|t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    row([
        ("ID", if trunc { ids::short(&item.id) } else { &item.id }.into()),
        ("CreatedSince", since.into()),
        ("CreatedAt", at.unwrap_or_default().into()),
        ("CreatedBy", if trunc { ellipsis(&by, 45) } else { by }.into()),
        ("Size", if human { human_size_with(item.size as f64, 3) } else { item.size.to_string() }.into()),
        ("Comment", item.comment.as_str().into()),
    ])
}

async fn tag(c: Context) -> Outcome {
    let target = c.arg(1);
    let reference: Reference = target.parse().map_err(|e| {
        Failure::new(format!("Error parsing reference: {target:?} is not a valid repository/tag: {e}"))
    })?;
    if reference.digest().is_some() {
        return Err(Failure::new("refusing to create a tag with a digest reference"));
    }
    let reference = reference.with_default_tag();
    c.client.tag(c.arg(0), &reference.familiar_name(), reference.tag().unwrap_or_default()).await?;
    Ok(0)
}

async fn prune(c: Context) -> Outcome {
    let flags = &c.parsed;
    let warning = if flags.on("all") {
        "WARNING! This will remove all images without at least one container associated to them."
    } else {
        "WARNING! This will remove all dangling images."
    };
    if !flags.on("force") && !agreed(warning)? {
        return Ok(0);
    }
    let dangling = format!("dangling={}", !flags.on("all"));
    let filters = values::filters_json(flags.all("filter").into_iter().chain([dangling.as_str()]));
    let pruned = c.client.prune_images(filters.as_deref()).await?;
    let mut text = String::new();
    let gone = pruned.images_deleted.unwrap_or_default();
    if !gone.is_empty() {
        text.push_str("Deleted Images:\n");
        for step in gone {
            if let Some(reference) = step.untagged {
                text.push_str(&format!("untagged: {reference}\n"));
            }
            if let Some(id) = step.deleted {
                text.push_str(&format!("deleted: {id}\n"));
            }
        }
        text.push('\n');
    }
    print(&format!("{text}Total reclaimed space: {}\n", human_size(pruned.space_reclaimed as f64)))?;
    Ok(0)
}
