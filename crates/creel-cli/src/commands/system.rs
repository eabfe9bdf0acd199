//! `version`, `info`, `events` and `system df`.

use std::fmt::Write as _;

use creel_wire::container::ContainerSummary;
use creel_wire::image::ImageSummary;
use creel_wire::system::{DiskUsage, Event};
use creel_wire::verify::Usage;
use creel_wire::volume::Volume;
use jiff::Timestamp;

use super::images::image_rows;
use super::logs::timestamp;
use super::ps::{HEADINGS as CONTAINER_HEADINGS, container_row};
use super::volume::volume_row;
use crate::command::{Arity, Command, Context, Outcome, run};
use crate::failure::Failure;
use crate::flags::{Flag, values};
use crate::format::{Listing, no_method, row};
use crate::output::{complain, print, print_line};
use crate::template::{Scope, Template, Value};
use crate::units::{bytes_size, human_size, human_size_with};

const FORMAT: Flag = Flag::text("format", "string", "'json' or a Go template").short('f');

/// The commands about the engine itself.
pub(super) const COMMANDS: &[Command] = &[
    Command {
        paths: &["version"],
        usage: &["[OPTIONS]"],
        about: "Show the version of the client and the daemon",
        long: "",
        flags: &[&[FORMAT]],
        interspersed: true,
        arity: Arity::None,
        run: run!(version),
    },
    Command {
        paths: &["info", "system info"],
        usage: &["[OPTIONS]"],
        about: "Display system-wide information",
        long: "",
        flags: &[&[FORMAT]],
        interspersed: true,
        arity: Arity::None,
        run: run!(info),
    },
    Command {
        paths: &["events", "system events"],
        usage: &["[OPTIONS]"],
        about: "Get real time events from the server",
        long: "",
        flags: &[&[
            Flag::list("filter", "filter", "Only those that match").short('f').check(values::filter),
            Flag::text("format", "string", "'json' or a Go template"),
            Flag::text("since", "string", "Those since a time or so long ago too"),
            Flag::text("until", "string", "Only until a time, then end"),
        ]],
        interspersed: true,
        arity: Arity::None,
        run: run!(events),
    },
    Command {
        paths: &["system df"],
        usage: &["[OPTIONS]"],
        about: "Show disk usage",
        long: "",
        flags: &[&[
            Flag::text("format", "string", "'table', 'table TEMPLATE', 'json' or a Go template"),
            Flag::switch("verbose", "Show each image and container").short('v'),
        ]],
        interspersed: true,
        arity: Arity::None,
        run: run!(disk_usage),
    },
];

/// A template of the user's; `None` for `json`.
pub(super) fn template(source: &str) -> Result<Option<Template>, Failure> {
    if source == "json" {
        return Ok(None);
    }
    Template::parse(source)
        .map(Some)
        .map_err(|e| Failure::new(format!("template parsing error: {e}")).code(64))
}

pub(super) fn show(template: Option<&Template>, value: &Value) -> Result<(), Failure> {
    match template {
        None => print_line(&value.to_json()),
        Some(template) => {
            let text = template
                .execute(value, &Scope::default())
                .map_err(|e| Failure::new(format!("template parsing error: {e}")))?;
            print_line(&text)
        }
    }
}

fn decode(document: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(document).map_err(|e| Failure::new(format!("reading the daemon's answer: {e}")))
}

/// A field as text; empty if it is missing.
fn text(value: &Value, name: &str) -> String {
    match value.get(name) {
        None | Some(Value::Null) => String::new(),
        Some(value) => value.to_string(),
    }
}

/// The machine's architecture in Go's word, as versions name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn client_version() -> Value {
    Value::Map(vec![
        ("Version".into(), env!("CARGO_PKG_VERSION").into()),
        ("ApiVersion".into(), creel_wire::API_VERSION.into()),
        ("DefaultAPIVersion".into(), creel_wire::API_VERSION.into()),
        ("GitCommit".into(), "".into()),
        ("GoVersion".into(), "".into()),
        ("Os".into(), std::env::consts::OS.into()),
        ("Arch".into(), architecture().into()),
        ("BuildTime".into(), "".into()),
        ("Context".into(), "default".into()),
    ])
}

