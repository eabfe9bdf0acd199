//! The life of containers, one module a use case.

pub(crate) mod attach;
pub(crate) mod commit;
pub(crate) mod container;
pub(crate) mod create;
pub(crate) mod detach;
pub(crate) mod ending;
pub(crate) mod etc;
pub(crate) mod facts;
pub(crate) mod files;
pub(crate) mod host;
pub(crate) mod inspect;
pub(crate) mod join;
pub(crate) mod list;
pub(crate) mod mounts;
pub(crate) mod prune;
pub(crate) mod registry;
pub(crate) mod remove;
pub(crate) mod rename;
pub(crate) mod signal;
pub(crate) mod start;
pub(crate) mod stats;
pub(crate) mod top;
pub(crate) mod wait;

pub(crate) use container::{Container, Running};
pub(crate) use registry::Registry;

#[cfg(test)]
pub(crate) mod tests {
    use creel_types::{Digest, Platform};
    use creel_wire::container::Config;
    use creel_wire::host::HostConfig;

    use crate::record::{AtRest, ContainerRecord};

    /// A record for tests.
    pub(crate) fn record(id: &str, name: &str) -> ContainerRecord {
        ContainerRecord {
            id: id.parse().unwrap(),
            name: name.to_owned(),
            created: "2026-01-02T03:04:05Z".parse().unwrap(),
            config: Config::default(),
            host_config: HostConfig::default(),
            image: Digest::from_sha256([1; 32]),
            platform: Platform::host(),
            mounts: Vec::new(),
            boot_id: "boot".into(),
            rest: AtRest::Created { code: 0, error: String::new() },
            stopped_by_user: false,
            removing: false,
        }
    }
}
