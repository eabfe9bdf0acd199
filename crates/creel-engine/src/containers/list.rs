//! The list of containers.

use std::collections::BTreeMap;
use std::sync::Arc;

use creel_wire::container::{ContainerSummary, EndpointSettings, SummaryHostConfig, SummaryNetworks};
use jiff::Timestamp;

use super::container::Container;
use crate::core::{Core, blocking};
use crate::error::{Error, Result};
use crate::filters::Filters;
use crate::options::ListOptions;
use crate::record::{AtRest, ContainerRecord};
use crate::times;

const FILTERS: [&str; 15] = [
    "id", "name", "label", "label!", "status", "exited", "ancestor", "before", "since", "network", "volume",
    "health", "is-task", "expose", "publish",
];
const STATES: [&str; 7] = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];

/// Lists containers, the newest first.
pub(crate) async fn list(core: &Arc<Core>, options: ListOptions) -> Result<Vec<ContainerSummary>> {
    let filters = &options.filters;
    filters.allow(&FILTERS)?;
    if let Some(state) = filters.get("status").iter().find(|state| !STATES.contains(&state.as_str())) {
        return Err(Error::invalid(format!(
            "invalid filter 'status={state}': invalid value for state ({state}): must be one of {}",
            STATES.join(", ")
        )));
    }
    let by_state = ["status", "exited"].iter().any(|name| !filters.get(name).is_empty());
    let everything = options.all || options.limit.is_some() || by_state;
    let selection = Selection::new(core, filters)?;
    let mut found: Vec<Arc<Container>> = core.containers.all();
    found.retain(|container| {
        (everything || container.life().running.is_some()) && selection.takes(core, container)
    });
    found.sort_by_key(|container| std::cmp::Reverse(container.record().created));
    if let Some(limit) = options.limit {
        found.truncate(limit);
    }
    let mut rows = Vec::with_capacity(found.len());
    for container in found {
        rows.push(row(core, &container, options.size).await);
    }
    Ok(rows)
}

/// Filters with what they refer to looked up.
struct Selection<'a> {
    filters: &'a Filters,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
    exit_codes: Vec<i32>,
    /// Images named by `ancestor`, with their layers.
    ancestors: Vec<(creel_types::Digest, Vec<creel_types::Digest>)>,
}

impl<'a> Selection<'a> {
    fn new(core: &Core, filters: &'a Filters) -> Result<Self> {
        let created = |name: &str| -> Result<Option<Timestamp>> {
            filters.get(name).first().map(|id| Ok(core.containers.find(id)?.record().created)).transpose()
        };
        let number = |text: &String| {
            text.parse().map_err(|_| Error::invalid(format!("invalid filter 'exited={text}'")))
        };
        let ancestors = filters.get("ancestor").iter().filter_map(|name| core.store.resolve_image(name).ok());
        Ok(Self {
            filters,
            before: created("before")?,
            since: created("since")?,
            exit_codes: filters.get("exited").iter().map(number).collect::<Result<_>>()?,
            ancestors: ancestors.map(|image| (image.id, image.config.rootfs.diff_ids.clone())).collect(),
        })
    }

    fn takes(&self, core: &Core, container: &Container) -> bool {
        let record = container.record();
        let filters = self.filters;
        filters.any("id", |id| record.id.as_str().starts_with(id))
            && filters.any("name", |name| matches_name(&record.name, name))
            && filters.labels(&record.labels())
            && filters.any("status", |state| container.state_word() == state)
            && (self.exit_codes.is_empty()
                || matches!(record.rest, AtRest::Exited { code, .. } if self.exit_codes.contains(&code))
                    && container.life().running.is_none())
            && self.before.is_none_or(|time| record.created < time)
            && self.since.is_none_or(|time| record.created > time)
            && filters.any("network", |network| record.host_config.network_mode == network)
            && filters.any("volume", |volume| {
                record.mounts.iter().any(|mount| {
                    let name = mount.volume().is_some_and(|of| of.name == volume);
                    name || mount.source == volume || mount.destination == volume
                })
            })
            && filters.any("health", |health| health == "none")
            && filters.any("is-task", |on| on != "true")
            && filters.any("expose", |_| false)
            && filters.any("publish", |_| false)
            && (filters.get("ancestor").is_empty() || self.descends(core, &record))
    }

