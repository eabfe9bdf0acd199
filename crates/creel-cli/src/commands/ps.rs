//! `ps`.

use creel_wire::container::{ContainerSummary, Port};
use jiff::Timestamp;

use crate::command::{Arity, Command, Context, Outcome, run};
use crate::flags::{Flag, ids, values};
use crate::format::{Listing, ellipsis, row};
use crate::output::print;
use crate::template::Value;
use crate::units::{human_duration, human_size_with};

/// `ps`.
pub(super) const COMMANDS: &[Command] = &[Command {
    paths: &["ps", "container ls", "container list", "container ps"],
    usage: &["[OPTIONS]"],
    about: "List containers",
    long: "",
    flags: &[&[
        Flag::switch("all", "Show those that do not run too").short('a'),
        Flag::list("filter", "filter", "Only those that match").short('f').check(values::filter),
        Flag::text("format", "string", "'table', 'table TEMPLATE', 'json' or a Go template"),
        Flag::text("last", "int", "Show the n last created ones, whatever their state")
            .short('n')
            .check(values::integer),
        Flag::switch("latest", "Show the last created one, whatever its state").short('l'),
        Flag::switch("no-trunc", "Don't truncate output"),
        Flag::switch("quiet", "Only display IDs").short('q'),
        Flag::switch("size", "Display sizes").short('s'),
    ]],
    interspersed: true,
    arity: Arity::None,
    run: run!(ps),
}];

const TABLE: &str = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";

/// Fields and headings of containers' lists.
pub(super) const HEADINGS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Size", "SIZE"),
    ("Names", "NAMES"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Platform", "PLATFORM"),
];

async fn ps(c: Context) -> Outcome {
    let flags = &c.parsed;
    let mut limit: Option<i64> = flags.number("last").filter(|n| *n > 0);
    if flags.on("latest") && limit.is_none() {
        limit = Some(1);
    }
    let filters = values::filters_json(flags.all("filter"));
    let format = flags.some("format");
    let wants_size = flags.on("size")
        || (!flags.on("quiet") && format.is_some_and(|f| f.contains(".Size") || f.contains("{{json .}}")));
    let list = c.client.list(flags.on("all"), limit, wants_size, filters.as_deref()).await?;
    let trunc = !flags.on("no-trunc");
    let quiet = flags.on("quiet");
    let table = if quiet {
        "{{.ID}}".to_owned()
    } else if flags.on("size") {
        format!("{TABLE}\t{{{{.Size}}}}")
    } else {
        TABLE.to_owned()
    };
    let now = Timestamp::now();
    let listing = Listing {
        // -q alone prints bare ids; a format that the user gives wins.
        format: format.or(quiet.then_some("{{.ID}}")),
        table: &table,
        type_name: "*formatter.ContainerContext",
        headings: HEADINGS,
        rows: list.iter().map(|container| container_row(container, trunc, now)).collect(),
        method: &label_of,
    };
    if list.is_empty() {
        // A template that no row would try is still tried.
        let row = container_row(&ContainerSummary::default(), trunc, now);
        Listing { rows: vec![row], ..listing.clone() }.render()?;
    }
    print(&listing.render()?)?;
    Ok(0)
}

/// `{{.Label "name"}}` of a row with labels as `a=b,c=d`.
pub(super) fn label_of(row: &Value, name: &str, arguments: &[Value]) -> Option<Value> {
    let (Some(Value::Text(labels)), "Label", [Value::Text(wanted)]) = (row.get("Labels"), name, arguments)
    else {
        return None;
    };
    let value = labels.split(',').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == wanted).then_some(value)
    });
    Some(value.unwrap_or_default().into())
}

/// Unix seconds as Go prints a time: `2026-11-21 11:39:31 +0000 UTC`.
pub(super) fn created_at(seconds: i64) -> String {
    Timestamp::from_second(seconds)
        .map(|t| t.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string())
        .unwrap_or_default()
}

/// How long ago, in words: `5 minutes ago`.
pub(super) fn ago(seconds: i64, now: Timestamp) -> String {
    format!("{} ago", human_duration(now.as_second() - seconds))
}

/// The row of one container.
pub(super) fn container_row(c: &ContainerSummary, trunc: bool, now: Timestamp) -> Value {
    let command = if trunc { ellipsis(&c.command, 20) } else { c.command.clone() };
    let names: Vec<&str> = c
        .names
        .iter()
        .map(|name| name.strip_prefix('/').unwrap_or(name))
        .filter(|name| !trunc || !name.contains('/'))
        .collect();
    let size = match (c.size_rw, c.size_root_fs) {
        (rw, Some(root)) if root > 0 => format!(
            "{} (virtual {})",
            human_size_with(rw.unwrap_or(0) as f64, 3),
            human_size_with(root as f64, 3)
        ),
        (rw, _) => human_size_with(rw.unwrap_or(0) as f64, 3),
    };
    let mounts: Vec<String> = c
        .mounts
        .iter()
        .map(|mount| {
            let name = if mount.name.is_empty() { &mount.source } else { &mount.name };
            if trunc { ellipsis(name, 15) } else { name.clone() }
        })
        .collect();
    let image =
        if c.image.is_empty() { "<no image>".to_owned() } else { image_name(&c.image, &c.image_id, trunc) };
    let labels: Vec<String> = c.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let volumes = c.mounts.iter().filter(|m| m.driver == "local").count();
    let networks: Vec<&str> = c.network_settings.networks.keys().map(String::as_str).collect();
    row([
        ("ID", if trunc { ids::short(&c.id) } else { &c.id }.into()),
        ("Names", names.join(",").into()),
        ("Image", image.into()),
        ("Command", Value::Text(command).to_json().into()),
        ("CreatedAt", created_at(c.created).into()),
        ("RunningFor", ago(c.created, now).into()),
        ("Ports", ports(&c.ports).into()),
        ("State", c.state.as_str().into()),
        ("Status", c.status.as_str().into()),
        ("Size", size.into()),
        ("Labels", labels.join(",").into()),
        ("LocalVolumes", volumes.to_string().into()),
        ("Mounts", mounts.join(",").into()),
        ("Networks", networks.join(",").into()),
        ("Platform", Value::Null),
    ])
}

/// An image that lost its name is shown by its id, a reference by digest without the digest.
fn image_name(image: &str, id: &str, trunc: bool) -> String {
    if !trunc {
        return image.to_owned();
    }
    let bare = id.strip_prefix("sha256:").unwrap_or(id);
    if !bare.is_empty() && image.strip_prefix("sha256:").unwrap_or(image) == bare {
        return ids::short(image).to_owned();
    }
    match image.split_once("@sha256:") {
        Some((name, _)) => name.to_owned(),
        None => image.to_owned(),
    }
}

fn ports(ports: &[Port]) -> String {
    let mut list: Vec<String> = ports
        .iter()
        .map(|port| match (&port.ip, port.public_port) {
            (Some(ip), Some(public)) if ip.contains(':') => {
                format!("[{ip}]:{public}->{}/{}", port.private_port, port.kind)
            }
            (Some(ip), Some(public)) => format!("{ip}:{public}->{}/{}", port.private_port, port.kind),
            (None, Some(public)) => format!("{public}->{}/{}", port.private_port, port.kind),
            _ => format!("{}/{}", port.private_port, port.kind),
        })
        .collect();
    list.sort();
    list.dedup();
    list.join(", ")
}