async fn version(c: Context) -> Outcome {
    // Docker's client gives this template, and no other, a name.
    let named =
        |f: Failure| Failure { message: f.message.replacen("template: :", "template: version:", 1), ..f };
    let template = c.parsed.some("format").map(template).transpose().map_err(named)?;
    let (server, problem) = match c.client.version().await {
        Ok(document) => (decode(&document)?, None),
        Err(e) => (Value::Null, Some(e)),
    };
    match template {
        Some(template) => {
            let both = Value::Map(vec![("Client".into(), client_version()), ("Server".into(), server)]);
            show(template.as_ref(), &both)?;
        }
        None => print(&version_text(&server))?,
    }
    match problem {
        Some(e) => Err(e.into()),
        None => Ok(0),
    }
}

fn version_text(server: &Value) -> String {
    let client = client_version();
    let mut out = String::from("Client:\n");
    let line = |out: &mut String, indent: &str, name: &str, value: &str| {
        let _ = writeln!(out, "{indent}{:<18} {value}", format!("{name}:"));
    };
    line(&mut out, " ", "Version", &text(&client, "Version"));
    line(&mut out, " ", "API version", &text(&client, "ApiVersion"));
    line(&mut out, " ", "OS/Arch", &format!("{}/{}", text(&client, "Os"), text(&client, "Arch")));
    if *server == Value::Null {
        return out;
    }
    let platform = server.get("Platform").map(|p| text(p, "Name")).unwrap_or_default();
    let _ = writeln!(
        out,
        "\nServer:{}",
        if platform.is_empty() { String::new() } else { format!(" {platform}") }
    );
    let Some(Value::List(components)) = server.get("Components") else { return out };
    for component in components {
        let name = text(component, "Name");
        let _ = writeln!(out, " {name}:");
        line(&mut out, "  ", "Version", &text(component, "Version"));
        let empty = Value::Map(Vec::new());
        let details = component.get("Details").unwrap_or(&empty);
        if details.get("ApiVersion").is_none() {
            for (name, value) in details.sorted() {
                line(&mut out, "  ", name, &value.to_string());
            }
            continue;
        }
        line(
            &mut out,
            "  ",
            "API version",
            &format!("{} (minimum version {})", text(details, "ApiVersion"), text(details, "MinAPIVersion")),
        );
        for (field, name) in
            [("GoVersion", "Go version"), ("GitCommit", "Git commit"), ("BuildTime", "Built")]
        {
            let value = text(details, field);
            if !value.is_empty() {
                line(&mut out, "  ", name, &value);
            }
        }
        line(&mut out, "  ", "OS/Arch", &format!("{}/{}", text(details, "Os"), text(details, "Arch")));
        let experimental = text(details, "Experimental");
        if !experimental.is_empty() {
            line(&mut out, "  ", "Experimental", &experimental);
        }
    }
    out
}

async fn info(c: Context) -> Outcome {
    let template = c.parsed.some("format").map(template).transpose()?;
    let server = decode(&c.client.info().await?)?;
    match template {
        Some(template) => {
            let Value::Map(mut pairs) = server else {
                return Err(Failure::new("the daemon's answer is no object"));
            };
            pairs.push(("ClientInfo".into(), client_version()));
            show(template.as_ref(), &Value::Map(pairs))?;
        }
        None => {
            print(&info_text(&server))?;
            if let Some(Value::List(warnings)) = server.get("Warnings") {
                warnings.iter().for_each(|warning| complain(&warning.to_string()));
            }
        }
    }
    Ok(0)
}