    fn descends(&self, core: &Core, record: &ContainerRecord) -> bool {
        let layers = core.store.image(&record.image).map(|image| image.config.rootfs.diff_ids.clone());
        self.filters.get("ancestor").contains(&record.config.image)
            || self.ancestors.iter().any(|(id, below)| {
                *id == record.image
                    || (!below.is_empty() && layers.as_ref().is_some_and(|layers| layers.starts_with(below)))
            })
    }
}

/// Docker takes the filter as a regular expression; nearly all that is used are plain parts with `^` and `$`.
fn matches_name(name: &str, pattern: &str) -> bool {
    let begins = pattern.strip_prefix('^');
    let core = begins.unwrap_or(pattern);
    let ends = core.strip_suffix('$');
    let core = ends.unwrap_or(core);
    [name.to_owned(), format!("/{name}")].iter().any(|name| match (begins.is_some(), ends.is_some()) {
        (true, true) => name == core,
        (true, false) => name.starts_with(core),
        (false, true) => name.ends_with(core),
        (false, false) => name.contains(core),
    })
}

/// The state as people read it.
pub(crate) fn status(container: &Container, now: Timestamp) -> String {
    if let Some(running) = container.running() {
        let paused = if running.paused { " (Paused)" } else { "" };
        return format!("Up {}{paused}", times::since(running.started_at, now));
    }
    match &container.record().rest {
        _ if container.life().dead => "Dead".to_owned(),
        AtRest::Created { .. } => "Created".to_owned(),
        AtRest::Started { .. } => "Exited".to_owned(),
        AtRest::Exited { code, finished_at, .. } => {
            format!("Exited ({code}) {} ago", times::since(*finished_at, now))
        }
    }
}

/// Sizes of the writable layer and of all layers.
pub(crate) async fn sizes(core: &Arc<Core>, container: &Container) -> (Option<i64>, Option<i64>) {
    let (store, id) = (core.store.clone(), container.id.clone());
    let sizes = blocking(move || Ok((store.snapshot_size(&id)?, store.snapshot_base_size(&id)?))).await;
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    match sizes {
        Ok((own, below)) => (Some(number(own)), Some(number(own + below))),
        Err(_) => (None, None),
    }
}

/// The networks as they are shown: one without addresses.
pub(crate) fn networks(record: &ContainerRecord) -> BTreeMap<String, EndpointSettings> {
    let mode = record.host_config.network_mode.clone();
    if mode.starts_with("container:") {
        return BTreeMap::new();
    }
    BTreeMap::from([(mode, EndpointSettings::default())])
}

/// The image's name; its id if the name means another image now.
fn image_name(core: &Core, record: &ContainerRecord) -> String {
    match core.store.resolve_image(&record.config.image) {
        Ok(image) if image.id == record.image => record.config.image.clone(),
        _ => record.image.to_string(),
    }
}

async fn row(core: &Arc<Core>, container: &Arc<Container>, size: bool) -> ContainerSummary {
    let record = container.record();
    let (size_rw, size_root_fs) = if size { sizes(core, container).await } else { (None, None) };
    ContainerSummary {
        id: record.id.to_string(),
        names: vec![format!("/{}", record.name)],
        image: image_name(core, &record),
        image_id: record.image.to_string(),
        command: command(&record.args()),
        created: record.created.as_second(),
        ports: Vec::new(),
        size_rw,
        size_root_fs,
        labels: record.labels(),
        state: container.state_word().to_owned(),
        status: status(container, Timestamp::now()),
        host_config: SummaryHostConfig { network_mode: record.host_config.network_mode.clone() },
        network_settings: SummaryNetworks { networks: networks(&record) },
        mounts: record.mounts.iter().filter_map(crate::record::MountRecord::point).collect(),
    }
}

/// Program and arguments in one line, quoted where they hold blanks.
fn command(args: &[String]) -> String {
    let quoted = args.iter().enumerate().map(|(n, arg)| {
        if n > 0 && arg.contains(char::is_whitespace) { format!("'{arg}'") } else { arg.clone() }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_like_simple_patterns() {
        assert!(matches_name("web1", "web"));
        assert!(matches_name("web1", "^/web"));
        assert!(matches_name("web1", "^web1$"));
        assert!(!matches_name("web1", "^eb"));
        assert!(!matches_name("web1", "web$"));
    }

    #[test]
    fn commands_are_one_line() {
        let args = ["sh", "-c", "echo a"].map(str::to_owned);
        assert_eq!(command(&args), "sh -c 'echo a'");
    }
}
