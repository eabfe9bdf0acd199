//! `volume create`, `inspect`, `ls`, `rm` and `prune`.

use std::collections::BTreeMap;

use creel_wire::volume::{Volume, VolumeCreate};

use super::inspect::inspect_volume;
use super::lifecycle::agreed;
use super::ps::label_of;
use crate::command::{Arity, Command, Context, Outcome, run};
use crate::failure::Failure;
use crate::flags::{Flag, values};
use crate::format::{Listing, row};
use crate::output::{complain, print, print_line};
use crate::template::Value;
use crate::units::human_size;

/// The commands on volumes.
pub(super) const COMMANDS: &[Command] = &[
    Command {
        paths: &["volume create"],
        usage: &["[OPTIONS] [VOLUME]"],
        about: "Create a volume",
        long: "",
        flags: &[&[
            Flag::text("driver", "string", "Driver of the volume (default \"local\")").short('d'),
            Flag::list("label", "list", "Set a label").check(values::label),
            Flag::text("name", "string", "Name of the volume").hide(),
            Flag::list("opt", "map", "Set an option of the driver").short('o').check(values::pair),
        ]],
        interspersed: true,
        arity: Arity::AtMost(1),
        run: run!(create),
    },
    Command {
        paths: &["volume inspect"],
        usage: &["[OPTIONS] VOLUME [VOLUME...]"],
        about: "Display detailed information on one or more volumes",
        long: "",
        flags: &[&[Flag::text("format", "string", "'json' or a Go template").short('f')]],
        interspersed: true,
        arity: Arity::AtLeast(1),
        run: run!(inspect_volume),
    },
    Command {
        paths: &["volume ls", "volume list"],
        usage: &["[OPTIONS]"],
        about: "List volumes",
        long: "",
        flags: &[&[
            Flag::list("filter", "filter", "Only those that match (e.g. \"dangling=true\")")
                .short('f')
                .check(values::filter),
            Flag::text("format", "string", "'table', 'table TEMPLATE', 'json' or a Go template"),
            Flag::switch("quiet", "Only display volume names").short('q'),
        ]],
        interspersed: true,
        arity: Arity::None,
        run: run!(list),
    },
    Command {
        paths: &["volume rm", "volume remove"],
        usage: &["[OPTIONS] VOLUME [VOLUME...]"],
        about: "Remove one or more volumes",
        long: "A volume that a container uses, running or not, cannot be removed.",
        flags: &[&[Flag::switch("force", "A volume that is not there is no error").short('f')]],
        interspersed: true,
        arity: Arity::AtLeast(1),
        run: run!(remove),
    },
    Command {
        paths: &["volume prune"],
        usage: &["[OPTIONS]"],
        about: "Remove unused volumes",
        long: "",
        flags: &[&[
            Flag::switch("all", "Remove all unused volumes, not just anonymous ones").short('a'),
            Flag::list("filter", "filter", "Only those that match (e.g. \"label=<label>\")")
                .check(values::filter),
            Flag::switch("force", "Do not ask first").short('f'),
        ]],
        interspersed: true,
        arity: Arity::None,
        run: run!(prune),
    },
];

const HEADINGS: &[(&str, &str)] = &[
    ("Name", "VOLUME NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("Availability", "AVAILABILITY"),
    ("Mountpoint", "MOUNTPOINT"),
    ("Labels", "LABELS"),
    ("Links", "LINKS"),
    ("Size", "SIZE"),
    ("Group", "GROUP"),
    ("Status", "STATUS"),
];

async fn create(c: Context) -> Outcome {
    let flags = &c.parsed;
    let name = match (flags.some("name"), c.args().first()) {
        (Some(_), Some(_)) => {
            return Err(Failure::new(
                "conflicting options: cannot specify a volume-name through both --name and as a positional arg",
            ));
        }
        (Some(name), None) => name.to_owned(),
        (None, given) => given.cloned().unwrap_or_default(),
    };
    let labels: BTreeMap<String, String> = values::pairs(flags.all("label"));
    let request = VolumeCreate {
        name,
        driver: flags.some("driver").unwrap_or("local").to_owned(),
        driver_opts: values::pairs(flags.all("opt")),
        labels: (!labels.is_empty()).then_some(labels),
        cluster_volume_spec: None,
    };
    print_line(&c.client.volume_create(&request).await?.name)?;
    Ok(0)
}

/// The row of one volume; fields that only some daemons fill say `N/A`.
pub(super) fn volume_row(volume: &Volume) -> Value {
    let none = || Value::from("N/A");
    let labels: Vec<String> = volume.labels.iter().flatten().map(|(k, v)| format!("{k}={v}")).collect();
    let usage = volume.usage_data.as_ref();
    let size = usage.filter(|usage| usage.size >= 0).map(|usage| human_size(usage.size as f64).into());
    let links = usage.filter(|usage| usage.ref_count >= 0).map(|usage| usage.ref_count.to_string().into());
    row([
        ("Name", volume.name.as_str().into()),
        ("Driver", volume.driver.as_str().into()),
        ("Scope", volume.scope.as_str().into()),
        ("Mountpoint", volume.mountpoint.as_str().into()),
        ("Labels", labels.join(",").into()),
        ("Links", links.unwrap_or_else(none)),
        ("Size", size.unwrap_or_else(none)),
        ("Availability", none()),
        ("Group", none()),
        ("Status", none()),
    ])
}

async fn list(c: Context) -> Outcome {
    let flags = &c.parsed;
    let filters = values::filters_json(flags.all("filter"));
    let mut list = c.client.volumes(filters.as_deref()).await?;
    list.volumes.sort_by(|a, b| a.name.cmp(&b.name));
    let quiet = flags.on("quiet");
    let listing = Listing {
        format: flags.some("format").or(quiet.then_some("{{.Name}}")),
        table: "{{.Driver}}\t{{.Name}}",
        type_name: "*formatter.volumeContext",
        headings: HEADINGS,
        rows: list.volumes.iter().map(volume_row).collect(),
        method: &label_of,
    };
    print(&listing.render()?)?;
    for warning in list.warnings.iter().flatten() {
        complain(&format!("WARNING: {warning}"));
    }
    Ok(0)
}

async fn remove(c: Context) -> Outcome {
    let mut code = 0;
    for name in c.args() {
        match c.client.volume_remove(name, c.parsed.on("force")).await {
            Ok(()) => print_line(name)?,
            Err(e @ creel_client::Error::Connect(..)) => return Err(e.into()),
            Err(e) => {
                complain(&e.to_string());
                code = 1;
            }
        }
    }
    Ok(code)
}

async fn prune(c: Context) -> Outcome {
    let flags = &c.parsed;
    let warning = match flags.on("all") {
        true => "WARNING! This will remove all local volumes not used by at least one container.",
        false => "WARNING! This will remove anonymous local volumes not used by at least one container.",
    };
    if !flags.on("force") && !agreed(warning)? {
        return Ok(0);
    }
    let all = flags.on("all").then_some("all=true");
    let filters = values::filters_json(flags.all("filter").into_iter().chain(all));
    let pruned = c.client.volume_prune(filters.as_deref()).await?;
    let gone = pruned.volumes_deleted.unwrap_or_default();
    let mut text = String::new();
    if !gone.is_empty() {
        text = format!("Deleted Volumes:\n{}\n\n", gone.join("\n"));
    }
    print(&format!("{text}Total reclaimed space: {}\n", human_size(pruned.space_reclaimed as f64)))?;
    Ok(0)
}