fn info_text(server: &Value) -> String {
    let mut out = format!(
        "Client:\n Version:    {}\n Context:    default\n Debug Mode: false\n\nServer:\n",
        env!("CARGO_PKG_VERSION")
    );
    let names = |value: Option<&Value>| match value {
        Some(map @ Value::Map(_)) => {
            map.sorted().into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(" ")
        }
        _ => String::new(),
    };
    for (field, name) in [
        ("Containers", " Containers"),
        ("ContainersRunning", "  Running"),
        ("ContainersPaused", "  Paused"),
        ("ContainersStopped", "  Stopped"),
        ("Images", " Images"),
        ("ServerVersion", " Server Version"),
        ("Driver", " Storage Driver"),
    ] {
        let value = text(server, field);
        if !value.is_empty() {
            let _ = writeln!(out, "{name}: {value}");
        }
    }
    if let Some(Value::List(pairs)) = server.get("DriverStatus") {
        for pair in pairs {
            if let Value::List(pair) = pair
                && let [name, value] = &pair[..]
            {
                let _ = writeln!(out, "  {name}: {value}");
            }
        }
    }
    for (field, name) in [
        ("LoggingDriver", "Logging Driver"),
        ("CgroupDriver", "Cgroup Driver"),
        ("CgroupVersion", "Cgroup Version"),
    ] {
        let value = text(server, field);
        if !value.is_empty() {
            let _ = writeln!(out, " {name}: {value}");
        }
    }
    if let Some(plugins) = server.get("Plugins") {
        let _ = writeln!(out, " Plugins:");
        for kind in ["Volume", "Network", "Authorization", "Log"] {
            if let Some(Value::List(list)) = plugins.get(kind).filter(|list| list.truth()) {
                let list: Vec<String> = list.iter().map(ToString::to_string).collect();
                let _ = writeln!(out, "  {kind}: {}", list.join(" "));
            }
        }
    }
    let runtimes = names(server.get("Runtimes"));
    if !runtimes.is_empty() {
        let _ = writeln!(out, " Runtimes: {runtimes}");
    }
    for (field, name) in [("DefaultRuntime", "Default Runtime"), ("InitBinary", "Init Binary")] {
        let value = text(server, field);
        if !value.is_empty() {
            let _ = writeln!(out, " {name}: {value}");
        }
    }
    if let Some(Value::List(options)) = server.get("SecurityOptions").filter(|list| list.truth()) {
        let _ = writeln!(out, " Security Options:");
        for option in options {
            for (n, part) in option.to_string().split(',').enumerate() {
                match (n, part.split_once('=')) {
                    (0, Some(("name", name))) => {
                        let _ = writeln!(out, "  {name}");
                    }
                    (_, Some((key, value))) => {
                        let mut key: Vec<char> = key.chars().collect();
                        if let Some(first) = key.first_mut() {
                            *first = first.to_ascii_uppercase();
                        }
                        let _ = writeln!(out, "   {}: {value}", key.into_iter().collect::<String>());
                    }
                    (_, None) => {
                        let _ = writeln!(out, "  {part}");
                    }
                }
            }
        }
    }
    for (field, name) in [
        ("KernelVersion", "Kernel Version"),
        ("OperatingSystem", "Operating System"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
        ("NCPU", "CPUs"),
    ] {
        let _ = writeln!(out, " {name}: {}", text(server, field));
    }
    if let Some(Value::Int(memory)) = server.get("MemTotal") {
        let _ = writeln!(out, " Total Memory: {}", bytes_size(*memory as f64));
    }
    if let Some(registries) = server.get("RegistryConfig") {
        registry_lines(&mut out, registries);
    }
    for (field, name) in [
        ("Name", "Name"),
        ("ID", "ID"),
        ("DockerRootDir", "Root Dir"),
        ("Debug", "Debug Mode"),
        ("LiveRestoreEnabled", "Live Restore Enabled"),
    ] {
        let _ = writeln!(out, " {name}: {}", text(server, field));
    }
    out.push('\n');
    out
}

/// Who may be insecure and who mirrors whom.
fn registry_lines(out: &mut String, registries: &Value) {
    let mut list = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            let _ = writeln!(out, " {title}:");
            lines.iter().for_each(|line| {
                let _ = writeln!(out, "  {line}");
            });
        }
    };
    let texts = |value: Option<&Value>| match value {
        Some(Value::List(list)) => list.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    };
    let indexes = registries.get("IndexConfigs").map(Value::sorted).unwrap_or_default();
    let mut insecure: Vec<String> = Vec::new();
    let mut others: Vec<String> = Vec::new();
    for (name, index) in indexes {
        if matches!(index.get("Secure"), Some(Value::Bool(false))) {
            insecure.push(name.to_owned());
        }
        if !matches!(index.get("Official"), Some(Value::Bool(true))) {
            others.extend(texts(index.get("Mirrors")).into_iter().map(|url| format!("{name}={url}")));
        }
    }
    insecure.extend(texts(registries.get("InsecureRegistryCIDRs")));
    list("Insecure Registries", insecure);
    let mut mirrors = texts(registries.get("Mirrors"));
    mirrors.extend(others);
    list("Registry Mirrors", mirrors);
}

async fn events(c: Context) -> Outcome {
    let flags = &c.parsed;
    let now = Timestamp::now();
    let time = |name: &str| flags.some(name).map(|text| timestamp(text, now)).transpose();
    let template = flags
        .some("format")
        .map(|source| match source {
            "json" => Ok(None),
            source => Template::parse(source)
                .map(Some)
                .map_err(|e| Failure::new(format!("Error parsing format: {e}")).code(64)),
        })
        .transpose()?;
    let filters = values::filters_json(flags.all("filter"));
    let (since, until) = (time("since")?, time("until")?);
    let mut lines = c.client.events(since.as_deref(), until.as_deref(), filters.as_deref()).await?;
    while let Some(line) = lines.next_raw().await {
        let line = line?;
        match &template {
            Some(None) => print_line(&String::from_utf8_lossy(line.trim_ascii()))?,
            Some(Some(template)) => {
                let Value::Map(pairs) = decode(&line)? else { continue };
                show(Some(template), &Value::Map(event_fields(pairs)))?;
            }
            None => {
                let event = serde_json::from_slice(&line)
                    .map_err(|e| Failure::new(format!("reading the daemon's answer: {e}")))?;
                print_line(&event_line(&event))?;
            }
        }
    }
    Ok(0)
}

/// JSON's lower-case names under Go's names too, by which templates ask.
fn event_fields(mut pairs: Vec<(String, Value)>) -> Vec<(String, Value)> {
    for (json, go) in [
        ("status", "Status"),
        ("id", "ID"),
        ("from", "From"),
        ("scope", "Scope"),
        ("time", "Time"),
        ("timeNano", "TimeNano"),
    ] {
        if let Some(value) = pairs.iter().find(|(name, _)| name == json).map(|(_, value)| value.clone()) {
            pairs.push((go.to_owned(), value));
        }
    }
    pairs
}

fn event_line(event: &Event) -> String {
    let time = if event.time_nano != 0 {
        Timestamp::from_nanosecond(i128::from(event.time_nano))
    } else {
        Timestamp::from_second(event.time)
    };
    let time = time.map(|t| t.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()).unwrap_or_default();
    let mut line = format!("{time} {} {} {}", event.kind, event.action, event.actor.id);
    if !event.actor.attributes.is_empty() {
        let list: Vec<String> = event.actor.attributes.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let _ = write!(line, " ({})", list.join(", "));
    }
    line
}

const DF_HEADINGS: &[(&str, &str)] = &[
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
];

async fn disk_usage(c: Context) -> Outcome {
    let usage = c.client.disk_usage().await?;
    if c.parsed.on("verbose") {
        if c.parsed.some("format").is_some() {
            return Err(Failure::new("the verbose and the format options conflict"));
        }
        print(&verbose(&usage, Timestamp::now())?)?;
        return Ok(0);
    }
    let listing = Listing {
        format: c.parsed.some("format"),
        table: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
        type_name: "*formatter.diskUsageContext",
        headings: DF_HEADINGS,
        rows: disk_usage_rows(&usage),
        method: &no_method,
    };
    print(&listing.render()?)?;
    Ok(0)
}

fn disk_usage_rows(usage: &DiskUsage) -> Vec<Value> {
    let active_container = |c: &ContainerSummary| {
        ["running", "paused", "restarting"].iter().any(|state| c.state.eq_ignore_ascii_case(state))
    };
    let size_of = |c: &ContainerSummary| c.size_rw.unwrap_or(0);
    let used: i64 = usage
        .images
        .iter()
        .filter(|i: &&ImageSummary| i.containers > 0)
        .filter(|i| i.size >= 0 && i.shared_size >= 0)
        .map(|i| i.size - i.shared_size)
        .sum();
    // Docker's daemon tells no more than what its client can guess this by.
    let reclaimable = match &usage.creel {
        Some(creel) => number(creel.layers_reclaimable),
        None => usage.layers_size - used,
    };
    let one = |kind: &str, total: usize, active: usize, size: i64, reclaimable: i64, share: bool| {
        let mut text = human_size(reclaimable as f64);
        if share && size > 0 {
            let _ = write!(text, " ({}%)", reclaimable.saturating_mul(100) / size);
        }
        row([
            ("Type", kind.into()),
            ("TotalCount", total.to_string().into()),
            ("Active", active.to_string().into()),
            ("Size", human_size(size as f64).into()),
            ("Reclaimable", text.into()),
        ])
    };
    let containers: i64 = usage.containers.iter().map(size_of).sum();
    let stopped: i64 = usage.containers.iter().filter(|c| !active_container(c)).map(size_of).sum();
    let more = |kind: &str, of: &Usage| {
        let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        one(kind, count(of.count), count(of.active), number(of.size), number(of.reclaimable), true)
    };
    let volumes = |list: &[Volume]| {
        let usage = |v: &Volume| v.usage_data.clone().unwrap_or_default();
        let size = |v: &Volume| usage(v).size.max(0);
        let used = list.iter().filter(|v| usage(v).ref_count > 0).count();
        let all = list.iter().map(size).sum();
        let unused = list.iter().filter(|v| usage(v).ref_count == 0).map(size).sum();
        one("Local Volumes", list.len(), used, all, unused, true)
    };
    let mut rows = vec![
        one(
            "Images",
            usage.images.len(),
            usage.images.iter().filter(|i| i.containers > 0).count(),
            usage.layers_size,
            reclaimable,
            true,
        ),
        one(
            "Containers",
            usage.containers.len(),
            usage.containers.iter().filter(|c| active_container(c)).count(),
            containers,
            stopped,
            true,
        ),
        volumes(&usage.volumes),
        one("Build Cache", usage.build_cache.len(), 0, 0, 0, false),
    ];
    if let Some(creel) = &usage.creel {
        rows.push(more("Image Archives", &creel.blobs));
        for (kind, of) in [("Partial Downloads", &creel.partials), ("Quarantine", &creel.quarantine)] {
            rows.extend((of.count > 0).then(|| more(kind, of)));
        }
    }
    rows
}

fn number(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn verbose(usage: &DiskUsage, now: Timestamp) -> Result<String, Failure> {
    let mut image_list = Vec::new();
    for image in &usage.images {
        let shared = image.shared_size.max(0);
        for row in image_rows(image, true, false, now) {
            let Value::Map(mut pairs) = row else { continue };
            for (name, value) in &mut pairs {
                match name.as_str() {
                    "SharedSize" => *value = human_size(shared as f64).into(),
                    "UniqueSize" => *value = human_size((image.size - shared) as f64).into(),
                    "Containers" => *value = image.containers.max(0).to_string().into(),
                    _ => {}
                }
            }
            image_list.push(Value::Map(pairs));
        }
    }
    let images = Listing {
        format: None,
        table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}",
        type_name: "",
        headings: &[
            ("Repository", "REPOSITORY"),
            ("Tag", "TAG"),
            ("ID", "IMAGE ID"),
            ("CreatedSince", "CREATED"),
            ("Size", "SIZE"),
            ("SharedSize", "SHARED SIZE"),
            ("UniqueSize", "UNIQUE SIZE"),
            ("Containers", "CONTAINERS"),
        ],
        rows: image_list,
        method: &no_method,
    };
    let rows = usage.containers.iter().map(|c| {
        let Value::Map(mut pairs) = container_row(c, true, now) else { return Value::Null };
        for (name, value) in &mut pairs {
            if name == "Size" {
                *value = human_size_with(c.size_rw.unwrap_or(0) as f64, 3).into();
            }
        }
        Value::Map(pairs)
    });
    let containers = Listing {
        format: None,
        table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}",
        type_name: "",
        headings: CONTAINER_HEADINGS,
        rows: rows.collect(),
        method: &no_method,
    };
    let volumes = Listing {
        format: None,
        table: "{{.Name}}\t{{.Links}}\t{{.Size}}",
        type_name: "",
        headings: &[("Name", "VOLUME NAME"), ("Links", "LINKS"), ("Size", "SIZE")],
        rows: usage.volumes.iter().map(volume_row).collect(),
        method: &no_method,
    };
    let mut text = format!(
        "Images space usage:\n\n{}\nContainers space usage:\n\n{}\nLocal Volumes space usage:\n\n{}",
        images.render()?,
        containers.render()?,
        volumes.render()?
    );
    if let Some(creel) = &usage.creel {
        let _ = writeln!(text, "\nBesides images and containers:\n");
        for (what, of) in [
            ("Archives, configurations and manifests", &creel.blobs),
            ("Kept parts of interrupted downloads", &creel.partials),
            ("Damaged content put aside", &creel.quarantine),
        ] {
            let size = human_size(of.size as f64);
            let _ = writeln!(text, "{:<42}{:>6}  {size}", format!("{what}:"), of.count);
        }
    }
    Ok(text)
}
